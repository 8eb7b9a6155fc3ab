import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_sam.core.planes import Region
from napari_sam.propagation.shapes import interpolate, signed_distance

MASKS = hnp.arrays(bool, (9, 11)).filter(np.any)


def disc(centre, radius, shape=(60, 80)):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return Region.from_mask((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_disc_that_grows_and_wanders(share):
    found = interpolate(disc((20, 20), 6), disc((40, 60), 14), share)
    wanted = disc((20 + 20 * share, 20 + 40 * share), 6 + 8 * share)
    assert found.iou(wanted) > 0.88  # the discs themselves do not even touch
    assert not disc((20, 20), 6).iou(disc((40, 60), 14))


@settings(max_examples=25, deadline=None)
@given(MASKS, MASKS)
def test_the_ends_are_the_shapes_themselves(below, above):
    one, other = Region.from_mask(below), Region.from_mask(above)
    np.testing.assert_array_equal(interpolate(one, other, 0.0).mask, below)
    np.testing.assert_array_equal(interpolate(one, other, 1.0).mask, above)


@settings(max_examples=20, deadline=None)
@given(MASKS, st.floats(0, 1))
def test_between_equal_shapes_is_the_shape(mask, share):
    region = Region.from_mask(mask)
    np.testing.assert_array_equal(interpolate(region, region, share).mask, mask)


def test_distance_is_physical():
    mask = np.zeros((21, 21), bool)
    mask[5:16, 5:16] = True
    distance = signed_distance(mask, (4.0, 1.0))
    assert distance[10, 10] == 5.5  # the sides are nearer than top and bottom
    assert distance[10, 2] == -2.5
    assert distance[2, 10] == -11.5


def test_thick_rows_change_the_shape_between():
    wide, high = np.zeros((2, 60, 60), bool)
    wide[28:32, 10:50] = True
    high[10:50, 28:32] = True
    even = interpolate(Region.from_mask(wide), Region.from_mask(high), 0.5)
    thick = interpolate(Region.from_mask(wide), Region.from_mask(high), 0.5, (5.0, 1.0))
    assert even.area > 0
    np.testing.assert_array_equal(even.mask, even.mask.T)
    assert not np.array_equal(thick.mask, thick.mask.T)


def test_a_shape_that_leaves_the_plane_is_cut():
    edge, inner = disc((2, 40), 10), disc((20, 40), 10)
    found = interpolate(edge, inner, 0.3)
    assert found.plane_shape == (60, 80)
    assert found.area > 0
