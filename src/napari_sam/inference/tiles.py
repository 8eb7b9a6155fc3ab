"""Cutting a plane that is larger than the model's input into tiles that overlap.

A plane up to `RESIZE_LIMIT` times the input is encoded as one tile and shrunk a little. A larger one is
cut into tiles of the input size, at full resolution, that overlap by at least a quarter, so that anything up
to the overlap lies whole in some tile. Besides these *grid tiles* there is one *overview*, the whole plane
shrunk to the input size, for objects that are large in a grid tile or fit none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from napari_sam.core.arrays import FloatArray
from napari_sam.core.geometry import mask_to_box
from napari_sam.core.planes import BoxYXYX, Shape2D
from napari_sam.core.prompts import PromptSet

Size = tuple[float, float]
"""Least and greatest diameter of an object, in plane pixels."""
ANY_SIZE: Size = (0.0, np.inf)

RESIZE_LIMIT = 1.25
OVERLAP = 0.25
SEEN_WELL = (20.0, 160.0)
"""Diameters of objects, in pixels of the model's input, that the models are best at."""
LARGE = 0.3
"""An object is large from this share of a tile's side on: it is likely cut by the tile, and seen better from afar."""
THINNEST = 0.125
"""A plane is not shrunk so far that its shorter side has less than this share of a tile's."""
SMALL = 0.075
"""Below this share of a tile's side an object is looked at more closely, where that is possible."""
CLOSEST_TILE = 32
"""Pixels of a plane along the side of the smallest tiles that are looked at closely."""
MOST_CELLS = 1 << 22
"""Larger planes are not looked at more closely than at full resolution: a mask prompt has a cell for each pixel there."""
COARSEST = 4.0
"""Shrunk more than this, the overview shows only objects that fit no grid tile well enough."""


def tile_size_for(diameter: float | None, image_size: int, mask_size: int) -> int:
    """Pixels along the side of the grid tiles, so that objects are seen well.

    Parameters
    ----------
    diameter : float, optional
        Of the objects, in pixels; None if it is not known.
    image_size, mask_size : int
        Sides of the model's input and of its masks; a tile has no fewer pixels than a mask has.

    Returns
    -------
    int
        The model's input, halved for small objects and doubled for large ones until they fit.
    """
    if diameter is None:
        return image_size
    size, (least, most) = image_size, SEEN_WELL
    while diameter * image_size < least * size and size // 2 >= mask_size:
        size //= 2
    while diameter * image_size > most * size:
        size *= 2
    return size


def plan_tiles(
    plane_shape: Shape2D, tile_size: int, overlap: float = OVERLAP, scale: float = 1
) -> tuple[BoxYXYX, ...]:
    """Grid tiles of a plane, in row-major order.

    Parameters
    ----------
    plane_shape : (int, int)
        Height and width of the plane.
    tile_size : int
        Side of the model's input, in pixels of what is encoded.
    overlap : float
        Least part of a tile that it shares with the next.
    scale : float
        Pixels of the plane, along a side, that go into one pixel of what is encoded. Tiles begin at its multiples.
        Below 1 the tiles are smaller, and are encoded enlarged.

    Returns
    -------
    tuple of (y0, x0, y1, x1)
        The whole plane alone, where it is at most `RESIZE_LIMIT` times the input.
    """
    if scale < 1:
        return plan_tiles(plane_shape, round(tile_size * scale), overlap)
    if scale > 1:
        scale = round(scale)
        seen = plan_tiles((-(-plane_shape[0] // scale), -(-plane_shape[1] // scale)), tile_size, overlap)
        return tuple(_within([scale * side for side in box], plane_shape) for box in seen)
    height, width = plane_shape
    if max(plane_shape) <= RESIZE_LIMIT * tile_size:
        return ((0, 0, height, width),)
    rows = _starts(height, tile_size, overlap)
    cols = _starts(width, tile_size, overlap)
    return tuple((y, x, min(y + tile_size, height), min(x + tile_size, width)) for y in rows for x in cols)


def _within(box: Sequence[int], plane_shape: Shape2D) -> BoxYXYX:
    y0, x0, y1, x1 = box
    return y0, x0, min(y1, plane_shape[0]), min(x1, plane_shape[1])


def _starts(length: int, tile_size: int, overlap: float) -> list[int]:
    """Evenly spread first pixels of the tiles along one axis."""
    room = length - tile_size
    if room <= 0:
        return [0]
    count = 1 + int(np.ceil(room / (tile_size * (1 - overlap))))
    return [round(room * i / (count - 1)) for i in range(count)]


def meeting(boxes: Sequence[BoxYXYX], part: BoxYXYX) -> tuple[BoxYXYX, ...]:
    """The tiles that a part of the plane meets."""
    y0, x0, y1, x1 = part
    return tuple(b for b in boxes if b[0] < y1 and y0 < b[2] and b[1] < x1 and x0 < b[3])


def overview(plane_shape: Shape2D) -> BoxYXYX:
    """The tile that is the whole plane."""
    return (0, 0, *plane_shape)


def extent(prompts: PromptSet) -> FloatArray | None:
    """(4,) box around what the prompts say belongs to the object, in plane pixels; None if they say nothing.

    Negative points count only when there is nothing else.
    """
    corners = []
    points = prompts.points_yx[prompts.polarity]
    if len(points):
        corners.append(points)
    if prompts.box_yxyx is not None:
        corners.append(prompts.box_yxyx.reshape(2, 2))
    outer = None if prompts.mask is None else mask_to_box(prompts.mask)
    if outer is not None:
        corners.append(np.add(outer, (0.5, 0.5, -0.5, -0.5)).reshape(2, 2))
    if not corners and len(prompts.points_yx):
        corners.append(prompts.points_yx)
    if not corners:
        return None
    stacked = np.concatenate(corners)
    return np.concatenate([stacked.min(0), stacked.max(0)])


def size_of(prompts: PromptSet) -> Size:
    """What prompts say about the size of their object."""
    around = extent(prompts)
    if around is None:
        return ANY_SIZE
    diameter = float(np.prod(around[2:] - around[:2]) ** 0.5)
    return diameter, diameter if prompts.box_yxyx is not None or prompts.mask is not None else np.inf


def fitting_scale(
    scale: float, plane_shape: Shape2D, tile_size: int, size: Size = ANY_SIZE, closest: float = 1
) -> float:
    """The scale at which an object is seen well, nearest to the one at which it is shown.

    Parameters
    ----------
    scale : float
        Pixels of the plane, along a side, in a pixel of what is shown.
    plane_shape : (int, int)
        Height and width of the plane. It is never shrunk below one tile, nor to a thin strip.
    tile_size : int
        Side of a tile in pixels of what is encoded.
    size : (float, float)
        Of the object, see `size_of`.
    closest : float
        The scale for objects that are small at full resolution, see `closest_scale`; 1 where there is none.
    """
    coarsest = 1
    while (
        max(plane_shape) > RESIZE_LIMIT * tile_size * coarsest
        and min(plane_shape) >= 2 * THINNEST * tile_size * coarsest
    ):
        coarsest *= 2
    scale = min(max(scale, 1), coarsest)
    while 2 * scale <= coarsest and size[0] > LARGE * tile_size * scale:
        scale *= 2
    while scale > 1 and size[1] < SMALL * tile_size * scale:
        scale //= 2
    is_small = size[1] < SMALL * min(tile_size, max(plane_shape))
    return closest if scale == 1 and is_small else scale


def closest_scale(plane_shape: Shape2D, tile_size: int) -> float:
    """The scale at which a tile shows about half as much of a plane, along a side, as at full resolution.

    Parameters
    ----------
    plane_shape : (int, int)
        Height and width of the plane.
    tile_size : int
        Side of a tile in pixels of what is encoded. A plane that is smaller is enlarged to it anyhow.

    Returns
    -------
    float
        A half, a quarter, ...; 1 where the plane is too large or too small.
    """
    scale = 0.5
    while max(plane_shape) <= RESIZE_LIMIT * tile_size * scale:
        scale /= 2
    is_possible = tile_size * scale >= CLOSEST_TILE and plane_shape[0] * plane_shape[1] <= MOST_CELLS
    return scale if is_possible else 1


def best_tile(boxes: Sequence[BoxYXYX], around: FloatArray) -> int:
    """Index of the tile that holds most of a box, and among equals holds it farthest from its inner borders.

    Parameters
    ----------
    boxes : sequence of (y0, x0, y1, x1)
        Tiles; their hull is taken for the plane, whose borders are no inner ones.
    around : (4,) array
        y0, x0, y1, x1 in plane pixels; may be a single point.
    """
    tiles = np.asarray(boxes, np.float64)
    low, high = around[:2] - 0.5, around[2:] + 0.5
    shared = np.minimum(tiles[:, 2:], high) - np.maximum(tiles[:, :2], low)
    held = np.prod(np.clip(shared, 0, None), axis=1)
    before = np.where(tiles[:, :2] > tiles[:, :2].min(0), low - tiles[:, :2], np.inf)
    after = np.where(tiles[:, 2:] < tiles[:, 2:].max(0), tiles[:, 2:] - high, np.inf)
    margin = np.minimum(before, after).min(axis=1)
    off_centre = np.abs((tiles[:, :2] + tiles[:, 2:]) / 2 - (low + high) / 2).sum(axis=1)
    return int(np.lexsort((off_centre, -margin, -np.round(held, 6)))[0])


def tile_for(prompts: PromptSet, boxes: Sequence[BoxYXYX], plane_shape: Shape2D) -> BoxYXYX:
    """The tile in which the prompts of one object are answered first: a grid tile or the overview."""
    return tile_around(extent(prompts), boxes, plane_shape)


def tile_around(around: FloatArray | None, boxes: Sequence[BoxYXYX], plane_shape: Shape2D) -> BoxYXYX:
    """The tile that suits an object of which this box is known, see `extent`."""
    if len(boxes) == 1 or around is None:
        return boxes[0] if len(boxes) == 1 else overview(plane_shape)
    sides = np.max([(b[2] - b[0], b[3] - b[1]) for b in boxes], axis=0)
    length = around[2:] - around[:2]
    is_large = has_useful_overview(boxes, plane_shape) and np.prod(length) ** 0.5 > LARGE * sides.max()
    if is_large or (length > sides).any():
        return overview(plane_shape)
    return boxes[best_tile(boxes, around)]


def has_useful_overview(boxes: Sequence[BoxYXYX], plane_shape: Shape2D) -> bool:
    """Whether large objects are still seen well where the whole plane is one tile."""
    y0, x0, y1, x1 = boxes[0]
    return len(boxes) > 1 and max(plane_shape) <= COARSEST * max(y1 - y0, x1 - x0)


def tiles_for(
    prompts: Iterable[PromptSet], boxes: Sequence[BoxYXYX], plane_shape: Shape2D
) -> tuple[BoxYXYX, ...]:
    """Tiles that these prompts need, in row-major order: the first tile of each, one for each point, and the
    overview where it may turn out that an object is large.
    """
    needed = set()
    for one in prompts:
        first = tile_for(one, boxes, plane_shape)
        needed.add(first)
        if (one.is_ambiguous or one.low_res_logits is not None) and has_useful_overview(boxes, plane_shape):
            needed.add(overview(plane_shape))
        if first in boxes:
            points = one.points_yx[one.polarity]
            needed |= {boxes[best_tile(boxes, np.tile(p, 2))] for p in points if not holds(first, p)}
    return tuple(sorted(needed))


def holds(box: BoxYXYX, point_yx: FloatArray) -> bool:
    """Whether a point lies in a tile."""
    return bool(box[0] - 0.5 <= point_yx[0] < box[2] - 0.5 and box[1] - 0.5 <= point_yx[1] < box[3] - 0.5)
