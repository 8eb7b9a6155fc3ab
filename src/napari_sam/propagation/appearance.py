"""Whether a mask still lies on what its object looks like, judged by the image encoder's own features.

A mask that is carried from plane to plane is carried on where its object has ended: a mask prompt says that there is
something, and the decoder finds something. The embedding tells. On a seed plane its mean inside the mask
and its mean around the mask are two points in the space of features; the line between them leads from "around it"
(0) to "the object" (1), and the mean inside a later mask has a place along that line, its *likeness*. Of several seed
planes the one counts on which the object stands out most: others may show no more than its end.

How sure the model is differs from object to object and from image to image. So its estimate of the IoU is held
against the one that it gives when the mask of a seed plane is carried onto that plane itself, where the object is beyond
doubt. Both together, and how the mask changed from the plane before, make the *presence* of an object.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.special import expit

from napari_sam.core.arrays import Array, FloatArray
from napari_sam.core.planes import Region
from napari_sam.core.results import ImageEmbedding, TileEmbedding

_AROUND = 2
"""The surroundings are so many cells wide, one cell away from the mask."""
WEIGHTS, BIAS = (3.67, -8.71, 7.51, 17.08, -25.47, -8.27), -12.55
"""Those that carry whole objects best, by benchmarks/fit_presence.py; see `evidence`."""
_ESTIMATES, _ALIKE = (0.02, 0.98), 1.5
"""Estimates are clipped to this range, likeness to this height, before it."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """Mean features inside a mask and around it, each (C,) float32."""

    inside: FloatArray
    around: FloatArray

    @property
    def contrast(self) -> float:
        """Distance between inside and around."""
        return float(np.linalg.norm(self.inside - self.around))

    def likeness(self, reference: Look) -> float:
        """Place of the inside between the surroundings (0) and the inside (1) of `reference`.

        1.0 where the reference does not differ from its surroundings: then nothing can be said.
        """
        line = reference.inside - reference.around
        length = float(line @ line)
        return float((self.inside - reference.around) @ line) / length if length > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Change:
    """How a mask differs from the one of the plane before.

    Parameters
    ----------
    overlap : float
        IoU of the two.
    growth : float
        Logarithm of the factor by which the motion of the image changes the area, see `motion.Moved`.
    shade : float
        Change of the mean grey inside, see `motion.shade_change`.
    """

    overlap: float
    growth: float = 0.0
    shade: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What is known of an object from its seed planes.

    Parameters
    ----------
    look : Look
        Where it stands out most.
    predicted_iou : float
        The highest that the model estimates for a seed mask carried onto its own plane.
    """

    look: Look
    predicted_iou: float = 1.0

    def evidence(self, predicted_iou: float, likeness: float, change: Change) -> tuple[float, ...]:
        """What presence rests on, see there; the estimate as log-odds, beside the estimate on the seed plane."""
        sure = float(np.clip(predicted_iou, *_ESTIMATES))
        odds, alike = float(np.log(sure / (1 - sure))), min(likeness, _ALIKE)
        return odds, self.predicted_iou, alike, change.overlap, change.growth, abs(change.shade)

    def presence(self, predicted_iou: float, likeness: float, change: Change) -> float:
        """Whether a carried mask is on its object still, 0 to 1; from 0.5 on it pays to go on.

        Parameters
        ----------
        predicted_iou : float
            The model's estimate for the mask.
        likeness : float
            See `Look.likeness`.
        change : Change
            From the plane before.
        """
        score = np.dot(WEIGHTS, self.evidence(predicted_iou, likeness, change)) + BIAS
        return float(expit(score))


def clearest(looks: Iterable[Look | None]) -> Look | None:
    """The look that stands out most from its surroundings; None if there is none."""
    known = [look for look in looks if look is not None]
    return max(known, key=lambda look: look.contrast, default=None)


def look_of(embedding: ImageEmbedding, region: Region) -> Look | None:
    """What a mask looks like in a plane; None if it fills everything that is there of the embedding.

    Parameters
    ----------
    embedding : ImageEmbedding
        Of the plane.
    region : Region
        Mask with at least one pixel.
    """
    tile = max(embedding.tiles, key=lambda one: (_shared(one, region), -one.input_shape[0]))
    inside = _cells(tile, region)
    near, far = (ndimage.binary_dilation(inside, iterations=n) for n in (1, 1 + _AROUND))
    around = far & ~near
    if not inside.any() or not around.any():
        return None
    features = tile.array[:, : inside.shape[0], : inside.shape[1]]
    return Look(*(features[:, chosen].mean(1, dtype=np.float32) for chosen in (inside, around)))


def _shared(tile: TileEmbedding, region: Region) -> int:
    """Pixels that a tile and the box of a mask have in common."""
    low = np.maximum(tile.box_yxyx[:2], region.box_yxyx[:2])
    high = np.minimum(tile.box_yxyx[2:], region.box_yxyx[2:])
    return int(np.prod(np.clip(high - low, 0, None)))


def _cells(tile: TileEmbedding, region: Region) -> Array:
    """(h, w) bool: cells of the tile, without its padding, whose middle lies in the mask, or else nearest to it."""
    cell = max(tile.input_shape) / max(tile.array.shape[1:])
    middles = [
        start + (np.arange(max(1, round(length / cell))) + 0.5) * cell * (stop - start) / length - 0.5
        for start, stop, length in zip(tile.box_yxyx[:2], tile.box_yxyx[2:], tile.input_shape, strict=True)
    ]
    at = [np.rint(axis).astype(int) - low for axis, low in zip(middles, region.box_yxyx[:2], strict=True)]
    there = [(axis >= 0) & (axis < n) for axis, n in zip(at, region.crop.shape, strict=True)]
    inside = np.zeros([len(axis) for axis in at], bool)
    inside[np.ix_(*there)] = region.crop[
        np.ix_(*(axis[found] for axis, found in zip(at, there, strict=True)))
    ]
    if not inside.any():
        y, x = np.argwhere(region.crop).mean(0) + region.box_yxyx[:2]
        inside[np.abs(middles[0] - y).argmin(), np.abs(middles[1] - x).argmin()] = True
    return inside
