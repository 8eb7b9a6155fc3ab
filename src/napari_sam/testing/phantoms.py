"""Labelled images that are known to the last pixel.

Every phantom is bright objects (`foreground`, 200) on a dark ground (`background`, 20), so that
`napari_sam.testing.fakes.FakePredictor` with its default threshold finds exactly the labelled pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from napari_sam.core.arrays import Array

BACKGROUND = 20
FOREGROUND = 200


class Phantom(NamedTuple):
    """An image and its truth, both of the same shape; `labels` is uint16, 0 is background."""

    image: Array
    labels: Array


@dataclass(frozen=True, slots=True)
class Look:
    """Grey values of a phantom: object and background level, normal noise around them, type and seed."""

    background: float = BACKGROUND
    foreground: float = FOREGROUND
    noise: float = 0.0
    dtype: DTypeLike = "uint8"
    seed: int = 0

    def paint(self, labels: Array) -> Array:
        """Grey image of a label image."""
        image = np.where(labels > 0, float(self.foreground), float(self.background))
        if self.noise:
            image += np.random.default_rng(self.seed).normal(0, self.noise, labels.shape)
        dtype = np.dtype(self.dtype)
        if dtype.kind in "iu":
            image = np.clip(np.rint(image), np.iinfo(dtype).min, np.iinfo(dtype).max)
        return image.astype(dtype)


def discs_plane(
    shape: tuple[int, int] = (96, 128),
    centres_yx: Sequence[Sequence[float]] = ((30, 32), (62, 90)),
    radii: Sequence[float] | float = 14.0,
    look: Look | None = None,
) -> Phantom:
    """Discs in one plane.

    Parameters
    ----------
    shape : (int, int)
        Height and width.
    centres_yx : sequence of (y, x)
        Disc i gets the label i + 1; where discs overlap the later one lies on top.
    radii : float or sequence of float
        In pixels; a pixel belongs to the disc if its centre is at most that far from the disc's.
    look : Look, optional
        Grey values.

    Returns
    -------
    Phantom
        (H, W) image and labels.
    """
    return _balls(shape, centres_yx, radii, (1.0, 1.0), look)


def ball_volume(
    shape_zyx: tuple[int, int, int] = (24, 64, 80),
    centres_zyx: Sequence[Sequence[float]] | None = None,
    radii: Sequence[float] | float = 9.0,
    spacing_zyx: Sequence[float] = (1.0, 1.0, 1.0),
    look: Look | None = None,
) -> Phantom:
    """Balls in a volume, flattened in voxels where the spacing is coarse.

    Parameters
    ----------
    shape_zyx : (int, int, int)
        Voxels along Z, Y, X.
    centres_zyx : sequence of (z, y, x), optional
        In voxels; one ball in the middle when left out.
    radii : float or sequence of float
        In the unit of `spacing_zyx`.
    spacing_zyx : (float, float, float)
        Size of a voxel.
    look : Look, optional
        Grey values.

    Returns
    -------
    Phantom
        (Z, Y, X) image and labels; ball i has the label i + 1.
    """
    centres = [[(side - 1) / 2 for side in shape_zyx]] if centres_zyx is None else centres_zyx
    return _balls(shape_zyx, centres, radii, spacing_zyx, look)


def drifting_disc_volume(
    shape_zyx: tuple[int, int, int] = (16, 64, 96),
    start_yx: tuple[float, float] = (30.0, 24.0),
    step_yx: tuple[float, float] = (0.0, 3.0),
    radius: float = 11.0,
    planes: range | None = None,
    look: Look | None = None,
) -> Phantom:
    """One disc that moves by `step_yx` from plane to plane and exists in `planes` only (default: all)."""
    labels = np.zeros(shape_zyx, np.uint16)
    for z in range(shape_zyx[0]) if planes is None else planes:
        centre = np.add(start_yx, np.multiply(z, step_yx))
        labels[z] = _balls(shape_zyx[1:], [centre], radius, (1.0, 1.0), None).labels
    return Phantom((look or Look()).paint(labels), labels)


def _balls(
    shape: tuple[int, ...],
    centres: Sequence[Any],
    radii: Sequence[float] | float,
    spacing: Any,
    look: Look | None,
) -> Phantom:
    labels = np.zeros(shape, np.uint16)
    grid = np.ogrid[tuple(slice(side) for side in shape)]
    for label, (centre, radius) in enumerate(
        zip(centres, np.broadcast_to(radii, len(centres)), strict=True), start=1
    ):
        parts = [((g - c) * s) ** 2 for g, c, s in zip(grid, centre, spacing, strict=True)]
        labels[sum(parts[1:], parts[0]) <= radius**2] = label
    return Phantom((look or Look()).paint(labels), labels)
