"""Shrinking by averaging over rectangles whose edges need not lie between pixels: nothing shifts, nothing is skipped.

Edges count from the border of the image, so pixel i covers [i, i + 1).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import sparse

from napari_sam.core.arrays import Array, FloatArray
from napari_sam.core.planes import Shape2D

MOST_PIXELS = 1 << 22
"""About so many pixels are taken at once: as floats a large plane takes many times its own memory."""


def evenly(shape: Shape2D, step: float) -> tuple[FloatArray, FloatArray]:
    """Edges along rows and columns of rectangles that share out an image, about `step` pixels long each."""
    rows, cols = (np.linspace(0, side, max(1, round(side / step)) + 1) for side in shape)
    return rows, cols


def averaged(
    image: Array, rows: FloatArray, cols: FloatArray, prepare: Callable[[Array], Array] | None = None
) -> FloatArray:
    """Mean of each rectangle.

    Parameters
    ----------
    image : (H, W) or (H, W, C) array
        Of any real type.
    rows, cols : (m + 1,) and (n + 1,) float arrays
        Edges, rising. What lies beyond the image takes its nearest pixel.
    prepare : callable, optional
        Applied to some rows of the image before they are averaged; it may change the number of channels.

    Returns
    -------
    (m, n) or (m, n, C) float32 array
    """
    across = _weights(cols, image.shape[1])
    per_strip = max(1, int(MOST_PIXELS * (len(rows) - 1) / max(image.shape[0] * image.shape[1], 1)))
    strips = []
    for start in range(0, len(rows) - 1, per_strip):
        down = _weights(rows[start : start + per_strip + 1], image.shape[0])
        low, high = int(down.indices.min()), int(down.indices.max()) + 1
        strip = image[low:high] if prepare is None else prepare(image[low:high])
        values = down[:, low:high] @ strip.reshape(high - low, -1).astype(np.float32)
        columns = np.moveaxis(values.reshape(len(values), *strip.shape[1:]), 1, 0)
        means = across @ columns.reshape(len(columns), -1)
        strips.append(np.moveaxis(means.reshape(-1, *columns.shape[1:]), 0, 1))
    return np.concatenate(strips)


def _weights(edges: FloatArray, size: int) -> sparse.csr_array:
    """(m, size) share that each pixel has in each interval."""
    low = np.clip(edges[:-1], 0, size)
    high = np.clip(edges[1:], 0, size)
    beyond = high <= low
    low[beyond] = np.clip(np.floor(low[beyond]), 0, size - 1)
    high[beyond] = low[beyond] + 1
    first, stop = np.floor(low).astype(np.intp), np.ceil(high).astype(np.intp)
    counts = stop - first
    starts = np.concatenate([[0], np.cumsum(counts)])
    intervals = np.repeat(np.arange(len(counts)), counts)
    pixels = np.arange(starts[-1]) - starts[intervals] + first[intervals]
    shares = np.minimum(high[intervals], pixels + 1) - np.maximum(low[intervals], pixels)
    weights = (shares / (high - low)[intervals]).astype(np.float32)
    return sparse.csr_array((weights, pixels, starts), shape=(len(counts), size))
