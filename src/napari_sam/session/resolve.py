"""From what the user wants to what can be done: pure functions of frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from napari_sam.core.arrays import FloatArray
from napari_sam.core.planes import PlaneRef, Shape2D
from napari_sam.core.protocols import VolumeLike
from napari_sam.core.spaces import nearest_index
from napari_sam.propagation.settings import PropagationSettings
from napari_sam.session.marks import Marks, marked_planes, marks_on_plane, marks_space
from napari_sam.session.state import SessionState

MAX_PLANE_PIXELS = 1 << 28
"""Larger planes cannot be shown and edited as labels without stalling the window (2**28 is 16384 squared)."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why something cannot run, as a sentence that says what to do."""

    reason: str


EMPTY_RANGE = Blocked("The plane range is empty; its first plane must not be larger than its last.")


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """What the window shows at one moment.

    Parameters
    ----------
    view : PlaneRef or Blocked
        The plane on screen, or why there is none.
    marks : Marks
        Marks of the active object.
    painted : tuple of PlaneRef
        Planes in which it was painted by hand.
    """

    view: PlaneRef | Blocked = Blocked("Choose an image layer.")
    marks: Marks = field(default_factory=Marks)
    painted: tuple[PlaneRef, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ResolvedSession:
    """What can be done now.

    Parameters
    ----------
    plane : PlaneRef
        The plane on screen.
    object_id : int
        The active object.
    marks : mapping of PlaneRef to Marks
        Its marks, for every marked plane parallel to the one on screen.
    reach : range
        Planes that a propagation may visit.
    marks_blocked, propagate_blocked : Blocked, optional
        Why the marks of this plane cannot be used; why propagation cannot start.
    """

    plane: PlaneRef
    object_id: int
    marks: Mapping[PlaneRef, Marks]
    reach: range
    marks_blocked: Blocked | None = None
    propagate_blocked: Blocked | None = None


def resolve(state: SessionState, volume: VolumeLike | None, snapshot: Snapshot) -> ResolvedSession | Blocked:
    """Decide what can run, without touching a pixel.

    Returns
    -------
    ResolvedSession or Blocked
        The order, or the reason why there is none.
    """
    if isinstance(snapshot.view, Blocked):
        return snapshot.view
    if volume is None:
        return Blocked("Choose an image layer.")
    blocked = check_plane(snapshot.view, volume)
    return _resolved(state, volume, snapshot.view, snapshot) if blocked is None else blocked


def check_plane(plane: PlaneRef, volume: VolumeLike) -> Blocked | None:
    """The reason why a plane cannot be segmented, None if it can."""
    height, width = volume.plane_shape(plane.axis, plane.level)
    size = volume.shape_zyx(plane.level)[plane.axis]
    if height * width > MAX_PLANE_PIXELS:
        more = "slice along another axis" if volume.n_levels > 1 else "crop it or open a multiscale version"
        return Blocked(f"The plane of {height} x {width} pixels is too large to edit; {more}.")
    if not (plane.index < size and plane.time < volume.n_time):
        return Blocked("The plane on screen lies outside the image; move the slider.")
    if min(height, width) < 2:
        return Blocked(f"The plane of {height} x {width} pixels is a line; slice along another axis.")
    return None


def editable_level(volume: VolumeLike, axis: int) -> int:
    """The finest level whose planes along an axis are not too large to be edited; full resolution nearly always."""
    shapes = [volume.plane_shape(axis, level) for level in range(volume.n_levels)]
    small = (k for k, (height, width) in enumerate(shapes) if height * width <= MAX_PLANE_PIXELS)
    return next(small, len(shapes) - 1)


def reach_of(state: SessionState, size: int) -> range:
    """Planes that a propagation may visit, from the wished range."""
    first = state.first_plane or 0
    last = size - 1 if state.last_plane is None else state.last_plane
    return range(max(0, first), min(size - 1, last) + 1)


def parallel(plane: PlaneRef, other: PlaneRef) -> bool:
    """Whether two planes differ in their index at most."""
    return plane.at(0) == other.at(0)


def planes_around(plane: PlaneRef, size: int, reach: int | None) -> list[PlaneRef]:
    """A plane and its neighbours up to `reach` away, nearest first; all of the axis if `reach` is None."""
    first, last = (0, size - 1) if reach is None else (plane.index - reach, plane.index + reach)
    near = range(max(0, first), min(size - 1, last) + 1)
    return [plane.at(i) for i in sorted(near, key=lambda i: (abs(i - plane.index), i))]


def propagation_settings(
    state: SessionState, reach: range, settings: PropagationSettings | None = None
) -> PropagationSettings:
    """Settings with the direction and range that the user wishes."""
    settings = settings or PropagationSettings()
    return replace(settings, direction=state.direction, plane_range=(reach.start, reach.stop))


def _resolved(
    state: SessionState, volume: VolumeLike, plane: PlaneRef, snapshot: Snapshot
) -> ResolvedSession:
    space, marks = marks_space(volume), snapshot.marks
    found = {p: marks_on_plane(marks, p, space) for p in marked_planes(marks, plane, volume)}
    size = volume.shape_zyx(plane.level)[plane.axis]
    reach = reach_of(state, size)
    shape = volume.plane_shape(plane.axis, plane.level)
    wrong = {p: _outside(space.to_plane(m.points, p), shape) for p, m in found.items()}
    seeds = [p.index for p in found if wrong[p] is None]
    seeds += [p.index for p in snapshot.painted if parallel(p, plane)]
    return ResolvedSession(
        plane,
        state.object_id,
        MappingProxyType({p: m for p, m in found.items() if wrong[p] is None}),
        reach,
        wrong.get(plane),
        _propagation_blocked(seeds, reach, size),
    )


def _outside(points_yx: FloatArray, shape: Shape2D) -> Blocked | None:
    rows_cols = nearest_index(points_yx)
    outside = ((rows_cols < 0) | (rows_cols >= shape)).any(axis=1)
    if not outside.any():
        return None
    return Blocked(f"{int(outside.sum())} point(s) of this plane lie outside the image; remove them or undo.")


def _propagation_blocked(seeds: list[int], reach: range, size: int) -> Blocked | None:
    if size == 1:
        return Blocked("There is only one plane along this axis, so there is nothing to propagate to.")
    if not seeds:
        return Blocked("Click on the object, or paint it, in at least one plane first.")
    if len(reach) == 0:
        return EMPTY_RANGE
    if not any(index in reach for index in seeds):
        return Blocked(
            f"No plane with prompts, and none that was painted, lies in the planes {reach.start} to {reach.stop - 1}; widen the range."
        )
    return None
