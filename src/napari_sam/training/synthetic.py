"""Generated microscopy with exact labels: it widens the domains beyond the sets at hand.

Every generator returns an image (S, S) of about 0..1 and labels (S, S) int32. All are built from two
cheap parts: smooth noise, and the two nearest of some seeds (a Voronoi tessellation) over warped
coordinates.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage

from napari_sam.core.arrays import Array
from napari_sam.training.packed import LabelledPlane

Rng = np.random.Generator
Picture = tuple[Array, Array]


def smooth_noise(size: int, cells: int, rng: Rng) -> Array:
    """(size, size) float32 of mean 0 and deviation about 1, with about `cells` waves a side."""
    coarse = torch.from_numpy(rng.standard_normal((1, 1, cells + 3, cells + 3), dtype=np.float32))
    fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    return np.asarray(fine[0, 0].numpy() * 1.3, np.float32)


def texture(size: int, rng: Rng) -> Array:
    """Noise of several scales."""
    cells = np.exp(rng.uniform(np.log(4), np.log(size / 3), 3)).astype(int)
    weights = rng.dirichlet(np.ones(3))
    return np.asarray(
        sum(w * smooth_noise(size, c, rng) for w, c in zip(weights, cells, strict=True)), np.float32
    )


def warped_grid(size: int, rng: Rng, strength: float, cells: int) -> Array:
    """(size * size, 2) float32 coordinates bent by smooth noise, sometimes stretched along one axis."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    y = y + strength * smooth_noise(size, cells, rng)
    x = x + strength * smooth_noise(size, cells, rng)
    angle, stretch = rng.uniform(0, np.pi), np.exp(rng.uniform(0, 0.8))
    turned = np.cos(angle) * x + np.sin(angle) * y, (np.cos(angle) * y - np.sin(angle) * x) * stretch
    return np.stack([part.ravel() for part in turned], 1).astype(np.float32)


def two_nearest(points: Array, seeds: Array, size: int) -> tuple[Array, Array, Array]:
    """Index of the nearest seed, its distance, and how much further the second is; each (size, size)."""
    distances = torch.cdist(torch.from_numpy(points), torch.from_numpy(seeds.astype(np.float32)))
    near, index = distances.min(1)
    second = distances.scatter_(1, index[:, None], torch.inf).amin(1)
    parts = (part.numpy().reshape(size, size) for part in (index, near, second - near))
    nearest, distance, gap = parts
    return nearest, distance, gap


def _tessellation(
    size: int, rng: Rng, diameter: tuple[float, float], warp: float
) -> tuple[Array, Array, Array]:
    spacing = np.exp(rng.uniform(*np.log(diameter)))
    grid = warped_grid(size, rng, warp * spacing, max(2, int(size / spacing)))
    low, high = grid.min(0), grid.max(0)
    count = int(np.clip(np.prod(high - low) / spacing**2, 3, 160))
    return two_nearest(grid, rng.uniform(low, high, (count, 2)), size)


def _level(rng: Rng, count: int, spread: float) -> Array:
    return rng.normal(0, spread, count).astype(np.float32)


def cells(size: int, rng: Rng) -> Picture:
    """Dense cells: a membrane between Voronoi regions, dark or bright."""
    index, _, gap = _tessellation(size, rng, (14, 90), rng.uniform(0, 0.25))
    width = rng.uniform(1.5, 5)
    membrane = np.exp(-((gap / width) ** 2))
    labels = np.where(gap > rng.uniform(0, 1) * width, index + 1, 0)
    fill = _level(rng, index.max() + 1, rng.uniform(0, 0.12))[index]
    image = 0.25 + membrane * rng.uniform(0.3, 0.7) + fill + rng.uniform(0, 0.12) * texture(size, rng)
    if rng.random() < 0.5:
        image *= 1 + 0.4 * smooth_noise(size, 4, rng)
    return image, labels


def neurites(size: int, rng: Rng) -> Picture:
    """Electron microscopy: bent profiles of mixed size, dark membranes, vesicles and mitochondria."""
    index, _, gap = _tessellation(size, rng, (14, 80), rng.uniform(0.2, 0.6))
    index = rng.permutation(index.max() + 1)[index]
    merged = index // rng.integers(1, 3)
    inner = ndimage.minimum_filter(merged, 3) == ndimage.maximum_filter(merged, 3)
    width = rng.uniform(1, 4)
    membrane = np.where(_near_border(merged, gap), np.exp(-((gap / width) ** 2)), 0)
    labels = _relabel(np.where(inner, merged + 1, 0))
    image = (
        0.7
        + _level(rng, merged.max() + 1, rng.uniform(0, 0.06))[merged]
        + rng.uniform(0.02, 0.1) * texture(size, rng)
    )
    image -= membrane * rng.uniform(0.25, 0.6)
    image = _organelles(image, inner & (gap > 2 * width), rng)
    return image, labels


def _near_border(labels: Array, gap: Array) -> Array:
    """Whether the closest other region is really another object (regions may have been merged)."""
    border = ndimage.minimum_filter(labels, 3) != ndimage.maximum_filter(labels, 3)
    near = ndimage.maximum_filter(border.astype(np.uint8), 9) > 0
    return np.asarray(near & (gap < 20))


def _relabel(labels: Array) -> Array:
    """Split labels into connected parts."""
    parts = np.zeros(labels.shape, np.int32)
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    ndimage.label((labels > 0) & ~edge, output=parts)
    return parts


def _organelles(image: Array, where: Array, rng: Rng) -> Array:
    size = image.shape[0]
    speckle = smooth_noise(size, int(size / rng.uniform(3, 6)), rng)
    dark = where & (speckle > rng.uniform(1.2, 2.2))
    image = image - dark * rng.uniform(0, 0.35)
    if rng.random() < 0.6:
        spots = smooth_noise(size, int(size / rng.uniform(16, 40)), rng) > rng.uniform(1.0, 1.6)
        cristae = 0.5 + 0.5 * np.sin(smooth_noise(size, 24, rng) * 4)
        image = image - (spots & where) * (0.15 + 0.15 * cristae)
    return np.asarray(image, np.float32)


def blobs(size: int, rng: Rng) -> Picture:
    """Nuclei: rounded bright objects that may touch, with texture, on a background."""
    index, distance, gap = _tessellation(size, rng, (18, 100), rng.uniform(0, 0.15))
    count = index.max() + 1
    typical = np.median(distance) * rng.uniform(0.7, 1.6)
    radius = (typical * np.exp(_level(rng, count, 0.3)) * (rng.random(count) < rng.uniform(0.4, 1)))[index]
    wobble = 1 + rng.uniform(0, 0.2) * smooth_noise(size, max(3, int(size / (2 * typical + 1))), rng)
    inside = (distance * wobble < radius) & (gap > rng.uniform(0, 2))
    edge = np.clip((radius - distance * wobble) / rng.uniform(1, 5), 0, 1) * inside
    bright = np.exp(_level(rng, count, rng.uniform(0.1, 0.5)))[index]
    grain = 1 + rng.uniform(0, 0.4) * texture(size, rng)
    image = rng.uniform(0, 0.2) + 0.5 * edge * bright * grain + rng.uniform(0, 0.08) * texture(size, rng)
    if rng.random() < 0.25:
        rim = inside & (ndimage.minimum_filter(inside.astype(np.uint8), 5) == 0)
        image = image + rim * rng.uniform(-0.3, 0.4)
    return image, np.where(inside, index + 1, 0)


def rods(size: int, rng: Rng) -> Picture:
    """Bacteria and filaments: bent rods laid over each other, the upper one owns the pixels."""
    labels = np.zeros((size, size), np.int32)
    image = np.full((size, size), rng.uniform(0, 0.3), np.float32)
    width = np.exp(rng.uniform(np.log(4), np.log(16)))
    length = width * np.exp(rng.uniform(np.log(1.5), np.log(8)))
    grid_y, grid_x = np.mgrid[:size, :size].astype(np.float32)
    bend = smooth_noise(size, 3, rng) * rng.uniform(0, width)
    for number in range(1, int(rng.integers(4, 30))):
        angle, half = rng.uniform(0, np.pi), length / 2 * rng.uniform(0.6, 1.4)
        y, x = grid_y - rng.uniform(0, size), grid_x - rng.uniform(0, size)
        along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x + bend
        distance = np.hypot(np.maximum(np.abs(along) - half, 0), across)
        inside = distance < width / 2
        labels[inside] = number
        shade = rng.uniform(0.4, 0.8) * np.clip((width / 2 - distance) / rng.uniform(1, 4), 0, 1)
        image = np.where(inside, 0.1 + shade, image)
    return image + rng.uniform(0, 0.08) * texture(size, rng), labels


def vesicles(size: int, rng: Rng) -> Picture:
    """Rings: bright or dark outlines around an interior that looks like the background."""
    index, distance, gap = _tessellation(size, rng, (16, 70), rng.uniform(0, 0.1))
    count = index.max() + 1
    radius = (np.median(distance) * np.exp(_level(rng, count, 0.25)) * (rng.random(count) < 0.7))[index]
    depth = radius - distance
    inside = (depth > 0) & (gap > 1)
    ring = inside & (depth < rng.uniform(1.5, 6))
    image = 0.4 + rng.uniform(0.02, 0.15) * texture(size, rng) + ring * rng.uniform(0.15, 0.5)
    image = image + (inside & ~ring) * rng.uniform(-0.15, 0.1)
    return np.asarray(image, np.float32), np.where(inside, index + 1, 0)


GENERATORS: tuple[tuple[Callable[[int, Rng], Picture], float], ...] = (
    (neurites, 0.3),
    (cells, 0.3),
    (blobs, 0.2),
    (rods, 0.1),
    (vesicles, 0.1),
)


def generate(size: int, rng: Rng) -> Picture:
    """One generated crop.

    Returns
    -------
    image : (size, size) float32 array, 0..255
    labels : (size, size) int32 array, 0 is background
    """
    shares = np.array([share for _, share in GENERATORS])
    make = GENERATORS[rng.choice(len(GENERATORS), p=shares / shares.sum())][0]
    image, labels = make(size, rng)
    image = image + rng.uniform(0, 0.06) * rng.standard_normal(image.shape, dtype=np.float32)
    image = ndimage.gaussian_filter(image, rng.uniform(0, 1.2)) if rng.random() < 0.7 else image
    return np.clip(image, 0, 1).astype(np.float32) * 255, labels.astype(np.int32)


def generate_planes(count: int, seed: int, size: int = 320) -> list[LabelledPlane]:
    """Planes of the set "synthetic": generated once, then cut and changed like real ones."""
    planes = []
    for number in range(count):
        image, labels = generate(size, np.random.default_rng([seed, number]))
        if labels.any():
            planes.append(LabelledPlane("synthetic", image.astype(np.uint8), labels.astype(np.uint16)))
    return planes
