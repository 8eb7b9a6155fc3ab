"""Fusing two directions: what it costs follows the object, not the plane."""

import tracemalloc

import numpy as np
import pytest

from napari_sam.core.planes import Region
from napari_sam.propagation.fusion import _join
from napari_sam.propagation.settings import Fusion
from napari_sam.propagation.shapes import signed_distance


def masks(shape):
    rows, cols = np.ogrid[: shape[0], : shape[1]]
    return [(rows - y) ** 2 + (cols - x) ** 2 < r * r for y, x, r in ((3, 20, 9), (8, 24, 7))]


@pytest.mark.parametrize("fusion", [Fusion.BLEND, Fusion.UNION, Fusion.INTERSECTION])
def test_it_is_as_over_the_whole_plane(fusion):
    one, other = masks((40, 50))
    weights = np.array([1.0, 0.4])
    wanted = {
        Fusion.UNION: one | other,
        Fusion.INTERSECTION: one & other,
        Fusion.BLEND: weights[0] * signed_distance(one) + weights[1] * signed_distance(other) > 0,
    }[fusion]
    found = _join(Region.from_mask(one), Region.from_mask(other), weights, fusion)
    np.testing.assert_array_equal(found.mask, wanted)


def test_a_large_plane_costs_no_more():
    one, other = (Region.from_part((20_000, 20_000), (9_000, 9_000), mask) for mask in masks((40, 50)))
    tracemalloc.start()
    try:
        _join(one, other, np.ones(2), Fusion.BLEND)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
