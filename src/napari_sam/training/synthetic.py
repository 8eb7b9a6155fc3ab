"""Generated microscopy with exact labels: it widens the domains beyond the sets at hand.

Every generator returns images of about 0..1 and labels, both (`PLANES`, S, S): neighbouring planes of one
small volume, so that an object has a neighbour to be carried from. All are built from two cheap parts: smooth
noise, and the two nearest of some seeds in space (a Voronoi tessellation) over warped coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import numpy as np
import torch
from scipy import ndimage

from napari_sam.core.arrays import Array
from napari_sam.training.packed import LabelledPlane
from napari_sam.training.parts import connected_parts

Rng = np.random.Generator
Stack = tuple[Array, Array]
Filling = Callable[[int, Rng], Array]
SYNTHETIC = "synthetic"
"""Name of the set."""
PLANES = 2
DEPTH = 1.0
"""Seeds lie up to so many spacings above and below the planes."""
APART, TURN = (0.05, 0.4), 0.01
"""From plane to plane: the way through the seeds in spacings, and how far noise changes (in radians, for each wave a side)."""
PATCH = (1, 3, 3)
"""Neighbourhood of a pixel in its plane."""


def smooth_noise(size: int, cells: int, rng: Rng) -> Array:
    """(Z, S, S) float32 of mean 0 and deviation about 1, with about `cells` waves a side; planes differ a little."""
    coarse = torch.from_numpy(rng.standard_normal((1, 2, cells + 3, cells + 3), dtype=np.float32))
    fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    first, second = fine[0].numpy() * 1.3
    turns = np.arange(PLANES) * min(TURN * cells, 1.0)  # fine structure changes sooner
    return np.stack([np.cos(a) * first + np.sin(a) * second for a in turns]).astype(np.float32)


def texture(size: int, rng: Rng) -> Array:
    """Noise of several scales."""
    waves = np.exp(rng.uniform(np.log(4), np.log(size / 3), 3)).astype(int)
    weights = rng.dirichlet(np.ones(3))
    return np.asarray(
        sum(w * smooth_noise(size, c, rng) for w, c in zip(weights, waves, strict=True)), np.float32
    )


def warped_grid(size: int, rng: Rng, strength: float, cells: int, apart: float) -> Array:
    """(Z * S * S, 3) float32 coordinates zyx bent by smooth noise, sometimes stretched along one axis."""
    z, y, x = np.mgrid[:PLANES, :size, :size].astype(np.float32)
    y = y + strength * smooth_noise(size, cells, rng)
    x = x + strength * smooth_noise(size, cells, rng)
    angle, stretch = rng.uniform(0, np.pi), np.exp(rng.uniform(0, 0.8))
    turned = np.cos(angle) * x + np.sin(angle) * y, (np.cos(angle) * y - np.sin(angle) * x) * stretch
    return np.stack([(z * apart).ravel(), *(part.ravel() for part in turned)], 1).astype(np.float32)


def two_nearest(points: Array, seeds: Array, size: int) -> tuple[Array, Array, Array]:
    """Index of the nearest seed, its distance, and how much further the second is; each (Z, S, S)."""
    where = torch.from_numpy(seeds.astype(np.float32))
    found = [_two_nearest(part, where) for part in torch.split(torch.from_numpy(points), size * size // 4)]
    index, near, second = (torch.cat(parts).numpy().reshape(PLANES, size, size) for parts in zip(*found))
    return index, near, second - near


def _two_nearest(points: torch.Tensor, seeds: torch.Tensor) -> tuple[torch.Tensor, ...]:
    distances = torch.cdist(points, seeds)
    near, index = distances.min(1)
    return index, near, distances.scatter_(1, index[:, None], torch.inf).amin(1)


class Tessellation:
    """Regions around seeds in space.

    Attributes
    ----------
    seeds : (N, 3) array
    spacing : float
        Usual distance of two seeds, in pixels.
    index, distance, gap : (Z, S, S) arrays
        See `two_nearest`.
    """

    def __init__(
        self, size: int, rng: Rng, diameter: tuple[float, float], warp: float, spread: float = 0.0
    ) -> None:
        spacing = self.spacing = float(np.exp(rng.uniform(*np.log(diameter))))
        apart = spacing * rng.uniform(*APART)
        grid = warped_grid(size, rng, warp * spacing, max(2, int(size / spacing)), apart)
        low, high = grid.min(0), grid.max(0)
        low[0], high[0] = low[0] - DEPTH * spacing, high[0] + DEPTH * spacing
        count = int(np.clip(np.prod((high - low) / spacing), 6, 320))
        self.seeds = seeds = rng.uniform(low, high, (count, 3))
        if (
            spread
        ):  # a power diagram: small regions beside large ones, whose seeds are nearer in a fourth dimension
            reach = (spacing / 2 * np.exp(spread * rng.standard_normal(count))) ** 2
            grid = np.pad(grid, ((0, 0), (0, 1)))
            seeds = np.column_stack([seeds, np.sqrt(reach.max() - reach)])
        self.index, self.distance, self.gap = two_nearest(grid, seeds, size)

    @property
    def count(self) -> int:
        """Number of regions."""
        return len(self.seeds)

    def joined(self, rng: Rng) -> Array:
        """(N,) number of the object that each region belongs to: some objects are made of several neighbours."""
        hubs = rng.random(self.count) < rng.uniform(0.05, 0.3)
        if not hubs.any():
            return np.arange(self.count)
        distances = np.linalg.norm(self.seeds[:, None] - self.seeds[None, hubs], axis=-1)
        near = distances.min(1) < rng.uniform(0, 1.3) * self.spacing
        return np.where(near, np.flatnonzero(hubs)[distances.argmin(1)], np.arange(self.count))


def _level(rng: Rng, count: int, spread: float) -> Array:
    return rng.normal(0, spread, count).astype(np.float32)


def cells(size: int, rng: Rng) -> Stack:
    """Dense cells with walls between them, thin or thick, here and there seen slantwise.

    Objects fill the plane and meet in the middle of a wall, as where all cells of a tissue are traced.
    """
    regions = Tessellation(size, rng, (14, 90), rng.uniform(0, 0.25), rng.uniform(0, 0.6))
    half = max(0.8, rng.uniform(0.03, 0.16) * regions.spacing)
    slant = rng.uniform(0, 0.9) * np.exp(-((regions.gap / (rng.uniform(0.05, 0.4) * regions.spacing)) ** 2))
    wall = np.maximum(np.exp(-((_depth(regions.index) / half) ** 2)), slant)
    level = rng.uniform(0.02, 0.3) + np.abs(_level(rng, regions.count, rng.uniform(0, 0.2)))[regions.index]
    image = level + wall * (rng.uniform(0.4, 0.95) - level) + rng.uniform(0, 0.1) * texture(size, rng)
    if rng.random() < 0.4:
        image *= 1 + 0.3 * smooth_noise(size, 4, rng)
    width = rng.uniform(0, 0.8) * half
    return ndimage.gaussian_filter(image, (0, width, width)), regions.index + 1


def _depth(owner: Array) -> Array:
    """(Z, S, S) float32 distance to the border of an object, in its plane."""
    border = ndimage.minimum_filter(owner, PATCH) != ndimage.maximum_filter(owner, PATCH)
    return np.stack([ndimage.distance_transform_edt(~plane) for plane in border]).astype(np.float32)


def neurites(size: int, rng: Rng, filling: Filling | None = None) -> Stack:
    """Electron microscopy: bent profiles of mixed size, dark membranes, vesicles and mitochondria.

    Objects fill the plane and meet in the middle of a membrane, as where all neurites of a volume are traced. Membranes that
    are cut slantwise are wide and faint.

    Parameters
    ----------
    filling : callable, optional
        Draws what is inside of a profile of some side, (Z, side, side) of mean 0; smooth noise and speckles without it.
    """
    regions = Tessellation(size, rng, (14, 70), rng.uniform(0.05, 0.55), rng.uniform(0, 1.0))
    owner = _with_tubes(regions.joined(rng)[regions.index], rng)
    depth = _depth(owner)
    half = rng.uniform(0.8, max(2.0, min(0.12 * regions.spacing, 5.0)))
    slant = rng.uniform(0, 1.5) * np.maximum(smooth_noise(size, int(2 * size / regions.spacing), rng), 0)
    shade = _level(rng, owner.max() + 1, rng.uniform(0, 0.16))[owner]
    image, objects = 0.7 + shade, np.stack(list(connected_parts(owner + 1)))
    if filling is None:
        image = image + rng.uniform(0.02, 0.1) * texture(size, rng)
        image = _vesicles_inside(image, depth > 2 * half, rng)
    else:
        image = _filled(image, objects, filling, rng)
    image = _with_mitochondria(image, objects, depth - half, rng)
    membrane = np.exp(-((depth / (half * (1 + slant))) ** 2)) / (1 + slant)
    return image - membrane * rng.uniform(0.12, 0.6), objects


def _with_tubes(owner: Array, rng: Rng) -> Array:
    """In half of the tissues thin processes too, round where they are cut across, inside of others and between them."""
    if rng.random() < 0.5:
        return owner
    tubes = Tessellation(owner.shape[1], rng, (14, 60), rng.uniform(0, 0.25))
    there = rng.random(tubes.count) < rng.uniform(0.2, 0.9)
    radius = tubes.spacing * rng.uniform(0.15, 0.5) * np.exp(_level(rng, tubes.count, 0.25)) * there
    inside = (tubes.distance < radius[tubes.index]) & (tubes.gap > 1)
    return np.where(inside, owner.max() + 1 + tubes.index, owner)


def _filled(image: Array, objects: Array, filling: Filling, rng: Rng) -> Array:
    image = image.copy()
    for number, slices in enumerate(ndimage.find_objects(objects), 1):
        if slices is not None:
            inside = objects[slices] == number
            height, width = inside.shape[1:]
            drawn = filling(max(height, width), rng)[slices[0], :height, :width]
            image[slices] += np.where(inside, drawn, 0)
    return image


def _with_mitochondria(image: Array, objects: Array, room: Array, rng: Rng) -> Array:
    """Dark rounded bodies with a rim in some profiles, up to nearly as wide as these; no objects here."""
    share, dark = rng.uniform(0, 0.7), rng.uniform(0.1, 0.4)
    size, image = image.shape[1], image.copy()
    grain = rng.uniform(0, 0.06) * smooth_noise(size, int(size / rng.uniform(3, 8)), rng)
    for number, slices in enumerate(ndimage.find_objects(objects), 1):
        if slices is None or rng.random() > share:
            continue
        free = (objects[slices] == number) & (room[slices] > 0)
        places = np.argwhere(free & (room[slices] > 3))
        for _ in range(int(rng.integers(1, 4)) if len(places) else 0):
            place = tuple(places[rng.integers(len(places))])
            depth = _ellipse_depth(free.shape, place, room[slices][place] * rng.uniform(0.5, 0.95), rng)
            rim = rng.uniform(0, 0.15) * (depth < 2)
            image[slices] -= (free & (depth > 0)) * (dark + grain[slices] + rim)
    return image


def _ellipse_depth(shape: tuple[int, ...], middle: tuple[int, ...], across: float, rng: Rng) -> Array:
    """(Z, h, w) how far inside an ellipse of some length and turn, in pixels across; it drifts from plane to plane."""
    along = across * np.exp(rng.uniform(0, 1))
    angle, drift = rng.uniform(0, np.pi), rng.normal(0, 0.1 * across, 2)
    plane, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]].astype(np.float32)
    y, x = y - middle[1] - drift[0] * plane, x - middle[2] - drift[1] * plane
    first, second = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    return np.asarray((1 - np.hypot(first / along, second / across)) * across)


def _vesicles_inside(image: Array, where: Array, rng: Rng) -> Array:
    """Dark speckles, and sometimes mitochondria that are no objects here."""
    size = image.shape[1]
    speckle = smooth_noise(size, int(size / rng.uniform(3, 6)), rng)
    dark = where & (speckle > rng.uniform(1.2, 2.2))
    image = image - dark * rng.uniform(0, 0.35)
    if rng.random() < 0.6:
        spots = smooth_noise(size, int(size / rng.uniform(16, 40)), rng) > rng.uniform(1.0, 1.6)
        cristae = 0.5 + 0.5 * np.sin(smooth_noise(size, 24, rng) * 4)
        image = image - (spots & where) * (0.15 + 0.15 * cristae)
    return np.asarray(image, np.float32)


def organelles(size: int, rng: Rng) -> Stack:
    """Electron microscopy in which mitochondria or chloroplasts are the objects: a rim around stripes."""
    image, _ = neurites(size, rng)
    regions = Tessellation(size, rng, (30, 130), rng.uniform(0.1, 0.4))
    radius = np.median(regions.distance) * rng.uniform(0.6, 1.2) * np.exp(_level(rng, regions.count, 0.25))
    depth = radius[regions.index] - regions.distance
    inside = (depth > 0) & (regions.gap > 1)
    angle = rng.uniform(0, np.pi, regions.count).astype(np.float32)[regions.index]
    y, x = np.mgrid[:size, :size].astype(np.float32)
    bend = smooth_noise(size, max(3, int(size / regions.spacing)), rng) * rng.uniform(0, 2)
    stripes = np.sin((np.cos(angle) * x + np.sin(angle) * y) * (2 * np.pi / rng.uniform(4, 12)) + bend)
    filling = image.mean() + rng.uniform(-0.35, 0.1) + _level(rng, regions.count, 0.05)[regions.index]
    filling = filling + rng.uniform(0, 0.15) * stripes + rng.uniform(0.02, 0.1) * texture(size, rng)
    filling = filling - (depth < rng.uniform(1.5, 4)) * rng.uniform(0, 0.3)
    return np.where(inside, filling, image).astype(np.float32), np.where(inside, regions.index + 1, 0)


def blobs(size: int, rng: Rng) -> Stack:
    """Nuclei: rounded bright objects that may touch, with texture, on a background."""
    regions = Tessellation(size, rng, (18, 100), rng.uniform(0, 0.15))
    distance, count = regions.distance, regions.count
    typical = np.median(distance) * rng.uniform(0.7, 1.6)
    there = rng.random(count) < rng.uniform(0.4, 1)
    radius = (typical * np.exp(_level(rng, count, 0.3)) * there)[regions.index]
    wobble = 1 + rng.uniform(0, 0.2) * smooth_noise(size, max(3, int(size / (2 * typical + 1))), rng)
    inside = (distance * wobble < radius) & (regions.gap > rng.uniform(0, 2))
    edge = np.clip((radius - distance * wobble) / rng.uniform(1, 5), 0, 1) * inside
    bright = np.exp(_level(rng, count, rng.uniform(0.1, 0.5)))[regions.index]
    grain = 1 + rng.uniform(0, 0.4) * texture(size, rng)
    image = rng.uniform(0, 0.2) + 0.5 * edge * bright * grain + rng.uniform(0, 0.08) * texture(size, rng)
    if rng.random() < 0.25:
        rim = inside & (ndimage.minimum_filter(inside.astype(np.uint8), (1, 5, 5)) == 0)
        image = image + rim * rng.uniform(-0.3, 0.4)
    return image, np.where(inside, regions.index + 1, 0)


def rods(size: int, rng: Rng) -> Stack:
    """Bacteria and filaments: bent rods laid over each other, the upper one owns the pixels."""
    labels = np.zeros((PLANES, size, size), np.int32)
    image = np.full(labels.shape, rng.uniform(0, 0.3), np.float32)
    width = np.exp(rng.uniform(np.log(4), np.log(16)))
    length = width * np.exp(rng.uniform(np.log(1.5), np.log(8)))
    plane, grid_y, grid_x = np.mgrid[:PLANES, :size, :size].astype(np.float32)
    bend = smooth_noise(size, 3, rng) * rng.uniform(0, width)
    for number in range(1, int(rng.integers(4, 30))):
        angle, half = rng.uniform(0, np.pi), length / 2 * rng.uniform(0.6, 1.4)
        drift = rng.normal(0, 0.2 * width, 2)
        y, x = (
            grid - rng.uniform(0, size) - plane * d for grid, d in zip((grid_y, grid_x), drift, strict=True)
        )
        along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x + bend
        distance = np.hypot(np.maximum(np.abs(along) - half, 0), across)
        radius = width / 2 * (1 + plane * rng.normal(0, 0.15))
        inside = distance < radius
        labels[inside] = number
        shade = rng.uniform(0.4, 0.8) * np.clip((radius - distance) / rng.uniform(1, 4), 0, 1)
        image = np.where(inside, 0.1 + shade, image)
    return image + rng.uniform(0, 0.08) * texture(size, rng), labels


def vesicles(size: int, rng: Rng) -> Stack:
    """Rings: bright or dark outlines around an interior that looks like the background."""
    regions = Tessellation(size, rng, (16, 70), rng.uniform(0, 0.1))
    there = rng.random(regions.count) < 0.7
    radius = np.median(regions.distance) * np.exp(_level(rng, regions.count, 0.25)) * there
    depth = radius[regions.index] - regions.distance
    inside = (depth > 0) & (regions.gap > 1)
    ring = inside & (depth < rng.uniform(1.5, 6))
    image = 0.4 + rng.uniform(0.02, 0.15) * texture(size, rng) + ring * rng.uniform(0.15, 0.5)
    image = image + (inside & ~ring) * rng.uniform(-0.15, 0.1)
    return np.asarray(image, np.float32), np.where(inside, regions.index + 1, 0)


GENERATORS: tuple[tuple[Callable[[int, Rng], Stack], float], ...] = (
    (neurites, 0.25),
    (cells, 0.35),
    (organelles, 0.12),
    (blobs, 0.1),
    (rods, 0.1),
    (vesicles, 0.08),
)


def generate(size: int, rng: Rng) -> Stack:
    """Neighbouring planes of one generated volume.

    Returns
    -------
    image : (Z, size, size) float32 array, 0..255
    labels : (Z, size, size) int32 array, 0 is background
    """
    shares = np.array([share for _, share in GENERATORS])
    make = GENERATORS[rng.choice(len(GENERATORS), p=shares / shares.sum())][0]
    return finished(*make(size, rng), rng)


def finished(image: Array, labels: Array, rng: Rng) -> Stack:
    """With the noise and blur of a microscope, and grey values of 0..255."""
    image = image + rng.uniform(0, 0.06) * rng.standard_normal(image.shape, dtype=np.float32)
    if rng.random() < 0.7:
        width = rng.uniform(0, 1.2)
        image = ndimage.gaussian_filter(image, (0, width, width))
    return np.clip(image, 0, 1).astype(np.float32) * 255, labels.astype(np.int32)


def generate_planes(count: int, seed: int, size: int = 320, workers: int = 0) -> list[LabelledPlane]:
    """At least `count` planes of the set "synthetic": generated once, then cut and changed like real ones.

    Parameters
    ----------
    count : int
        Number of planes, rounded up to whole volumes.
    seed : int
        The same planes for the same seed and size, whatever `workers`.
    size : int
        Side of a plane in pixels.
    workers : int
        Processes to share the work with; 0 works in this one.
    """
    return make_planes(partial(_planes, seed=seed, size=size), count, workers)


def make_planes(make: Callable[[int], list[LabelledPlane]], count: int, workers: int) -> list[LabelledPlane]:
    """Planes of volumes 0, 1, 2 ... as `make` gives them, in this process or shared out to others."""
    numbers = range(-(-count // PLANES))
    if not workers:
        return [plane for number in numbers for plane in make(number)]
    with ProcessPoolExecutor(workers, get_context("fork"), torch.set_num_threads, (1,)) as pool:
        return [plane for planes in pool.map(make, numbers, chunksize=8) for plane in planes]


def _planes(number: int, seed: int, size: int) -> list[LabelledPlane]:
    return list(labelled_planes(SYNTHETIC, *generate(size, np.random.default_rng([seed, number])), number))


def labelled_planes(set_name: str, image: Array, labels: Array, number: int) -> Iterator[LabelledPlane]:
    """Those of the neighbouring planes of a volume that hold objects."""
    for index, (plane, objects) in enumerate(
        zip(image.astype(np.uint8), labels.astype(np.uint16), strict=True)
    ):
        if objects.any():
            yield LabelledPlane(set_name, plane, objects, number, index)
