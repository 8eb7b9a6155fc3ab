"""What the inference thread does for each request. Everything here runs on that thread."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import singledispatchmethod
from typing import Any, Protocol, runtime_checkable

from napari_sam.core.models import ModelSpec
from napari_sam.core.planes import BoxYXYX, PlaneRef, Region
from napari_sam.core.prompts import PromptSet
from napari_sam.core.protocols import Predictor, VolumeLike
from napari_sam.core.results import EncodeEvent, LabelEdit, MaskPrediction, PropagationStep
from napari_sam.core.spaces import level_geometry
from napari_sam.errors import SessionError
from napari_sam.inference.sight import FULL, ScalingEncoder, Sight, answered, tile_size_of
from napari_sam.inference.tiles import size_of
from napari_sam.io.export import iter_export
from napari_sam.io.labels import create_labels
from napari_sam.propagation.consensus import agree
from napari_sam.propagation.engine import Seeds, Steps, propagate_objects
from napari_sam.session import recovery
from napari_sam.session import requests as ask
from napari_sam.session.codec import encode
from napari_sam.session.finding import find_sessions
from napari_sam.session.following import without_lines
from napari_sam.session.image import WatchedVolume, changed_planes
from napari_sam.session.journal import Journal
from napari_sam.session.labels import Kept, LabelArray, Replacement, apply_edit
from napari_sam.session.made import ContrastUsed
from napari_sam.session.many import Written, batched, removals, write_many
from napari_sam.session.marks import Marks, correcting, prompts_on_plane
from napari_sam.session.object_jobs import copy_labels, label_edits, largest_label, refined_edits
from napari_sam.session.objects import PlaneScore
from napari_sam.session.report import write_report
from napari_sam.session.restoring import restore_writes
from napari_sam.session.state import OverlapPolicy
from napari_sam.session.worker import Job


class CachingEncoder(ScalingEncoder, Protocol):
    """A plane encoder that can tell what it has."""

    def is_cached(self, plane: PlaneRef, part: BoxYXYX | None = None) -> bool:
        """Whether `embedding` would find this plane, or a part of it, in its store."""

    def encode_steps(self, plane: PlaneRef, part: BoxYXYX | None = None) -> Iterator[None]:
        """Bring a plane, or a part of it, into the store; others may have a turn after each step."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a user wants to know before choosing a model.

    Parameters
    ----------
    name : str
        As `ModelSpec` takes it.
    size : int
        Bytes of its file.
    licence : str
        Of its weights.
    on_disk : bool
        Whether nothing has to be downloaded.
    good_for : str
        One line.
    """

    name: str
    size: int = 0
    licence: str = ""
    on_disk: bool = True
    good_for: str = ""


class Backend(Protocol):
    """The door to the networks. Tests hand in fakes."""

    def models(self) -> tuple[ModelInfo, ...]:
        """List the models that can be named."""

    def load_model(self, spec: ModelSpec) -> Predictor:
        """Load weights onto a device."""

    def make_encoder(self, volume: VolumeLike, predictor: Predictor) -> CachingEncoder:
        """Give the encoder of a volume, over the cache."""


@runtime_checkable
class Identifies(Protocol):
    """What a backend has besides, when it can tell weights apart on other machines."""

    def identify(self, spec: ModelSpec, predictor: Predictor) -> dict[str, Any]:
        """Plain values that say which weights these are."""


@runtime_checkable
class Fetches(Protocol):
    """What a backend has besides, when models may have to be downloaded."""

    def fetch_model(self, spec: ModelSpec) -> Iterator[tuple[int, int]]:
        """Bring the weights onto this machine in steps: bytes so far and in all. Closing it gives up."""


class SamBackend:
    """The real networks and the cache on disk; torch is imported when it is first used."""

    def models(self) -> tuple[ModelInfo, ...]:
        """List the registry."""
        from napari_sam.inference.registry import MODELS, is_on_disk

        return tuple(
            ModelInfo(name, entry.size, entry.licence, is_on_disk(name), entry.good_for)
            for name, entry in MODELS.items()
        )

    def fetch_model(self, spec: ModelSpec) -> Iterator[tuple[int, int]]:
        """Download the weights of a registry model, if they are not there."""
        from napari_sam.inference.registry import fetch_model_steps

        return fetch_model_steps(spec.name)

    def load_model(self, spec: ModelSpec) -> Predictor:
        """Load a registry model or a checkpoint file."""
        from napari_sam.inference.predictor import load_spec

        return load_spec(spec)

    def make_encoder(self, volume: VolumeLike, predictor: Predictor) -> CachingEncoder:
        """Give a `CachedEncoder` over the user's cache."""
        from napari_sam.embedding import default_store
        from napari_sam.inference.encode import CachedEncoder

        return CachedEncoder(volume, predictor, default_store())

    def identify(self, spec: ModelSpec, predictor: Predictor) -> dict[str, Any]:
        """Architecture, precision and the hash of the weight file."""
        named = {name: str(getattr(predictor, name, "")) for name in ("architecture", "device", "dtype")}
        return {**named, "file_hash": weights_hash(spec.name)}


@dataclass(frozen=True, slots=True)
class Weights:
    """Which weights were loaded, as plain values, and the side of the tiles that they take."""

    values: dict[str, Any]
    tile_size: int


@dataclass(frozen=True, slots=True, eq=False)
class Computed:
    """What `ask.Compute` found, and who wants it."""

    then: Callable[[Any], None]
    value: Any


@dataclass(frozen=True, slots=True)
class ImageChanged:
    """Planes whose pixels are not what they were when they were used before."""

    planes: tuple[PlaneRef, ...]


class Engine:
    """Holds the model, the volume and its encoder, and turns requests into jobs.

    Parameters
    ----------
    backend : Backend
        Loads models and makes encoders.

    Attributes
    ----------
    changed : list of PlaneRef
        Planes whose pixels were not as before when they were read, and of which nobody was told yet.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._predictor: Predictor | None = None
        self._volume: VolumeLike | None = None
        self._encoder: CachingEncoder | None = None
        self._journal = Journal(None)
        self._contrasts: set[int] = set()
        self.changed: list[PlaneRef] = []

    @singledispatchmethod
    def job(self, request: ask.Request) -> Job:
        """Give the generator that carries out a request."""
        raise NotImplementedError(f"no job for {type(request).__name__}")

    @job.register
    def _(self, request: ask.ListModels) -> Job:
        yield self._backend.models()

    @job.register
    def _(self, request: ask.LoadModel) -> Job:
        self._predictor = self._encoder = None
        if isinstance(self._backend, Fetches):
            for done, total in self._backend.fetch_model(request.spec):
                yield ask.Fetched(done, total)
        predictor = self._predictor = self._backend.load_model(request.spec)
        more = (
            self._backend.identify(request.spec, predictor) if isinstance(self._backend, Identifies) else {}
        )
        values = {"model": request.spec.name, "encoder_digest": predictor.digest, **more}
        yield Weights(values, tile_size_of(predictor))

    @job.register
    def _(self, request: ask.UseVolume) -> Job:
        journal = self._journal = request.journal
        self._contrasts.clear()

        def note(plane: PlaneRef, digest: str) -> None:
            journal.append("pixels", plane=encode(plane), digest=digest)

        def complain(plane: PlaneRef, digest: str) -> None:
            note(plane, digest)
            self.changed.append(plane)

        self._volume, self._encoder = WatchedVolume(request.volume, request.known, note, complain), None
        yield request.volume

    @job.register
    def _(self, request: ask.CreateLabels) -> Job:
        yield LabelArray(_new_labels(request), request.level, request.journal)

    @job.register
    def _(self, request: ask.ScanLabels) -> Job:
        yield Computed(request.then, (yield from largest_label(request.source)))

    @job.register
    def _(self, request: ask.ImportLabels) -> Job:
        yield from copy_labels(request.labels, request.source, request.offset, request.generation)

    @job.register
    def _(self, request: ask.Predict) -> Job:
        earlier = request.earlier
        for marks, chosen in (*request.chain, (request.marks, request.chosen)):
            answer = self.answer(request.plane, marks, earlier, request.start, request.sight)
            earlier = choose(answer, chosen)
        yield from self._contrast(request.plane)
        yield earlier
        yield from self._complaints()

    @job.register
    def _(self, request: ask.EncodePlane) -> Job:
        yield from self._encode(request, request.plane, 1, 1)

    @job.register
    def _(self, request: ask.EncodePlanes) -> Job:
        for done, plane in enumerate(request.planes, 1):
            yield from self._encode(request, plane, done, len(request.planes))

    @job.register
    def _(self, request: ask.Propagate) -> Job:
        predictor, encoder = self._ready()
        yield from self._contrast(request.plane)
        seeds = _seeds(request, encoder.volume)
        sizes = [max(map(size_of, planes.values())) for planes in seeds.values()]
        encoder = request.sight.through(encoder, request.plane, sizes)
        visited = set()
        for step in _propagation(request, seeds, predictor, encoder):
            if step.is_seed or step.plane not in request.objects[step.object_id].protected:
                visited.add((step.object_id, step.plane))
                edit = LabelEdit(step.plane, step.region, step.object_id)
                yield _write(request.labels, edit, request, step, encoder.scale)
        for one in request.objects.values():
            for plane in one.stale:
                if (one.object_id, plane) not in visited:
                    yield _write(request.labels, _nothing(plane, one), request)
        yield from self._complaints()

    @job.register
    def _(self, request: ask.TakeLabels) -> Job:
        found = label_edits(request.labels, request.wanted, request.plane, request.skip)
        written = write_many(request.labels, map(Replacement, found), request.generation)
        yield from batched(request.labels, written)

    @job.register
    def _(self, request: ask.RemoveObjects) -> Job:
        edits = removals(request.labels.journal, request.places, request.painted, request.into)
        yield from batched(request.labels, write_many(request.labels, edits, request.generation))

    @job.register
    def _(self, request: ask.Refine) -> Job:
        predictor, encoder = self._ready()
        planes, settings = request.replaces, request.settings
        for first in {plane.time: plane for plane in planes}.values():
            yield from self._contrast(first)
        encoder = request.sight.over(encoder, planes)
        for edit, answer in refined_edits(encoder, predictor, planes, request.object_id, settings):
            quality = PropagationStep(
                edit.label,
                edit.plane,
                edit.region,
                answer.predicted_iou,
                planes[edit.plane].iou(edit.region),
                stability_score=answer.stability_score,
            )
            yield _write(request.labels, edit, request, quality)
        yield from self._complaints()

    @job.register
    def _(self, request: ask.AgreeAlongAxes) -> Job:
        predictor, encoder = self._ready()
        first, object_id = min(request.masks), request.object_id
        yield from self._contrast(first)
        masks = {plane.index: region for plane, region in request.masks.items() if region.area}
        fixed = [plane.index for plane in request.masks if plane not in request.replaces]
        encoder = request.sight.over(encoder, request.masks)
        steps = agree(encoder, predictor, {object_id: masks}, first, request.settings, {object_id: fixed})
        for step in steps:
            if step is None:
                yield None
            else:
                yield _write(request.labels, LabelEdit(step.plane, step.region, object_id), request, step)
        yield from self._complaints()

    @job.register
    def _(self, request: ask.Compute) -> Job:
        yield Computed(request.then, request.work())

    @job.register
    def _(self, request: ask.WriteLabels) -> Job:
        for edit in request.edits:
            yield _write(request.labels, edit, request)

    @job.register
    def _(self, request: ask.RestoreLabels) -> Job:
        restored = restore_writes(request.labels, request.writes, request.forward, request.generation)
        yield from batched(request.labels, restored)

    @job.register
    def _(self, request: ask.OpenSession) -> Job:
        yield recovery.recover(request.folder)

    @job.register
    def _(self, request: ask.FindSessions) -> Job:
        yield find_sessions(request.root, request.image)

    @job.register
    def _(self, request: ask.CheckImage) -> Job:
        changed = changed_planes(request.volume, request.known)
        if changed:
            yield ImageChanged(tuple(changed))

    @job.register
    def _(self, request: ask.EndSession) -> Job:
        yield None  # a job is cancelled before its first step only, and this one must not be
        path = request.journal.path
        request.journal.close()
        if path is not None and request.discard:
            shutil.rmtree(path.parent, ignore_errors=True)

    @job.register
    def _(self, request: ask.DescribeSession) -> Job:
        yield None
        write_report(request.folder)

    @job.register
    def _(self, request: ask.SaveLabels) -> Job:
        yield (yield from iter_export(request.labels.array, request.path, options=request.options))

    def _ready(self) -> tuple[Predictor, CachingEncoder]:
        if self._predictor is None:
            raise SessionError("no model is loaded; choose one, or look at the message that its loading gave")
        if self._volume is None:
            raise SessionError("no image is open; choose an image layer")
        if self._encoder is None:
            self._encoder = self._backend.make_encoder(self._volume, self._predictor)
        return self._predictor, self._encoder

    def answer(
        self,
        plane: PlaneRef,
        marks: Marks,
        earlier: MaskPrediction | None,
        start: Region | None = None,
        sight: Sight = FULL,
    ) -> MaskPrediction:
        """What the model says about marks in a plane.

        `earlier` is what it said before the last were added; `start` what was there before the first.
        """
        _, encoder = self._ready()
        prompts = prompts_on_plane(marks, plane, encoder.volume)
        if earlier is not None:
            prompts = prompts.with_logits(earlier.low_res_logits)
        elif start is not None:
            prompts = correcting(prompts, start)
        return answered(encoder, plane, prompts, sight)

    def _contrast(self, plane: PlaneRef) -> Iterator[ContrastUsed]:
        """Tell, and once keep in the journal, which grey values the model sees as black and white."""
        contrast_at = getattr(self._encoder, "contrast_at", None)
        if contrast_at is None:
            return
        time, contrast = plane.time, contrast_at(plane.time)
        if time not in self._contrasts:
            self._contrasts.add(time)
            self._journal.append("contrast", time_point=time, contrast=encode(contrast))
        yield ContrastUsed(time, contrast)

    def _complaints(self) -> Iterator[ImageChanged]:
        if self.changed:
            planes, self.changed = tuple(self.changed), []
            yield ImageChanged(planes)

    def _encode(
        self, request: ask.EncodePlane | ask.EncodePlanes, plane: PlaneRef, done: int, total: int
    ) -> Job:
        _, encoder = self._ready()
        encoder = request.sight.through(encoder, plane)
        cached = encoder.is_cached(plane, request.part)
        if not cached:
            yield from encoder.encode_steps(plane, request.part)
        yield EncodeEvent(plane, cached, done, total, encoder.scale)


def weights_hash(name: str) -> str:
    """Hash of a model's weight file: its publisher's, else SHA-256."""
    from napari_sam.inference.registry import ModelEntry, find_model, model_file

    found = find_model(name)
    if isinstance(found, ModelEntry) and found.hash:
        return found.hash
    path = model_file(name) if isinstance(found, ModelEntry) else found
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _write(
    labels: LabelArray,
    edit: LabelEdit,
    request: ask.WriteLabels | ask.Propagate | ask.Refine | ask.AgreeAlongAxes,
    step: PropagationStep | None = None,
    scale: float = 1,
) -> Written | None:
    """Write an edit; None where somebody painted the object since what found it was ordered."""
    order = request.objects[edit.label] if isinstance(request, ask.Propagate) else request
    replaced, protected = order.replaces.get(edit.plane), getattr(order, "protected", ())
    if protected:
        edit = LabelEdit(edit.plane, without_lines(edit.region, edit.plane, protected), edit.label)
        replaced = without_lines(replaced, edit.plane, protected) if replaced is not None else None
    is_found, score = not isinstance(request, ask.WriteLabels), None
    if isinstance(request, ask.WriteLabels):
        score = request.scores.get(edit.plane)
    elif step is not None:
        score = PlaneScore.of_step(step)
    known = encode(score) if edit.region.area else None
    kept = Kept(labels.journal, request.generation, edit.label, edit.region, known)
    policy = getattr(request, "policy", OverlapPolicy.BACKGROUND_ONLY)
    with labels.lock:
        if is_found and labels.is_painted(edit.label, edit.plane, request.generation):
            return None
        _, change = apply_edit(labels, edit, policy, replaced, kept)
    return Written(edit, kept, change, step, score, scale)


def choose(prediction: MaskPrediction, chosen: int | None) -> MaskPrediction:
    """The same answers, with this one chosen if there are so many; the model's choice for None."""
    if chosen is None or chosen >= len(prediction.candidates):
        return prediction
    return prediction.cycled(chosen - prediction.chosen)


def _seeds(request: ask.Propagate, volume: VolumeLike) -> dict[int, dict[int, PromptSet]]:
    return {
        object_id: {p.index: _seed(value, p, volume, one.starts.get(p)) for p, value in one.seeds.items()}
        for object_id, one in request.objects.items()
    }


def _propagation(
    request: ask.Propagate, seeds: Seeds, predictor: Predictor, encoder: CachingEncoder
) -> Steps:
    plane = request.plane
    return propagate_objects(
        encoder,
        predictor,
        seeds,
        axis=plane.axis,
        level=plane.level,
        time=plane.time,
        settings=request.settings,
        gaps={i: one.gaps for i, one in request.objects.items() if one.gaps is not None},
    )


def _seed(
    value: Region | Marks, plane: PlaneRef, volume: VolumeLike, start: Region | None = None
) -> PromptSet:
    if isinstance(value, Region):
        return PromptSet(mask=value.mask)
    prompts = prompts_on_plane(value, plane, volume)
    return prompts if start is None else correcting(prompts, start)


def _nothing(plane: PlaneRef, one: ask.Carried) -> LabelEdit:
    return LabelEdit(plane, Region.empty(one.replaces[plane].plane_shape), one.object_id)


def _new_labels(request: ask.CreateLabels) -> object:
    volume = request.volume
    shape: tuple[int, ...] = volume.shape_zyx(request.level)
    if request.flat and shape[0] == 1 and volume.n_time == 1:
        shape = shape[1:]
    elif volume.n_time > 1:
        shape = (volume.n_time, *shape)
    return create_labels(request.path, shape, **level_geometry(volume, request.level))
