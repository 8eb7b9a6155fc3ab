"""The mask of one plane as the prompt of the next."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from napari_sam.core.arrays import FloatArray
from napari_sam.core.planes import Region
from napari_sam.core.prompts import PromptSet
from napari_sam.propagation.settings import Carry, PropagationSettings

_N_POINTS = 3


def carried_prompts(region: Region, settings: PropagationSettings) -> PromptSet:
    """Prompts for the next plane, made from the mask of this one.

    Parameters
    ----------
    region : Region
        Mask with at least one pixel.
    settings : PropagationSettings
        What to carry.

    Returns
    -------
    PromptSet
        In plane space; planes along one axis share it.
    """
    n_points = _N_POINTS if Carry.POINTS in settings.carry else int(Carry.POINT in settings.carry)
    return PromptSet(
        points_yx=deep_points(region, n_points),
        box_yxyx=widened_box(region, settings.box_margin) if Carry.BOX in settings.carry else None,
        mask=region.mask if Carry.MASK in settings.carry else None,
    )


def prompts_to_draw_anew(region: Region) -> PromptSet:
    """Prompts for a mask that may be wrong: points in it, for the model would repeat the mask itself."""
    return PromptSet(points_yx=deep_points(region, _N_POINTS))


def widened_box(region: Region, margin: float) -> FloatArray:
    """Outer pixel edges of the region, widened by a share of its size, inside the plane: (4,) yxyx."""
    y0, x0, y1, x1 = region.box_yxyx
    dy, dx = margin * (y1 - y0), margin * (x1 - x0)
    height, width = region.plane_shape
    low = np.maximum([y0 - dy, x0 - dx], 0) - 0.5
    high = np.minimum([y1 + dy, x1 + dx], [height, width]) - 0.5
    return np.concatenate([low, high])


def deep_points(region: Region, n_points: int) -> FloatArray:
    """Points inside the mask, deep and apart from each other: (n, 2) yx, at most `n_points`.

    Each is the pixel with the largest distance to the border and to the points chosen before.
    """
    depth = ndimage.distance_transform_edt(np.pad(region.crop, 1))[1:-1, 1:-1]
    rows, cols = np.indices(depth.shape)
    points: list[tuple[int, int]] = []
    while len(points) < n_points and depth.max() > 0:
        row, col = np.unravel_index(int(depth.argmax()), depth.shape)
        points.append((int(row), int(col)))
        depth = np.minimum(depth, np.hypot(rows - row, cols - col))
    offset = np.array(region.box_yxyx[:2], np.float64)
    return np.array(points, np.float64).reshape(-1, 2) + offset
