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
from dataclasses import replace
from pathlib import Path
from typing import Any

from psygnal import EmissionInfo, Signal

from napari_sam.core.contrast import Contrast
from napari_sam.core.models import ModelSpec
from napari_sam.core.planes import PlaneRef
from napari_sam.core.protocols import VolumeLike
from napari_sam.core.results import MaskPrediction
from napari_sam.core.spaces import level_geometry
from napari_sam.errors import PromptError, SessionError
from napari_sam.inference.sight import FULL, Sight
from napari_sam.io.export import ExportOptions
from napari_sam.io.label_source import own_axes
from napari_sam.io.save import TIFF_SUFFIXES, SaveOptions
from napari_sam.propagation.settings import PropagationSettings
from napari_sam.session import requests as ask
from napari_sam.session.answers import Answers
from napari_sam.session.codec import encode
from napari_sam.session.editing import Editing
from napari_sam.session.engine import Backend, Engine, ModelInfo
from napari_sam.session.hand import HandEdits
from napari_sam.session.history import History, Ledger, MarksChange
from napari_sam.session.image import ImageRef
from napari_sam.session.journal import Journal
from napari_sam.session.labels import LabelArray, LabelChange
from napari_sam.session.marks import Marks
from napari_sam.session.objects import ObjectRecord, saved_values
from napari_sam.session.opening import Opening
from napari_sam.session.orders import Orders
from napari_sam.session.predictions import Predictions
from napari_sam.session.preview import PreviewArray, Redraw
from napari_sam.session.progress import Progress
from napari_sam.session.recovery import Recovered
from napari_sam.session.resolve import (
    EMPTY_RANGE,
    Blocked,
    ResolvedSession,
    Snapshot,
    propagation_settings,
    resolve,
)
from napari_sam.session.shown import WHOLE, Shown, wished
from napari_sam.session.state import OverlapPolicy, SessionState
from napari_sam.session.worker import Event
from napari_sam.session.writer import Writer

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
        For the journal and the labels of the first image; those of a further one go beside it. Made when an
        image is opened.
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
    sessions_found : Signal(tuple)
        Of SessionInfo: earlier work on the image.
    reopened : Signal(Recovered)
        An earlier session goes on.
    image_changed : Signal(tuple)
        Of PlaneRef: their pixels are not what they were when they were used before.
    """

    changed = Signal()
    preview_changed = Signal(Redraw)
    labels_ready = Signal(LabelArray)
    labels_changed = Signal(LabelChange)
    marks_changed = Signal()
    planes_encoded = Signal()
    failed = Signal(Exception)
    saved = Signal(Path)
    sessions_found = Signal(tuple)
    reopened = Signal(Recovered)
    image_changed = Signal(tuple)

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
        self.shown = WHOLE
        self.tile_size: int | None = None
        self.history = History()
        self.progress = Progress()
        self.journal = Journal(None)
        self.models: tuple[ModelInfo, ...] = ()
        self.model_error: Exception | None = None
        self._loaded = "default"
        self.ledger = Ledger()
        self.largest_label = 0
        self.copied: list[tuple[int, int]] = []
        self.contrasts: dict[int, Contrast] = {}
        self.closed = False
        self._folder = Path(folder)
        self._dispatch = dispatch
        self._answers = Answers(self)
        self.predictions = Predictions(self)
        self.writer = Writer(self)
        self.hand = HandEdits(self)
        self.editing = Editing(self)
        self.opening = Opening(self)
        self.orders = Orders(Engine(backend).job, self._receive)
        self.state.events.connect(self._on_state)

    # What is there

    @property
    def record(self) -> ObjectRecord:
        """The active object."""
        return self.object(self.state.object_id)

    @property
    def marks(self) -> Marks:
        """Marks of the active object."""
        return self.record.marks

    @property
    def resolved(self) -> ResolvedSession | Blocked:
        """What can run now, or why nothing can."""
        return resolve(self.state, self.volume, Snapshot(self.view, self.marks, self.record.painted))

    @property
    def sight(self) -> Sight:
        """How finely the model looks at the plane on screen."""
        if self.volume is None or isinstance(self.view, Blocked):
            return FULL
        sight = wished(self.state, self.volume, self.view, self.shown)
        if self.tile_size is None:
            return sight
        shape = self.volume.plane_shape(self.view.axis, self.view.level)
        return replace(sight, scale=sight.fitted(shape, self.tile_size))

    @property
    def _looked_at(self) -> tuple[Any, ...]:
        """What is to be encoded of every plane: how finely, and which tiles."""
        if self.volume is None or isinstance(self.view, Blocked) or self.tile_size is None:
            return (self.sight,)
        shape = self.volume.plane_shape(self.view.axis, self.view.level)
        return self.sight, self.shown.tiles(shape, self.tile_size, self.sight.scale)

    @property
    def shown_prediction(self) -> MaskPrediction | None:
        """The model's answer for the active object in the plane on screen."""
        return self.record.predictions.get(self.view) if isinstance(self.view, PlaneRef) else None

    @property
    def next_free_id(self) -> int:
        """A label that no object has, nor one that was painted and is gone."""
        used = (r.object_id for r in self.objects.values() if r.corrected or not r.is_empty)
        return 1 + max(self.largest_label, *used, 0)

    @property
    def is_busy(self) -> bool:
        """Whether anything runs, waits, or is on its way back."""
        return self.orders.is_busy

    # What the user does

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was done with this image yet."""
        return not len(self.history) and self.history.next_redo is None and not self.ledger

    @property
    def folder(self) -> Path | None:
        """Where this session is kept; None before an image is opened."""
        return self.journal.path.parent if self.journal.path is not None else None

    def use_volume(
        self, volume: VolumeLike, name: str = "image", *, flat: bool = False, image: ImageRef | None = None
    ) -> None:
        """Begin work on an image, with new labels, in a new session folder.

        Parameters
        ----------
        volume : VolumeLike
            The image.
        name : str
            For people.
        flat : bool
            Give the labels two dimensions if the image has one plane and one time point.
        image : ImageRef, optional
            How to find the image again; from the volume by default.
        """
        self.leave_volume()
        self.enter(volume)
        self.state.object_id = 1
        self.opening.begin(self._folder, image or ImageRef.of(volume, name), flat)
        self.changed.emit()

    def reopen(self, folder: str | Path, volume: VolumeLike) -> None:
        """Go on with an earlier session on this image; `reopened` follows, or `failed`.

        The session that was begun on it meanwhile is thrown away if nothing was done in it.
        """
        self.leave_volume(discard=self.is_untouched)
        self.enter(volume)
        self.orders.submit(ask.OpenSession(folder=Path(folder)))
        self.changed.emit()

    def find_sessions(self, root: str | Path, image: ImageRef) -> None:
        """Look for earlier work on an image; `sessions_found` follows."""
        self.orders.submit(ask.FindSessions(root=Path(root), image=image))

    def leave_volume(self, *, discard: bool = False) -> None:
        """Let go of the image; the session stays on disk, unless it is to be thrown away."""
        self.hand.finish()
        self.orders.leave_image()
        self._end_journal(discard)
        self.volume = self.labels = None
        self.view = NO_IMAGE
        self.ledger.clear()
        self.predictions.forget()
        self.writer.forget()
        self.objects.clear()
        self.encoded.clear()
        self.copied.clear()
        self.contrasts.clear()
        self.history.clear()
        self.changed.emit()

    def note_label(self, label: int) -> None:
        """Give this label, and smaller ones, to no new object."""
        if label > self.largest_label:
            self.largest_label = label
            self.journal.append("largest", label=label)
        if self.record.is_empty and self.state.object_id <= label:
            self.state.object_id = self.next_free_id

    def list_models(self) -> None:
        """Look up which models there are; `models` holds them then."""
        self.orders.submit(ask.ListModels())

    def load_model(self) -> None:
        """Load the model of the state."""
        self.model_error = None
        self.opening.note_model(weights={})
        self.orders.submit(ask.LoadModel(spec=self.state.model))

    def note_loaded(self, spec: ModelSpec) -> None:
        """Know which model was loaded, and that it is on disk now."""
        self._loaded = spec.name
        if any(model.name == spec.name and not model.on_disk for model in self.models):
            self.list_models()

    def use_loaded(self) -> None:
        """Go back to the model that was loaded last."""
        self.state.model = replace(self.state.model, name=self._loaded)

    def show(self, view: PlaneRef | Blocked, shown: Shown = WHOLE) -> None:
        """Say which plane is on screen, and how.

        What is seen of it is encoded first, the same of its neighbours when nothing else is to do.
        """
        before = self.view, self._looked_at
        self.view, self.shown = view, shown
        if (self.view, self._looked_at) == before:
            return
        if self._looked_at != before[1]:
            self.encoded.clear()
        self.predictions.encode_view()
        self.predictions.update()
        self.changed.emit()

    def set_marks(self, marks: Marks) -> None:
        """Take the marks of the active object as the user changed them."""
        record = self.record
        if marks.same_as(record.marks):
            return
        self.writer.change("prompt", [MarksChange(record.object_id, record.marks, marks)])
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
        self.predictions.choose(self.view, prediction.cycled(step))
        self.changed.emit()

    def commit(self) -> None:
        """Write the previewed masks of the active object into the labels; once they are there, if it is asked for them."""
        if self.labels is not None:
            self.predictions.keep(self.record)

    def erase_object(self) -> None:
        """Remove the active object's labels and marks, as one step."""
        self.editing.delete([self.state.object_id])

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
        self.propagate_objects([record.object_id], settings)

    def propagate_objects(
        self, object_ids: Iterable[int], settings: PropagationSettings | None = None
    ) -> None:
        """Carry several objects together, each from its own planes, as one step; others are not touched.

        It begins when what was asked for before has ended; where that was for the same objects, it is cancelled.
        """
        resolved = self.resolved
        if isinstance(resolved, Blocked) or self.labels is None:
            return
        if not resolved.reach:
            self.failed.emit(PromptError(EMPTY_RANGE.reason))
            return
        settings = propagation_settings(self.state, resolved.reach, settings)
        ids = tuple(object_ids)
        self.writer.when_written(lambda: self._carry(ids, resolved, settings), ids, (ask.Propagate,))

    def _carry(
        self, object_ids: Iterable[int], resolved: ResolvedSession, settings: PropagationSettings
    ) -> None:
        assert self.labels is not None
        records = [r for r in map(self.objects.get, object_ids) if r is not None]
        found = [self.editing.carried(record, resolved.reach, settings) for record in records]
        carried = [one for one in found if one is not None]
        if not carried:
            many = " or ".join(str(record.object_id) for record in records[:3])
            text = f"object {many} has no plane of its own in this range and at this time; prompt or paint it there"
            self.failed.emit(SessionError(text))
            return
        first = carried[0]
        request = ask.Propagate(
            labels=self.labels,
            object_id=first.object_id,
            plane=resolved.plane,
            seeds=first.seeds,
            settings=settings,
            policy=OverlapPolicy.BACKGROUND_ONLY,
            replaces=first.replaces,
            stale=first.stale,
            gaps=first.gaps,
            protected=first.protected,
            others=tuple(carried[1:]),
            starts=first.starts,
            sight=self.sight_of(one.object_id for one in carried),
        )
        for one in carried:
            self.objects[one.object_id].ends = ()
        self.writer.order("propagation", request, [self.editing.changes_of(one) for one in carried])
        self.changed.emit()

    def encode_all(self) -> None:
        """Encode every plane parallel to the one on screen, when nothing else is to do."""
        self.predictions.encode_neighbours(reach=None)

    def save(self, path: str | Path, **options: Any) -> None:
        """Write the labels to a file; `options` as `napari_sam.save_labels` takes them.

        The objects' names, classes, states and scores go along; an OME-Zarr keeps their colours, too.
        """
        self.export(path, ExportOptions(SaveOptions(**options)))

    def export(self, path: str | Path, options: ExportOptions) -> None:
        """Write labels, a table, meshes or annotations by the ending of the path; `saved` or `failed` follows.

        Objects go along with what is known about them; intensities are those of the image.
        """
        if self.labels is None:
            return
        known: dict[str, Any] = dict(saved_values(self.objects.values()))
        known |= self._places(self.labels)
        if Path(path).suffix.lower() in TIFF_SUFFIXES:
            del known["colors"]  # a TIFF has no place for them
        save = replace(options.save, **{k: v for k, v in known.items() if getattr(options.save, k) is None})
        options = replace(options, save=save, image=self.volume, image_level=self.labels.level)
        self.orders.submit(ask.SaveLabels(labels=self.labels, path=Path(path), options=options))

    def cancel(self) -> None:
        """Stop everything but the writing of labels; what was finished stays.

        After the download of a model the one before is used again.
        """
        self.orders.cancel_all()
        if self.progress.is_fetching:
            self.orders.cancel(lambda request: isinstance(request, ask.LoadModel))

    def undo(self) -> None:
        """Take the last step back; a running propagation is cancelled first."""
        self.writer.when_written(lambda: self.writer.replay(forward=False))

    def redo(self) -> None:
        """Make the step again that was taken back last."""
        self.writer.when_written(lambda: self.writer.replay(forward=True))

    def close(self, timeout: float | None = 5.0) -> bool:
        """End the inference thread after its present step; True once it has ended."""
        self.hand.finish()
        self._end_journal()
        self.closed = True
        self.state.events.disconnect(self._on_state)
        return self.orders.close(timeout)

    # Between the parts

    def note(self, event: str, **values: Any) -> None:
        """Note in the journal what has happened already; what does not fit is said, and noted once there is room."""
        try:
            self.journal.owe(event, **values)
        except SessionError as error:
            self.failed.emit(error)

    def object(self, object_id: int) -> ObjectRecord:
        """The object of this label, made if it is not there."""
        if object_id not in self.objects:
            self.objects[object_id] = ObjectRecord(object_id)
        return self.objects[object_id]

    def sight_of(self, object_ids: Iterable[int]) -> Sight:
        """How finely the model looks at objects: as it last did, at the one that it looked at most finely."""
        if self.sight.is_fixed:
            return self.sight
        scales = [self.object(i).scale or self.sight.scale for i in object_ids]
        return Sight(min(scales), is_fixed=False)

    def enter(self, volume: VolumeLike) -> None:
        """Take a volume, and make room for its previews."""
        self.volume = volume
        self.largest_label = max((r.object_id for r in self.objects.values() if r.written), default=0)
        level = min(self.state.level, volume.n_levels - 1)
        self.preview = PreviewArray((volume.n_time, *volume.shape_zyx(level)))

    def _places(self, labels: LabelArray) -> dict[str, Any]:
        """Where labels lie, if not in the planes that their array says."""
        if self.volume is None:
            return {}
        spacing = level_geometry(self.volume, labels.level)["spacing_zyx"]
        return own_axes(self.volume, labels.array.ndim, spacing)

    def _end_journal(self, discard: bool = False) -> None:
        """Let go of the journal once everything is in it."""
        journal, folder = self.journal, self.folder
        self.journal = Journal(None)
        if folder is not None:
            self.orders.submit(ask.EndSession(journal=journal, discard=discard))
            if not discard:
                self.orders.submit(ask.DescribeSession(folder=folder))

    def _on_state(self, info: EmissionInfo) -> None:
        name = info.signal.name
        if name == "object_id":
            self.predictions.show({*self.preview.planes, *self.record.pending})
            self.predictions.update()
            self.marks_changed.emit()
        elif name == "model":
            self._change_model()
        elif name == "seen_level":
            self._look_again()
        self.note("setting", name=name, value=encode(info.args[0]))
        self.changed.emit()

    def _change_model(self) -> None:
        self.cancel()
        self.load_model()
        self._look_again()

    def _look_again(self) -> None:
        """Embeddings and answers of another model or level are no use any more."""
        self.encoded.clear()
        for record in self.objects.values():
            record.asked.clear()
        self.predictions.encode_view()
        self.predictions.update()
        self.planes_encoded.emit()

    def _receive(self, event: Event) -> None:
        """Carry an event from the inference thread to the session's own."""
        if not self.closed:
            self._dispatch(lambda: self._answers.take(event))
