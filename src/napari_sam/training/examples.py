"""From a crop to what a training step needs: some objects, their masks, a rough mask each, dense targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_sam.core.arrays import Array
from napari_sam.training.config import TrainConfig
from napari_sam.training.crops import MIN_AREA, Crop, CropSampler

Rng = np.random.Generator
DENSE_CHANNELS = 5
NEIGHBOUR_SHARE = 0.7
"""Share of rough masks that are the neighbouring plane's, where there is one."""
QUARTERS = np.array([0, 63, 127, 191, 255], np.uint8)
"""0 to 4 of four pixels, as a share of 255."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Arrays of one step: B crops with K objects each. Masks are at stride 2, as the decoder's logits.

    Parameters
    ----------
    images : (B, 3, S, S) uint8 array
    masks : (B, K, S / 2, S / 2) uint8 array
        Share of the four pixels that belong to the object, 0..255.
    rough : (B, K, S / 2, S / 2) bool array
        What propagation would hand over: the neighbouring plane's mask, or a distorted one; empty for objects that are
        prompted by no mask. Where an object has ended, its mask is empty and this is not.
    dense : (B, 6, S / 2, S / 2) float16 array
        Foreground, border, depth in the object 0..1, offset to its middle (y, x) in diameters, diameter in
        pixels of this array.
    inside : (B, S / 2, S / 2) bool array
    """

    images: Array
    masks: Array
    rough: Array
    dense: Array
    inside: Array


def make_batch(sampler: CropSampler, config: TrainConfig, step: int, size: int, images: int) -> Batch:
    """The batch of a step: the same for the same seed, step and size."""
    rng = np.random.default_rng([config.seed, step])
    parts = [example(sampler.draw(rng, size), config, rng) for _ in range(images)]
    return Batch(*(np.stack(values) for values in zip(*parts, strict=True)))


def example(crop: Crop, config: TrainConfig, rng: Rng) -> tuple[Array, Array, Array, Array, Array]:
    """The five arrays of a batch for one crop."""
    numbers = choose_objects(crop.labels, config.objects, rng)
    full = crop.labels[None] == numbers[:, None, None]
    masks, halves = halve(full), full[:, ::2, ::2]
    rough = rough_masks(halves, numbers, crop.neighbour, config.mask_share, rng)
    for i in np.flatnonzero(rng.random(len(numbers)) < config.ended_share):
        ended = _ended_mask(halves[i], crop, rng)
        if ended is not None:
            masks[i], rough[i] = 0, ended
    return crop.image, masks, rough, dense_targets(crop.labels[::2, ::2]), crop.inside[::2, ::2]


def choose_objects(labels: Array, count: int, rng: Rng) -> Array:
    """Labels of `count` objects, without repeats where there are enough."""
    areas = np.bincount(labels.ravel(), minlength=2)
    areas[0] = 0
    numbers = np.flatnonzero(areas >= MIN_AREA)
    if len(numbers) == 0:
        numbers = np.array([areas.argmax()])
    return np.asarray(rng.choice(numbers, count, replace=len(numbers) < count))


def halve(masks: Array) -> Array:
    """(..., S, S) bool to (..., S / 2, S / 2) uint8, the share of the four pixels."""
    ones = masks.view(np.uint8)
    rows = ones[..., ::2, :] + ones[..., 1::2, :]
    return QUARTERS[rows[..., ::2] + rows[..., 1::2]]


def rough_masks(masks: Array, numbers: Array, neighbour: Array | None, share: float, rng: Rng) -> Array:
    """What propagation would hand over for some of the objects; see `Batch.rough`.

    Parameters
    ----------
    masks : (K, S / 2, S / 2) bool array
    numbers : (K,) int array
        Their labels.
    neighbour : (S, S) int array, optional
        Labels of a neighbouring plane.
    share : float
        Of the objects that are prompted by a mask.
    """
    rough = np.zeros_like(masks)
    for i in np.flatnonzero(rng.random(len(masks)) < share):
        rough[i] = _rough_mask(masks[i], numbers[i], neighbour, rng)
    return rough


def _rough_mask(mask: Array, number: int, neighbour: Array | None, rng: Rng) -> Array:
    if neighbour is not None and rng.random() < NEIGHBOUR_SHARE:
        other = neighbour[::2, ::2] == number
        if other.any():
            return np.asarray(other)
    return distort(mask, rng)


def _ended_mask(mask: Array, crop: Crop, rng: Rng) -> Array | None:
    """Where propagation believes in an object that is not there: it was in the neighbouring plane, or elsewhere."""
    labels = crop.labels[::2, ::2]
    if crop.neighbour is not None:
        other = crop.neighbour[::2, ::2]
        areas = np.bincount(other.ravel())
        gone = np.setdiff1d(np.flatnonzero(areas >= MIN_AREA // 4), np.append(np.unique(labels), 0))
        if len(gone):
            return np.asarray(other == rng.choice(gone))
    for _ in range(8):
        moved = np.roll(mask, rng.integers(0, mask.shape), (0, 1))
        if moved.any() and (labels[moved] > 0).mean() < 0.1:
            return moved
    return None


def distort(mask: Array, rng: Rng) -> Array:
    """Shift, scale, wobble, and grow or erode a mask by an amount that fits its size."""
    diameter = max(float(mask.sum()) ** 0.5, 2.0)
    strength = rng.choice([0.5, 1.0, 2.0])
    shift = rng.normal(0, 0.08 * strength * diameter, 2)
    factor = np.exp(rng.normal(0, 0.12 * strength))
    middle = np.array(ndimage.center_of_mass(mask)) if mask.any() else np.array(mask.shape) / 2
    offset = middle - factor * (middle + shift)
    moved = ndimage.affine_transform(mask.astype(np.float32), [factor, factor], offset, order=1)
    level = 0.5
    if rng.random() < 0.5:
        wobble = ndimage.zoom(rng.standard_normal((9, 9)), np.array(mask.shape) / 9, order=1)
        moved = ndimage.gaussian_filter(moved, 1 + 0.03 * diameter) + 0.15 * wobble * (moved > 0.02)
        level = rng.uniform(0.25, 0.75)  # grown or eroded
    out = moved > level
    return np.asarray(out if out.any() else mask)


def dense_targets(labels: Array) -> Array:
    """(6, h, w) float16 targets of the auxiliary head; see `Batch.dense`."""
    foreground = labels > 0
    border = foreground & (ndimage.minimum_filter(labels, 3) != ndimage.maximum_filter(labels, 3))
    depth = ndimage.distance_transform_edt(foreground & ~border).astype(np.float32)
    flat = labels.ravel()
    areas = np.maximum(np.bincount(flat), 1)
    yx = np.indices(labels.shape, np.float32)
    deepest = np.ones(len(areas), np.float32)
    np.maximum.at(deepest, flat, depth.ravel())
    depth = depth / deepest[labels]
    middles = [np.bincount(flat, part.ravel()) / areas for part in yx]
    diameters = np.sqrt(areas)[labels]
    offsets = [(m[labels] - part) / diameters * foreground for m, part in zip(middles, yx, strict=True)]
    maps = [foreground, border, depth * foreground, *offsets, diameters * foreground]
    return np.stack(maps).astype(np.float16)
