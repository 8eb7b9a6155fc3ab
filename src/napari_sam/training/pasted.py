"""Organelles of labelled planes, pasted into generated tissue of small cells (copy-paste: Ghiasi et al. 2021, arXiv 2012.07177).

Where every organelle that was learned from lies at the wall of a large empty cell, a click on one in a small, full
cell is taken for a click on the cell. Here real ones lie in cells of all sizes, among vacuoles and droplets that are
no objects; the cells themselves are objects where they hold none, in some of the tissues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import ndimage

from napari_sam.core.arrays import Array, BoolArray
from napari_sam.errors import TrainingError
from napari_sam.training.packed import LabelledPlane
from napari_sam.training.synthetic import (
    PLANES,
    Rng,
    Stack,
    Tessellation,
    labelled_planes,
    make_planes,
    smooth_noise,
    texture,
)

PASTED = "pasted"
"""Name of the set."""
SIZE = 448
MARGIN = 6
"""Pixels around an organelle that are cut out with it."""
LEAST_DONOR, LEAST_PASTED = 400, 60
"""Smallest organelle that is cut out, and that is left of one, in pixels."""
EMPTY_ARE_OBJECTS = 0.2
"""Share of the tissues in which cells without organelles are objects."""
FITS = 0.9
"""Share of an organelle that must lie inside its cell."""


@dataclass(frozen=True, slots=True, eq=False)
class Donor:
    """An organelle in two planes.

    Parameters
    ----------
    images : (Z, h, w) float32 array
        0..1
    masks : (Z, h, w) bool array
    """

    images: Array
    masks: BoolArray


def find_donors(planes: Sequence[LabelledPlane]) -> list[Donor]:
    """Objects that are whole, each in a plane and in one nearby.

    Raises
    ------
    TrainingError
        There are none.
    """
    by_place = {(plane.volume, plane.index): plane for plane in planes}
    found = []
    for plane in planes:
        places = [(plane.volume, plane.index + step) for step in (1, -1, 2, -2)]
        other = next((by_place[place] for place in places if place in by_place), plane)
        for number, slices in enumerate(ndimage.find_objects(plane.labels), 1):
            if slices is not None and (one := _donor(plane, other, number, slices)):
                found.append(one)
    if not found:
        raise TrainingError(
            "there is no whole object to paste; leave `pasted` empty, or name a set that has some"
        )
    return found


def _donor(
    plane: LabelledPlane, other: LabelledPlane, number: int, slices: tuple[slice, ...]
) -> Donor | None:
    lengths = plane.labels.shape
    if any(s.start < 2 or s.stop > n - 2 for s, n in zip(slices, lengths, strict=True)):
        return None
    cut = tuple(slice(max(s.start - MARGIN, 0), s.stop + MARGIN) for s in slices)
    pair = [plane, other if np.count_nonzero(other.labels[cut] == number) > LEAST_DONOR / 2 else plane]
    masks = np.stack([one.labels[cut] == number for one in pair])
    if masks[0].sum() < LEAST_DONOR:
        return None
    return Donor(np.stack([one.grey[cut] for one in pair]), masks)


def _turned(donor: Donor, scale: float, rng: Rng) -> tuple[Array, Array]:
    """Images and soft masks, (Z, n, n), at another scale and angle, perhaps mirrored."""
    height, width = donor.masks.shape[1:]
    size = int(np.ceil(np.hypot(height, width) * scale)) + 2
    angle = rng.uniform(0, 2 * np.pi)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    matrix[:, 1] *= rng.choice([-1.0, 1.0])
    offset = (np.array([height, width]) - 1) / 2 - matrix @ np.full(2, (size - 1) / 2)
    images = donor.images
    if scale < 0.7:
        images = ndimage.gaussian_filter(images, (0, 0.35 / scale, 0.35 / scale))
    sample = partial(
        ndimage.affine_transform, matrix=matrix, offset=offset, output_shape=(size, size), order=1
    )
    return (
        np.stack([sample(one, mode="nearest") for one in images]),
        np.stack([sample(one.astype(np.float32)) for one in donor.masks]),
    )


class _Tissue:
    """Cells with walls, and what is put into them.

    Attributes
    ----------
    image, labels : (Z, S, S) arrays
    cells : Tessellation
    free : (Z, S, S) bool array
        Inside a cell, off its wall.
    """

    def __init__(self, size: int, rng: Rng) -> None:
        self.rng, self.size = rng, size
        self.cells = cells = Tessellation(size, rng, (60, 190), rng.uniform(0.05, 0.22))
        self.wall = rng.uniform(2, 12)
        self.free = cells.gap > self.wall + 1.5
        self.labels = np.zeros((PLANES, size, size), np.int32)
        self.image = self._cytoplasm()

    def _cytoplasm(self) -> Array:
        """Light or grey cells, dark walls, sometimes mottled and with a membrane along the wall."""
        rng, size, cells = self.rng, self.size, self.cells
        kind = rng.random(cells.count)
        is_light = kind < 0.45
        mottled = rng.random() < 0.5
        shade = np.where(is_light, rng.uniform(0.7, 0.88, cells.count), rng.uniform(0.28, 0.65, cells.count))
        grain = np.where(is_light, rng.uniform(0, 0.1, cells.count), rng.uniform(0.02, 0.08, cells.count))
        image = shade[cells.index] + grain[cells.index] * texture(size, rng)
        image += rng.uniform(0, 0.04) * smooth_noise(size, int(size / rng.uniform(4, 9)), rng)
        if mottled:
            spots = smooth_noise(size, int(size / rng.uniform(12, 40)), rng) > rng.uniform(0.9, 1.6)
            image -= (spots & (kind[cells.index] > 0.3)) * rng.uniform(0.1, 0.3)
        wall = 1 / (1 + np.exp(np.clip((cells.gap - self.wall) / rng.uniform(0.4, 1.2), -30, 30)))
        image = image * (1 - wall) + wall * rng.uniform(0.03, 0.3)
        if rng.random() < 0.6:
            away = cells.gap - self.wall
            line = np.exp(-(((away - rng.uniform(1.5, 4)) / 1.2) ** 2)) * (away > 0)
            image -= rng.uniform(0.05, 0.3) * line
        return np.asarray(image, np.float32)

    def add_vacuoles(self) -> None:
        """Light or dark discs with a rim, which are no objects."""
        rng = self.rng
        rows, cols = np.mgrid[: self.size, : self.size]
        for _ in range(int(rng.integers(0, 25))):
            y, x = rng.integers(self.size, size=2)
            radius = np.exp(rng.uniform(np.log(4), np.log(28)))
            distance = np.hypot((rows - y) * np.exp(rng.normal(0, 0.2)), cols - x)
            room = self.free[0] & (self.cells.index[0] == self.cells.index[0, y, x])
            fill = rng.uniform(0.75, 0.95) if rng.random() < 0.75 else rng.uniform(0.05, 0.4)
            self.image[:, room & (distance < radius)] = fill
            self.image[:, room & (np.abs(distance - radius) < 1.2)] -= rng.uniform(0.05, 0.3)

    def add_organelles(self, donors: Sequence[Donor]) -> None:
        """Up to three in some of the cells, all of about the same scale."""
        rng = self.rng
        share, soft = rng.uniform(0.3, 0.9), rng.uniform(0.4, 1)
        scale = np.exp(rng.uniform(np.log(0.4), np.log(1.2)))
        for cell in np.unique(self.cells.index[0]):
            room = (self.cells.index[0] == cell) & self.free[0]
            if rng.random() > share or room.sum() < 500:
                continue
            for _ in range(int(rng.integers(1, 4))):
                for _ in range(8):
                    if self._paste(donors, int(cell), room, scale, soft):
                        break

    def _paste(self, donors: Sequence[Donor], cell: int, room: BoolArray, scale: float, soft: float) -> bool:
        """Put one somewhere into a cell; False where it does not fit."""
        rng = self.rng
        images, masks = _turned(
            donors[int(rng.integers(len(donors)))], scale * np.exp(rng.normal(0, 0.25)), rng
        )
        size = masks.shape[1]
        places = np.argwhere(room)
        low = places[rng.integers(len(places))] - size // 2
        start, stop = np.maximum(-low, 0), np.minimum(size, self.size - low)
        if (stop - start < 8).any():
            return False
        there = tuple(slice(int(a), int(b)) for a, b in zip(low + start, low + stop, strict=True))
        part = (slice(None), *(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True)))
        images, masks = images[part], masks[part]
        hard = masks > 0.5
        fits = room[there] & (self.labels[0][there] == 0)
        if hard[0].sum() < LEAST_PASTED or (hard[0] & fits).sum() < FITS * hard[0].sum():
            return False
        gain, shift, number = rng.uniform(0.8, 1.2), rng.uniform(-0.1, 0.12), self.labels.max() + 1
        for image, labels, index, free, grey, mask in zip(
            self.image, self.labels, self.cells.index, self.free, images, masks, strict=True
        ):
            own = (index[there] == cell) & free[there] & (labels[there] == 0)
            weight = ndimage.gaussian_filter(mask * own, soft)
            image[there] += weight * (np.clip(grey * gain + shift, 0, 1) - image[there])
            labels[there][(mask > 0.5) & own] = number
        return True

    def add_cells(self) -> None:
        """Cells without organelles become objects."""
        index = self.cells.index
        full = np.isin(index, index[self.labels > 0])
        empty = (self.cells.gap > self.wall) & ~full
        self.labels[empty] = index[empty] + self.labels.max() + 1


def paste(size: int, donors: Sequence[Donor], rng: Rng) -> Stack:
    """Neighbouring planes of one tissue.

    Returns
    -------
    image : (Z, size, size) float32 array, 0..255
    labels : (Z, size, size) int32 array, 0 is background
    """
    tissue = _Tissue(size, rng)
    tissue.add_vacuoles()
    tissue.add_organelles(donors)
    if rng.random() < EMPTY_ARE_OBJECTS:
        tissue.add_cells()
    image = tissue.image + rng.uniform(0, 0.05) * rng.standard_normal(tissue.image.shape, dtype=np.float32)
    if rng.random() < 0.5:
        width = rng.uniform(0.2, 0.9)
        image = ndimage.gaussian_filter(image, (0, width, width))
    return np.clip(image, 0, 1).astype(np.float32) * 255, tissue.labels


def paste_planes(
    planes: Sequence[LabelledPlane], count: int, seed: int, workers: int = 0, size: int = SIZE
) -> list[LabelledPlane]:
    """At most `count` planes of the set "pasted", as `synthetic.generate_planes` makes others.

    Parameters
    ----------
    planes : sequence of LabelledPlane
        Whose objects are pasted; held out ones are left alone.
    count : int
        Number of planes, rounded up to whole stacks.
    seed : int
        The same planes for the same seed and size, whatever `workers`.
    workers : int
        Processes to share the work with; 0 works in this one.
    size : int
        Side of a plane in pixels.

    Raises
    ------
    TrainingError
        There is nothing to paste.
    """
    donors = find_donors([plane for plane in planes if not plane.held_out])
    return make_planes(partial(_planes, donors=donors, seed=seed, size=size), count, workers)


def _planes(number: int, donors: Sequence[Donor], seed: int, size: int) -> list[LabelledPlane]:
    stack = paste(size, donors, np.random.default_rng([seed, number]))
    return list(labelled_planes(PASTED, *stack, number))
