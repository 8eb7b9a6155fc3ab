"""Cut square crops out of labelled planes, at the scale and angle a user's plane may come in."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
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
LEAST_AREA = 9
"""Smallest object in a plane that a crop is laid around, in its pixels."""
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


@dataclass(frozen=True, slots=True, eq=False)
class _Objects:
    """Of a plane: (N, 2) middles of their boxes yx, (N,) areas, and (N,) how likely each is in the middle of a crop."""

    middles: Array
    areas: Array
    shares: Array


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
        self._objects: dict[int, _Objects] = {}

    def draw(self, rng: Rng, size: int) -> Crop:
        """One augmented crop with at least one object."""
        for _ in range(20):
            crop = self._cut(int(rng.choice(len(self.planes), p=self._shares)), rng, size)
            if np.bincount(crop.labels.ravel())[1:].max(initial=0) >= MIN_AREA:
                return crop
        return crop

    def _cut(self, number: int, rng: Rng, size: int) -> Crop:
        plane = self.planes[number]
        square = self._square(number, rng, size)
        labels, other = square.labels(plane.labels), self._neighbour(plane, rng)
        neighbour = None if other is None else square.labels(other)
        changed = augment(square.image(plane.image), rng, self.config.mild)
        changed[~square.inside] = FILL
        image = np.clip(changed, 0, 255).transpose(2, 0, 1).astype(np.uint8)
        return Crop(image, labels, neighbour, square.inside)

    def _neighbour(self, plane: LabelledPlane, rng: Rng) -> Array | None:
        """Labels of a plane nearby, the next ones twice as often as those after."""
        places = [(plane.set_name, plane.volume, plane.index + step) for step in (-2, -1, -1, 1, 1, 2)]
        there = [self._by_place[place] for place in places if place in self._by_place]
        return there[rng.integers(len(there))].labels if there else None

    def _square(self, number: int, rng: Rng, size: int) -> Square:
        height, width = self.planes[number].labels.shape
        centre, diameter = self._random_object(number, rng)
        scale = self._scale(max(height, width), diameter, rng)
        jitter = rng.uniform(-0.4, 0.4, 2) * size / scale
        half = size / scale / 2
        keep_in = rng.random() < 0.8
        place = [
            _inside(c + j, half, length) if keep_in else c + j
            for c, j, length in zip(centre, jitter, (height, width), strict=True)
        ]
        return Square((height, width), (place[0], place[1]), _random_matrix(rng, scale), size)

    def _random_object(self, number: int, rng: Rng) -> tuple[Array, float]:
        """Middle and diameter of an object of a plane."""
        if number not in self._objects:
            self._objects[number] = _find_objects(self.planes[number].labels)
        found = self._objects[number]
        chosen = rng.choice(len(found.areas), p=found.shares)
        return found.middles[chosen], float(found.areas[chosen]) ** 0.5

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


def _find_objects(labels: Array) -> _Objects:
    """Larger ones are likelier (tempered, or they alone would be seen); the middle of the plane where there are none."""
    areas = np.bincount(labels.ravel(), minlength=2)
    numbers = np.flatnonzero(areas >= LEAST_AREA)
    numbers = numbers[numbers > 0]
    if len(numbers) == 0:
        shape = np.array(labels.shape)
        return _Objects(shape[None] / 2, np.array([(shape.min() / 4) ** 2]), np.ones(1))
    boxes = ndimage.find_objects(labels)
    middles = [[(side.start + side.stop - 1) / 2 for side in boxes[number - 1]] for number in numbers]
    shares = areas[numbers] ** 0.25
    return _Objects(np.array(middles), areas[numbers], shares / shares.sum())


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


class Square:
    """A square of model pixels in a plane.

    Parameters
    ----------
    shape : (int, int)
        Of the plane.
    centre : (float, float)
        Of the square in the plane, yx.
    matrix : (2, 2) array
        Offsets in the square to offsets in the plane, yx.
    size : int
        Side in model pixels.

    Attributes
    ----------
    inside : (S, S) bool array
        Where the plane is.
    """

    def __init__(self, shape: tuple[int, int], centre: tuple[float, float], matrix: Array, size: int) -> None:
        reach = np.abs(matrix).sum(1) * size / 2 + 2
        low = np.clip(np.array(centre) - reach, 0, np.array(shape) - 1).astype(int)
        high = np.clip(np.array(centre) + reach + 1, low + 1, shape).astype(int)
        # what the square can touch: large planes need not be converted whole
        self._part = slice(low[0], high[0]), slice(low[1], high[1])
        offset = np.arange(size, dtype=np.float32) - (size - 1) / 2
        grid = np.empty((1, size, size, 2), np.float32)  # xy, as torch has it
        for axis, (by_row, by_column) in enumerate(matrix.astype(np.float32)):
            place = by_row * offset[:, None] + by_column * offset + float(centre[axis] - low[axis])
            grid[0, ..., 1 - axis] = (2 * place + 1) / int(high[axis] - low[axis]) - 1
        self._grid = torch.from_numpy(grid)
        x, y = np.moveaxis(np.abs(grid[0]) <= 1, -1, 0)
        self.inside: Array = x & y
        self._shrinks = bool(np.sqrt(abs(np.linalg.det(matrix))) > 1.4)

    def image(self, image: Array) -> Array:
        """Bilinear, float32, (S, S) or (S, S, 3)."""
        planes = torch.from_numpy(image[self._part].astype(np.float32))
        planes = planes.permute(2, 0, 1) if planes.ndim == 3 else planes[None]
        if self._shrinks:
            height, width = planes.shape[1:]
            planes = F.avg_pool2d(planes, 2, 1, 1, count_include_pad=False)[:, :height, :width]
        out = F.grid_sample(planes[None], self._grid, padding_mode="border", align_corners=False)[0].numpy()
        return np.asarray(out[0] if image.ndim == 2 else out.transpose(1, 2, 0))

    def labels(self, labels: Array) -> Array:
        """Nearest, int32, 0 outside."""
        source = torch.from_numpy(labels[self._part].astype(np.float32))[None, None]
        out = F.grid_sample(source, self._grid, mode="nearest", padding_mode="zeros", align_corners=False)
        return np.asarray(out[0, 0].numpy().astype(np.int32))
