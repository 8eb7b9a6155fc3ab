"""What the inference thread does for each request. Everything here runs on that thread."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatchmethod
from typing import Protocol

import numpy as np

from napari_sam.core.models import ModelSpec
from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.prompts import PromptSet
from napari_sam.core.protocols import PlaneEncoder, Predictor, VolumeLike
from napari_sam.core.results import EncodeEvent, LabelEdit, PropagationStep
from napari_sam.errors import SessionError
from napari_sam.io.labels import create_labels
from napari_sam.io.save import SaveOptions, iter_save_labels
from napari_sam.propagation.engine import Steps, propagate_objects
from napari_sam.session import requests as ask
from napari_sam.session.labels import LabelArray, LabelChange, LabelDelta, apply_edit, restore
from napari_sam.session.marks import Marks, prompts_on_plane
from napari_sam.session.worker import Job


class CachingEncoder(PlaneEncoder, Protocol):
    """A plane encoder that can tell what it has."""

    def is_cached(self, plane: PlaneRef) -> bool:
        """Whether `embedding` would find this plane in its store."""


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


class SamBackend:
    """The real networks and the cache on disk; torch is imported when it is first used."""

    def models(self) -> tuple[ModelInfo, ...]:
        """List the registry."""
        from napari_sam.inference.registry import MODELS, is_on_disk

        return tuple(
            ModelInfo(name, entry.size, entry.licence, is_on_disk(name), entry.good_for)
            for name, entry in MODELS.items()
        )

    def load_model(self, spec: ModelSpec) -> Predictor:
        """Load a registry model or a checkpoint file."""
        from napari_sam.inference.predictor import load_spec

        return load_spec(spec)

    def make_encoder(self, volume: VolumeLike, predictor: Predictor) -> CachingEncoder:
        """Give a `CachedEncoder` over the user's cache."""
        from napari_sam.embedding import default_store
        from napari_sam.inference.encode import CachedEncoder

        return CachedEncoder(volume, predictor, default_store())


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """One edit was written."""

    edit: LabelEdit
    delta: LabelDelta
    change: LabelChange
    step: PropagationStep | None = None


class Engine:
    """Holds the model, the volume and its encoder, and turns requests into jobs.

    Parameters
    ----------
    backend : Backend
        Loads models and makes encoders.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._predictor: Predictor | None = None
        self._volume: VolumeLike | None = None
        self._encoder: CachingEncoder | None = None

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
        self._predictor = self._backend.load_model(request.spec)
        yield self._predictor

    @job.register
    def _(self, request: ask.UseVolume) -> Job:
        self._volume, self._encoder = request.volume, None
        yield request.volume

    @job.register
    def _(self, request: ask.CreateLabels) -> Job:
        yield LabelArray(_new_labels(request), request.level)

    @job.register
    def _(self, request: ask.UseLabels) -> Job:
        yield from _largest_label(request.labels)

    @job.register
    def _(self, request: ask.Predict) -> Job:
        predictor, encoder = self._ready()
        prompts = prompts_on_plane(request.marks, request.plane, encoder.volume)
        if request.earlier is not None:
            prompts = prompts.with_logits(request.earlier.low_res_logits)
        embedding = encoder.embedding(request.plane, [prompts])
        yield predictor.predict(embedding, prompts)

    @job.register
    def _(self, request: ask.EncodePlane) -> Job:
        yield self._encode(request.plane, 1, 1)

    @job.register
    def _(self, request: ask.EncodePlanes) -> Job:
        for done, plane in enumerate(request.planes, 1):
            yield self._encode(plane, done, len(request.planes))

    @job.register
    def _(self, request: ask.Propagate) -> Job:
        predictor, encoder = self._ready()
        visited = set()
        for step in _propagation(request, predictor, encoder):
            visited.add(step.plane)
            yield _write(request.labels, LabelEdit(step.plane, step.region, step.object_id), request, step)
        for plane in request.stale:
            if plane not in visited:
                yield _write(request.labels, _nothing(plane, request), request)

    @job.register
    def _(self, request: ask.WriteLabels) -> Job:
        for edit in request.edits:
            yield _write(request.labels, edit, request)

    @job.register
    def _(self, request: ask.RestoreLabels) -> Job:
        deltas = request.deltas if request.forward else reversed(request.deltas)
        for delta in deltas:
            yield restore(request.labels, delta, forward=request.forward)

    @job.register
    def _(self, request: ask.SaveLabels) -> Job:
        options = SaveOptions(**request.options)
        yield (yield from iter_save_labels(request.labels.array, request.path, options=options))

    def _ready(self) -> tuple[Predictor, CachingEncoder]:
        if self._predictor is None:
            raise SessionError("no model is loaded; choose one, or look at the message that its loading gave")
        if self._volume is None:
            raise SessionError("no image is open; choose an image layer")
        if self._encoder is None:
            self._encoder = self._backend.make_encoder(self._volume, self._predictor)
        return self._predictor, self._encoder

    def _encode(self, plane: PlaneRef, done: int, total: int) -> EncodeEvent:
        _, encoder = self._ready()
        cached = encoder.is_cached(plane)
        if not cached:
            encoder.embedding(plane)
        return EncodeEvent(plane, cached, done, total)


def _write(
    labels: LabelArray,
    edit: LabelEdit,
    request: ask.WriteLabels | ask.Propagate,
    step: PropagationStep | None = None,
) -> Written:
    replaced = request.replaces.get(edit.plane)
    delta, change = apply_edit(labels, edit, request.policy, replaced)
    return Written(edit, delta, change, step)


def _propagation(request: ask.Propagate, predictor: Predictor, encoder: CachingEncoder) -> Steps:
    plane = request.plane
    seeds = {p.index: _seed(value, p, encoder.volume) for p, value in request.seeds.items()}
    return propagate_objects(
        encoder,
        predictor,
        {request.object_id: seeds},
        axis=plane.axis,
        level=plane.level,
        time=plane.time,
        settings=request.settings,
    )


def _seed(value: Region | Marks, plane: PlaneRef, volume: VolumeLike) -> PromptSet:
    return PromptSet(mask=value.mask) if isinstance(value, Region) else prompts_on_plane(value, plane, volume)


def _nothing(plane: PlaneRef, request: ask.Propagate) -> LabelEdit:
    shape = request.replaces[plane].plane_shape
    return LabelEdit(plane, Region(shape, (0, 0, 0, 0), np.zeros((0, 0), bool)), request.object_id)


def _new_labels(request: ask.CreateLabels) -> object:
    volume = request.volume
    shape: tuple[int, ...] = volume.shape_zyx(request.level)
    if request.flat and shape[0] == 1 and volume.n_time == 1:
        shape = shape[1:]
    elif volume.n_time > 1:
        shape = (volume.n_time, *shape)
    factors = np.divide(volume.shape_zyx(0), volume.shape_zyx(request.level))
    return create_labels(
        request.path,
        shape,
        spacing_zyx=tuple((np.array(volume.spacing_zyx) * factors).tolist()),
        translate_zyx=volume.translate_zyx,
        unit=volume.unit,
    )


def _largest_label(labels: LabelArray) -> Job:
    """Yield the largest label so far after every plane, so that a scan of a large array can be cancelled."""
    largest = 0
    array = labels.array
    for start in range(array.shape[0]):
        largest = max(largest, int(np.max(array[start], initial=0)))
        yield largest
