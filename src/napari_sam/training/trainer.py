"""The training run: a generator of small events, resumable, that ends annealed within its budget.

>>> for event in train(load_recipe(), planes, Path("runs/default")):
...     show(event)
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from napari_sam.core.models import InputRecipe
from napari_sam.errors import TrainingError
from napari_sam.model.checkpoints import save_safetensors
from napari_sam.training.config import TrainConfig, learning_rate_share
from napari_sam.training.crops import CropSampler
from napari_sam.training.examples import Batch, make_batch
from napari_sam.training.filled import FILLED
from napari_sam.training.learner import FreshCrops, Learner
from napari_sam.training.losses import between
from napari_sam.training.packed import LabelledPlane
from napari_sam.training.pasted import PASTED
from napari_sam.training.state import TrainState, load_state, new_state, save_state, update_average
from napari_sam.training.steps import dense_step, device_of, interactive_step, random_window, seeded
from napari_sam.training.synthetic import SYNTHETIC
from napari_sam.training.validate import validate, validation_crops

DECODER_WARM_UP = 30
"""Steps over which the mask decoder's learning rate rises once it joins."""


@dataclass(frozen=True, slots=True)
class TrainEvent:
    """Progress of a run.

    Parameters
    ----------
    kind : str
        "step", "validation", "checkpoint" or "end".
    step : int
    fraction : float
        Share of the budget that is used up.
    seconds : float
        Training time so far, over all resumptions.
    values : dict of str to float
        Losses, IoU by round, or validation figures.
    """

    kind: str
    step: int
    fraction: float
    seconds: float
    values: dict[str, float]


def train(config: TrainConfig, planes: list[LabelledPlane], out_dir: Path) -> Iterator[TrainEvent]:
    """Train, or go on where `out_dir` stopped.

    Parameters
    ----------
    config : TrainConfig
        All settings.
    planes : list of LabelledPlane
        Training and held out planes.
    out_dir : Path
        Gets `state.pt`, `log.jsonl`, `best.safetensors` and `last.safetensors`.

    Yields
    ------
    TrainEvent
        Closing the generator stops the run; it continues from its last checkpoint.

    Raises
    ------
    TrainingError
        Nothing to learn from, or a state that does not fit.
    """
    if not any(not plane.held_out for plane in planes):
        raise TrainingError("there is no plane to train on; all are held out or there are none")
    out_dir.mkdir(parents=True, exist_ok=True)
    run = _HeldRun(config, planes, out_dir) if config.rehearsal else _Run(config, planes, out_dir)
    (out_dir / "config.json").write_text(config.to_json())
    with open(out_dir / "log.jsonl", "a") as log:
        for event in run.events():
            log.write(json.dumps(asdict(event)) + "\n")
            log.flush()
            yield event


class _Run:
    """One process's part of a run."""

    def __init__(self, config: TrainConfig, planes: list[LabelledPlane], out_dir: Path) -> None:
        self.config, self.out_dir = config, out_dir
        self.crops = validation_crops(planes, config)
        path = out_dir / "state.pt"
        self.state: TrainState = self._state(path if path.is_file() else None)
        self._draw_from([p for p in planes if not p.held_out])
        self._saved = self._validated = self.state.elapsed

    def _state(self, path: Path | None) -> TrainState:
        return load_state(path, self.config) if path else new_state(self.config)

    def _draw_from(self, planes: list[LabelledPlane]) -> None:
        on_gpu = device_of(self.state.sam).type == "cuda"
        self.batches = _Batches(CropSampler(planes, self.config), self.config, self.fraction_at, on_gpu)

    def fraction_at(self, step: int) -> float:
        """Share of the budget used up: by steps where they are limited, else by time until now."""
        if self.config.max_steps:
            return step / self.config.max_steps
        return self.state.elapsed / (self.config.hours * 3600)

    @property
    def fraction(self) -> float:
        """Share of the budget used up."""
        return self.fraction_at(self.state.step)

    def events(self) -> Iterator[TrainEvent]:
        """The whole run."""
        try:
            while self.fraction < 1:
                yield from self._one_step()
            yield from self._validate()
            self._save()
            yield self._event("end", {})
        finally:
            self._close()

    def _close(self) -> None:
        self.batches.close()

    def _one_step(self) -> Iterator[TrainEvent]:
        started = time.monotonic()
        values = self._learn()
        self.state.step += 1
        self.state.elapsed += time.monotonic() - started
        if self.state.step % self.config.log_every == 0:
            yield self._event("step", {name: float(value) for name, value in values.items()})
        if self._due(self._validated, self.config.validate_minutes):
            self._validated = self.state.elapsed
            yield from self._validate()
        if self._due(self._saved, self.config.checkpoint_minutes):
            self._save()
            yield self._event("checkpoint", {})

    def _due(self, since: float, minutes: float) -> bool:
        return self.state.elapsed - since >= minutes * 60

    def _learn(self) -> Mapping[str, Tensor | float]:
        """One step of the optimiser, after `accumulate` batches; values stay where they are until they are asked for."""
        state, config, fraction = self.state, self.config, self.fraction
        if fraction >= config.warm_start and state.interactive_since < 0:
            state.interactive_since = state.step
        rate = self._set_rates(fraction)
        state.sam.train()
        state.optimizer.zero_grad(set_to_none=True)
        for number in range(config.accumulate):
            loss, values = self._loss(state.step * config.accumulate + number, fraction)
            torch.autograd.backward(loss / config.accumulate)
        parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        state.optimizer.step()
        update_average(state.average, state.sam, config.ema, state.step)
        return values | {"rate": torch.tensor(rate), "norm": norm}

    def _loss(self, number: int, fraction: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Of one batch, and its parts."""
        state, config = self.state, self.config
        batch = self.batches.take(number)
        generator = seeded(state.sam, config.seed * 1_000_003 + number)
        window = random_window(state.sam, batch.images.shape[-1] // state.sam.config.stride, generator)
        embedding, dense = dense_step(state.sam, state.head, batch, window, config.precision)
        values, loss = {"dense": dense.detach()}, between(config.dense_weight, fraction) * dense
        if state.interactive_since >= 0:
            masks, ious = interactive_step(state.sam, embedding, batch, config, window, generator, fraction)
            values |= {"masks": masks.detach()} | {f"iou{i}": iou for i, iou in enumerate(ious)}
            loss = loss + masks
        return loss, values

    def _set_rates(self, fraction: float) -> float:
        rate = self.config.learning_rate * learning_rate_share(fraction, self.config)
        since = self.state.interactive_since
        joined = min(1.0, (self.state.step - since + 1) / DECODER_WARM_UP) if since >= 0 else 0.0
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate * (joined if group["part"] == "decoder" else 1.0)
        return rate

    def _validate(self) -> Iterator[TrainEvent]:
        if not self.crops or self.state.interactive_since < 0:
            return
        values = validate(self.state.average, self.crops, self.config)
        figure = (values["click1"] + values["click3"] + values["click5"] + values["box"]) / 4
        if figure > self.state.best:
            self.state.best = figure
            self._export("best", values)
        yield self._event("validation", values | {"figure": figure})

    def _save(self) -> None:
        self._saved = self.state.elapsed
        save_state(self.state, self.config, self.out_dir / "state.pt")
        self._export("last", {})

    def _export(self, name: str, values: dict[str, float]) -> None:
        facts = {"steps": str(self.state.step), "hours": f"{self.state.elapsed / 3600:.2f}"}
        facts |= {f"validation {key}": f"{value:.4f}" for key, value in values.items() if "/" not in key}
        save_safetensors(self.state.average, self.out_dir / f"{name}.safetensors", metadata=facts)

    def _event(self, kind: str, values: dict[str, float]) -> TrainEvent:
        return TrainEvent(kind, self.state.step, self.fraction, self.state.elapsed, values)


class _HeldRun(_Run):
    """A later stage on more kinds of crops, held to the answers of what it starts from on the others.

    The whole model learns as in fine-tuning, in steps that are small enough for a CPU. See `training/rehearsal.py`.
    """

    def _state(self, path: Path | None) -> TrainState:
        if not path and not self.config.start:
            raise TrainingError(
                f"rehearsal {self.config.rehearsal} holds a run to the answers of what it starts from, and it starts from "
                "nothing; give a weight file as start, or set rehearsal to 0"
            )
        fresh = new_state(replace(self.config, start="") if path else self.config)
        self.learner = Learner(fresh.sam, self.config, with_encoder=True)
        self.learner.encoder_share, self.learner.rehearsal_weight = 1.0, self.config.rehearsal
        fresh.average, fresh.optimizer = self.learner.average, self.learner.optimizer
        fresh.start = self.learner.start
        fresh.interactive_since = 0
        return load_state(path, self.config, fresh) if path else fresh

    def _draw_from(self, planes: list[LabelledPlane]) -> None:
        others = [plane for plane in planes if plane.set_name not in (PASTED, FILLED, SYNTHETIC)]
        self.own = self._source(planes, self.config)
        self.rehearsed = self._source(others, replace(self.config, set_weights={}))

    def _source(self, planes: list[LabelledPlane], config: TrainConfig) -> FreshCrops:
        cells = config.stages[0][1] // self.state.sam.config.stride
        return FreshCrops(CropSampler(planes, config), self.learner, InputRecipe.SAM, cells)

    def _learn(self) -> Mapping[str, Tensor | float]:
        size = (self.config.stage(self.fraction)[1], self.config.objects)
        return self.learner.learn(self.own, self.rehearsed, self.state.step, self.fraction, size)

    def _close(self) -> None:
        """Nothing is prepared ahead."""


class _Examples(Dataset[tuple[Tensor, ...]]):
    """Batches by number, side of the crops and their count."""

    def __init__(self, sampler: CropSampler, config: TrainConfig) -> None:
        self.sampler, self.config = sampler, config

    def __getitem__(self, key: tuple[int, int, int]) -> tuple[Tensor, ...]:
        batch = make_batch(self.sampler, self.config, *key)
        return tuple(torch.from_numpy(getattr(batch, entry.name)) for entry in fields(Batch))


class _Batches:
    """Batches one after the other, prepared ahead by processes where `workers` says so.

    Parameters
    ----------
    sampler : CropSampler
    config : TrainConfig
    fraction_at : callable
        Share of the budget that is used up at a step; by time, the present one, so that a stage which has just begun
        comes into force when what was prepared is used up.
    pinned : bool
        In memory that a GPU reads by itself.
    """

    def __init__(
        self,
        sampler: CropSampler,
        config: TrainConfig,
        fraction_at: Callable[[int], float],
        pinned: bool,
    ) -> None:
        self.examples, self.config, self.fraction_at = _Examples(sampler, config), config, fraction_at
        self.pinned = pinned
        self.ahead: Iterator[tuple[Tensor, ...]] | None = None

    def take(self, number: int) -> Batch:
        """The next one, which must be `number`."""
        if not self.config.workers:
            return _as_batch(self.examples[self._key(number)])
        if self.ahead is None:
            loader = DataLoader(
                self.examples,
                batch_size=None,
                sampler=cast(Any, map(self._key, itertools.count(number))),
                num_workers=self.config.processes,
                multiprocessing_context="fork",  # the planes are shared, not copied
                pin_memory=self.pinned,
            )
            self.ahead = iter(loader)
        return _as_batch(next(self.ahead))

    def _key(self, number: int) -> tuple[int, int, int]:
        return number, *self.config.stage(self.fraction_at(number // self.config.accumulate))

    def close(self) -> None:
        """End the processes."""
        self.ahead = None


def _as_batch(arrays: Sequence[Tensor]) -> Batch:
    return Batch(*(array.numpy() for array in arrays))
