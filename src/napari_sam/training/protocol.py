"""Where the measuring protocol clicks, and how it scores. Written apart from training's click simulation.

* First click: positive, at the pixel deepest inside the object (largest Euclidean distance to its border,
  and the edge of the image is a border too); ties go to the first in row-major order.
* Next clicks: the deepest pixel of the largest connected error region (sides touch, corners do not);
  positive where the object is missed, negative where the mask spills over.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_sam.core.arrays import Array, BoolArray, FloatArray

NOC_TARGET = 0.85
WORSE = 0.05
"""A fall of the IoU by more than this from one click to the next counts as "worse"."""


@dataclass(frozen=True, slots=True)
class Click:
    """One simulated click in plane space."""

    yx: tuple[int, int]
    positive: bool


def iou(a: Array, b: Array) -> float:
    """Intersection over union of two masks; 1 where both are empty."""
    either = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / either if either else 1.0


def deepest_pixel(mask: BoolArray) -> tuple[int, int]:
    """Row and column of the pixel farthest from the border of a mask that is not empty."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    part = mask[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    distance = ndimage.distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1]
    row, col = np.unravel_index(int(distance.argmax()), part.shape)
    return int(row + rows[0]), int(col + cols[0])


def first_click(truth: BoolArray) -> Click:
    """The click a user would start with."""
    return Click(deepest_pixel(truth), True)


def next_click(truth: BoolArray, answer: BoolArray) -> Click | None:
    """The click that corrects the largest error; None where there is none."""
    regions = [(truth & ~answer, True), (answer & ~truth, False)]
    largest: tuple[int, BoolArray, bool] | None = None
    for errors, positive in regions:
        parts, count = ndimage.label(errors)
        if not count:
            continue
        sizes = np.bincount(parts.ravel())[1:]
        if largest is None or sizes.max() > largest[0]:
            largest = int(sizes.max()), parts == sizes.argmax() + 1, positive
    return None if largest is None else Click(deepest_pixel(largest[1]), largest[2])


def tight_box(truth: BoolArray) -> FloatArray:
    """(y0, x0, y1, x1) around the outer edges of the object's pixels."""
    rows, cols = np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
    return np.array([rows[0], cols[0], rows[-1] + 1, cols[-1] + 1]) - 0.5


def number_of_clicks(curve: FloatArray, limit: int) -> int:
    """Clicks until the IoU first reaches the target; the limit where it never does."""
    reached = np.flatnonzero(curve >= NOC_TARGET)
    return int(reached[0]) + 1 if len(reached) else limit


def share_worse(curves: FloatArray) -> float:
    """Share of the steps from one click to the next in which the IoU falls; curves are (N, clicks)."""
    return float((np.diff(curves, axis=1) < -WORSE).mean()) if curves.size and curves.shape[1] > 1 else 0.0
