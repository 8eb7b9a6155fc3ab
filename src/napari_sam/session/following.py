"""What objects are where labels were written by something else than they: painted by hand, or by another object."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sam.core.arrays import Array, BoolArray
from napari_sam.core.planes import BoxYXYX, PlaneRef, Region, hull_of
from napari_sam.errors import SessionError
from napari_sam.session.history import RecordChange
from napari_sam.session.journal import Journal
from napari_sam.session.labels import LabelArray, LabelDelta
from napari_sam.session.objects import ObjectRecord, is_copied

if TYPE_CHECKING:
    from napari_sam.session.recovery import OpenJob, Story
    from napari_sam.session.session import Session


def follow_values(
    session: Session,
    plane: PlaneRef,
    box_yxyx: BoxYXYX,
    values: Array,
    among: Collection[int] | None = None,
) -> tuple[tuple[ObjectRecord, PlaneRef], ...]:
    """Know what objects are in a box of a plane that something else than they was written to.

    Labels that were copied are no objects as long as nobody has made them so.

    Parameters
    ----------
    session : Session
        Whose objects they are.
    plane : PlaneRef
        Where it was written.
    box_yxyx : (int, int, int, int)
        Where in the plane.
    values : (h, w) array
        What the labels hold there now.
    among : collection of int, optional
        Objects that another one was written over, or given back; all by default, where a user painted.

    Returns
    -------
    tuple of (ObjectRecord, PlaneRef)
        Objects whose mask in a plane changed: in planes along the axis that most of their masks have.
    """
    changed = []
    present = set(np.unique(values).tolist()) - {0}
    for record in [r for i, r in session.objects.items() if among is None or i in among]:
        own, *more = _axes(session, record, plane)
        for axis in (own, *more):
            for here, box, part in crossing(plane, box_yxyx, values, axis):
                old = record.written.get(here)
                is_there = axis == own and record.object_id in present
                if not is_there and (old is None or not _meets(old, box)):
                    continue
                if _follow_part(session, record, here, box, part == record.object_id):
                    if among is None:
                        record.set_kept(here, record.written.get(here))
                    changed.append((record, here))
    return tuple(changed)


def _follow_part(
    session: Session, record: ObjectRecord, plane: PlaneRef, box_yxyx: BoxYXYX, inside: BoolArray
) -> bool:
    """Know what an object is in a box of a plane; whether that is new."""
    is_known = not record.is_empty or plane in record.kept
    if not is_known and is_copied(record.object_id, session.copied):
        return False
    old = record.written.get(plane) or Region.empty(_plane_shape(session, plane))
    region = with_values(old, box_yxyx, inside)
    if region is not None:
        record.set_written(plane, region if region.area else None)
    return region is not None


def _axes(session: Session, record: ObjectRecord, plane: PlaneRef) -> tuple[int, ...]:
    """Along which axes masks of an object are kept, that of most first; as somebody paints it if there are none."""
    if record.written:
        return record.summary.axes
    view = session.view
    planes = (*record.kept, *record.corrected, *([view] if isinstance(view, PlaneRef) else []), plane)
    return (planes[0].axis,)


def _plane_shape(session: Session, plane: PlaneRef) -> tuple[int, int]:
    if session.volume is None:
        raise SessionError("no image is open; choose an image layer")
    return session.volume.plane_shape(plane.axis, plane.level)


def with_values(region: Region, box_yxyx: BoxYXYX, inside: BoolArray) -> Region | None:
    """A region that is `inside` in a box and as before elsewhere; None if it is so already.

    Nothing as large as the plane is made: this runs at every move of a brush.
    """
    whole = hull_of([region.box_yxyx, box_yxyx] if region.area else [box_yxyx])
    crop, (top, left) = region.over(whole), whole[:2]
    y0, x0, y1, x1 = box_yxyx
    part = crop[y0 - top : y1 - top, x0 - left : x1 - left]
    if np.array_equal(part, inside):
        return None
    part[:] = inside
    return Region.from_part(region.plane_shape, (top, left), crop)


def crossing(
    plane: PlaneRef, box_yxyx: BoxYXYX, values: Array, axis: int
) -> Iterator[tuple[PlaneRef, BoxYXYX, Array]]:
    """A box of a plane as it lies in planes along an axis: itself, or a line in each plane that crosses it."""
    if axis == plane.axis:
        yield plane, box_yxyx, values
        return
    rows, columns = (each for each in range(3) if each != plane.axis)
    (y0, x0, y1, x1), at = box_yxyx, plane.index
    is_row = axis == rows
    first, start, stop, other = (y0, x0, x1, columns) if is_row else (x0, y0, y1, rows)
    for index, line in enumerate(values if is_row else values.T, first):
        here = replace(plane, axis=axis, index=index)
        if plane.axis < other:
            yield here, (at, start, at + 1, stop), line[None]
        else:
            yield here, (start, at, stop, at + 1), line[:, None]


def without_lines(region: Region, plane: PlaneRef, planes: Iterable[PlaneRef]) -> Region:
    """A region of a plane without its lines that lie in planes along other axes."""
    crossed = [p for p in planes if p.axis != plane.axis and (p.level, p.time) == (plane.level, plane.time)]
    if not crossed or not region.area:
        return region
    rows = min(axis for axis in range(3) if axis != plane.axis)
    crop, (top, left) = region.crop.copy(), region.box_yxyx[:2]
    for other in crossed:
        lines, index = (crop, other.index - top) if other.axis == rows else (crop.T, other.index - left)
        if 0 <= index < len(lines):
            lines[index] = False
    return Region.from_part(region.plane_shape, (top, left), crop)


def _meets(region: Region, box_yxyx: BoxYXYX) -> bool:
    """Whether a box holds any of a region's box."""
    low = np.maximum(region.box_yxyx[:2], box_yxyx[:2])
    return bool((low < np.minimum(region.box_yxyx[2:], box_yxyx[2:])).all())


def corrections(job: OpenJob, story: Story, journal: Journal) -> list[RecordChange]:
    """Planes that an unfinished stroke by hand made the user's own."""
    touched: dict[int, set[PlaneRef]] = {}
    axes: dict[int, int] = {}
    there = {object_id for object_id, _ in story.places}
    known = {
        i
        for i, record in story.objects.items()
        if i in there or not record.marks.is_empty or not is_copied(i, story.copied)
    }
    for write in job.writing.writes if job.step is None and job.request is None else ():
        delta = LabelDelta.from_json(journal.read(write.at))
        changed, before, after = delta.unpacked()
        for object_id in {*before.tolist(), *after.tolist()} & known:
            mine = np.zeros(changed.shape, bool)
            mine[changed] = (before == object_id) | (after == object_id)
            if object_id not in axes:
                axes[object_id] = _axis_of(story, object_id, delta.plane)
            lines = crossing(delta.plane, delta.box_yxyx, mine, axes[object_id])
            touched.setdefault(object_id, set()).update(plane for plane, _, part in lines if part.any())
    return [
        RecordChange(i, {}, {"corrected": tuple(sorted({*story.objects[i].corrected, *planes}))})
        for i, planes in sorted(touched.items())
    ]


def _axis_of(story: Story, object_id: int, painted: PlaneRef) -> int:
    """The axis that most masks of an object are perpendicular to; that of a painted plane if there are none."""
    placed = [plane.axis for i, plane in story.places if i == object_id]
    axes = placed or [plane.axis for plane in (*story.objects[object_id].corrected[:1], painted)][:1]
    return max(set(axes), key=axes.count)


def look_at_painted(story: Story, labels: LabelArray | None) -> None:
    """Planes that were painted by hand, or written over by others: what the labels hold is what the object is."""
    if labels is None:
        return
    sizes = (1, *labels.array.shape)[-3:]
    objects = story.objects.values()
    known = [r for r in objects if not (r.is_empty and is_copied(r.object_id, story.copied))]
    painted = {(record.object_id, plane) for record in known for plane in record.corrected}
    across = {i for i, _ in story.overwritten - story.places.keys()}  # by an object along another axis
    overwritten = {key for key in story.places if key in story.overwritten or key[0] in across}
    for object_id, plane in painted | overwritten:
        record = story.objects[object_id]
        height, width = (size for axis, size in enumerate(sizes) if axis != plane.axis)
        region = Region.from_mask(labels.read(plane, (0, 0, height, width)) == object_id)
        record.set_written(plane, region if region.area else None)
        if (object_id, plane) in painted:
            record.set_kept(plane, record.written.get(plane))
