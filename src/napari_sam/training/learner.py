"""The parts of a fine-tuning run: what learns, what it learns from, and how it is judged."""

from __future__ import annotations

import copy
import warnings
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from napari_sam.core.arrays import Array
from napari_sam.core.models import InputRecipe
from napari_sam.errors import DeviceMemoryError, FallbackWarning
from napari_sam.inference.fallback import is_out_of_memory
from napari_sam.model.sam import Sam
from napari_sam.training.adapters import adapted, merged
from napari_sam.training.clicks import tight_boxes
from napari_sam.training.config import TrainConfig, learning_rate_share
from napari_sam.training.crops import CropSampler
from napari_sam.training.examples import Batch
from napari_sam.training.losses import measured_iou
from napari_sam.training.rehearsal import rehearsal_loss
from napari_sam.training.state import update_average
from napari_sam.training.steps import Window, device_of, interactive_step, random_window, seeded
from napari_sam.training.validate import click_curve
from napari_sam.training.views import (
    VALIDATION_OBJECTS,
    ValidationView,
    View,
    cut,
    draw_view,
    encode,
    half_cell_units,
    has_objects,
    make_batch,
    object_window,
    window_cells,
)

Size = tuple[int, int]
"""Crops of a step, and objects of each."""


class Source(Protocol):
    """Where the batch of a step comes from."""

    def take(self, step: int, size: Size) -> tuple[Tensor, Batch, Window]:
        """What `embed` takes of B crops (on the CPU), their objects, and where in the full input they lie."""

    def embed(self, sam: Sam, inputs: Tensor, window: Window) -> Tensor:
        """(B, C, h, w) embedding."""


class Learner:
    """A model, what it was at the start, its exponential average and the optimiser.

    The last part of the mask decoder (upscaling and hypernetworks) stays: when it learned too, most of what was
    forgotten of other images, and little of what was gained, was in it.

    Parameters
    ----------
    sam : Sam
        Changed in place.
    config : TrainConfig
        Rates and weights of the losses.
    with_encoder : bool
        Whether the image encoder learns.
    rank : int
        Of its adapters; 0 where all of its weights learn.
    """

    encoder_share = 0.2
    rehearsal_weight = 3.0

    def __init__(self, sam: Sam, config: TrainConfig, with_encoder: bool, rank: int = 0) -> None:
        self.sam, self.config = half_cell_units(sam.eval().requires_grad_(False)), config
        self.start = _copied(sam, with_encoder)
        if rank:
            sam.image_encoder = adapted(sam.image_encoder, rank, config.seed)
        self.is_adapted = rank > 0
        self.average = _copied(sam, with_encoder)
        parts = [sam.prompt_encoder, sam.mask_decoder]
        for part in parts + ([sam.image_encoder] if with_encoder and not rank else []):
            part.requires_grad_(True)
        for part in (sam.mask_decoder.output_upscaling, sam.mask_decoder.output_hypernetworks_mlps):
            part.requires_grad_(False)
        self._averaged = ["prompt_encoder", "mask_decoder"] + (["image_encoder"] if with_encoder else [])
        self.optimizer = torch.optim.AdamW(self._groups(), lr=config.learning_rate, weight_decay=0.0)
        self._shrunk: Size = (1 << 16, 1 << 16)

    def _groups(self) -> list[dict[str, Any]]:
        encoder = [p for p in self.sam.image_encoder.parameters() if p.requires_grad]
        members = {id(p) for p in encoder}
        rest = [p for p in self.sam.parameters() if p.requires_grad and id(p) not in members]
        groups: list[dict[str, Any]] = [{"params": rest, "is_encoder": False}]
        return groups + ([{"params": encoder, "is_encoder": True}] if encoder else [])

    def learn(
        self, own: Source, rehearsed: Source | None, step: int, fraction: float, size: Size
    ) -> dict[str, float]:
        """One step, with fewer crops and objects from here on where memory runs out.

        Parameters
        ----------
        own, rehearsed : Source
            Crops to learn from, and half as many on which its answers should stay.
        step : int
            What is random follows from it.
        fraction : float
            Share of the run that is done.
        size : (int, int)
            Crops of `own`, and objects of each.

        Raises
        ------
        DeviceMemoryError
            There is not enough even for one object of one crop.
        """
        while True:
            now = (min(size[0], self._shrunk[0]), min(size[1], self._shrunk[1]))
            try:
                return self._learn(own, rehearsed, step, fraction, now)
            except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
                if not is_out_of_memory(error):
                    raise
                self.optimizer.zero_grad(set_to_none=True)
                self._shrunk = smaller(now, error)

    def _learn(
        self, own: Source, rehearsed: Source | None, step: int, fraction: float, size: Size
    ) -> dict[str, float]:
        config = self.config
        rate = config.learning_rate * learning_rate_share(fraction, config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * (self.encoder_share if group["is_encoder"] else 1.0)
        generator = seeded(self.sam, config.seed * 1_000_003 + step)
        inputs, batch, window = self._take(own, step, size)
        embedding = own.embed(self.sam, inputs, window)
        loss, ious = interactive_step(self.sam, embedding, batch, config, window, generator)
        values = {"loss": float(loss.detach()), "rate": rate}
        if rehearsed is not None:
            change = self._change(rehearsed, step, ((size[0] + 1) // 2, size[1]), generator)
            values["rehearsal"] = float(change.detach())
            loss = loss + self.rehearsal_weight * change
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm))
        self.optimizer.step()
        for name in self._averaged:
            update_average(getattr(self.average, name), getattr(self.sam, name), config.ema, step)
        return values | {"norm": norm} | {f"iou{i + 1}": float(iou) for i, iou in enumerate(ious)}

    def _take(self, source: Source, step: int, size: Size) -> tuple[Tensor, Batch, Window]:
        inputs, batch, window = source.take(step, size)
        return inputs.to(device_of(self.sam)), batch, window

    def _change(self, source: Source, step: int, size: Size, generator: torch.Generator) -> Tensor:
        """How far the answers on some crops are from those at the start."""
        inputs, batch, window = self._take(source, step, size)
        with torch.no_grad():
            before = source.embed(self.start, inputs, window)
        embeddings = source.embed(self.sam, inputs, window), before
        return rehearsal_loss((self.sam, self.start), embeddings, batch, self.config, window, generator)

    def plain(self) -> Sam:
        """The average as a model to save, with adapters merged."""
        encoder: nn.Module = self.average.image_encoder
        if self.is_adapted:
            encoder = merged(encoder)
        return Sam(self.sam.config, encoder, self.average.prompt_encoder, self.average.mask_decoder)


def _copied(sam: Sam, with_encoder: bool) -> Sam:
    """A frozen copy; of the image encoder only where it will change."""
    encoder = copy.deepcopy(sam.image_encoder) if with_encoder else sam.image_encoder
    parts = copy.deepcopy(sam.prompt_encoder), copy.deepcopy(sam.mask_decoder)
    return Sam(sam.config, encoder, *parts).eval().requires_grad_(False)


def smaller(size: Size, error: BaseException) -> Size:
    """Half the crops, or, of one crop, half the objects."""
    crops, objects = size
    if crops * objects == 1:
        raise DeviceMemoryError(
            f"out of memory with one object of one crop: {error}. Close other programs, use a smaller model, "
            'mode "decoder", or device "cpu"'
        ) from error
    size = (crops // 2, objects) if crops > 1 else (1, objects // 2)
    message = f"out of memory: looking at {size[0]} crops of {size[1]} objects at a time from now on"
    warnings.warn(message, FallbackWarning, stacklevel=4)
    return size


class EncodedViews:
    """Crops that are encoded once and kept, at half precision, in bounded memory.

    Parameters
    ----------
    sampler : CropSampler
        Draws them.
    learner : Learner
        Whose image encoder does not learn.
    recipe : InputRecipe
        How pixels are prepared.
    max_bytes : int
        Most memory.
    """

    def __init__(self, sampler: CropSampler, learner: Learner, recipe: InputRecipe, max_bytes: int) -> None:
        self.sampler, self.sam, self.recipe, self.max_bytes = sampler, learner.sam, recipe, max_bytes
        self.seed, self.mask_share, self.views = learner.config.seed, learner.config.mask_share, list[View]()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self.views)

    @property
    def is_full(self) -> bool:
        """Whether another one would take more memory than allowed."""
        return bool(self.views) and self.nbytes + self.views[-1].nbytes > self.max_bytes

    def add(self) -> None:
        """Draw and encode another one; the same for the same seed and number.

        Raises
        ------
        DeviceMemoryError
            There is not enough memory for the first one. For a later one this is a FallbackWarning, and
            there are no more views.
        """
        try:
            view = self._encoded()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if not self.views:
                raise DeviceMemoryError(
                    f"out of memory while encoding a crop: {error}. Close other programs, or use a smaller model"
                ) from error
            self.max_bytes = self.nbytes
            message = f"out of memory: learning from the {len(self.views)} crops that are encoded already"
            warnings.warn(message, FallbackWarning, stacklevel=3)
            return
        self.nbytes += view.nbytes
        self.views.append(view)

    @torch.no_grad()
    def _encoded(self) -> View:
        rng = np.random.default_rng([self.seed, 1, len(self.views)])
        config = self.sam.config
        drawn = draw_view(self.sampler, rng, config.grid, config, self.recipe)
        embedding = encode(self.sam, drawn.source[None].to(device_of(self.sam)))[0].half().cpu()
        return View(embedding, drawn.labels, drawn.neighbour, drawn.inside)

    def take(self, step: int, size: Size) -> tuple[Tensor, Batch, Window]:
        """Random views, all cut at one window around an object of the first."""
        rng = np.random.default_rng([self.seed, 2, step])
        config = self.sam.config
        order = self.views[int(rng.integers(len(self.views)))], *self._some(rng, 4 * size[0])
        window = object_window(order[0], window_cells(config), config.grid, rng)
        parts = [cut(view, window) for view in order]
        useful = [part for part in parts if has_objects(part.labels)] or parts[:1]
        chosen = [useful[i % len(useful)] for i in range(size[0])]
        embedding = torch.stack([part.source for part in chosen]).float()
        return embedding, make_batch(chosen, size[1], self.mask_share, rng), window

    def embed(self, sam: Sam, inputs: Tensor, window: Window) -> Tensor:
        """They are encoded already, the same for every decoder."""
        return inputs

    def _some(self, rng: np.random.Generator, count: int) -> list[View]:
        return [self.views[int(i)] for i in rng.integers(len(self.views), size=count)]


class FreshCrops:
    """Crops drawn and encoded anew for each step, for an image encoder that learns.

    Parameters
    ----------
    sampler : CropSampler
        Draws them.
    learner : Learner
        Whose image encoder learns.
    recipe : InputRecipe
        How pixels are prepared.
    cells : int
        Side of a crop in cells.
    """

    def __init__(self, sampler: CropSampler, learner: Learner, recipe: InputRecipe, cells: int) -> None:
        self.sampler, self.sam, self.recipe = sampler, learner.sam, recipe
        self.seed, self.mask_share = learner.config.seed, learner.config.mask_share
        self.cells = cells - cells % 4 if cells >= 4 else cells  # a pyramid takes multiples of 32 pixels

    def take(self, step: int, size: Size) -> tuple[Tensor, Batch, Window]:
        """New crops at a random place of the full input."""
        rng = np.random.default_rng([self.seed, 3, step])
        config = self.sam.config
        views = [draw_view(self.sampler, rng, self.cells, config, self.recipe) for _ in range(size[0])]
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 31)))
        window = random_window(self.sam, self.cells, generator)
        batch = make_batch(views, size[1], self.mask_share, rng)
        return torch.stack([view.source for view in views]), batch, window

    def embed(self, sam: Sam, inputs: Tensor, window: Window) -> Tensor:
        """Encoded anew."""
        return encode(sam, inputs, window)


class Validation:
    """mIoU of the default answers on what was kept out, in the cheap click simulation of training.

    Parameters
    ----------
    views : list of ValidationView
        At least one.
    keep : bool
        Whether embeddings can be kept, because the image encoder does not learn.
    """

    def __init__(self, views: list[ValidationView], keep: bool) -> None:
        self.views, self.keep = views, keep
        self._embeddings: dict[int, Tensor] = {}
        self._at_a_time = VALIDATION_OBJECTS

    @torch.no_grad()
    def measure(self, sam: Sam) -> dict[str, float]:
        """Mean over objects, then over views, of `click1` .. `click5` and `box`; `figure` is what counts.

        Raises
        ------
        DeviceMemoryError
            There is not enough memory even for one object at a time.
        """
        rows = [self._row(sam, number) for number in range(len(self.views))]
        means = np.mean(rows, axis=0)
        values = {f"click{i + 1}": float(v) for i, v in enumerate(means[:-1])} | {"box": float(means[-1])}
        return values | {"figure": (values["click1"] + values["click3"] + values["box"]) / 3}

    def _row(self, sam: Sam, number: int) -> Array:
        """Figures of a view, from here on of fewer objects at a time where memory runs out."""
        while True:
            try:
                embedding = self._embedding(sam, number)
                parts = torch.split(self.views[number].truth.to(embedding.device), self._at_a_time)
                ious: Array = (
                    torch.cat([_ious(sam, embedding, truth) for truth in parts]).mean(0).cpu().numpy()
                )
                return ious
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                _, self._at_a_time = smaller((1, self._at_a_time), error)

    def _embedding(self, sam: Sam, number: int) -> Tensor:
        found = self._embeddings.get(number)
        if found is None:
            found = encode(sam, self.views[number].input.to(device_of(sam)))
            if self.keep:
                self._embeddings[number] = found
        return found


def _ious(sam: Sam, embedding: Tensor, truth: Tensor) -> Tensor:
    """(N, 6) IoU after each click and with a box."""
    logits, _ = sam.decode(embedding, boxes=tight_boxes(truth > 0.5))
    box = measured_iou(logits[:, :1], truth, torch.ones_like(truth))
    return torch.cat([click_curve(sam, embedding, truth), box], 1)
