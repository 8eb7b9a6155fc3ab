"""Learning from the user's own labels: any model of the registry, a little better at one kind of image.

* **decoder**: prompt encoder and mask decoder learn, on embeddings that are computed once. Quick, needs
  little memory, and embeddings in the cache stay valid, because the image encoder does not change.
* **all**: the image encoder learns too, at a lower rate.
* **lora**: the image encoder learns through low-rank adapters, which are merged into it at the end.

A part of the labels is kept out. The weights that are kept are the ones that did best on it: of their
exponential average, measured every eighth of the time. So that what the model could do before is not forgotten,
the last part of the mask decoder stays, and on crops of other kinds, real and generated, the model is held to the answers
that it gave at the start (`training/rehearsal.py`)::

    for event in finetune("labelled", "default", name="neurites"):
        print(event.kind, event.fraction, event.values)
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import torch

from napari_sam.errors import TrainingError
from napari_sam.inference.device import choose_runtime, prepare_cpu
from napari_sam.training.config import TrainConfig
from napari_sam.training.crops import CropSampler
from napari_sam.training.learner import EncodedViews, FreshCrops, Learner, Source, Validation
from napari_sam.training.own import OwnData, hold_out, object_numbers, own_planes
from napari_sam.training.packed import LabelledPlane
from napari_sam.training.provenance import Parent, Target, load_parent
from napari_sam.training.rehearsal import rehearsed_planes
from napari_sam.training.steps import device_of
from napari_sam.training.views import validation_views, window_cells

VALIDATIONS = 8
ENCODING_SHARE = 0.2
"""Of the time, at most, for encoding views ahead."""


class Mode(StrEnum):
    """What learns."""

    DECODER = "decoder"
    ALL = "all"
    LORA = "lora"


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """How it is learned.

    Parameters
    ----------
    mode : Mode or str
        What learns.
    minutes : float
        Time to spend, with encoding and validation.
    max_steps : int
        Ends it after so many steps instead, which repeats exactly; 0 for none.
    seed : int
        Everything random follows from it.
    crops, objects : int
        Of each step, beside the crops of rehearsal; fewer when memory runs out.
    views : int
        Most encoded crops of the user's planes ("decoder"); fewer where a fifth of the time or `memory` is used
        up before, or where there are not as many in all steps.
    memory : int
        Most bytes of encoded crops.
    learning_rate : float
        Highest rate of prompt encoder and mask decoder.
    encoder_share : float
        Rate of the image encoder as a share of it.
    average : float
        Decay of the exponential average.
    held_out : float
        Share of the planes, or of the objects of a single plane, that is kept for validation.
    rehearsal : float
        Weight of the change of answers on crops of other kinds (`training/rehearsal.py`), half as many as the user's,
        so that these are not forgotten; 0 for none.
    rank : int
        Of adapters.
    device : str
        "auto" (a CUDA GPU if there is one, else the CPU), "cpu", "cuda", "cuda:1", "mps".
    """

    mode: Mode | str = Mode.DECODER
    minutes: float = 10.0
    max_steps: int = 0
    seed: int = 0
    crops: int = 4
    objects: int = 4
    views: int = 256
    memory: int = 1 << 30
    learning_rate: float = 7e-4
    encoder_share: float = 0.5
    average: float = 0.98
    held_out: float = 0.2
    rehearsal: float = 5.0
    rank: int = 8
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.mode not in set(Mode):
            raise TrainingError(f"mode {self.mode!r} is none of {[str(mode) for mode in Mode]}")
        object.__setattr__(self, "mode", Mode(self.mode))
        if self.minutes <= 0 or self.max_steps < 0:
            raise TrainingError(f"minutes must be above 0 and max_steps not negative, got {self.minutes}")
        if min(self.crops, self.objects, self.views, self.rank) < 1 or not 0 < self.held_out < 1:
            raise TrainingError("crops, objects, views and rank must be at least 1, held_out between 0 and 1")
        if self.rehearsal < 0:
            raise TrainingError(f"rehearsal is a weight, 0 or more, got {self.rehearsal}")

    def recipe(self, planes_input: int) -> TrainConfig:
        """The settings of what is shared with training from nothing.

        Mostly single clicks and few corrections: a first click is what a user's images and the model's differ in most. Planes are
        shown as inference shows them, for there are few steps, and what is learned is to be of use there. The labels say what
        is meant, so all answers to a click learn it, and not only the one that is nearest already: it often is not the one that
        the user gets.
        """
        return TrainConfig(
            seed=self.seed,
            objects=self.objects,
            inference_scale=1.0,
            mild=True,
            model_input=planes_input,
            rounds=(1, 1, 2),
            box_share=0.2,
            mask_share=0.1,
            others_share=0.5,
            learning_rate=self.learning_rate,
            warm_up=0.05,
            ema=self.average,
        )


@dataclass(frozen=True, slots=True)
class FinetuneEvent:
    """Progress.

    Parameters
    ----------
    kind : str
        "encoding", "step", "validation", "saved" or "end".
    step : int
    fraction : float
        Share of the time, or of the steps, that is used up.
    seconds : float
    values : dict of str to float
        Loss and IoU by round of a step; `click1` to `click5`, `box` and their `figure` of a validation.
    path : Path, optional
        The file, once there is one.
    """

    kind: str
    step: int
    fraction: float
    seconds: float
    values: dict[str, float] = field(default_factory=dict)
    path: Path | None = None


def finetune(
    data: OwnData,
    model: str | Path = "default",
    *,
    name: str = "",
    output: str | Path | None = None,
    planes: slice | None = None,
    settings: FinetuneSettings | None = None,
    overwrite: bool = False,
) -> Generator[FinetuneEvent, None, None]:
    """Go on learning from labelled images, and keep the result as a model with a name.

    Parameters
    ----------
    data : path, or sequence of (image, labels)
        See `own_planes`.
    model : str or Path
        Name or checkpoint file to start from.
    name : str
        Of the new model; made of the names of model and data when left out.
    output : path, optional
        Write a copy of the file here as well.
    planes : slice, optional
        Which planes of volumes are labelled; all that hold a label when left out.
    settings : FinetuneSettings, optional
        See there.
    overwrite : bool
        Whether a model of yours with this name may be replaced.

    Yields
    ------
    FinetuneEvent
        Closing the generator stops it; the best weights so far are kept.

    Raises
    ------
    TrainingError
        There is nothing to learn from, the name cannot be used, or nothing better was found (at the end).
    ModelNotFoundError, DownloadError, CheckpointError, DependencyError
        The model cannot be had or used, or the package for adapters is missing.
    DeviceError
        The device is not there.
    DeviceMemoryError
        There is not enough memory even for one object at a time.
    """
    settings = settings or FinetuneSettings()
    device = learning_device(settings.device)
    parent = load_parent(model)
    where = Path(data).name if isinstance(data, (str, Path)) else "layers"
    target = Target.choose(name, parent, where, output, overwrite)
    found = own_planes(data, planes, parent.sam.config.connected)
    learn_from, kept_out = hold_out(found, settings.held_out, settings.seed)
    prepare_cpu()
    parent.sam.to(device)
    return _Run(parent, target, settings, learn_from, kept_out).events()


class _Run:
    """One run from start to end."""

    def __init__(
        self,
        parent: Parent,
        target: Target,
        settings: FinetuneSettings,
        learn_from: list[LabelledPlane],
        kept_out: list[LabelledPlane],
    ) -> None:
        config = parent.sam.config
        self.settings, self.parent, self.target = settings, parent, target
        recipe = settings.recipe(config.image_size)
        self.learner = Learner(parent.sam, recipe, settings.mode != Mode.DECODER, _rank(settings))
        self.learner.encoder_share = settings.encoder_share
        self.learner.rehearsal_weight = settings.rehearsal
        self.own = self._source(learn_from, recipe)
        self.rehearsed: Source | None = None
        if settings.rehearsal:
            self.rehearsed = self._source(rehearsed_planes(settings.seed), recipe)
        seen = validation_views(kept_out, config, parent.recipe)
        self.validation = Validation(seen, keep=settings.mode is Mode.DECODER) if seen else None
        self.facts = {
            "planes": len(learn_from),
            "objects": sum(len(object_numbers(plane.labels)) for plane in learn_from),
            "planes_kept_out": len(kept_out),
            "device": str(device_of(parent.sam)),
        }
        self.started = time.monotonic()
        self.step, self.best = 0, float("-inf")
        self.first: dict[str, float] = {}

    def _source(self, planes: list[LabelledPlane], recipe: TrainConfig) -> Source:
        sampler = CropSampler(planes, recipe)
        if self.settings.mode is Mode.DECODER:
            return EncodedViews(sampler, self.learner, self.parent.recipe, self.settings.memory // 2)
        return FreshCrops(sampler, self.learner, self.parent.recipe, window_cells(self.parent.sam.config))

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    @property
    def fraction(self) -> float:
        """Share that is used up: of the steps where they are limited, else of the time."""
        if self.settings.max_steps:
            return min(1.0, self.step / self.settings.max_steps)
        return min(1.0, self.seconds / (60 * self.settings.minutes))

    def events(self) -> Generator[FinetuneEvent, None, None]:
        """The whole run."""
        self.started = time.monotonic()
        try:
            yield from self._validate()
            yield from self._encode()
            yield from self._learn()
        except (GeneratorExit, KeyboardInterrupt):
            if self.validation is None and self.step:
                self._save({})
            raise
        if not self.target.written:
            raise TrainingError(
                f"nothing better than {self.parent.name!r} was found in {self.step} steps, so nothing was saved; "
                "give more labels or more minutes"
            )
        yield self._event("end", {"start": self.first.get("figure", 0.0), "best": max(self.best, 0.0)})

    def _encode(self) -> Iterator[FinetuneEvent]:
        most = self.settings.views
        if self.settings.max_steps:
            most = min(most, self.settings.crops * self.settings.max_steps)
        own, rehearsed = self.own, self.rehearsed
        while isinstance(own, EncodedViews) and len(own) < most:
            late = not self.settings.max_steps and self.fraction > ENCODING_SHARE
            if len(own) and (late or own.is_full):
                break
            own.add()
            if (
                isinstance(rehearsed, EncodedViews)
                and 2 * len(rehearsed) < len(own)
                and not rehearsed.is_full
            ):
                rehearsed.add()
            yield self._event("encoding", {"views": float(len(own))})

    def _learn(self) -> Iterator[FinetuneEvent]:
        due, encoded = 1, self.fraction
        while (fraction := self.fraction) < 1:
            size = (self.settings.crops, self.settings.objects)
            learned = (fraction - encoded) / (1 - encoded)  # the rate has to rise first
            values = self.learner.learn(self.own, self.rehearsed, self.step, learned, size)
            self.step += 1
            yield self._event("step", values)
            if self.fraction * VALIDATIONS >= due:
                due = int(self.fraction * VALIDATIONS) + 1
                yield from self._validate()
        if self.validation is None:
            yield self._save({})

    def _validate(self) -> Iterator[FinetuneEvent]:
        if self.validation is None:
            return
        values = self.validation.measure(self.learner.average)
        figure = values["figure"]
        better, is_first = figure > self.best, not self.first
        self.first = self.first or values
        self.best = max(figure, self.best)
        yield self._event("validation", values)
        if better and not is_first:
            yield self._save(values)

    def _save(self, values: dict[str, float]) -> FinetuneEvent:
        figures = {
            "steps": self.step,
            "minutes": round(self.seconds / 60, 2),
            "start": self.first,
            "best": values,
        }
        keep_exact = self.settings.mode is Mode.DECODER
        self.target.write(self.learner.plain(), self.parent, self.settings, self.facts | figures, keep_exact)
        return self._event("saved", {"figure": values.get("figure", 0.0)})

    def _event(self, kind: str, values: dict[str, float]) -> FinetuneEvent:
        path = self.target.path if self.target.written else None
        return FinetuneEvent(kind, self.step, self.fraction, self.seconds, values, path)


def learning_device(name: str) -> torch.device:
    """Where it is learned; "auto" leaves a Mac's GPU out, on which learning was never measured."""
    found = choose_runtime(name, "float32").device
    return torch.device("cpu") if name == "auto" and found.type == "mps" else found


def _rank(settings: FinetuneSettings) -> int:
    """Of adapters; 0 for none."""
    return settings.rank if settings.mode is Mode.LORA else 0


def describe(event: FinetuneEvent) -> str:
    """One line for people."""
    values = " ".join(f"{name} {value:.3f}" for name, value in event.values.items())
    return f"{event.kind} {event.step} {event.fraction:.0%} {event.seconds:.0f}s {values}".rstrip()
