"""Writing the labels of objects, and taking it back: what changes labels goes through here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from napari_sam.core.results import LabelEdit
from napari_sam.session import requests as ask
from napari_sam.session.history import MarksStep, Regions, Step, Writing
from napari_sam.session.objects import ObjectRecord

if TYPE_CHECKING:
    from napari_sam.session.session import Session


class Writer:
    """Orders label changes one after the other, and undoes them in the opposite order.

    Parameters
    ----------
    session : Session
        Whose labels and history they are.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def write(self, title: str, edits: tuple[LabelEdit, ...]) -> None:
        """Write edits of the active object; they become one step of the history."""
        session, record = self._session, self._session.record
        assert session.labels is not None
        request = ask.WriteLabels(
            labels=session.labels, edits=edits, policy=session.state.policy, replaces=dict(record.written)
        )
        session.ledger.begin(session.orders.submit(request), Writing(title, record.object_id))
        planes = [[e.plane.axis, e.plane.index, e.plane.time] for e in edits]
        session.journal.append(title, object=record.object_id, planes=planes)

    def when_written(self, action: Callable[[], None]) -> None:
        """Run `action` once no labels are being written; a propagation is cancelled for it."""
        session = self._session
        session.ledger.after(action)
        session.orders.cancel(lambda request: isinstance(request, ask.Propagate))
        session.ledger.settle()

    def replay(self, step: Step | None, forward: bool) -> None:
        """Make a step again, or take it back."""
        session = self._session
        if step is None:
            return
        session.journal.append("redo" if forward else "undo", object=step.object_id)
        record = session.object(step.object_id)
        if isinstance(step, MarksStep):
            session.state.object_id = step.object_id
            session.predictions.put_marks(record, step.after if forward else step.before)
            session.marks_changed.emit()
        elif session.labels is not None:
            self.set_written(record, step.regions_after if forward else step.regions_before)
            request = ask.RestoreLabels(labels=session.labels, deltas=step.deltas, forward=forward)
            session.ledger.begin(session.orders.submit(request))
        session.changed.emit()

    def set_written(self, record: ObjectRecord, regions: Regions) -> None:
        """Note what the labels hold of an object in some planes; None for nothing."""
        for plane, region in regions.items():
            record.set_written(plane, region)
        if record is self._session.record:
            self._session.predictions.show(regions)
