"""Prompts and answers on a tile that was encoded mirrored or turned."""

from __future__ import annotations

import numpy as np

from napari_sam.core.arrays import Array, FloatArray
from napari_sam.core.planes import Shape2D
from napari_sam.core.sides import Side
from napari_sam.inference.resample import bilinear


def points_from(side: Side, points_xy: FloatArray, shape: Shape2D) -> FloatArray:
    """Where points of an image lie when it is looked at from a side.

    Parameters
    ----------
    side : Side
        Any.
    points_xy : (n, 2) array
        In model space, pixel centres at whole numbers.
    shape : (int, int)
        Height and width of the image in model space.
    """
    if side is Side.FRONT:
        return points_xy
    mirrored = np.stack([shape[1] - 1 - points_xy[:, 0], points_xy[:, 1]], 1)
    return mirrored[:, ::-1] if side is Side.TURNED else mirrored


def box_from(side: Side, box_xyxy: FloatArray, shape: Shape2D) -> FloatArray:
    """Where a box lies then, (4,) as `points_from` takes points."""
    corners = points_from(side, np.reshape(box_xyxy, (2, 2)), shape)
    return np.concatenate([corners.min(0), corners.max(0)])


def map_from(side: Side, values: FloatArray, cells_yx: tuple[float, float]) -> FloatArray:
    """A (h, w) map of an image when it is looked at from a side.

    Parameters
    ----------
    side : Side
        Any.
    values : (h, w) array
        At least as large as the image.
    cells_yx : (float, float)
        Rows and columns that the image takes exactly; its edge may cut a cell.
    """
    mirrored = _mirrored(values, cells_yx) if side else values
    return mirrored.T if side is Side.TURNED else mirrored


def map_to_front(side: Side, values: FloatArray, cells_yx: tuple[float, float]) -> FloatArray:
    """The reverse of `map_from`; `cells_yx` are those of the image as it is."""
    turned_back = values.T if side is Side.TURNED else values
    return _mirrored(turned_back, cells_yx) if side else turned_back


def _mirrored(values: Array, cells_yx: tuple[float, float]) -> FloatArray:
    rows, cols = (np.arange(np.ceil(count), dtype=np.float64) for count in cells_yx)
    return bilinear(values, rows, cells_yx[1] - 1 - cols[::-1])[:, ::-1]
