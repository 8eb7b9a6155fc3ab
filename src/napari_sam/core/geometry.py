"""Shapes in a plane: what a path, a polygon, an ellipse or a mask means as points, boxes and masks.

Everything is in plane space: (row, column), pixel centres at integers. A pixel belongs to a shape if its
centre does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_sam.core.arrays import Array, BoolArray, FloatArray
from napari_sam.core.planes import Shape2D
from napari_sam.errors import PromptError

POINTS_PER_PATH = 8
"""At most so many points a scribble; more tell the network nothing new and slow it down."""


def _vertices(vertices_yx: Any, at_least: int, what: str) -> FloatArray:
    vertices = np.asarray(vertices_yx, np.float64)
    if vertices.ndim != 2 or vertices.shape[1] != 2 or len(vertices) < at_least:
        raise PromptError(f"{what} needs at least {at_least} points (y, x); got shape {vertices.shape}")
    if not np.isfinite(vertices).all():
        raise PromptError(f"{what} has a point that is NaN or infinite: {vertices.tolist()}")
    return vertices


def path_to_points(path_yx: Any, spacing: float = 10.0, max_points: int = POINTS_PER_PATH) -> FloatArray:
    """Evenly spaced points along a path, ends included.

    Parameters
    ----------
    path_yx : (n, 2) array_like
        Corners of the path, n > 0.
    spacing : float
        Wanted distance between neighbouring points along the path, in pixels; wider if there would be more
        than `max_points`. A path shorter than that gives its middle.
    max_points : int
        At least 1.

    Returns
    -------
    (m, 2) float64 array
        1 <= m <= max_points.

    Raises
    ------
    PromptError
        The path is empty or not finite, or `spacing` or `max_points` is not positive.
    """
    path = _vertices(path_yx, 1, "a path")
    if not (spacing > 0 and max_points > 0):
        raise PromptError(f"spacing {spacing} and max_points {max_points} of a path must be positive")
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path, axis=0).T))])
    n_points = int(min(along[-1] // spacing + 1, max_points))
    wanted = np.linspace(0, along[-1], n_points) if n_points > 1 else along[-1:] / 2
    return np.stack([np.interp(wanted, along, path[:, i]) for i in (0, 1)], axis=1)


def polygon_mask(vertices_yx: Any, shape: Shape2D) -> BoolArray:
    """Fill a polygon by the even-odd rule.

    Parameters
    ----------
    vertices_yx : (n, 2) array_like
        Corners in order, n >= 3; the last is joined to the first. It may cross itself and reach outside.
    shape : (int, int)
        Height and width of the plane.

    Returns
    -------
    (H, W) bool array
        Pixels whose centre is inside; a centre on an edge belongs to the side that the half-open rule gives
        it, so that polygons which share an edge never share a pixel.
    """
    vertices = _vertices(vertices_yx, 3, "a polygon")
    crossings = np.zeros((shape[0], shape[1] + 1), np.int64)
    for edge in zip(vertices.tolist(), np.roll(vertices, -1, axis=0).tolist(), strict=True):
        (y0, x0), (y1, x1) = sorted(edge)  # so that neighbours that share an edge round it alike
        # rows whose centre lies in [y0, y1), clipped first, since corners may be far away
        low, high = (int(min(max(np.ceil(y), 0), shape[0])) for y in (y0, y1))
        rows = np.arange(low, high)
        if len(rows):
            cross = x0 + (rows - y0) * ((x1 - x0) / (y1 - y0))
            columns = np.clip(np.ceil(cross), 0, shape[1]).astype(int)
            np.add.at(crossings, (rows, columns), 1)
    inside: BoolArray = crossings[:, :-1].cumsum(axis=1) % 2 == 1
    return inside


def ellipse_mask(corners_yx: Any, shape: Shape2D) -> BoolArray:
    """Fill the ellipse inscribed in a parallelogram, which may be rotated or sheared.

    Parameters
    ----------
    corners_yx : (4, 2) array_like
        Corners in order around it, as napari keeps an ellipse of a Shapes layer.
    shape : (int, int)
        Height and width of the plane.

    Returns
    -------
    (H, W) bool array
        Pixels whose centre is inside or on the border.

    Raises
    ------
    PromptError
        There are not four finite corners, or they enclose no area.
    """
    corners = _vertices(corners_yx, 4, "an ellipse")
    if len(corners) != 4:
        raise PromptError(f"an ellipse has 4 corners, got {len(corners)}")
    half_axes = np.stack([corners[1] - corners[0], corners[3] - corners[0]], axis=1) / 2
    (a, b), (c, d) = half_axes
    area = a * d - b * c
    if abs(area) <= 1e-12 * np.square(half_axes).sum():
        raise PromptError(f"the ellipse with corners {corners.tolist()} has no area; draw it larger")
    y, x = np.ogrid[: shape[0], : shape[1]]
    centre = corners.mean(axis=0)
    u = (d * (y - centre[0]) - b * (x - centre[1])) / area
    v = (a * (x - centre[1]) - c * (y - centre[0])) / area
    inside: BoolArray = u**2 + v**2 <= 1
    return inside


def mask_to_box(mask: Array) -> FloatArray | None:
    """(4,) float64 box_yxyx along the outer edges of the pixels of a mask; None if it has none.

    A single pixel (y, x) gives (y - 0.5, x - 0.5, y + 0.5, x + 0.5), so the box always has an area.
    """
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return np.array([rows[0] - 0.5, cols[0] - 0.5, rows[-1] + 0.5, cols[-1] + 0.5])
