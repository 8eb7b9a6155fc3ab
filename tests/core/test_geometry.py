"""Paths, polygons, ellipses and masks, against slow definitions and scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_sam.core.geometry import (
    ellipse_mask,
    mask_to_box,
    path_to_points,
    polygon_mask,
)
from napari_sam.errors import PromptError
from napari_sam.testing.phantoms import discs_plane

SHAPE = (30, 41)
corners = st.floats(-20, 60, width=32)
masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40))


# paths


@given(
    arrays(float, st.tuples(st.integers(1, 8), st.just(2)), elements=st.floats(-500, 500)), st.floats(0.5, 50)
)
def test_points_lie_evenly_along_the_path(path, spacing) -> None:
    points = path_to_points(path, spacing, 12)
    assert 1 <= len(points) <= 12
    assert (points >= path.min(0) - 1e-9).all()
    assert (points <= path.max(0) + 1e-9).all()
    length = np.hypot(*np.diff(path, axis=0).T).sum()
    if len(points) > 1:
        np.testing.assert_allclose(points[[0, -1]], path[[0, -1]], atol=1e-9)
        assert length / (len(points) - 1) >= spacing * (1 - 1e-9)
    else:
        assert length < spacing * (1 + 1e-9)


def test_a_straight_path_is_cut_into_equal_parts() -> None:
    np.testing.assert_allclose(path_to_points([(0, 0), (0, 40)], 10), [(0, x) for x in (0, 10, 20, 30, 40)])
    np.testing.assert_allclose(path_to_points([(0, 0), (0, 5), (0, 40)], 1, 3), [(0, 0), (0, 20), (0, 40)])


def test_a_dot_and_a_short_stroke_are_one_point() -> None:
    np.testing.assert_array_equal(path_to_points([(3, 4)]), [(3, 4)])
    np.testing.assert_array_equal(path_to_points([(3, 4), (3, 4)]), [(3, 4)])
    np.testing.assert_array_equal(path_to_points([(3, 4), (3, 8)]), [(3, 6)])


@pytest.mark.parametrize(
    "arguments",
    [
        (np.zeros((0, 2)),),
        ([(0, np.nan)],),
        ([(0, 0, 0)],),
        ([(0, 0)], 0),
        ([(0, 0)], np.nan),
        ([(0, 0)], 1, 0),
    ],
)
def test_paths_that_make_no_sense_are_refused(arguments) -> None:
    with pytest.raises(PromptError):
        path_to_points(*arguments)


# polygons


def winding_parity(y: float, x: float, vertices: np.ndarray) -> bool:
    """Even-odd rule for one point: count the edges that a ray to the left crosses."""
    inside = False
    for (y0, x0), (y1, x1) in zip(vertices, np.roll(vertices, -1, 0)):
        if (y0 > y) != (y1 > y) and x >= x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            inside = not inside
    return inside


@given(arrays(float, st.tuples(st.integers(3, 7), st.just(2)), elements=corners))
def test_polygons_are_filled_by_the_even_odd_rule(vertices) -> None:
    mask = polygon_mask(vertices, (12, 15))
    for y in range(12):
        for x in range(15):
            crossings = [
                x0 + (y - y0) * ((x1 - x0) / (y1 - y0)) - x
                for (y0, x0), (y1, x1) in zip(vertices, np.roll(vertices, -1, 0))
                if (y0 > y) != (y1 > y)
            ]
            if all(abs(c) > 1e-6 for c in crossings):
                assert mask[y, x] == winding_parity(y, x, vertices), (y, x)


def test_a_rectangle_holds_the_pixels_whose_centres_it_holds() -> None:
    mask = polygon_mask([(1.5, 2.5), (1.5, 7.5), (5.5, 7.5), (5.5, 2.5)], SHAPE)
    wanted = np.zeros(SHAPE, bool)
    wanted[2:6, 3:8] = True
    np.testing.assert_array_equal(mask, wanted)


@given(st.integers(1, 29), st.integers(1, 40))
def test_polygons_that_share_an_edge_share_no_pixel(y, x) -> None:
    whole = [(0, 0), (0, 41), (30, 41), (30, 0)]
    count = sum(polygon_mask([whole[i], whole[(i + 1) % 4], (y, x)], SHAPE).astype(int) for i in range(4))
    np.testing.assert_array_equal(count, 1)


def test_a_star_has_a_hole() -> None:
    angles = np.arange(5) * 4 * np.pi / 5
    mask = polygon_mask(np.stack([50 + 40 * np.cos(angles), 50 + 40 * np.sin(angles)], 1), (101, 101))
    assert mask[85, 50]
    assert not mask[50, 50]


@pytest.mark.parametrize("vertices", [[(0, 0), (1, 1)], [(0, 0), (1, 1), (np.inf, 2)], np.zeros((4, 3))])
def test_polygons_that_make_no_sense_are_refused(vertices) -> None:
    with pytest.raises(PromptError):
        polygon_mask(vertices, SHAPE)


# ellipses


@given(st.floats(0.5, 30), st.floats(0.5, 30), st.floats(0, 7), corners, corners)
def test_a_rotated_ellipse_is_its_equation(a, b, angle, cy, cx) -> None:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    square = np.array([(-a, -b), (a, -b), (a, b), (-a, b)]) @ turn.T + (cy, cx)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    local = np.stack([y - cy, x - cx], -1) @ turn
    distance = (local[..., 0] / a) ** 2 + (local[..., 1] / b) ** 2
    clear = np.abs(distance - 1) > 1e-6
    np.testing.assert_array_equal(ellipse_mask(square, SHAPE)[clear], (distance <= 1)[clear])


def test_a_circle_is_a_disc() -> None:
    disc = discs_plane((40, 50), [(20, 25)], 9).labels == 1
    np.testing.assert_array_equal(ellipse_mask([(11, 16), (11, 34), (29, 34), (29, 16)], (40, 50)), disc)


@pytest.mark.parametrize(
    "vertices", [[(0, 0), (0, 4), (4, 4)], [(0, 0)] * 4, [(0, 0), (0, 4), (0, 8), (0, 2)], [(0, 0)] * 5]
)
def test_ellipses_that_make_no_sense_are_refused(vertices) -> None:
    with pytest.raises(PromptError):
        ellipse_mask(vertices, SHAPE)


# masks


@given(masks)
def test_the_box_of_a_mask_runs_along_its_outer_edges(mask) -> None:
    box = mask_to_box(mask)
    if not mask.any():
        assert box is None
        return
    pixels = np.argwhere(mask)
    np.testing.assert_array_equal(box, [*(pixels.min(0) - 0.5), *(pixels.max(0) + 0.5)])
