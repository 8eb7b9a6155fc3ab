"""Bilinear sampling of one rectangle of a logit map, so that only what is needed is computed.

Positions count pixel centres as integers. A map of n cells over L pixels has the centre of pixel p at
``(p + 0.5) * n / L - 0.5`` (PyTorch's ``align_corners=False``).
"""

from __future__ import annotations

import numpy as np

from napari_sam.core.arrays import Array, FloatArray
from napari_sam.core.planes import BoxYXYX, Region, Shape2D

STRIP = 256
"""Rows that are sampled at once: as floats a mask of a large plane takes many times its own memory."""


def bilinear(values: FloatArray, rows: FloatArray, cols: FloatArray) -> FloatArray:
    """Sample (h, w) values at all pairs of rows and columns: (len(rows), len(cols)) float32.

    Positions outside take the value of the border.
    """
    top, bottom, down = _neighbours(rows, values.shape[0])
    left, right, across = _neighbours(cols, values.shape[1])
    first, last = (int(left[0]), int(right[-1]) + 1) if len(left) else (0, 0)
    strip = values[:, first:last]
    lines = strip[top] + (strip[bottom] - strip[top]) * down[:, None]
    start, stop = lines[:, left - first], lines[:, right - first]
    return np.asarray(start + (stop - start) * across, np.float32)


def _neighbours(at: FloatArray, size: int) -> tuple[Array, Array, Array]:
    inside = np.clip(at, 0, size - 1)
    low = np.floor(inside).astype(np.intp)
    return low, np.minimum(low + 1, size - 1), (inside - low).astype(np.float32)


def positions(start: float, stop: float, scale: float, origin: float = 0.0) -> FloatArray:
    """Where the pixels start, ..., stop - 1 lie in a map with `scale` cells a pixel that begins at `origin`."""
    return (np.arange(start, stop) - origin + 0.5) * scale - 0.5


def positive_box(logits: FloatArray) -> BoxYXYX:
    """Smallest box around the cells above 0; an empty one if there are none."""
    rows = np.flatnonzero(logits.max(axis=1) > 0)
    if not len(rows):
        return (0, 0, 0, 0)
    cols = np.flatnonzero(logits[rows[0] : rows[-1] + 1].max(axis=0) > 0)
    return int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1


def region_of(
    logits: FloatArray, tile: BoxYXYX, plane_shape: Shape2D, cells: tuple[float, float] | None = None
) -> Region:
    """Upsample logits over a tile and cut them at 0, only where they can be above 0.

    Parameters
    ----------
    logits : (h, w) float array
        Covers the tile.
    tile : (y0, x0, y1, x1)
        In plane pixels.
    plane_shape : (int, int)
        Height and width of the plane; what the tile has beyond it is cut off.
    cells : (float, float), optional
        Rows and columns that the tile takes exactly; h and w when left out.
    """
    box = positive_box(logits)
    if box[2] == 0:
        return Region.empty(plane_shape)
    rows_exact, cols_exact = cells or logits.shape
    limits = (min(tile[2], plane_shape[0]) - tile[0], min(tile[3], plane_shape[1]) - tile[1])
    rows, y0 = _axis(box[0], box[2], rows_exact / (tile[2] - tile[0]), limits[0])
    cols, x0 = _axis(box[1], box[3], cols_exact / (tile[3] - tile[1]), limits[1])
    mask = np.empty((len(rows), len(cols)), bool)
    for start in range(0, len(rows), STRIP):
        mask[start : start + STRIP] = bilinear(logits, rows[start : start + STRIP], cols) > 0
    return Region.from_part(plane_shape, (y0 + tile[0], x0 + tile[1]), mask)


def _axis(first: int, last: int, scale: float, limit: int) -> tuple[FloatArray, int]:
    """Positions of the pixels that the cells first ... last - 1, and one more at each side, may reach."""
    low = min(limit, max(0, int(np.floor((first - 1) / scale))))
    high = min(limit, int(np.ceil((last + 1) / scale)))
    return positions(low, high, scale), low
