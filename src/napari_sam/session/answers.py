"""What a session does with the events of the inference thread. Everything here runs on the session's own thread."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam.core.planes import PlaneRef
from napari_sam.core.results import EncodeEvent, MaskPrediction
from napari_sam.errors import SessionError
from napari_sam.session import requests as ask
from napari_sam.session.codec import encode
from napari_sam.session.engine import Computed, ImageChanged, Weights
from napari_sam.session.history import Writing
from napari_sam.session.labels import LabelArray
from napari_sam.session.made import ContrastUsed
from napari_sam.session.many import Batch, Written
from napari_sam.session.object_jobs import Copied
from napari_sam.session.objects import NOT_CARRIED
from napari_sam.session.recovery import Recovered
from napari_sam.session.restoring import Restored
from napari_sam.session.worker import Answer, Cancelled, Event, Failed, Finished, Started

if TYPE_CHECKING:
    from napari_sam.session.session import Session


class Answers:
    """Takes events in the order in which they came.

    Parameters
    ----------
    session : Session
        Whose objects, labels and history they change.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def take(self, event: Event) -> None:
        """Let one event have its effect; answers that nobody waits for any more have none."""
        session = self._session
        if session.closed:
            return
        session.progress.note(event)
        try:
            if not isinstance(event, Answer | Started):
                self._on_end(event)
            elif isinstance(event, Answer) and session.orders.is_fresh(event.request):
                self._on_answer(event.request, event.value)
        except SessionError as error:  # the journal cannot be written; nobody called who could be told
            session.failed.emit(error)
        session.changed.emit()

    def _on_answer(self, request: ask.Request, value: Any) -> None:
        session = self._session
        match value:
            case MaskPrediction():
                assert isinstance(request, ask.Predict)
                session.predictions.take(request, value)
            case Written():
                self._on_written(session.ledger.writing(request.generation), value)
            case Batch():
                self._on_batch(request.generation, value)
            case Copied():
                self._on_copied(session.ledger.writing(request.generation), value)
            case EncodeEvent():
                self._on_encoded(value.plane, value.scale)
                session.planes_encoded.emit()
            case LabelArray():
                session.labels = value
                session.labels_ready.emit(value)
            case Computed():
                value.then(value.value)
            case Weights():
                assert isinstance(request, ask.LoadModel)
                session.tile_size = value.tile_size
                session.opening.note_weights(value.values)
                session.note_loaded(request.spec)
            case ContrastUsed():
                session.contrasts[value.time] = value.contrast
            case ImageChanged():
                session.image_changed.emit(value.planes)
            case Recovered():
                session.opening.go_on(value)
            case Path():
                session.saved.emit(value)
            case tuple() if isinstance(request, ask.ListModels):
                session.models = value
            case tuple() if isinstance(request, ask.FindSessions):
                session.sessions_found.emit(value)

    def _on_encoded(self, plane: PlaneRef, scale: float) -> None:
        if scale == self._session.sight.scale:
            self._session.encoded.add(plane)

    def _on_written(self, writing: Writing | None, written: Written) -> None:
        assert writing is not None
        session, step = self._session, written.step
        if step is not None:
            session.object(written.edit.label).ends += (step,) if step.stops else ()
            self._on_encoded(step.plane, written.scale)
        session.writer.take_written(writing, written)
        if written.change is not None:
            session.labels_changed.emit(written.change)

    def _on_batch(self, job: int, batch: Batch) -> None:
        session, writing = self._session, self._session.ledger.writing(job)
        for answer in batch.answers:
            if isinstance(answer, Restored):
                session.writer.take_restored(answer, job)
            else:
                assert writing is not None
                session.writer.take_written(writing, answer)
        for change in batch.changes:
            session.labels_changed.emit(change)

    def _on_copied(self, writing: Writing | None, copied: Copied) -> None:
        assert writing is not None
        writing.writes.extend(copied.writes)
        for change in copied.changes:
            self._session.labels_changed.emit(change)

    def _on_end(self, event: Event) -> None:
        session, request = self._session, event.request
        session.orders.ended(request)
        is_known, writing = session.ledger.has(request.generation), session.ledger.end(request.generation)
        made = session.writer.take_end(writing, request) if writing is not None else ()
        if writing is not None and not isinstance(event, Finished):
            writing.cut_short(session.objects, NOT_CARRIED, is_whole=not request.all_or_nothing)
        step = writing.step() if writing is not None else None
        if step is not None:
            session.history.push(step)
        if is_known:
            more = {"made": encode(made)} if made else {}
            session.note("end", job=request.generation, how=type(event).__name__.lower(), **more)
        if isinstance(request, ask.Predict):
            session.predictions.take_end(request, is_answered=isinstance(event, Finished))
        if isinstance(event, Failed):
            self._on_failed(request, event.error)
        if isinstance(request, ask.LoadModel) and isinstance(event, Cancelled):
            self._on_given_up(request)
        if step is not None and not step.is_whole:
            session.writer.replay(forward=False)
        session.ledger.settle()

    def _on_given_up(self, request: ask.LoadModel) -> None:
        if self._session.orders.is_latest(request):
            self._session.use_loaded()

    def _on_failed(self, request: ask.Request, error: Exception) -> None:
        session = self._session
        if isinstance(request, ask.LoadModel):
            session.model_error = error
        session.failed.emit(error)
        with suppress(SessionError):  # whoever reads the message knows already that the disk is full
            session.journal.append("error", what=type(error).__name__, message=str(error))
