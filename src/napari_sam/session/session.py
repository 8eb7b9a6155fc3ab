"""One user's work on one image: orders out, answers in, everything undoable.

All methods are called on one thread (a window's own) and return at once; the work is done by an
`InferenceThread`, whose events come back through `dispatch`::

    session = Session(SamBackend(), dispatch=run_on_my_thread, folder=folder)
    session.use_volume(volume, name="cells")
    session.show(PlaneRef(axis=0, index=12))
    session.set_marks(Marks([(0, 12, 30, 40)], [True]))     # preview_changed follows
    session.commit()                                        # labels_changed follows; session.undo() takes it back
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from psygnal import EmissionInfo, Signal

from napari_sam.core.planes import PlaneRef
from napari_sam.core.protocols import VolumeLike
from napari_sam.core.results import EncodeEvent, LabelEdit, MaskPrediction
from napari_sam.propagation.settings import PropagationSettings
from napari_sam.session import requests as ask
from napari_sam.session.engine import Backend, Engine, ModelInfo, Written
from napari_sam.session.history import History, Ledger, MarksStep, Step, Writing
from napari_sam.session.journal import Journal
from napari_sam.session.labels import LabelArray, LabelChange, new_label_path
from napari_sam.session.marks import Marks
from napari_sam.session.objects import ObjectRecord
from napari_sam.session.orders import Orders
from napari_sam.session.preview import PreviewArray, Redraw
from napari_sam.session.progress import Progress
from napari_sam.session.resolve import (
    Blocked,
    ResolvedSession,
    Snapshot,
    parallel,
    planes_around,
    propagation_settings,
    resolve,
    stale_planes,
)
from napari_sam.session.state import SessionState
from napari_sam.session.worker import Answer, Event, Failed, Finished, Started

NO_IMAGE = Blocked("Choose an image layer.")

Dispatch = Callable[[Callable[[], None]], None]


class Session:
    """See the module.

    Parameters
    ----------
    backend : Backend
        Loads models and makes encoders.
    dispatch : callable
        Runs a function on this session's own thread, soon; called from the inference thread.
    folder : path
        For the label arrays and the journal.
    state : SessionState, optional
        The user's choices; changing its fields steers the session.

    Attributes
    ----------
    changed : Signal()
        Something that a status line or button may show is different.
    preview_changed : Signal(Redraw)
    labels_ready : Signal(LabelArray)
        The array that commits go to.
    labels_changed : Signal(LabelChange)
    marks_changed : Signal()
        `marks` changed by something else than `set_marks`: undo, or another object became active.
    planes_encoded : Signal()
    failed : Signal(Exception), saved : Signal(Path)
    """

    changed = Signal()
    preview_changed = Signal(Redraw)
    labels_ready = Signal(LabelArray)
    labels_changed = Signal(LabelChange)
    marks_changed = Signal()
    planes_encoded = Signal()
    failed = Signal(Exception)
    saved = Signal(Path)

    def __init__(
        self, backend: Backend, dispatch: Dispatch, folder: str | Path, state: SessionState | None = None
    ) -> None:
        self.state = state or SessionState()
        self.volume: VolumeLike | None = None
        self.view: PlaneRef | Blocked = NO_IMAGE
        self.labels: LabelArray | None = None
        self.preview = PreviewArray((1, 1, 1, 1))
        self.objects: dict[int, ObjectRecord] = {}
        self.encoded: set[PlaneRef] = set()
        self.history = History()
        self.progress = Progress()
        self.journal = Journal(folder)
        self.models: tuple[ModelInfo, ...] = ()
        self.model_error: Exception | None = None
        self._folder = Path(folder)
        self._dispatch = dispatch
        self._ledger = Ledger()
        self._largest_label = 0
        self._closed = False
        self._orders = Orders(Engine(backend).job, self._receive)
        self.state.events.connect(self._on_state)

    # What is there

    @property
    def record(self) -> ObjectRecord:
        """The active object."""
        return self._object(self.state.object_id)

    @property
    def marks(self) -> Marks:
        """Marks of the active object."""
        return self.record.marks

    @property
    def resolved(self) -> ResolvedSession | Blocked:
        """What can run now, or why nothing can."""
        return resolve(self.state, self.volume, Snapshot(self.view, self.marks))

    @property
    def shown_prediction(self) -> MaskPrediction | None:
        """The model's answer for the active object in the plane on screen."""
        return self.record.predictions.get(self.view) if isinstance(self.view, PlaneRef) else None

    @property
    def next_free_id(self) -> int:
        """A label that no object has."""
        used = (record.object_id for record in self.objects.values() if not record.is_empty)
        return 1 + max(self._largest_label, *used, 0)

    @property
    def is_busy(self) -> bool:
        """Whether anything runs, waits, or is on its way back."""
        return self._orders.is_busy

    # What the user does

    def use_volume(self, volume: VolumeLike, name: str = "image", *, flat: bool = False) -> None:
        """Begin work on an image, with new labels.

        Parameters
        ----------
        volume : VolumeLike
            The image.
        name : str
            For the label array's folder.
        flat : bool
            Give the labels two dimensions if the image has one plane and one time point.
        """
        self.leave_volume()
        self.volume = volume
        self._largest_label = 0
        self.preview = PreviewArray((volume.n_time, *volume.shape_zyx(self.state.level)))
        self.state.object_id = 1
        self._orders.submit(ask.UseVolume(volume=volume))
        path = new_label_path(self._folder, name)
        self._orders.submit(ask.CreateLabels(path=path, volume=volume, level=self.state.level, flat=flat))
        self.journal.append("volume", name=name, source=volume.source, labels=str(path))
        self.changed.emit()

    def leave_volume(self) -> None:
        """Let go of the image; labels stay on disk."""
        self._orders.leave_image()
        self.volume = self.labels = None
        self.view = NO_IMAGE
        self._ledger.clear()
        self.objects.clear()
        self.encoded.clear()
        self.history.clear()
        self.changed.emit()

    def use_labels(self, labels: LabelArray) -> None:
        """Write to labels that exist already; new objects get numbers above theirs."""
        self.labels = labels
        self._orders.submit(ask.UseLabels(labels=labels))
        self.changed.emit()

    def note_label(self, label: int) -> None:
        """Give this label, and smaller ones, to no new object."""
        self._largest_label = max(self._largest_label, label)
        if self.record.is_empty and self.state.object_id <= label:
            self.state.object_id = self.next_free_id

    def list_models(self) -> None:
        """Look up which models there are; `models` holds them then."""
        self._orders.submit(ask.ListModels())

    def load_model(self) -> None:
        """Load the model of the state."""
        self.model_error = None
        self._orders.submit(ask.LoadModel(spec=self.state.model))
        self.journal.append("model", name=self.state.model.name, device=self.state.model.device)

    def show(self, view: PlaneRef | Blocked) -> None:
        """Say which plane is on screen; it is encoded first, its neighbours when nothing else is to do."""
        if view == self.view:
            return
        self.view = view
        self._encode_view()
        self._update_predictions()
        self.changed.emit()

    def set_marks(self, marks: Marks) -> None:
        """Take the marks of the active object as the user changed them."""
        record = self.record
        if marks.same_as(record.marks):
            return
        self.history.push(MarksStep(record.object_id, record.marks, marks))
        self._put_marks(record, marks)
        self.changed.emit()

    def clear_marks(self) -> None:
        """Remove all marks of the active object."""
        self.set_marks(Marks())
        self.marks_changed.emit()

    def cycle(self, step: int = 1) -> None:
        """Show the next answer of the model for the plane on screen."""
        prediction = self.shown_prediction
        if prediction is None or len(prediction.candidates) < 2:
            return
        assert isinstance(self.view, PlaneRef)
        self.record.set_prediction(self.view, prediction.cycled(step))
        self._sync_preview([self.view])
        self.changed.emit()

    def commit(self) -> None:
        """Write the previewed masks of the active object into the labels."""
        record = self.record
        if self.labels is None or not record.pending:
            return
        self._write("keep", record.commits())

    def erase_object(self) -> None:
        """Remove the active object's labels and marks."""
        record = self.record
        if record.written and self.labels is not None:
            self._write("delete", record.erasures())
        self.clear_marks()

    def next_object(self) -> None:
        """Keep what is previewed and go on with a new object."""
        self.commit()
        self.state.positive = True
        if not self.record.is_empty:
            self.state.object_id = self.next_free_id

    def propagate(self, settings: PropagationSettings | None = None) -> None:
        """Carry the active object from its marked planes through the wished range."""
        resolved, record = self.resolved, self.record
        if isinstance(resolved, Blocked) or resolved.propagate_blocked or self.labels is None:
            return
        seeds = {p: record.seed(p, m) for p, m in resolved.marks.items() if p.index in resolved.reach}
        kept = {*seeds, *record.predictions}
        request = ask.Propagate(
            labels=self.labels,
            object_id=record.object_id,
            plane=resolved.plane,
            seeds=seeds,
            settings=propagation_settings(self.state, resolved.reach, settings),
            policy=self.state.policy,
            replaces=dict(record.written),
            stale=tuple(p for p in stale_planes(self.state, resolved, record.written) if p not in kept),
        )
        record.ends = ()
        self._ledger.begin(self._orders.submit(request), Writing("propagation", record.object_id))
        self.journal.append("propagate", object=record.object_id, seeds=sorted(p.index for p in seeds))
        self.changed.emit()

    def encode_all(self) -> None:
        """Encode every plane parallel to the one on screen, when nothing else is to do."""
        self._encode_neighbours(reach=None)

    def save(self, path: str | Path, **options: Any) -> None:
        """Write the labels to a file; `options` as `napari_sam.save_labels` takes them."""
        if self.labels is not None:
            self._orders.submit(ask.SaveLabels(labels=self.labels, path=Path(path), options=options))

    def cancel(self) -> None:
        """Stop everything but the writing of labels; what was finished stays."""
        self._orders.cancel_all()

    def undo(self) -> None:
        """Take the last step back; a running propagation is cancelled first."""
        self._when_written(lambda: self._replay(self.history.undo(), forward=False))

    def redo(self) -> None:
        """Make the step again that was taken back last."""
        self._when_written(lambda: self._replay(self.history.redo(), forward=True))

    def close(self, timeout: float | None = 5.0) -> bool:
        """End the inference thread after its present step; True once it has ended."""
        self._closed = True
        self.state.events.disconnect(self._on_state)
        return self._orders.close(timeout)

    # Orders

    def _object(self, object_id: int) -> ObjectRecord:
        return self.objects.setdefault(object_id, ObjectRecord(object_id))

    def _write(self, title: str, edits: tuple[LabelEdit, ...]) -> None:
        assert self.labels is not None
        record = self.record
        request = ask.WriteLabels(
            labels=self.labels, edits=edits, policy=self.state.policy, replaces=dict(record.written)
        )
        self._ledger.begin(self._orders.submit(request), Writing(title, record.object_id))
        planes = [[e.plane.axis, e.plane.index, e.plane.time] for e in edits]
        self.journal.append(title, object=record.object_id, planes=planes)

    def _encode_view(self) -> None:
        if self.volume is None or isinstance(self.resolved, Blocked):
            return
        assert isinstance(self.view, PlaneRef)
        if self.view not in self.encoded:
            self._orders.submit(ask.EncodePlane(plane=self.view))
        self._encode_neighbours(self.state.idle_reach)

    def _encode_neighbours(self, reach: int | None) -> None:
        """Order the planes around the one on screen, nearest first; all of them if `reach` is None."""
        if self.volume is None or isinstance(self.view, Blocked):
            return
        size = self.volume.shape_zyx(self.view.level)[self.view.axis]
        planes = planes_around(self.view, size, reach)
        missing = tuple(p for p in planes if p not in self.encoded)
        if missing:
            self._orders.submit(ask.EncodePlanes(planes=missing))

    def _put_marks(self, record: ObjectRecord, marks: Marks) -> None:
        record.marks = marks
        self.journal.append("marks", object=record.object_id, **marks.to_json())
        self._update_predictions()

    def _update_predictions(self) -> None:
        """Ask for every plane, parallel to the one on screen, whose marks are not those asked for last."""
        resolved, record = self.resolved, self.record
        if isinstance(resolved, Blocked):
            return
        gone = [p for p in record.asked if parallel(p, resolved.plane) and p not in resolved.marks]
        for plane in gone:
            record.forget(plane)
            self._orders.cancel_prediction(record.object_id, plane)
        for plane, marks in resolved.marks.items():
            asked = record.asked.get(plane)
            if asked is None or not marks.same_as(asked):
                self._ask(record, plane, marks)
        self._sync_preview(gone)

    def _ask(self, record: ObjectRecord, plane: PlaneRef, marks: Marks) -> None:
        earlier = record.predictions.get(plane) if marks.extends(record.asked.get(plane)) else None
        record.asked[plane] = marks
        self._orders.submit(
            ask.Predict(object_id=record.object_id, plane=plane, marks=marks, earlier=earlier)
        )

    # History

    def _when_written(self, action: Callable[[], None]) -> None:
        """Run `action` once no labels are being written."""
        self._ledger.after(action)
        self._orders.cancel(lambda request: isinstance(request, ask.Propagate))
        self._ledger.settle()

    def _replay(self, step: Step | None, forward: bool) -> None:
        if step is None:
            return
        self.journal.append("redo" if forward else "undo", object=step.object_id)
        record = self._object(step.object_id)
        if isinstance(step, MarksStep):
            self.state.object_id = step.object_id
            self._put_marks(record, step.after if forward else step.before)
            self.marks_changed.emit()
        elif self.labels is not None:
            self._set_written(record, step.regions_after if forward else step.regions_before)
            request = ask.RestoreLabels(labels=self.labels, deltas=step.deltas, forward=forward)
            self._ledger.begin(self._orders.submit(request))
        self.changed.emit()

    def _set_written(self, record: ObjectRecord, regions: Any) -> None:
        for plane, region in regions.items():
            record.set_written(plane, region)
        if record is self.record:
            self._sync_preview(regions)

    # Preview

    def _sync_preview(self, planes: Iterable[PlaneRef]) -> None:
        for redraw in self.preview.show(planes, self.record.pending):
            self.preview_changed.emit(redraw)

    def _on_state(self, info: EmissionInfo) -> None:
        name = info.signal.name
        if name == "object_id":
            self._sync_preview({*self.preview.planes, *self.record.pending})
            self._update_predictions()
            self.marks_changed.emit()
        elif name == "model":
            self._change_model()
        self.journal.append("setting", name=name, value=str(info.args[0]))
        self.changed.emit()

    def _change_model(self) -> None:
        """Embeddings and answers of another model are no use any more."""
        self.cancel()
        self.encoded.clear()
        for record in self.objects.values():
            record.asked.clear()
        self.load_model()
        self._encode_view()
        self._update_predictions()
        self.planes_encoded.emit()

    # Answers

    def _receive(self, event: Event) -> None:
        """Carry an event from the inference thread to the session's own."""
        if not self._closed:
            self._dispatch(lambda: self._on_event(event))

    def _on_event(self, event: Event) -> None:
        if self._closed:
            return
        self.progress.note(event)
        if isinstance(event, Answer):
            if self._orders.is_fresh(event.request):
                self._on_answer(event.request, event.value)
        elif not isinstance(event, Started):
            self._on_end(event)
        self.changed.emit()

    def _on_answer(self, request: ask.Request, value: Any) -> None:
        match value:
            case MaskPrediction():
                assert isinstance(request, ask.Predict)
                self._on_prediction(request, value)
            case Written():
                self._on_written(self._ledger.writing(request.generation), value)
            case LabelChange():
                self.labels_changed.emit(value)
            case EncodeEvent():
                self.encoded.add(value.plane)
                self.planes_encoded.emit()
            case LabelArray():
                self.labels = value
                self.labels_ready.emit(value)
            case Path():
                self.saved.emit(value)
            case int():
                self.note_label(value)
            case tuple() if isinstance(request, ask.ListModels):
                self.models = value

    def _on_prediction(self, request: ask.Predict, prediction: MaskPrediction) -> None:
        record = self.objects.get(request.object_id)
        if record is None or record.asked.get(request.plane) is not request.marks:
            return
        record.set_prediction(request.plane, prediction)
        if record is self.record:
            self._sync_preview([request.plane])

    def _on_written(self, writing: Writing | None, written: Written) -> None:
        assert writing is not None
        record = self._object(writing.object_id)
        plane, step = written.edit.plane, written.step
        region = written.edit.region if written.edit.region.area else None
        if step is not None:
            record.ends += (step,) if step.stop_reason is not None else ()
            self.encoded.add(plane)
        writing.note(written.delta, record.written.get(plane), region)
        self._set_written(record, {plane: region})
        self.labels_changed.emit(written.change)

    def _on_end(self, event: Event) -> None:
        self._orders.ended(event.request)
        writing = self._ledger.end(event.request.generation)
        if writing is not None and writing.deltas:
            self.history.push(writing.step())
        if isinstance(event.request, ask.Predict) and not isinstance(event, Finished):
            self._object(event.request.object_id).forget_question(event.request.plane, event.request.marks)
        if isinstance(event, Failed):
            if isinstance(event.request, ask.LoadModel):
                self.model_error = event.error
            self.journal.append("error", what=type(event.error).__name__, message=str(event.error))
            self.failed.emit(event.error)
        self._ledger.settle()
