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
from napari_sam.training.config import TrainConfig
from napari_sam.training.crops import CropSampler
from napari_sam.training.examples import Batch
from napari_sam.training.losses import measured_iou
from napari_sam.training.state import update_average
from napari_sam.training.steps import Window, interactive_step, random_window
from napari_sam.training.trainer import learning_rate_share
from napari_sam.training.validate import click_curve
from napari_sam.training.views import (
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

    def take(self, step: int, size: Size, seed: int) -> tuple[Tensor, Batch, Window]:
        """(B, C, h, w) embedding, its objects, and where in the full input it lies."""


class Learner:
    """A model, its exponential average and the optimiser.

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
    stay = 4.0

    def __init__(self, sam: Sam, config: TrainConfig, with_encoder: bool, rank: int = 0) -> None:
        self.sam, self.config = half_cell_units(sam.eval().requires_grad_(False)), config
        if rank:
            sam.image_encoder = adapted(sam.image_encoder, rank)
        self.is_adapted = rank > 0
        parts = [sam.prompt_encoder, sam.mask_decoder]
        for part in parts + ([sam.image_encoder] if with_encoder and not rank else []):
            part.requires_grad_(True)
        encoder = copy.deepcopy(sam.image_encoder) if with_encoder else sam.image_encoder
        average = Sam(sam.config, encoder, copy.deepcopy(sam.prompt_encoder), copy.deepcopy(sam.mask_decoder))
        self.average = average.eval().requires_grad_(False)
        self._averaged = ["prompt_encoder", "mask_decoder"] + (["image_encoder"] if with_encoder else [])
        self.optimizer = torch.optim.AdamW(self._groups(), lr=config.learning_rate, weight_decay=0.0)
        self._anchors = [[p.detach().clone() for p in g["params"]] for g in self.optimizer.param_groups]
        self._shrunk: Size = (1 << 16, 1 << 16)

    def _groups(self) -> list[dict[str, Any]]:
        encoder = [p for p in self.sam.image_encoder.parameters() if p.requires_grad]
        members = {id(p) for p in encoder}
        rest = [p for p in self.sam.parameters() if p.requires_grad and id(p) not in members]
        groups: list[dict[str, Any]] = [{"params": rest, "is_encoder": False}]
        return groups + ([{"params": encoder, "is_encoder": True}] if encoder else [])

    def learn(self, source: Source, step: int, fraction: float, size: Size) -> dict[str, float]:
        """One step, with fewer crops and objects from here on where memory runs out.

        Raises
        ------
        DeviceMemoryError
            There is not enough even for one object of one crop.
        """
        while True:
            now = (min(size[0], self._shrunk[0]), min(size[1], self._shrunk[1]))
            try:
                return self._learn(source, step, fraction, now)
            except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
                if not is_out_of_memory(error):
                    raise
                self.optimizer.zero_grad(set_to_none=True)
                self._shrunk = smaller(now, error)

    def _learn(self, source: Source, step: int, fraction: float, size: Size) -> dict[str, float]:
        config = self.config
        rate = config.learning_rate * learning_rate_share(fraction, config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * (self.encoder_share if group["is_encoder"] else 1.0)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        embedding, batch, window = source.take(step, size, config.seed)
        loss, ious = interactive_step(self.sam, embedding, batch, config, window, generator)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm))
        self.optimizer.step()
        self._pull_back()
        for name in self._averaged:
            update_average(getattr(self.average, name), getattr(self.sam, name), config.ema, step)
        values = {"loss": float(loss.detach()), "rate": rate, "norm": norm}
        return values | {f"iou{i + 1}": float(iou) for i, iou in enumerate(ious)}

    @torch.no_grad()
    def _pull_back(self) -> None:
        """Move all weights a little towards where they started (Li et al. 2018, arXiv 1802.01483)."""
        for group, anchors in zip(self.optimizer.param_groups, self._anchors, strict=True):
            share = min(1.0, self.stay * group["lr"])
            for parameter, anchor in zip(group["params"], anchors, strict=True):
                parameter.lerp_(anchor, share)

    def plain(self) -> Sam:
        """The average as a model to save, with adapters merged."""
        encoder: nn.Module = self.average.image_encoder
        if self.is_adapted:
            encoder = merged(encoder)
        return Sam(self.sam.config, encoder, self.average.prompt_encoder, self.average.mask_decoder)


def smaller(size: Size, error: BaseException) -> Size:
    """Half the crops, or, of one crop, half the objects."""
    crops, objects = size
    if crops * objects == 1:
        raise DeviceMemoryError(
            f"out of memory with one object of one crop: {error}. Close other programs, use a smaller model, "
            'or mode "decoder"'
        ) from error
    size = (crops // 2, objects) if crops > 1 else (1, objects // 2)
    message = f"out of memory: learning from {size[0]} crops of {size[1]} objects at a time from now on"
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
        self.seed, self.views = learner.config.seed, list[View]()
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self.views)

    @property
    def is_full(self) -> bool:
        """Whether another one would take more memory than allowed."""
        return bool(self.views) and self.nbytes + self.views[-1].nbytes > self.max_bytes

    @torch.no_grad()
    def add(self) -> None:
        """Draw and encode another one; the same for the same seed and number."""
        rng = np.random.default_rng([self.seed, 1, len(self.views)])
        config = self.sam.config
        drawn = draw_view(self.sampler, rng, config.grid, config, self.recipe)
        embedding = encode(self.sam, drawn.source[None])[0].half()
        view = View(embedding, drawn.labels, drawn.neighbour, drawn.inside)
        self.nbytes += view.nbytes
        self.views.append(view)

    def take(self, step: int, size: Size, seed: int) -> tuple[Tensor, Batch, Window]:
        """Random views, all cut at one window around an object of the first."""
        rng = np.random.default_rng([seed, 2, step])
        config = self.sam.config
        order = self.views[int(rng.integers(len(self.views)))], *self._some(rng, 4 * size[0])
        window = object_window(order[0], window_cells(config), config.grid, rng)
        parts = [cut(view, window) for view in order]
        useful = [part for part in parts if has_objects(part.labels)] or parts[:1]
        chosen = [useful[i % len(useful)] for i in range(size[0])]
        embedding = torch.stack([part.source for part in chosen]).float()
        return embedding, make_batch(chosen, size[1], rng), window

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
        self.cells = cells - cells % 4 if cells >= 4 else cells  # a pyramid takes multiples of 32 pixels

    def take(self, step: int, size: Size, seed: int) -> tuple[Tensor, Batch, Window]:
        """New crops at a random place of the full input."""
        rng = np.random.default_rng([seed, 3, step])
        config = self.sam.config
        views = [draw_view(self.sampler, rng, self.cells, config, self.recipe) for _ in range(size[0])]
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 31)))
        window = random_window(self.sam, self.cells, generator)
        embedding = encode(self.sam, torch.stack([view.source for view in views]), window)
        return embedding, make_batch(views, size[1], rng), window


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

    @torch.no_grad()
    def measure(self, sam: Sam) -> dict[str, float]:
        """Mean over objects, then over views, of `click1` .. `click5` and `box`; `figure` is what counts."""
        rows = [self._row(sam, number) for number in range(len(self.views))]
        means = np.mean(rows, axis=0)
        values = {f"click{i + 1}": float(v) for i, v in enumerate(means[:-1])} | {"box": float(means[-1])}
        return values | {"figure": (values["click1"] + values["click3"] + values["box"]) / 3}

    def _row(self, sam: Sam, number: int) -> Array:
        truth = self.views[number].truth
        embedding = self._embedding(sam, number)
        clicks = click_curve(sam, embedding, truth).mean(0).numpy()
        logits, _ = sam.decode(embedding, boxes=tight_boxes(truth > 0.5))
        box = float(measured_iou(logits[:, :1], truth, torch.ones_like(truth)).mean())
        return np.append(clicks, box)

    def _embedding(self, sam: Sam, number: int) -> Tensor:
        found = self._embeddings.get(number)
        if found is None:
            found = encode(sam, self.views[number].input)
            if self.keep:
                self._embeddings[number] = found
        return found
