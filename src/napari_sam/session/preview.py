"""Masks of a few planes seen as one label array: nothing is stored for the rest of the volume."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_sam.core.arrays import Array
from napari_sam.core.planes import BoxYXYX, PlaneRef, Region
from napari_sam.session.labels import hull


@dataclass(frozen=True, slots=True)
class Redraw:
    """A part of a plane whose preview changed."""

    plane: PlaneRef
    box_yxyx: BoxYXYX


class PreviewArray:
    """A lazy (T, Z, Y, X) uint8 array that is 1 inside the given regions and 0 elsewhere.

    Parameters
    ----------
    shape : (int, int, int, int)
        Time points and voxels of the level that the planes refer to.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, shape: tuple[int, int, int, int]) -> None:
        self.shape = shape
        self._regions: dict[PlaneRef, Region] = {}

    def set(self, plane: PlaneRef, region: Region | None) -> Region | None:
        """Show a region in a plane, or nothing; returns what was shown there before."""
        before = self._regions.pop(plane, None)
        if region is not None and region.area:
            self._regions[plane] = region
        return before

    def show(self, planes: Iterable[PlaneRef], regions: Mapping[PlaneRef, Region]) -> list[Redraw]:
        """Make these planes show `regions`, and nothing where there is none; returns what changed."""
        redraws = []
        for plane in planes:
            now = regions.get(plane)
            before = self.set(plane, now)
            box = hull(before, now)
            if before is not now and box[2] > box[0]:
                redraws.append(Redraw(plane, box))
        return redraws

    @property
    def planes(self) -> list[PlaneRef]:
        """Planes in which something is shown."""
        return list(self._regions)

    def clear(self) -> None:
        """Show nothing."""
        self._regions.clear()

    def __getitem__(self, index: Any) -> Array:
        """Read by integers and slices."""
        index = index if isinstance(index, tuple) else (index,)
        index = (*index, *(slice(None),) * (4 - len(index)))
        chosen = [np.atleast_1d(np.arange(size)[i]) for size, i in zip(self.shape, index, strict=True)]
        block = np.zeros([len(c) for c in chosen], self.dtype)
        for plane, region in self._regions.items():
            _paste(block, chosen, plane, region)
        return block[tuple(0 if np.ndim(i) == 0 and not isinstance(i, slice) else slice(None) for i in index)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The whole, dense: only for small arrays and for libraries that insist."""
        return np.asarray(self[:], dtype)


def _paste(block: Array, chosen: list[Array], plane: PlaneRef, region: Region) -> None:
    y0, x0, y1, x1 = region.box_yxyx
    extents = [(y0, y1), (x0, x1)]
    extents.insert(plane.axis, (plane.index, plane.index + 1))
    extents.insert(0, (plane.time, plane.time + 1))
    inside = [np.flatnonzero((c >= low) & (c < high)) for c, (low, high) in zip(chosen, extents, strict=True)]
    if not all(len(i) for i in inside):
        return
    crop = np.expand_dims(region.crop, (0, 1 + plane.axis))
    wanted = [c[i] - low for c, i, (low, _) in zip(chosen, inside, extents, strict=True)]
    block[_grid(inside)] |= crop[_grid(wanted)]


def _grid(indices: list[Array]) -> tuple[Any, ...]:
    """Index of the grid that these indices span: slices where they are runs, which is much faster."""
    if all(i[-1] - i[0] == len(i) - 1 for i in indices):
        return tuple(slice(int(i[0]), int(i[-1]) + 1) for i in indices)
    return np.ix_(*indices)
