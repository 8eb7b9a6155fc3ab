"""What a process does for a command: the same functions run here and on the machines of a cluster.

A `Job` says everything a process needs as plain data. A process opens the volume once a command, and loads the
model once, until its file is another; neither is ever sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from uuid import uuid4

from napari_sam.core.contrast import Contrast
from napari_sam.core.models import ModelSpec
from napari_sam.core.planes import PlaneRef
from napari_sam.core.prompts import PromptSet
from napari_sam.core.results import PropagationStep

if TYPE_CHECKING:
    from napari_sam.inference.encode import CachedEncoder
    from napari_sam.inference.predictor import SamPredictor
    from napari_sam.io.volume import Volume
    from napari_sam.propagation.settings import PropagationSettings

_loading = Lock()


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be worked on, with which model.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    volume, axes : str, str or None
        Absolute path of the volume, and its axes where the file does not say.
    contrast : Contrast
        Estimated once, so that all processes encode alike.
    cache : str, optional
        Folder that embeddings are kept in; the user's when left out.
    channel : int, optional
        Of the volume; all of them mixed when left out.
    strict : bool
        Whether chunks that are not stored are an error.
    must_keep : bool
        Whether embeddings that cannot be kept are an error.
    weights : (int, int), optional
        When the model's file was changed, in nanoseconds, and its bytes; None before it was fetched.
    command : str
        Differs from command to command, so that a worker which outlives one looks at the files anew.
    """

    spec: ModelSpec
    volume: str
    axes: str | None
    contrast: Contrast
    cache: str | None = None
    channel: int | None = None
    strict: bool = False
    must_keep: bool = False
    weights: tuple[int, int] | None = None
    command: str = field(default_factory=lambda: uuid4().hex)


def make_job(volume: Volume, axes: str | None, spec: ModelSpec, cache: Path | None, time: int = 0) -> Job:
    """Describe the work on an open volume. A checkpoint file becomes an absolute path."""
    from napari_sam.inference.contrast import estimate_contrast
    from napari_sam.inference.registry import model_file

    path = Path(spec.name).expanduser()
    if path.is_file():
        spec = replace(spec, name=str(path.absolute()))
    file = model_file(spec.name)
    weights = (file.stat().st_mtime_ns, file.stat().st_size) if file.is_file() else None
    folder = str(cache.expanduser().absolute()) if cache else None
    assert volume.source is not None
    return Job(spec, volume.source, axes, estimate_contrast(volume, time), folder, weights=weights)


def open_encoder(job: Job) -> CachedEncoder:
    """Model and volume of a job; the last ones are kept."""
    with _loading:
        return _open_encoder(job)


@lru_cache(maxsize=1)
def _open_encoder(job: Job) -> CachedEncoder:
    from napari_sam.cli.options import open_input, open_store
    from napari_sam.inference.encode import CachedEncoder

    store = open_store(Path(job.cache) if job.cache else None, job.must_keep)
    volume = open_input(Path(job.volume), job.axes, job.channel, job.strict)
    return CachedEncoder(volume, _load(job.spec, job.weights), store, job.contrast)


@lru_cache(maxsize=1)
def _load(spec: ModelSpec, weights: tuple[int, int] | None) -> SamPredictor:
    """Once for each version of the file."""
    from napari_sam.inference.predictor import load_spec

    return load_spec(spec, progress=True)


def embed_plane(job: Job, plane: PlaneRef) -> bool:
    """Put the embedding of one plane into the store; whether it had been there."""
    encoder = open_encoder(job)
    was_there = encoder.is_cached(plane)
    if not was_there:
        encoder.embedding(plane)
    return was_there


def segment_plane(job: Job, work: tuple[PlaneRef, Mapping[int, PromptSet]]) -> list[PropagationStep]:
    """Masks of all objects with prompts in one plane."""
    from napari_sam.inference.sight import answers

    plane, prompts = work
    found = answers(open_encoder(job), plane, list(prompts.values()))
    return [
        PropagationStep(object_id, plane, answer.region, answer.predicted_iou, 1.0, is_seed=True)
        for object_id, answer in zip(prompts, found, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Journey:
    """Objects to carry through planes that lie as `first` does."""

    first: PlaneRef
    seeds: Mapping[int, Mapping[int, PromptSet]]
    settings: PropagationSettings
    three_axes: bool = False


def travel(job: Job, journey: Journey) -> Iterator[PropagationStep]:
    """Carry the objects of a journey, all together."""
    from napari_sam.propagation import propagate_objects, propagate_three_axes

    encoder, first = open_encoder(job), journey.first
    run = propagate_three_axes if journey.three_axes else propagate_objects
    return run(
        encoder,
        encoder.predictor,
        journey.seeds,
        axis=first.axis,
        level=first.level,
        time=first.time,
        settings=journey.settings,
    )


def travelled(job: Job, journey: Journey) -> list[PropagationStep]:
    """All steps of a journey, to be sent back."""
    return list(travel(job, journey))
