"""Cut square crops out of labelled planes, at the scale and angle a user's plane may come in."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from napari_sam.core.arrays import Array
from napari_sam.training.augment import augment
from napari_sam.training.config import TrainConfig
from napari_sam.training.packed import LabelledPlane
from napari_sam.training.synthetic import SYNTHETIC

Rng = np.random.Generator
FILL = 118.0
"""Grey outside the image; becomes the model's padding value after normalisation."""
MIN_AREA = 20
"""Smallest object in a crop worth a prompt, in crop pixels."""
SCALES = (0.3, 2.5)
"""Smallest and largest scale of a crop, as a share of the scale in which inference shows the plane."""


@dataclass(frozen=True, slots=True, eq=False)
class Crop:
    """A square of model pixels.

    Parameters
    ----------
    image : (3, S, S) uint8 array
    labels : (S, S) int32 array
        0 is background and outside.
    neighbour : (S, S) int32 array, optional
        The same square in a neighbouring plane of the volume.
    inside : (S, S) bool array
        Where the image is; the rest is padding.
    """

    image: Array
    labels: Array
    neighbour: Array | None
    inside: Array


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where a crop lies: its centre in the plane, and crop to plane as a 2x2 matrix."""

    centre_yx: tuple[float, float]
    matrix: Array


class CropSampler:
    """Draws crops: a set by its weight, a kind of image within it, an image, an object, a scale.

    Parameters
    ----------
    planes : list of LabelledPlane
        Without the held out ones.
    config : TrainConfig
        Shares and sizes.
    """

    def __init__(self, planes: list[LabelledPlane], config: TrainConfig) -> None:
        self.planes, self.config = planes, config
        self._by_place = {(p.set_name, p.volume, p.index): p for p in planes if p.volume >= 0}
        self._shares = _plane_shares(planes, config)

    def draw(self, rng: Rng, size: int) -> Crop:
        """One augmented crop with at least one object."""
        for _ in range(20):
            plane = self.planes[rng.choice(len(self.planes), p=self._shares)]
            crop = self._cut(plane, rng, size)
            if np.bincount(crop.labels.ravel())[1:].max(initial=0) >= MIN_AREA:
                return crop
        return crop

    def _cut(self, plane: LabelledPlane, rng: Rng, size: int) -> Crop:
        frame = self._frame(plane, rng, size)
        image, inside = sample_image(plane.image, frame.centre_yx, frame.matrix, size)
        labels = sample_labels(plane.labels, frame.centre_yx, frame.matrix, size)
        other = self._neighbour(plane, rng)
        neighbour = None if other is None else sample_labels(other, frame.centre_yx, frame.matrix, size)
        changed = augment(image, rng, self.config.mild)
        changed[~inside] = FILL
        return Crop(np.clip(changed, 0, 255).transpose(2, 0, 1).astype(np.uint8), labels, neighbour, inside)

    def _neighbour(self, plane: LabelledPlane, rng: Rng) -> Array | None:
        """Labels of a plane nearby, the next ones twice as often as those after."""
        places = [(plane.set_name, plane.volume, plane.index + step) for step in (-2, -1, -1, 1, 1, 2)]
        there = [self._by_place[place] for place in places if place in self._by_place]
        return there[rng.integers(len(there))].labels if there else None

    def _frame(self, plane: LabelledPlane, rng: Rng, size: int) -> _Frame:
        centre, diameter = _random_object(plane.labels, rng)
        scale = self._scale(max(plane.labels.shape), diameter, rng)
        jitter = rng.uniform(-0.4, 0.4, 2) * size / scale
        half = size / scale / 2
        keep_in = rng.random() < 0.8
        place = [
            _inside(c + j, half, length) if keep_in else c + j
            for c, j, length in zip(centre, jitter, plane.labels.shape, strict=True)
        ]
        return _Frame((place[0], place[1]), _random_matrix(rng, scale))

    def _scale(self, longest: int, diameter: float, rng: Rng) -> float:
        """Model pixels for each pixel of the plane."""
        usual = max(1.0, self.config.model_input / longest)
        if rng.random() < self.config.inference_scale:
            return float(usual * np.exp(rng.normal(0, 0.2)))
        wanted = np.exp(rng.uniform(*np.log(self.config.object_diameter))) / diameter
        return float(np.clip(wanted, SCALES[0] * usual, SCALES[1] * usual))


def _plane_shares(planes: list[LabelledPlane], config: TrainConfig) -> Array:
    """Probability of each plane: sets by their weight, kinds of image (shape, colour) by the root of their count."""
    kinds = [(p.set_name, p.image.shape if p.volume < 0 else p.volume) for p in planes]
    counts = Counter(kinds)
    sets = {p.set_name for p in planes}
    weights = {
        s: config.set_weights[s] if s in config.set_weights else _object_count(planes, s) ** 0.5 for s in sets
    }
    real = sum(weights[s] for s in sets if s != SYNTHETIC)
    if SYNTHETIC in sets and real > 0:
        weights[SYNTHETIC] = real * config.synthetic / max(1 - config.synthetic, 1e-6)
    roots = {s: sum(n**0.5 for (name, _), n in counts.items() if name == s) for s in sets}
    shares = np.array([weights[k[0]] * counts[k] ** -0.5 / roots[k[0]] for k in kinds])
    normalised: Array = shares / shares.sum()
    return normalised


def _object_count(planes: list[LabelledPlane], set_name: str) -> int:
    return sum(len(np.unique(plane.labels)) - 1 for plane in planes if plane.set_name == set_name)


def _random_object(labels: Array, rng: Rng) -> tuple[tuple[float, float], float]:
    """Middle and diameter of an object picked by a random pixel (tempered, or large ones would win)."""
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    shares = np.where(areas >= 9, areas.astype(float), 0) ** 0.25 * (areas >= 9)
    if shares.sum() == 0:
        return (labels.shape[0] / 2, labels.shape[1] / 2), float(min(labels.shape)) / 4
    number = rng.choice(len(areas), p=shares / shares.sum())
    rows = np.flatnonzero((labels == number).any(1))
    cols = np.flatnonzero((labels == number).any(0))
    return ((rows[0] + rows[-1]) / 2, (cols[0] + cols[-1]) / 2), float(areas[number]) ** 0.5


def _inside(centre: float, half: float, length: int) -> float:
    """Move the centre so that the crop stays in the plane, or in its middle if the plane is smaller."""
    return float(np.clip(centre, half, length - half)) if 2 * half < length else length / 2


def _random_matrix(rng: Rng, scale: float) -> Array:
    """(2, 2): crop offsets yx to plane offsets yx; turned, mirrored, slightly stretched."""
    angle = rng.uniform(0, 2 * np.pi) if rng.random() < 0.4 else rng.integers(4) * np.pi / 2
    stretch = np.exp(rng.normal(0, 0.08))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    flip = np.diag([1.0, rng.choice([-1.0, 1.0])])
    return np.asarray(turn @ flip @ np.diag([stretch, 1 / stretch]) / scale)


def _grid(shape: tuple[int, int], centre: tuple[float, float], matrix: Array, size: int) -> torch.Tensor:
    """(1, S, S, 2) grid of torch for crop pixels, in the plane's normalised xy."""
    offset = np.arange(size) - (size - 1) / 2
    y = centre[0] + matrix[0, 0] * offset[:, None] + matrix[0, 1] * offset[None]
    x = centre[1] + matrix[1, 0] * offset[:, None] + matrix[1, 1] * offset[None]
    xy = np.stack([(2 * x + 1) / shape[1] - 1, (2 * y + 1) / shape[0] - 1], -1)
    return torch.from_numpy(xy.astype(np.float32))[None]


def _cut_out(
    array: Array, centre: tuple[float, float], matrix: Array, size: int
) -> tuple[Array, tuple[float, float]]:
    """The part of a plane that a crop can touch (large planes need not be converted whole)."""
    reach = np.abs(matrix).sum(1) * size / 2 + 2
    low = [max(0, int(c - r)) for c, r in zip(centre, reach, strict=True)]
    high = [max(a + 1, int(c + r) + 1) for a, c, r in zip(low, centre, reach, strict=True)]
    part = array[low[0] : high[0], low[1] : high[1]]
    if part.size == 0:
        return array, centre
    return part, (centre[0] - low[0], centre[1] - low[1])


def sample_image(image: Array, centre: tuple[float, float], matrix: Array, size: int) -> tuple[Array, Array]:
    """Bilinear crop as float32, (S, S) or (S, S, 3), and where it lies inside the plane, (S, S) bool."""
    part, centre = _cut_out(image, centre, matrix, size)
    grid = _grid((part.shape[0], part.shape[1]), centre, matrix, size)
    planes = torch.from_numpy(part.astype(np.float32))
    planes = planes.permute(2, 0, 1) if planes.ndim == 3 else planes[None]
    if np.sqrt(abs(np.linalg.det(matrix))) > 1.4:
        planes = F.avg_pool2d(planes, 2, 1, 1, count_include_pad=False)[:, : part.shape[0], : part.shape[1]]
    out = F.grid_sample(planes[None], grid, padding_mode="border", align_corners=False)[0].numpy()
    inside = (grid[0].abs() <= 1).all(-1).numpy()
    return (out[0] if image.ndim == 2 else out.transpose(1, 2, 0)), inside


def sample_labels(labels: Array, centre: tuple[float, float], matrix: Array, size: int) -> Array:
    """Nearest crop as int32, 0 outside."""
    part, centre = _cut_out(labels, centre, matrix, size)
    grid = _grid((part.shape[0], part.shape[1]), centre, matrix, size)
    source = torch.from_numpy(part.astype(np.float32))[None, None]
    out = F.grid_sample(source, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return np.asarray(out[0, 0].numpy().astype(np.int32))
