"""What changes objects and labels, and taking it back: every step goes through here, and into the journal first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam.core.arrays import Array
from napari_sam.core.planes import PlaneRef, Region, hull_of
from napari_sam.core.results import LabelEdit
from napari_sam.errors import SessionError
from napari_sam.session import requests as ask
from napari_sam.session.codec import encode
from napari_sam.session.following import follow_values
from napari_sam.session.history import (
    ALL_OBJECTS,
    NOWHERE,
    Change,
    LabelWrite,
    MarksChange,
    Step,
    Writing,
    encode_changes,
    have_common,
)
from napari_sam.session.labels import LabelChange, hull
from napari_sam.session.made import Made, lasting, made_changes, made_of
from napari_sam.session.objects import ObjectRecord, PlaneScore

if TYPE_CHECKING:
    from napari_sam.session.many import Written
    from napari_sam.session.restoring import Restored
    from napari_sam.session.session import Session

TAKE_LONG = (ask.Propagate, ask.Refine, ask.AgreeAlongAxes)
"""Kinds of requests that ask the model about many planes."""
NOT_KEPT = ("generation", "labels", "volume", "journal", "source")
"""Fields of requests that the journal does not hold: they are the session's own."""


class Writer:
    """Makes steps one after the other, and undoes them in the opposite order.

    Parameters
    ----------
    session : Session
        Whose objects, labels and history they are.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._kept: dict[int, dict[PlaneRef, tuple[int, Region | None]]] = {}

    # Making steps

    def change(self, title: str, changes: Sequence[Change]) -> None:
        """Change marks or records; at once, and as one step."""
        session = self._session
        session.hand.finish()
        step = Step(title, session.state.object_id, tuple(changes), number=session.orders.reserve())
        session.journal.append(
            "step",
            title=title,
            object=step.object_id,
            number=step.number,
            changes=encode_changes(changes),
        )
        session.history.push(step)
        self._apply(step.changes)

    def order(
        self, title: str, request: ask.Request, changes: Sequence[Change] = (), object_id: int | None = None
    ) -> None:
        """Order a job that writes labels; what it writes becomes one step together with the changes.

        Parameters
        ----------
        title : str
            For the undo button.
        request : Request
            Its answers are Written.
        changes : sequence of Change
            Made at once.
        object_id : int, optional
            What it is about; the active object by default.
        """
        session = self._session
        session.hand.finish()
        job, object_id = session.orders.reserve(), object_id or session.state.object_id
        model = session.opening.model_number
        session.journal.append(
            "step",
            title=title,
            object=object_id,
            job=job,
            number=job,
            changes=encode_changes(changes),
            model=model,
            request=self._encoded(request),
        )
        writing = Writing(title, object_id, tuple(changes), number=job, model=model)
        session.ledger.begin(job, writing, changed_by(request))
        self._apply(changes)
        session.orders.submit(request, job)

    def write(self, title: str, edits: Sequence[LabelEdit]) -> None:
        """Write edits of one object, as one step."""
        session = self._session
        if session.labels is None or not edits:
            return
        record = session.object(edits[0].label)
        request = ask.WriteLabels(
            labels=session.labels,
            edits=tuple(edits),
            policy=session.state.policy,
            replaces=dict(record.written),
            scores=_scores(record, edits),
        )
        self.order(title, request, object_id=record.object_id)

    # Undo and redo

    def when_written(
        self,
        action: Callable[[], None],
        object_ids: Iterable[int] | None = None,
        cancels: tuple[type[ask.Request], ...] = TAKE_LONG,
    ) -> None:
        """Run `action` once none of these objects, of all by default, is being written.

        Requests of the kinds that it `cancels` are not waited for any longer than it takes to stop them.
        """
        session = self._session
        session.hand.finish()
        ids = ALL_OBJECTS if object_ids is None else frozenset(object_ids)

        def hurry() -> None:
            session.orders.cancel(lambda r: isinstance(r, cancels) and have_common(changed_by(r), ids))

        session.ledger.after(action, ids, hurry)
        session.ledger.settle()

    def replay(self, forward: bool) -> None:
        """Take the last step back, or make again what was taken back last."""
        session, history = self._session, self._session.history
        step = history.next_redo if forward else history.next_undo
        if step is None:
            return
        job = session.orders.reserve()
        session.journal.append("redo" if forward else "undo", job=job if step.writes else None)
        if forward:
            history.redo()
        else:
            history.undo()
        if step.changes:
            session.state.object_id = step.object_id
            self._apply(step.ordered(forward))
            session.marks_changed.emit()
        for object_id in step.writes.object_ids:
            session.object(
                object_id
            ).ends = ()  # the propagation that ended there is not the last thing any more
        if step.writes and session.labels is not None:
            request = ask.RestoreLabels(labels=session.labels, writes=step.writes, forward=forward)
            session.ledger.begin(job)
            session.orders.submit(request, job)
        session.changed.emit()

    # Answers

    def take_written(self, writing: Writing, written: Written) -> None:
        """Note that an edit was written."""
        session, edit = self._session, written.edit
        region, asked = written.kept.region, edit.region
        region = region if region is not None and region.area else None
        before, _ = self._kept.get(edit.label, {}).get(edit.plane, (NOWHERE, None))
        writing.writes.append(LabelWrite(written.at, edit.plane, edit.label, before))
        record, labels = session.object(edit.label), session.labels
        seen = record.written.get(edit.plane)
        self.set_written(record, edit.plane, region, written.at, None if region in (None, asked) else asked)
        if region is None and asked.area and written.step is None:
            where = f"object {edit.label} in plane {edit.plane.index}"
            text = f"all of {where} lies in other objects, which are protected: nothing was written; overwrite them, or move on"
            session.failed.emit(SessionError(text))
        if written.change is not None:
            self._follow(written.change, written.kept.over)
        if labels is not None and labels.is_painted(edit.label, edit.plane, since=writing.number):
            box = hull(edit.region, seen)
            self._follow(LabelChange(edit.plane, box, labels.read(edit.plane, box)))
        if written.score is not None:
            writing.drawn.add((edit.label, edit.plane.time))
        record.set_score(edit.plane, written.score if region is not None else None)

    def take_end(self, writing: Writing, request: ask.Request) -> tuple[Made, ...]:
        """Know with what the objects were made that the model drew, now that a job has ended."""
        session = self._session
        if not writing.drawn:
            return ()
        how = session.opening.made_with(writing.model, lasting(getattr(request, "settings", None)))
        made = made_of(writing.drawn, session.contrasts, how)
        changes = made_changes(made, session.objects)
        self._apply(changes)
        writing.changes += changes
        return made

    def take_restored(self, restored: Restored, job: int) -> None:
        """Note that a change of labels was taken back or made again by a job."""
        write, labels = restored.write, self._session.labels
        box, values = restored.change.box_yxyx, restored.change.values
        is_painted = labels is not None and labels.is_painted(0, write.plane, since=job)
        if write.object_id > 0:
            record = self._session.object(write.object_id)
            seen = record.written.get(write.plane)
            if write.plane not in record.corrected:
                self.set_written(
                    record, write.plane, restored.region, restored.at, restored.asked, restored.is_kept
                )
                record.answered.pop(write.plane, None)
            else:  # beyond the box of the change it stays as it was painted
                self._kept.setdefault(record.object_id, {})[write.plane] = restored.at, None
                if write.plane not in record.answered:
                    self._session.editing.settle(record, [write.plane])
            record.set_score(write.plane, restored.score)
            if is_painted and seen is not None:
                box = hull_of([box, seen.box_yxyx])
        if labels is not None and is_painted:  # what the job left there is not there any more
            values = labels.read(write.plane, box)
        is_by_hand = write.object_id == 0 or (write.object_id > 0 and write.plane in record.corrected)
        among = None if is_painted or is_by_hand else restored.over
        self._follow(LabelChange(write.plane, box, values), among)

    def set_written(
        self,
        record: ObjectRecord,
        plane: PlaneRef,
        region: Region | None,
        at: int,
        asked: Region | None = None,
        is_kept: bool = True,
    ) -> None:
        """Note what the labels hold of an object in a plane (None for nothing), and where that is kept, if it is.

        `asked` is what was to be written, where others have a part of it.
        """
        record.set_written(plane, region)
        record.set_kept(plane, asked or record.written.get(plane))
        kept = self._kept.setdefault(record.object_id, {})
        if region is None:
            kept.pop(plane, None)
        else:
            kept[plane] = at, record.written.get(plane) if is_kept else None
        if record is self._session.record:
            self._session.predictions.show([plane])

    # Details

    def _follow(self, change: LabelChange, among: Collection[int] | None = None) -> None:
        """Take from the labels what objects are where somebody painted, or what these are where another was written."""
        session = self._session
        if among is not None and not among:
            return
        for record, plane in follow_values(session, change.plane, change.box_yxyx, change.values, among):
            if record is session.record:
                session.predictions.show([plane])

    def _apply(self, changes: Sequence[Change]) -> None:
        session = self._session
        for change in changes:
            record = session.object(change.object_id)
            if isinstance(change, MarksChange):
                record.marks = change.after
            else:
                for name, value in change.after.items():
                    setattr(record, name, value)
        if any(isinstance(change, MarksChange) for change in changes):
            session.predictions.update()

    def encoded(self, value: Any, object_ids: Iterable[int]) -> Any:
        """A value for the journal; masks of these objects that are in it already are named by their place."""
        origins = self._origins(object_ids)
        return encode(value, lambda r: origins.get(id(r)))

    def _encoded(self, request: ask.Request) -> Any:
        """A request for the journal; None if it holds something that cannot be kept."""
        names = [f.name for f in fields(request) if f.name not in NOT_KEPT]
        values = {name: getattr(request, name) for name in names}
        try:
            plain = self.encoded(list(values.values()), _objects_of(request))
        except TypeError:
            return None
        return {"kind": type(request).__name__, **dict(zip(names, plain, strict=True))}

    def _origins(self, object_ids: Iterable[int]) -> dict[int, dict[str, Any]]:
        """Where the masks of some objects come from: id of the mask -> place or answer."""
        predictions = self._session.predictions
        found: dict[int, dict[str, Any]] = {}
        for record in map(self._session.object, object_ids):
            for plane, prediction in record.predictions.items():
                number = predictions.number_of(record.object_id, plane)
                for i, candidate in enumerate(prediction.candidates):
                    if candidate.is_drawn:
                        found[id(candidate.region)] = {"answer": [number, i]}
            for at, region in self._kept.get(record.object_id, {}).values():
                if region is not None:
                    found[id(region)] = {"at": at}
        return found

    def places_of(self, records: Iterable[ObjectRecord]) -> tuple[Array, dict[int, dict[PlaneRef, Region]]]:
        """Where in the journal the masks of objects are kept, and those that are not, as `many.removals` takes them."""
        rows: list[tuple[int, ...]] = []
        others: dict[int, dict[PlaneRef, Region]] = {}
        for record in records:
            kept = self._kept.get(record.object_id, {})
            for plane, region in record.written.items():
                at, known = kept.get(plane, (NOWHERE, None))
                if known is region and at != NOWHERE:
                    rows.append((at, record.object_id, plane.axis, plane.index, plane.level, plane.time))
                else:
                    others.setdefault(record.object_id, {})[plane] = region
        return np.array(rows, np.int64).reshape(-1, 6), others

    def remember(self, places: Mapping[tuple[int, PlaneRef], int]) -> None:
        """Know where in the journal an earlier run kept the mask of each object in each plane."""
        self._kept = {}
        for (object_id, plane), at in places.items():
            record = self._session.object(object_id)
            region = record.written.get(plane)
            if plane in record.corrected or region is not record.kept.get(plane):
                region = None  # somebody has changed it since
            self._kept.setdefault(object_id, {})[plane] = at, region

    def forget(self) -> None:
        """Begin with another image."""
        self._kept = {}


def changed_by(request: ask.Request) -> frozenset[int]:
    """The objects whose masks a request changes, of those that are there."""
    if isinstance(request, ask.RemoveObjects):
        return frozenset(np.unique(request.places[:, 1]).tolist()) | set(request.painted) | {request.into}
    return frozenset(_objects_of(request))


def _objects_of(request: ask.Request) -> Iterable[int]:
    """Whose masks a request holds."""
    match request:
        case ask.WriteLabels():
            return {edit.label for edit in request.edits}
        case ask.Propagate():
            return request.objects
        case ask.Refine() | ask.AgreeAlongAxes():
            return (request.object_id,)
        case _:
            return ()


def _scores(record: ObjectRecord, edits: Iterable[LabelEdit]) -> dict[PlaneRef, PlaneScore]:
    """What is known about masks of an object, where the model gave them."""
    found = ((edit, record.predictions.get(edit.plane)) for edit in edits)
    return {e.plane: PlaneScore.of_prediction(p) for e, p in found if p is not None and p.region is e.region}
