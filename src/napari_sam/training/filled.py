"""Generated neurites that hold what real objects hold.

Where all neurites of a volume are traced, their masks meet in the middle of the membrane; where single axons are
outlined, as in the labelled planes at hand, masks end before it. Generated tissue alone teaches the first only for
images that look generated: with the insides of real axons between its membranes it looks like the real one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from scipy import ndimage

from napari_sam.core.arrays import Array
from napari_sam.errors import TrainingError
from napari_sam.training.packed import LabelledPlane
from napari_sam.training.synthetic import PLANES, Rng, finished, labelled_planes, make_planes, neurites

FILLED = "filled"
"""Name of the set."""
SIZE = 320
LEAST_INTERIOR = 12
"""Smallest side of a square inside an object that is cut out, in pixels."""


def find_interiors(planes: Sequence[LabelledPlane]) -> list[Array]:
    """The square around the deepest pixel of every object, (n, n) float32 of mean 0, where it is large enough.

    Raises
    ------
    TrainingError
        There are none.
    """
    found = []
    for plane in planes:
        grey = plane.grey
        for number, slices in enumerate(ndimage.find_objects(plane.labels), 1):
            if slices is None:
                continue
            depth = ndimage.distance_transform_edt(np.pad(plane.labels[slices] == number, 1))[1:-1, 1:-1]
            half = int(depth.max() / np.sqrt(2))
            if 2 * half >= LEAST_INTERIOR:
                y, x = np.unravel_index(depth.argmax(), depth.shape)
                square = grey[slices][y - half : y + half, x - half : x + half]
                found.append(square - square.mean())
    if not found:
        raise TrainingError("there is no object whose inside could fill others; leave `filled` empty")
    return found


def _filling(side: int, rng: Rng, interiors: Sequence[Array]) -> Array:
    """One interior at some scale and turn, mirrored until it fills a square; a little further in the next plane."""
    scale = np.exp(rng.uniform(np.log(0.4), np.log(1.5)))
    wide = [one for one in interiors if len(one) * scale > side / 3] or interiors
    one = np.rot90(wide[int(rng.integers(len(wide)))], int(rng.integers(4)))
    if scale < 0.7:
        one = ndimage.gaussian_filter(one, 0.35 / scale)
    one = ndimage.zoom(one, scale, order=1)
    wanted = side + 2 * PLANES
    while len(one) < wanted:
        one = np.pad(one, ((0, min(len(one), wanted - len(one))),) * 2, "symmetric")
    start = rng.integers(0, len(one) - wanted + 1, 2)
    steps = rng.integers(0, 3, 2)
    drawn = [one[y : y + side, x : x + side] for y, x in (start + plane * steps for plane in range(PLANES))]
    return np.stack(drawn) * rng.uniform(0.4, 1.1)


def fill_planes(
    planes: Sequence[LabelledPlane], count: int, seed: int, workers: int = 0
) -> list[LabelledPlane]:
    """At most `count` planes of the set "filled".

    Parameters
    ----------
    planes : sequence of LabelledPlane
        Whose objects' insides are taken; held out ones are left alone.
    count : int
        Number of planes, rounded up to whole stacks.
    seed : int
        The same planes for the same seed, whatever `workers`.
    workers : int
        Processes to share the work with; 0 works in this one.

    Raises
    ------
    TrainingError
        There is nothing to fill them with.
    """
    interiors = find_interiors([plane for plane in planes if not plane.held_out])
    return make_planes(partial(_planes, interiors=interiors, seed=seed), count, workers)


def _planes(number: int, interiors: Sequence[Array], seed: int) -> list[LabelledPlane]:
    rng = np.random.default_rng([seed, number])
    stack = finished(*neurites(SIZE, rng, partial(_filling, interiors=interiors)), rng)
    return list(labelled_planes(FILLED, *stack, number))
