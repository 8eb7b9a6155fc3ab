"""What is done to whole objects: naming, merging, splitting, taking over, refining, carrying several at once.

Each method is one step of the history. It returns at once; what needs the pixels is done by the inference thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.results import LabelEdit
from napari_sam.errors import SessionError
from napari_sam.propagation.anchors import Gap, affected_gaps, gaps_of
from napari_sam.propagation.doubt import Spacing
from napari_sam.propagation.settings import PropagationSettings
from napari_sam.session import object_jobs as jobs
from napari_sam.session import requests as ask
from napari_sam.session.history import Change, MarksChange, RecordChange
from napari_sam.session.marks import Marks, marked_planes, marks_on_plane, marks_space
from napari_sam.session.objects import Colour, ObjectRecord, ObjectState
from napari_sam.session.resolve import Blocked, Snapshot, parallel, resolve
from napari_sam.session.state import OverlapPolicy

if TYPE_CHECKING:
    from napari_sam.session.session import Session

NO_MARKS = Marks()
Parts = list[dict[PlaneRef, Region]]
ABOUT = ("name", "class_name", "colour", "state", "anchors", "corrected", "made_with")
"""Fields of a record that go with its object; another one that gets the number does not have them."""


class Editing:
    """Operations on the objects of a session.

    Parameters
    ----------
    session : Session
        Whose objects they are.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    # Names and states

    def rename(self, object_id: int, name: str) -> None:
        """Give an object a name."""
        self._set("rename", object_id, name=name.strip())

    def classify(self, object_id: int, class_name: str) -> None:
        """Say what kind of thing an object is."""
        self._set("class", object_id, class_name=class_name.strip())

    def colour(self, object_id: int, colour: Colour | None) -> None:
        """Give an object a colour of its own; None takes it away."""
        self._set("colour", object_id, colour=colour)

    def mark_reviewed(self, object_id: int, reviewed: bool = True) -> None:
        """Say that an object has been looked at, or has to be again."""
        record = self._session.objects.get(object_id)
        if record is not None:
            back = ObjectState.PROPAGATED if record.anchors else ObjectState.DRAFT
            self._set("review", object_id, state=ObjectState.REVIEWED if reviewed else back)

    def _set(self, title: str, object_id: int, **after: Any) -> None:
        """Change fields of a record, as one step; nothing happens if they are so already."""
        record = self._session.objects.get(object_id)
        if record is None:
            return
        before = {name: getattr(record, name) for name in after}
        if before != after:
            self._session.writer.change(title, [RecordChange(object_id, before, after)])
            self._session.changed.emit()

    # Deleting, merging, splitting

    def delete(self, object_ids: Iterable[int]) -> None:
        """Remove labels and prompts of objects, as one step."""
        ids = tuple(object_ids)
        self._session.writer.when_written(partial(self._delete, ids), ids)

    def _delete(self, object_ids: Iterable[int]) -> None:
        records = [r for r in map(self._session.objects.get, object_ids) if r is not None and not r.is_empty]
        if not records:
            return
        changes = [change for record in records for change in _emptied(record)]
        painted = [record.object_id for record in records if record.corrected]
        for record in records:
            record.ends = ()
            self._settle(record, NO_MARKS)
        self._remove("delete", records, changes)
        if painted:
            self._session.note_label(max(painted))
        self._session.marks_changed.emit()

    def merge(self, target_id: int, other_ids: Iterable[int]) -> None:
        """Make several objects one; it keeps the number, name and class of the first, and all prompts.

        Voxels that belong to none of them stay as they are.
        """
        ids = tuple(other_ids)
        self._session.writer.when_written(partial(self._merge, target_id, ids), {target_id, *ids})

    def _merge(self, target_id: int, other_ids: Iterable[int]) -> None:
        target = self._session.objects.get(target_id)
        others = [self._session.objects.get(i) for i in dict.fromkeys(other_ids) if i != target_id]
        found = [record for record in others if record is not None and not record.is_empty]
        if target is None or not found:
            return
        everyone = [target, *found]
        merged = _joined_marks([record.marks for record in everyone])
        changes: list[Change] = [MarksChange(target_id, target.marks, merged)]
        changes += [change for record in found for change in _emptied(record)]
        corrected = tuple(dict.fromkeys(p for r in everyone for p in (*r.corrected, *r.anchors)))
        after = {"state": ObjectState.DRAFT, "corrected": corrected, "anchors": {}}
        self._settle(target, merged)
        self._remove("merge", everyone, [*changes, _change(target, after)], into=target_id)

    def split_components(self, object_id: int) -> None:
        """Make each connected component an object; the largest keeps number and prompts."""
        self._split(object_id, jobs.component_parts)

    def split_by_points(
        self, object_id: int, stays: NDArray[np.floating], leaves: NDArray[np.floating]
    ) -> None:
        """Cut an object in two between two sets of points.

        Parameters
        ----------
        object_id : int
            Which object.
        stays, leaves : (n, 4) float arrays
            (t, z, y, x) in level-0 voxels, in the part that keeps the number and in the one that leaves.
        """
        session, record = self._session, self._session.objects.get(object_id)
        if record is None or session.volume is None or not record.written:
            return
        plane = min(record.written)
        space = marks_space(session.volume)
        sets = [space.to_zyx(np.asarray(p, np.float64).reshape(-1, 4), plane.level) for p in (stays, leaves)]
        order = [plane.axis, *(axis for axis in range(3) if axis != plane.axis)]
        spacing = Spacing.of(session.volume, plane)
        sizes = (spacing.plane, spacing.row, spacing.column)
        points = [one[:, order] for one in sets]
        self._split(object_id, partial(jobs.parts_by_points, points=points, spacing=sizes))

    def split_by_marks(self, object_id: int) -> None:
        """Cut an object in two: its positive points say what stays, its negative points what leaves."""
        record = self._session.objects.get(object_id)
        if record is not None:
            positive = record.marks.positive
            self.split_by_points(object_id, record.marks.points[positive], record.marks.points[~positive])

    def _split(self, object_id: int, find: Any) -> None:
        session = self._session

        def order() -> None:
            record = session.objects.get(object_id)
            if record is not None and record.written:
                written = dict(record.written)
                then = partial(take, record, written)
                session.orders.submit(ask.Compute(work=partial(find, written), then=then))

        def take(record: ObjectRecord, written: Mapping[PlaneRef, Region], parts: Parts) -> None:
            session.writer.when_written(partial(self._take_parts, record, written, parts), [object_id])

        session.writer.when_written(order, [object_id])

    def _take_parts(self, record: ObjectRecord, written: Mapping[PlaneRef, Region], parts: Parts) -> None:
        session = self._session
        if len(parts) < 2 or session.objects.get(record.object_id) is not record or record.written != written:
            return
        first = 1 + max(session.largest_label, *session.objects)
        edits = [
            LabelEdit(plane, parts[0].get(plane, Region.empty(region.plane_shape)), record.object_id)
            for plane, region in written.items()
        ]
        changes: list[Change] = [_change(record, {"state": ObjectState.DRAFT, "anchors": {}})]
        for number, part in enumerate(parts[1:]):
            new = session.object(first + number)
            edits += [LabelEdit(plane, region, new.object_id) for plane, region in sorted(part.items())]
            name = f"{record.name} ({number + 2})" if record.name else ""
            after = {"name": name, "class_name": record.class_name, "made_with": dict(record.made_with)}
            changes.append(_change(new, after))
        session.note_label(first + len(parts) - 2)
        self._settle(record, record.marks)
        self._write("split", edits, written, changes)

    # Taking over, refining

    def import_labels(self, source: Any) -> None:
        """Copy labels from elsewhere into those of this session, as one step; cancelled, it leaves nothing behind.

        They keep their numbers if no object and no label here has them yet, and get higher ones otherwise. Voxels
        that have a label already keep it. `take_labels` makes objects of them.

        Parameters
        ----------
        source : array_like
            (T, Z, Y, X) integers, as large as the session's labels; read some planes at a time.
        """
        if self._session.labels is not None:
            self._session.orders.submit(ask.ScanLabels(source=source, then=partial(self._import, source)))

    def _import(self, source: Any, largest: int) -> None:
        session = self._session
        assert session.labels is not None
        offset, most = session.next_free_id - 1, np.iinfo(session.labels.array.dtype).max
        if offset + largest > most:
            session.failed.emit(
                SessionError(f"label {largest} is too large; number the labels anew up to {most - offset}")
            )
        elif largest:
            session.note_label(offset + largest)
            session.copied.append((offset + 1, offset + largest))
            request = ask.ImportLabels(
                labels=session.labels, source=source, offset=offset, largest=offset + largest
            )
            session.writer.order("copy labels", request)

    def take_labels(self, wanted: Collection[int] | None = None) -> None:
        """Make labels that are there objects of this session: all of them, or only some.

        Labels that are objects already are left as they are. Nothing in the labels changes.
        """
        session = self._session
        if session.labels is None or isinstance(session.view, Blocked):
            return
        session.writer.when_written(partial(self._take_labels, session.view, wanted), cancels=())

    def _take_labels(self, view: PlaneRef, wanted: Collection[int] | None) -> None:
        session = self._session
        assert session.labels is not None
        known = tuple(i for i, record in session.objects.items() if record.written)
        request = ask.TakeLabels(
            labels=session.labels,
            plane=view.at(0),
            wanted=None if wanted is None else tuple(wanted),
            skip=known,
        )
        session.writer.order("take labels", request)

    def refine(self, object_id: int, settings: PropagationSettings | None = None) -> None:
        """Let the model draw an object's outline again in every plane, where it agrees with what is there.

        Planes that the user prompted or painted are left as they are.
        """
        self._session.writer.when_written(partial(self._refine, object_id, settings), [object_id], cancels=())

    def _refine(self, object_id: int, settings: PropagationSettings | None) -> None:
        session, record = self._session, self._session.objects.get(object_id)
        if session.labels is None or record is None or not record.written:
            return
        request = ask.Refine(
            labels=session.labels,
            object_id=object_id,
            replaces=self._found_by_model(record),
            settings=settings or PropagationSettings(),
            protected=record.corrected,
            sight=session.sight_of([object_id]),
        )
        session.writer.order("refine", request)

    def agree_along_axes(self, object_id: int, settings: PropagationSettings | None = None) -> None:
        """Carry an object along the two other axes as well, and keep what the three agree on.

        Planes that the user prompted or painted are left as they are.
        """
        self._session.writer.when_written(partial(self._agree, object_id, settings), [object_id], cancels=())

    def _agree(self, object_id: int, settings: PropagationSettings | None) -> None:
        session, record = self._session, self._session.objects.get(object_id)
        if session.labels is None or session.volume is None or record is None or not record.written:
            return
        shape = session.volume.shape_zyx(session.state.level)
        if len({plane.at(0) for plane in record.written}) > 1 or min(shape) < 2:
            why = "the image is flat" if min(shape) < 2 else "its masks lie in planes that are not parallel"
            session.failed.emit(SessionError(f"object {object_id} cannot be carried along three axes: {why}"))
            return
        request = ask.AgreeAlongAxes(
            labels=session.labels,
            object_id=object_id,
            masks=dict(record.written),
            replaces=self._found_by_model(record),
            settings=settings or PropagationSettings(),
            sight=session.sight_of([object_id]),
        )
        session.writer.order("three axes", request)

    # Carrying

    def carried(
        self, record: ObjectRecord, reach: range, settings: PropagationSettings
    ) -> ask.Carried | None:
        """What it takes to carry an object from its own planes, only through the gaps that changed since.

        None if it has no plane of its own in reach. If nothing changed, everything is done again.
        """
        anchors = self._anchors(record, reach)
        if not anchors:
            return None
        view = self._session.view
        assert isinstance(view, PlaneRef)
        new = {plane.index: self._digest(value, settings) for plane, value in anchors.items()}
        old = {plane.index: text for plane, text in record.anchors.items() if parallel(plane, view)}
        gaps = affected_gaps(old, new) or gaps_of(new)
        seeds = {plane: value for plane, value in anchors.items() if _beside(plane.index, gaps)}
        ways = settings.direction.steps
        indices = {i for gap in gaps for i in _visited(gap, reach, ways)}
        own = {*anchors, *record.corrected, *self.prompted_planes(record)}
        waiting = {p: record.starts.get(p) for p, value in seeds.items() if isinstance(value, Marks)}
        stale = [p for p in record.written if parallel(p, view) and p.index in indices and p not in own]
        return ask.Carried(
            object_id=record.object_id,
            seeds=seeds,
            replaces=dict(record.written),
            stale=tuple(stale),
            gaps=gaps,
            protected=tuple(p for p in record.corrected if p not in seeds),
            anchors={view.at(index): text for index, text in new.items()},
            starts={plane: start for plane, start in waiting.items() if start is not None},
        )

    def changes_of(self, carried: ask.Carried) -> RecordChange:
        """What a record says once its object has been carried."""
        record = self._session.object(carried.object_id)
        return _change(record, {"anchors": dict(carried.anchors), "state": ObjectState.PROPAGATED})

    def _anchors(self, record: ObjectRecord, reach: range) -> dict[PlaneRef, Region | Marks]:
        """The object's own planes in reach: prompted, or painted by hand."""
        session = self._session
        view, volume = session.view, session.volume
        resolved = resolve(session.state, volume, Snapshot(view, record.marks))
        if isinstance(view, Blocked) or isinstance(resolved, Blocked):
            return {}
        painted = [p for p in record.painted if parallel(p, view)]
        found: dict[PlaneRef, Region | Marks] = {p: record.written[p] for p in painted}
        for plane, marks in resolved.marks.items():
            found.setdefault(plane, record.seed(plane, marks))
        return {plane: value for plane, value in sorted(found.items()) if plane.index in reach}

    def _digest(self, value: Region | Marks, settings: PropagationSettings) -> str:
        """What an anchor says, under this model and these settings, as a short text."""
        model = self._session.state.model
        parts = [repr(settings).encode(), repr(model).encode()]
        if isinstance(value, Region):
            parts += [repr(value.box_yxyx).encode(), np.packbits(value.crop).tobytes()]
        else:
            parts.append(repr(value.to_json()).encode())
        return hashlib.blake2b(b"\0".join(parts), digest_size=8).hexdigest()

    # Painting by hand

    def settle(self, record: ObjectRecord, planes: Iterable[PlaneRef]) -> None:
        """Take what is written in planes as the last word on the marks that are there."""
        if self._session.volume is None or record.marks.is_empty:
            return
        space = marks_space(self._session.volume)
        found = ((plane, marks_on_plane(record.marks, plane, space)) for plane in planes)
        record.answered.update((plane, marks) for plane, marks in found if not marks.is_empty)

    def prompted_planes(self, record: ObjectRecord) -> set[PlaneRef]:
        """Planes with marks, along the axes and at the times and levels of what was written."""
        volume = self._session.volume
        if volume is None or record.marks.is_empty:
            return set()
        alike = {plane.at(0) for plane in (*record.written, *record.corrected)}
        return {plane for like in alike for plane in marked_planes(record.marks, like, volume)}

    def _found_by_model(self, record: ObjectRecord) -> dict[PlaneRef, Region]:
        """The planes of an object that the user neither prompted nor painted."""
        own = {*record.corrected, *self.prompted_planes(record)}
        return {plane: region for plane, region in record.written.items() if plane not in own}

    # Details

    def _remove(
        self, title: str, records: Iterable[ObjectRecord], changes: Sequence[Change], into: int = 0
    ) -> None:
        """Clear what is written of objects, or make it part of one of them; their masks are not looked at here."""
        session = self._session
        places, painted = session.writer.places_of(records)
        if session.labels is None or not (len(places) or painted):
            session.writer.change(title, changes)
            return
        request = ask.RemoveObjects(labels=session.labels, places=places, painted=painted, into=into)
        session.writer.order(title, request, changes)
        session.changed.emit()

    def _write(
        self,
        title: str,
        edits: Sequence[LabelEdit],
        replaces: Mapping[PlaneRef, Region],
        changes: Sequence[Change],
    ) -> None:
        session = self._session
        if session.labels is None or not edits:
            session.writer.change(title, changes)
            return
        request = ask.WriteLabels(
            labels=session.labels,
            edits=tuple(edits),
            policy=OverlapPolicy.BACKGROUND_ONLY,
            replaces=dict(replaces),
        )
        session.writer.order(title, request, changes)
        session.changed.emit()

    def _settle(self, record: ObjectRecord, marks: Marks) -> None:
        """Take what is written as the answer to the marks: nothing is pending, and nothing is asked."""
        session = self._session
        record.predictions.clear()
        record.asked.clear()
        record.starts.clear()
        if not marks.is_empty and session.volume is not None and isinstance(session.view, PlaneRef):
            space = marks_space(session.volume)
            planes = marked_planes(marks, session.view, session.volume)
            record.asked.update({plane: marks_on_plane(marks, plane, space) for plane in planes})
            record.answered.update(record.asked)
        if record is session.record:
            session.predictions.show(session.preview.planes)


def _change(record: ObjectRecord, after: Mapping[str, Any]) -> RecordChange:
    return RecordChange(record.object_id, {name: getattr(record, name) for name in after}, dict(after))


def _emptied(record: ObjectRecord) -> list[Change]:
    """What is not known of an object any more that is deleted or part of another one."""
    new = ObjectRecord(record.object_id)
    after = {name: getattr(new, name) for name in ABOUT if getattr(record, name) != getattr(new, name)}
    about: list[Change] = [_change(record, after)] if after else []
    return [MarksChange(record.object_id, record.marks, NO_MARKS), *about]


def _joined_marks(marks: Sequence[Marks]) -> Marks:
    return Marks(
        np.concatenate([one.points for one in marks]),
        np.concatenate([one.positive for one in marks]),
        tuple(shape for one in marks for shape in one.shapes),
    )


def _beside(index: int, gaps: Iterable[Gap]) -> bool:
    return any(index in gap.anchors for gap in gaps)


def _visited(gap: Gap, reach: range, ways: Sequence[int]) -> range:
    """Planes of a gap that a propagation in these directions may visit."""
    reached = (1 in ways and gap.below is not None) or (-1 in ways and gap.above is not None)
    return gap.planes(reach.start, reach.stop) if reached else range(0)
