"""What a user drew for one object, in voxels of the whole volume, and what it means in one plane.

A point belongs to the plane that `VolumeSpace.belongs` says; a shape belongs to the plane of its first vertex.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np

from napari_sam.core.arrays import BoolArray, FloatArray, frozen_array
from napari_sam.core.geometry import ellipse_mask, mask_to_box, path_to_points, polygon_mask
from napari_sam.core.planes import PlaneRef, Region, Shape2D
from napari_sam.core.prompts import PromptSet, merge_prompts
from napari_sam.core.protocols import VolumeLike
from napari_sam.core.spaces import VolumeSpace, nearest_index
from napari_sam.errors import PromptError

SCRIBBLE_SPACING = 12.0
"""Pixels between the points that stand for a scribble."""


class ShapeKind(StrEnum):
    """What a drawn shape means."""

    RECTANGLE = "rectangle"
    ELLIPSE = "ellipse"
    POLYGON = "polygon"
    PATH = "path"


@dataclass(frozen=True, slots=True, eq=False)
class ShapeMark:
    """One drawn shape.

    Parameters
    ----------
    kind : ShapeKind
        A rectangle is a box; ellipse and polygon are a box and a mask; a path is a scribble of points.
    vertices : (n, 4) float array
        (t, z, y, x) in level-0 voxels. Rectangle and ellipse: corners of the bounding box.
    positive : bool
        Polarity of a scribble; the other kinds are always positive.
    """

    kind: ShapeKind
    vertices: FloatArray
    positive: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "vertices", _tzyx(self.vertices))


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """Everything drawn for one object, in all planes.

    Parameters
    ----------
    points : (n, 4) float array
        (t, z, y, x) in level-0 voxels.
    positive : (n,) bool array
        Polarity of each point.
    shapes : tuple of ShapeMark
    """

    points: FloatArray = field(default_factory=lambda: np.zeros((0, 4)))
    positive: BoolArray = field(default_factory=lambda: np.zeros(0, bool))
    shapes: tuple[ShapeMark, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", _tzyx(self.points))
        object.__setattr__(self, "positive", frozen_array(self.positive, bool))
        if self.positive.shape != (len(self.points),):
            raise PromptError(f"{len(self.points)} points need as many polarities, got {self.positive.shape}")

    @property
    def is_empty(self) -> bool:
        """Whether nothing was drawn."""
        return len(self.points) == 0 and not self.shapes

    @property
    def is_single_click(self) -> bool:
        """Whether there is one positive point and nothing else, which may mean several things."""
        return len(self.points) == 1 and bool(self.positive[0]) and not self.shapes

    def same_as(self, other: Marks) -> bool:
        """Whether both hold equal marks in equal order."""
        return (
            np.array_equal(self.points, other.points)
            and np.array_equal(self.positive, other.positive)
            and len(self.shapes) == len(other.shapes)
            and all(_same_shape(a, b) for a, b in zip(self.shapes, other.shapes))
        )

    def extends(self, other: Marks | None) -> bool:
        """Whether these are the other marks and more, so that the earlier answer is worth feeding back."""
        if other is None or len(other.points) > len(self.points) or len(other.shapes) > len(self.shapes):
            return False
        n = len(other.points)
        return Marks(self.points[:n], self.positive[:n], self.shapes[: len(other.shapes)]).same_as(other)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and strings, for the journal."""
        return {
            "points_tzyx": self.points.tolist(),
            "positive": self.positive.tolist(),
            "shapes": [
                {"kind": str(s.kind), "vertices_tzyx": s.vertices.tolist(), "positive": s.positive}
                for s in self.shapes
            ],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Marks:
        """The marks that `to_json` wrote."""
        shapes = tuple(
            ShapeMark(ShapeKind(s["kind"]), s["vertices_tzyx"], s["positive"]) for s in value["shapes"]
        )
        return cls(value["points_tzyx"], np.asarray(value["positive"], bool), shapes)


def marks_space(volume: VolumeLike) -> VolumeSpace:
    """How marks, (t, z, y, x) in level-0 voxels, lie in the planes of a volume."""
    return VolumeSpace.of(volume, zyx_axes=(1, 2, 3), ndim=4, time_axis=0)


def marks_on_plane(marks: Marks, plane: PlaneRef, space: VolumeSpace) -> Marks:
    """The marks that belong to one plane; those of other planes say nothing about it."""
    inside = space.belongs(marks.points, plane)
    shapes = tuple(s for s in marks.shapes if space.belongs(s.vertices[:1], plane).all())
    return Marks(marks.points[inside], marks.positive[inside], shapes)


def marked_planes(marks: Marks, like: PlaneRef, volume: VolumeLike) -> list[PlaneRef]:
    """The planes parallel to `like`, at its time and level, that hold marks; in order."""
    space = marks_space(volume)
    anchors = np.concatenate([marks.points, *(s.vertices[:1] for s in marks.shapes)])
    anchors = anchors[space.time_of(anchors) == like.time]
    indices = np.unique(nearest_index(space.to_zyx(anchors, like.level)[:, like.axis]))
    size = volume.shape_zyx(like.level)[like.axis]
    return [like.at(int(i)) for i in indices if 0 <= i < size]


def prompts_on_plane(marks: Marks, plane: PlaneRef, volume: VolumeLike) -> PromptSet:
    """What marks say about the plane they belong to. Draws masks, so it takes longer than a click should.

    Raises
    ------
    PromptError
        There are none in this plane, one lies outside it, or a shape has no area.
    """
    space = marks_space(volume)
    here = marks_on_plane(marks, plane, space)
    size = volume.plane_shape(plane.axis, plane.level)
    sets = [_shape_prompts(s.kind, s.positive, space.to_plane(s.vertices, plane), size) for s in here.shapes]
    if len(here.points):
        sets.insert(0, PromptSet(space.to_plane(here.points, plane), here.positive))
    prompts = merge_prompts(sets)
    prompts.check_inside(size)
    return prompts


def correcting(prompts: PromptSet, start: Region) -> PromptSet:
    """Points that correct a mask, together with it; a box or an outline says afresh where the object is."""
    outlined = prompts.box_yxyx is not None or prompts.mask is not None
    return prompts if outlined else replace(prompts, mask=start.mask)


def _shape_prompts(kind: ShapeKind, positive: bool, vertices_yx: FloatArray, size: Shape2D) -> PromptSet:
    if kind is ShapeKind.PATH:
        points = path_to_points(vertices_yx, SCRIBBLE_SPACING)
        return PromptSet(points, np.full(len(points), positive))
    if kind is ShapeKind.RECTANGLE:
        return PromptSet(box_yxyx=np.concatenate([vertices_yx.min(0), vertices_yx.max(0)]))
    mask = ellipse_mask(vertices_yx, size) if kind is ShapeKind.ELLIPSE else polygon_mask(vertices_yx, size)
    if not mask.any():
        raise PromptError(f"the {kind} covers no pixel of this plane; draw it larger or inside the image")
    return PromptSet(box_yxyx=mask_to_box(mask), mask=mask)


def _same_shape(a: ShapeMark, b: ShapeMark) -> bool:
    return a.kind == b.kind and a.positive == b.positive and np.array_equal(a.vertices, b.vertices)


def _tzyx(points: Any) -> FloatArray:
    array = np.asarray(points, np.float64)
    array = array.reshape(0, 4) if array.size == 0 else array
    if array.ndim != 2 or array.shape[1] != 4:
        raise PromptError(f"marks are (n, 4) coordinates (t, z, y, x), got shape {array.shape}")
    if not np.isfinite(array).all():
        raise PromptError(f"marks hold NaN or infinity: {array.tolist()}; remove them")
    return frozen_array(array)
