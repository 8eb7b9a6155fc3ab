"""Planes of a volume: which one is meant, and which part of it.

A volume is seen as ``(T, Z, Y, X, C)``, where absent axes have length 1. A *plane* is a 2-D section
through the spatial axes ZYX of one time point at one multiscale level, with all its channels. Its rows
and columns are the two remaining spatial axes in their order: a plane along axis 0 has rows Y and
columns X, along axis 1 rows Z and columns X, along axis 2 rows Z and columns Y.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np

from napari_sam.core.arrays import ArrayValue, BoolArray, frozen_array

Shape2D = tuple[int, int]
BoxYXYX = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, order=True)
class PlaneRef:
    """One plane of a volume.

    Parameters
    ----------
    axis : int
        The spatial axis that the plane is perpendicular to: 0 is Z, 1 is Y, 2 is X.
    index : int
        Position along `axis`, in voxels of `level`.
    level : int
        Multiscale level, 0 is full resolution.
    time : int
        Time point.
    """

    axis: int
    index: int
    level: int = 0
    time: int = 0

    def __post_init__(self) -> None:
        for name in ("axis", "index", "level", "time"):
            object.__setattr__(self, name, index(getattr(self, name)))
        if self.axis not in (0, 1, 2):
            raise ValueError(f"plane axis must be 0 (Z), 1 (Y) or 2 (X), got {self.axis!r}")
        if min(self.index, self.level, self.time) < 0:
            raise ValueError(f"plane index, level and time count from 0, got {self!r}")

    def at(self, index: int) -> PlaneRef:
        """The parallel plane at another index."""
        return PlaneRef(self.axis, index, self.level, self.time)


@dataclass(frozen=True, slots=True, eq=False)
class Region(ArrayValue):
    """A mask kept as the box that bounds it.

    Parameters
    ----------
    plane_shape : (int, int)
        Height and width of the whole plane.
    box_yxyx : (int, int, int, int)
        First row, first column, last row + 1, last column + 1 of `crop` in the plane.
    crop : (h, w) bool array
        The mask inside the box, read-only.
    """

    plane_shape: Shape2D
    box_yxyx: BoxYXYX
    crop: BoolArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "crop", frozen_array(self.crop, bool))
        height, width = map(index, self.plane_shape)
        y0, x0, y1, x1 = map(index, self.box_yxyx)
        object.__setattr__(self, "plane_shape", (height, width))
        object.__setattr__(self, "box_yxyx", (y0, x0, y1, x1))
        if not (0 <= y0 <= y1 <= height and 0 <= x0 <= x1 <= width):
            raise ValueError(f"box {self.box_yxyx} does not lie in a plane of {height} x {width} pixels")
        if self.crop.shape != (y1 - y0, x1 - x0):
            raise ValueError(f"crop of shape {self.crop.shape} does not fill the box {self.box_yxyx}")

    @classmethod
    def empty(cls, plane_shape: Shape2D) -> Region:
        """No pixel of a plane."""
        return cls(plane_shape, (0, 0, 0, 0), np.zeros((0, 0), bool))

    @classmethod
    def from_mask(cls, mask: Any) -> Region:
        """Bound a full (H, W) mask by its tight box; an empty mask has an empty box."""
        mask = np.asarray(mask, bool)
        return cls.from_part((int(mask.shape[0]), int(mask.shape[1])), (0, 0), mask)

    @classmethod
    def from_part(cls, plane_shape: Shape2D, corner_yx: tuple[int, int], mask: BoolArray) -> Region:
        """Bound an (h, w) mask, whose first pixel lies at `corner_yx` in its plane, by its tight box."""
        rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            return cls.empty(plane_shape)
        y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(cols[0]), int(cols[-1]) + 1
        top, left = corner_yx
        return cls(plane_shape, (top + y0, left + x0, top + y1, left + x1), mask[y0:y1, x0:x1])

    @property
    def slices(self) -> tuple[slice, slice]:
        """Where the crop lies in the plane."""
        y0, x0, y1, x1 = self.box_yxyx
        return slice(y0, y1), slice(x0, x1)

    @property
    def area(self) -> int:
        """Number of pixels of the mask."""
        return int(np.count_nonzero(self.crop))

    @property
    def mask(self) -> BoolArray:
        """The mask over the whole plane, (H, W) bool, a new array."""
        return self.over((0, 0, *self.plane_shape))

    def over(self, box_yxyx: BoxYXYX) -> BoolArray:
        """The mask over a box, which may reach beyond the plane: a new (h, w) bool array."""
        y0, x0, y1, x1 = box_yxyx
        top, left, bottom, right = self.box_yxyx
        part = np.zeros((y1 - y0, x1 - x0), bool)
        low_y, low_x, high_y, high_x = max(y0, top), max(x0, left), min(y1, bottom), min(x1, right)
        if high_y > low_y and high_x > low_x:
            inside = slice(low_y - y0, high_y - y0), slice(low_x - x0, high_x - x0)
            part[inside] = self._window(low_y, low_x, high_y, high_x)
        return part

    def same_as(self, other: Region) -> bool:
        """Whether both hold the same pixels; their boxes are tight."""
        return self is other or (self.box_yxyx == other.box_yxyx and np.array_equal(self.crop, other.crop))

    def iou(self, other: Region) -> float:
        """Intersection over union with a region of the same plane; 1.0 when both are empty."""
        if self.plane_shape != other.plane_shape:
            raise ValueError(f"regions of different planes: {self.plane_shape} and {other.plane_shape}")
        y0, x0 = np.maximum(self.box_yxyx[:2], other.box_yxyx[:2])
        y1, x1 = np.minimum(self.box_yxyx[2:], other.box_yxyx[2:])
        shared = 0
        if y1 > y0 and x1 > x0:
            shared = int(np.count_nonzero(self._window(y0, x0, y1, x1) & other._window(y0, x0, y1, x1)))
        union = self.area + other.area - shared
        return shared / union if union else 1.0

    def _window(self, y0: int, x0: int, y1: int, x1: int) -> BoolArray:
        top, left = self.box_yxyx[:2]
        return self.crop[y0 - top : y1 - top, x0 - left : x1 - left]


def hull_of(boxes: Iterable[BoxYXYX]) -> BoxYXYX:
    """The smallest box that holds all of these; there is at least one."""
    corners = np.array(list(boxes))
    (y0, x0), (y1, x1) = corners[:, :2].min(0).tolist(), corners[:, 2:].max(0).tolist()
    return (y0, x0, y1, x1)


def widened(box: BoxYXYX, margin: int, plane_shape: Shape2D) -> BoxYXYX:
    """A box with so many pixels more on each side, inside the plane."""
    y0, x0, y1, x1 = box
    height, width = plane_shape
    return max(y0 - margin, 0), max(x0 - margin, 0), min(y1 + margin, height), min(x1 + margin, width)


class PackedRegion(Region):
    """A region whose mask takes an eighth of the memory: the crop is unpacked whenever somebody looks at it."""

    __slots__ = ("_bits",)
    _bits: bytes

    def __init__(self, plane_shape: Shape2D, box_yxyx: BoxYXYX, crop: BoolArray) -> None:
        object.__setattr__(self, "plane_shape", plane_shape)
        object.__setattr__(self, "box_yxyx", box_yxyx)
        object.__setattr__(self, "_bits", np.packbits(crop).tobytes())

    @classmethod
    def of(cls, region: Region) -> PackedRegion:
        """The same region, packed."""
        return cls(region.plane_shape, region.box_yxyx, region.crop)

    @property
    def crop(self) -> BoolArray:
        """The mask inside the box, read-only."""
        y0, x0, y1, x1 = self.box_yxyx
        bits = np.frombuffer(self._bits, np.uint8)
        crop = np.unpackbits(bits, count=(y1 - y0) * (x1 - x0)).view(bool).reshape(y1 - y0, x1 - x0)
        crop.flags.writeable = False
        return crop

    @property
    def area(self) -> int:
        """Number of pixels of the mask."""
        return int.from_bytes(self._bits).bit_count()
