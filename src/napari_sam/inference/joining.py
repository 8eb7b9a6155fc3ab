"""One mask out of several tiles: follow an object over tile borders and blend the answers.

Everything happens on a logit map of the whole plane, with as many cells a pixel as the decoder's answer on
a grid tile has. An object starts in one tile. Where its mask runs against a border of the tiles seen so far
and the plane goes on, the tile beyond is prompted with what is known of the object in the overlap: the
mask, a point deep inside it, and whatever the user said in that tile. If the answer agrees with the mask in
the overlap it is blended in, else the object ends there. Each tile is asked once, so this always ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_sam.core.arrays import BoolArray, FloatArray
from napari_sam.core.planes import BoxYXYX, Region, Shape2D, widened
from napari_sam.inference.resample import bilinear, region_of
from napari_sam.inference.tiles import best_tile

UNKNOWN = -20.0
"""Logit of cells that no tile answered for."""

AGREEMENT = 0.5
"""Least IoU in the overlap between the mask so far and the answer of the next tile."""

_BEYOND = ndimage.generate_binary_structure(2, 1)
_BAND = 2


@dataclass(frozen=True, slots=True, eq=False)
class TileLogits:
    """The decoder's answer on one tile.

    Parameters
    ----------
    logits : (h, w) float array
        Covers the tile.
    box_yxyx : (int, int, int, int)
        The tile in the plane.
    cells_yx : (float, float)
        Rows and columns of `logits` that the tile takes exactly.
    """

    logits: FloatArray
    box_yxyx: BoxYXYX
    cells_yx: tuple[float, float]

    @property
    def scale_yx(self) -> tuple[float, float]:
        """Cells a pixel along rows and columns."""
        y0, x0, y1, x1 = self.box_yxyx
        return self.cells_yx[0] / (y1 - y0), self.cells_yx[1] / (x1 - x0)


@dataclass(frozen=True, slots=True)
class Grid:
    """The cells of a plane's logit map.

    Parameters
    ----------
    plane_shape : (int, int)
        Height and width of the plane in pixels.
    cell : int
        Pixels along the side of a cell.
    """

    plane_shape: Shape2D
    cell: int

    @property
    def shape(self) -> Shape2D:
        """Rows and columns of the map; the last ones may reach beyond the plane."""
        return -(-self.plane_shape[0] // self.cell), -(-self.plane_shape[1] // self.cell)

    def region(self, logits: FloatArray) -> Region:
        """Cut a map at 0."""
        rows, cols = self.shape
        return region_of(logits, (0, 0, rows * self.cell, cols * self.cell), self.plane_shape)

    def window(self, box: BoxYXYX) -> tuple[slice, slice]:
        """Cells whose centres lie in a tile; at the end of the plane the last one as well."""
        rows, cols = (
            slice(self._cell(start, side), self._cell(stop, side))
            for start, stop, side in zip(box[:2], box[2:], self.plane_shape)
        )
        return rows, cols

    def _cell(self, pixel: int, side: int) -> int:
        """First cell whose centre is not before the edge at `pixel`."""
        return -(-side // self.cell) if pixel >= side else int(np.ceil(pixel / self.cell - 0.5))

    def inside(self, box: BoxYXYX) -> BoolArray:
        """The cells whose centres lie in a box."""
        rows, cols = ((np.arange(n) + 0.5) * self.cell for n in self.shape)
        return np.outer((rows >= box[0]) & (rows < box[2]), (cols >= box[1]) & (cols < box[3]))

    def place(self, answer: TileLogits) -> tuple[tuple[slice, slice], FloatArray]:
        """The window of a tile and its logits resampled to the cells there."""
        window = self.window(answer.box_yxyx)
        axes = []
        for cells, start, scale in zip(window, answer.box_yxyx[:2], answer.scale_yx):
            centres = (np.arange(cells.start, cells.stop) + 0.5) * self.cell
            axes.append((centres - start) * scale - 0.5)
        return window, bilinear(answer.logits, axes[0], axes[1])


Ask = Callable[[int, FloatArray, tuple[int, int]], TileLogits]
"""``ask(tile index, map so far, (row, column) of a cell deep in the overlap)``."""


class Blend:
    """Logits of several tiles of one plane, weighted down towards the borders that tiles share.

    Parameters
    ----------
    grid : Grid
        Cells of the plane.
    boxes : sequence of (y0, x0, y1, x1)
        Tiles of the plane.
    ramp : float
        Pixels from a shared border to full weight.
    """

    def __init__(self, grid: Grid, boxes: Sequence[BoxYXYX], ramp: float) -> None:
        self.grid, self.boxes, self.ramp = grid, boxes, max(ramp / grid.cell, 1.0)
        self._sum = np.zeros(grid.shape, np.float32)
        self._weight = np.zeros(grid.shape, np.float32)
        self.seen = np.zeros(grid.shape, bool)

    def add(self, answer: TileLogits) -> None:
        """Blend the answer of a tile in."""
        window, placed = self.grid.place(answer)
        weight = self._ramp(window)
        self._sum[window] += weight * placed
        self._weight[window] += weight
        self.seen[window] = True

    def close(self, index: int) -> None:
        """Do not look into a tile any more."""
        self.seen[self.grid.window(self.boxes[index])] = True

    @property
    def logits(self) -> FloatArray:
        """The map of the plane."""
        out = np.full(self.grid.shape, UNKNOWN, np.float32)
        return np.divide(self._sum, self._weight, out=out, where=self._weight > 0)

    def _ramp(self, window: tuple[slice, slice]) -> FloatArray:
        axes = []
        for cells, side in zip(window, self.grid.shape):
            at = np.arange(cells.start, cells.stop) + 0.5
            before = at - cells.start if cells.start > 0 else np.inf
            after = cells.stop - at if cells.stop < side else np.inf
            axes.append(np.clip(np.minimum(before, after) / self.ramp, None, 1.0))
        return np.outer(axes[0], axes[1]).astype(np.float32)


def follow(blend: Blend, first: TileLogits, extra: Sequence[int], ask: Ask) -> FloatArray:
    """Follow one object from its first tile over all tiles it reaches.

    Parameters
    ----------
    blend : Blend
        Fresh.
    first : TileLogits
        Answer of the first tile.
    extra : sequence of int
        Tiles that the user put positive points into; they are asked whatever the mask touches.
    ask : callable
        Prompts another tile, see `Ask`.

    Returns
    -------
    (rows, cols) float32 array
        Logits of the plane, `UNKNOWN` where no tile answered.
    """
    blend.add(first)
    asked = {i for i, box in enumerate(blend.boxes) if box == first.box_yxyx}
    while True:
        joined = blend.logits
        index = next((i for i in extra if i not in asked), None)
        user_says_so = index is not None
        if index is None:
            index = next_tile(joined > 0, blend, asked)
        if index is None:
            return joined
        asked.add(index)
        _extend(blend, index, joined, user_says_so, ask)


def _extend(blend: Blend, index: int, joined: FloatArray, user_says_so: bool, ask: Ask) -> None:
    window = blend.grid.window(blend.boxes[index])
    known = (joined[window] > 0) & blend.seen[window]
    if not known.any() and not user_says_so:
        blend.close(index)
        return
    inside = deepest(known)
    answer = ask(index, joined, (inside[0] + window[0].start, inside[1] + window[1].start))
    _, placed = blend.grid.place(answer)
    if user_says_so or agreement(known, placed > 0, blend.seen[window]) >= AGREEMENT:
        blend.add(answer)
    else:
        blend.close(index)


def next_tile(mask: BoolArray, blend: Blend, asked: set[int]) -> int | None:
    """The tile that a mask runs on into, or None when it is closed or no tile is left there."""
    left = [i for i in range(len(blend.boxes)) if i not in asked]
    reach = np.zeros(mask.shape, bool)
    for i in left:
        reach |= blend.grid.inside(blend.boxes[i])
    at = np.argwhere(ndimage.binary_dilation(mask, _BEYOND) & ~blend.seen & reach)
    if not len(at):
        return None
    row, col = at[len(at) // 2]
    holding = [i for i in left if blend.grid.inside(blend.boxes[i])[row, col]]
    middle = (np.array([row, col]) + 0.5) * blend.grid.cell
    return holding[best_tile([blend.boxes[i] for i in holding], np.tile(middle, 2))]


def agreement(known: BoolArray, answer: BoolArray, seen: BoolArray) -> float:
    """IoU of two masks where both tiles look."""
    union = np.count_nonzero((known | answer) & seen)
    return np.count_nonzero(known & answer & seen) / union if union else 1.0


def deepest(mask: BoolArray) -> tuple[int, int]:
    """The cell farthest from the outside of a mask; the borders of the array count as inside."""
    if not mask.any():
        return mask.shape[0] // 2, mask.shape[1] // 2
    distance = ndimage.distance_transform_edt(mask) if not mask.all() else np.ones(mask.shape)
    row, col = np.unravel_index(int(np.argmax(distance)), mask.shape)
    return int(row), int(col)


def open_ends(region: Region, boxes: Sequence[BoxYXYX]) -> FloatArray:
    """Pixels just beyond the tiles at hand that a mask seems to run on into, (n, 2) yx, one a place.

    Parameters
    ----------
    region : Region
        The mask.
    boxes : sequence of (y0, x0, y1, x1)
        Tiles at hand.
    """
    height, width = region.plane_shape
    if not region.area or (0, 0, height, width) in boxes:
        return np.zeros((0, 2))
    y0, x0, y1, x1 = widened(region.box_yxyx, _BAND, region.plane_shape)
    uncovered = np.ones((y1 - y0, x1 - x0), bool)
    for top, left, bottom, right in boxes:
        uncovered[max(0, top - y0) : max(0, bottom - y0), max(0, left - x0) : max(0, right - x0)] = False
    mask = region.over((y0, x0, y1, x1))
    labelled, count = ndimage.label(ndimage.binary_dilation(mask, _BEYOND, iterations=_BAND) & uncovered)
    middles = [np.argwhere(labelled == i + 1) for i in range(count)]
    return np.array([at[len(at) // 2] + (y0, x0) for at in middles], np.float64).reshape(-1, 2)
