"""Showing a changed box of a Labels layer without slicing the whole plane again.

napari does this for its own brush only. What is used here of napari is private, so each use is guarded: should it
change, the layer is refreshed whole, which is slower and just as right.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from napari_sam.core.arrays import Array
from napari_sam.core.planes import BoxYXYX

MOST_PIXELS = 1 << 17
"""Pixels that are coloured and sent to the graphics card in one turn of the event loop: 5 to 15 ms."""


def show_box(layer: Any, rows_cols: tuple[int, int], box_yxyx: BoxYXYX, values: Array) -> None:
    """Show what a box of the plane on screen holds now.

    Parameters
    ----------
    layer : napari.layers.Labels
        Whose data hold these values already.
    rows_cols : (int, int)
        The layer's dimensions along the rows and columns of the plane.
    box_yxyx : (int, int, int, int)
        Where.
    values : (h, w) array
        What.
    """
    if values.size == 0:
        return
    try:
        shown = _patch(layer, rows_cols, box_yxyx, values)
    except (AttributeError, TypeError, IndexError, ValueError):
        shown = False
    if not shown:
        layer.refresh()


def bands(box_yxyx: BoxYXYX, most: int = MOST_PIXELS) -> Iterator[BoxYXYX]:
    """Cut a box into bands of whole rows with at most `most` pixels each (one row at least)."""
    y0, x0, y1, x1 = box_yxyx
    rows = max(1, most // max(1, x1 - x0))
    for top in range(y0, y1, rows):
        yield (top, x0, min(y1, top + rows), x1)


def _patch(layer: Any, rows_cols: tuple[int, int], box_yxyx: BoxYXYX, values: Array) -> bool:
    """Write into the cached slice and its texture; False where the layer is shown another way."""
    displayed = tuple(layer._slice_input.displayed)
    if sorted(displayed) != sorted(rows_cols) or not layer._slicing_state.loaded or layer.contour:
        return False
    y0, x0, y1, x1 = box_yxyx
    box: tuple[slice, ...] = (slice(y0, y1), slice(x0, x1))
    if displayed != rows_cols:
        box, values = box[::-1], values.T
    image = layer._slice.image
    if image.raw[box].shape != values.shape:
        return False
    image.raw[box] = values
    colours = layer._raw_to_displayed(image.raw, data_slice=box)
    image.view[box] = colours
    layer.events.labels_update(data=colours, offset=[part.start for part in box])
    return True
