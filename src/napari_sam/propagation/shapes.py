"""Shapes between two shapes, by their signed distance functions (Raya and Udupa 1990; Herman et al. 1992)."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from napari_sam.core.arrays import BoolArray, FloatArray
from napari_sam.core.planes import BoxYXYX, Region
from napari_sam.propagation.doubt import centroid


def signed_distance(mask: BoolArray, spacing_yx: tuple[float, float] = (1.0, 1.0)) -> FloatArray:
    """Distance to the outline, positive inside, (H, W) float64; half a pixel on either side of it."""
    half = min(spacing_yx) / 2
    inside = ndimage.distance_transform_edt(mask, sampling=spacing_yx)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing_yx)
    return np.asarray(np.where(mask, inside - half, half - outside))


def interpolate(
    below: Region, above: Region, share: float, spacing_yx: tuple[float, float] = (1.0, 1.0)
) -> Region:
    """The shape between two shapes: where the object is halfway is where the mean of both distances is 0.

    Both are first moved to where the object is then, so an object that wanders is not lost.

    Parameters
    ----------
    below, above : Region
        Masks of two planes, none empty.
    share : float
        Where between them: 0 gives `below`, 1 gives `above`.
    spacing_yx : (float, float)
        Size of a pixel; only its ratio matters.

    Returns
    -------
    Region
        In the same plane shape; cut where the shape leaves the plane.
    """
    at = (1 - share) * centroid(below) + share * centroid(above)
    box = _window(below, above)
    moved = [_distance_around(one, at, box, spacing_yx) for one in (below, above)]
    inside = (1 - share) * moved[0] + share * moved[1] > 0
    return _placed(inside, box, below.plane_shape)


def _window(below: Region, above: Region) -> BoxYXYX:
    """A box in which both shapes, moved towards each other, have room; it may leave the plane."""
    boxes = np.array([below.box_yxyx, above.box_yxyx])
    sides = (boxes[:, 2:] - boxes[:, :2]).max(0)
    low, high = boxes[:, :2].min(0) - sides - 2, boxes[:, 2:].max(0) + sides + 2
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _distance_around(
    region: Region, at: FloatArray, box: BoxYXYX, spacing_yx: tuple[float, float]
) -> FloatArray:
    """Signed distance of a shape moved so that its centroid lies at `at`, over a box."""
    distance = signed_distance(region.over(box), spacing_yx)
    return np.asarray(ndimage.shift(distance, at - centroid(region), order=1, mode="nearest"))


def _placed(inside: BoolArray, box: BoxYXYX, plane_shape: tuple[int, int]) -> Region:
    height, width = plane_shape
    y0, x0 = max(0, box[0]), max(0, box[1])
    y1, x1 = max(y0, min(height, box[2])), max(x0, min(width, box[3]))
    crop = inside[y0 - box[0] : y1 - box[0], x0 - box[1] : x1 - box[1]]
    return Region.from_part(plane_shape, (y0, x0), crop)
