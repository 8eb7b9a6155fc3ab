"""What fine-tuning looks at: augmented crops of the user's planes, encoded once or anew for each step.

All coordinates of training are at half the size of a logit cell (`clicks.STRIDE`), which for a model at
stride 8 are its input pixels. For others the prompt encoder is told the input's size in these units
(`half_cell_units`): positions are encoded relative to it, so nothing else changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from napari_sam.core.arrays import Array
from napari_sam.core.models import InputRecipe
from napari_sam.core.planes import BoxYXYX
from napari_sam.inference import preprocess
from napari_sam.inference.tiles import plan_tiles
from napari_sam.model.configs import PyramidConfig, SamConfig
from napari_sam.model.sam import Sam
from napari_sam.training.augment import normalise, three_channels
from napari_sam.training.clicks import STRIDE
from napari_sam.training.crops import MIN_AREA, Crop, CropSampler
from napari_sam.training.examples import Batch, choose_objects, halve, rough_masks
from napari_sam.training.packed import LabelledPlane
from napari_sam.training.steps import Window

Rng = np.random.Generator
CELL = 4 * STRIDE
"""Units of training along one side of a cell of the embedding."""
WINDOW_CELLS = 32
"""Side of the part of a pyramid's embedding that a step looks at; other encoders need all of their grid."""
VALIDATION_VIEWS, VALIDATION_OBJECTS = 8, 40
"""Most views, and most objects of all of them together."""


def half_cell_units(sam: Sam) -> Sam:
    """Let the prompt encoder take coordinates in the units of training, in place."""
    sam.prompt_encoder.image_size = STRIDE * sam.config.mask_size
    return sam


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A crop as the model sees it.

    Parameters
    ----------
    source : Tensor
        (C, g, g) half precision embedding, or the (3, S, S) input of an encoder that learns.
    labels : (U, U) int array
        In units of training, U = `CELL` times the cells.
    neighbour : (U, U) int array, optional
        The same in a neighbouring plane.
    inside : (U, U) bool array
        Where the image is.
    """

    source: Tensor
    labels: Array
    neighbour: Array | None
    inside: Array

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        arrays = [self.labels, self.inside] + ([] if self.neighbour is None else [self.neighbour])
        return sum(a.nbytes for a in arrays) + self.source.nbytes


def window_cells(config: SamConfig) -> int:
    """Side of what a step looks at, in cells."""
    return min(WINDOW_CELLS, config.grid) if isinstance(config.encoder, PyramidConfig) else config.grid


def draw_view(sampler: CropSampler, rng: Rng, cells: int, config: SamConfig, recipe: InputRecipe) -> View:
    """A new augmented crop of `cells` cells, not encoded yet."""
    crop = sampler.draw(rng, cells * config.stride)
    small = config.stride // CELL
    labels = crop.labels[small // 2 :: small, small // 2 :: small].astype(np.uint16)
    neighbour = crop.neighbour
    if neighbour is not None:
        neighbour = neighbour[small // 2 :: small, small // 2 :: small].astype(np.uint16)
    inside = crop.inside[small // 2 :: small, small // 2 :: small]
    return View(crop_input(crop, config, recipe), labels, neighbour, inside)


def crop_input(crop: Crop, config: SamConfig, recipe: InputRecipe) -> Tensor:
    """(3, S, S) what the encoder takes; zero outside of the image, as in inference."""
    pixels = crop.image
    if recipe is InputRecipe.MICRO_SAM:
        pixels = preprocess.stretched(pixels.transpose(1, 2, 0)).transpose(2, 0, 1)
    tensor = torch.from_numpy(np.ascontiguousarray(pixels)).float()[None]
    return (preprocess.normalise(tensor, config, recipe) * torch.from_numpy(crop.inside))[0]


def encode(sam: Sam, inputs: Tensor, window: Window | None = None) -> Tensor:
    """(B, 3, S, S) to (B, C, h, w), as if the crops lay at `window` of the full input."""
    if window is not None and isinstance(sam.config.encoder, PyramidConfig):
        return cast(Tensor, cast(Any, sam.image_encoder)(inputs, window[:2]))
    return sam.encode(inputs)


def has_objects(labels: Array) -> bool:
    """Whether there is an object worth a prompt."""
    return bool(np.bincount(labels.ravel(), minlength=2)[1:].max() >= MIN_AREA)


def object_window(view: View, cells: int, grid: int, rng: Rng) -> Window:
    """A window of the grid around a random object of a view."""
    if cells == grid:
        return (0, 0, grid, grid)
    number = choose_objects(view.labels, 1, rng)[0]
    rows, cols = np.nonzero(view.labels == number)
    middle = np.array([rows.mean(), cols.mean()]) / CELL if len(rows) else np.array([grid, grid]) / 2
    corner = middle - cells / 2 + rng.uniform(-0.35, 0.35, 2) * cells
    row, col = np.clip(np.round(corner), 0, grid - cells).astype(int).tolist()
    return row, col, cells, cells


def cut(view: View, window: Window) -> View:
    """The part of an encoded view in a window."""
    row, col, height, width = window
    part = (slice(row * CELL, (row + height) * CELL), slice(col * CELL, (col + width) * CELL))
    return View(
        view.source[:, row : row + height, col : col + width],
        view.labels[part],
        None if view.neighbour is None else view.neighbour[part],
        view.inside[part],
    )


def make_batch(views: Sequence[View], count: int, mask_share: float, rng: Rng) -> Batch:
    """Masks of `count` objects of each view; images and dense targets stay empty."""
    parts = [_objects(view, count, mask_share, rng) for view in views]
    masks, rough = (np.stack(values) for values in zip(*parts, strict=True))
    nothing = np.zeros(0, np.uint8)
    return Batch(nothing, masks, rough, nothing, np.stack([view.inside[::2, ::2] for view in views]))


def _objects(view: View, count: int, mask_share: float, rng: Rng) -> tuple[Array, Array]:
    numbers = choose_objects(view.labels, count, rng)
    full = view.labels[None] == numbers[:, None, None]
    return halve(full), rough_masks(full[:, ::2, ::2], numbers, view.neighbour, mask_share, rng)


@dataclass(frozen=True, slots=True, eq=False)
class ValidationView:
    """A plane, or a tile of one, laid out as in inference, with the masks of some of its objects.

    Parameters
    ----------
    input : (1, 3, S, S) tensor
    truth : (N, m, m) float tensor
        Share of each logit cell that belongs to the object.
    """

    input: Tensor
    truth: Tensor


def validation_views(
    planes: Sequence[LabelledPlane], config: SamConfig, recipe: InputRecipe
) -> list[ValidationView]:
    """At most `VALIDATION_VIEWS` tiles of held out planes, evenly taken from those with objects."""
    tiles: list[tuple[LabelledPlane, BoxYXYX]] = [
        (plane, box)
        for plane in planes
        for box in plan_tiles((plane.labels.shape[0], plane.labels.shape[1]), config.image_size)
        if has_objects(plane.labels[box[0] : box[2], box[1] : box[3]]) or len(planes) == 1
    ]
    chosen = np.unique(np.linspace(0, len(tiles) - 1, min(len(tiles), VALIDATION_VIEWS)).round().astype(int))
    most = VALIDATION_OBJECTS // max(len(chosen), 1)
    views = [_validation_view(*tiles[int(i)], most, config, recipe) for i in (chosen if tiles else [])]
    return [view for view in views if view is not None]


def _validation_view(
    plane: LabelledPlane, box: BoxYXYX, most: int, config: SamConfig, recipe: InputRecipe
) -> ValidationView | None:
    y0, x0, y1, x1 = box
    grey = normalise(plane.image[y0:y1, x0:x1].astype(np.float32), 0.1, 99.9) * 255
    rgb = three_channels(grey).astype(np.uint8)
    labels = laid_out(plane.labels[y0:y1, x0:x1], config, recipe)
    numbers, areas = np.unique(labels, return_counts=True)
    numbers = numbers[(areas >= MIN_AREA) & (numbers > 0)]
    if not len(numbers):
        return None
    some = numbers[np.linspace(0, len(numbers) - 1, min(len(numbers), most)).round().astype(int)]
    truth = torch.from_numpy(halve(labels[None] == some[:, None, None])).float() / 255
    return ValidationView(preprocess.to_tensor(rgb, config, recipe), truth)


def laid_out(labels: Array, config: SamConfig, recipe: InputRecipe) -> Array:
    """Labels of a tile as the encoder's input shows it, (U, U), 0 in the padding."""
    side = STRIDE * config.mask_size
    shape = (labels.shape[0], labels.shape[1])
    resized = preprocess.resized_shape(shape, config.image_size, recipe)
    rows, cols = (
        np.minimum(
            ((np.arange(round(new * side / config.image_size)) + 0.5) * old * config.image_size / side / new),
            old - 1,
        )
        for new, old in zip(resized, shape, strict=True)
    )
    full = np.zeros((side, side), labels.dtype)
    full[: len(rows), : len(cols)] = labels[np.ix_(rows.astype(int), cols.astype(int))]
    return full
