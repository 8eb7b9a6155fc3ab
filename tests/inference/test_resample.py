"""Sampling only what is needed gives what sampling everything gives."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from napari_sam.inference.resample import bilinear, positions, region_of


def smooth(seed, shape):
    noise = np.random.default_rng(seed).normal(size=(1, 1, 5, 5)).astype(np.float32)
    return F.interpolate(torch.from_numpy(noise), shape, mode="bicubic")[0, 0].numpy()


@given(st.integers(0, 99), st.integers(1, 90), st.integers(1, 90), st.floats(-1.5, 1.5))
def test_equals_interpolating_the_whole_map(seed, height, width, shift):
    logits = smooth(seed, (16, 20)) + np.float32(shift)
    whole = F.interpolate(torch.from_numpy(logits)[None, None], (height, width), mode="bilinear")[
        0, 0
    ].numpy()
    rows, cols = positions(0, height, 16 / height), positions(0, width, 20 / width)
    np.testing.assert_allclose(bilinear(logits, rows, cols), whole, atol=1e-5)
    region = region_of(logits, (0, 0, height, width), (height, width))
    clear = abs(whole) > 1e-4
    np.testing.assert_array_equal(region.mask[clear], (whole > 0)[clear])


def test_region_lies_where_the_tile_is():
    logits = np.full((8, 8), -1.0, np.float32)
    logits[2:4, 5:7] = 1
    region = region_of(logits, (10, 20, 42, 52), (100, 100))
    rows, cols = np.nonzero(region.mask)
    assert (rows.min(), cols.min()) == (18, 40)
    assert (rows.max(), cols.max()) == (25, 47)


def test_nothing_positive_is_an_empty_region():
    region = region_of(np.full((4, 4), -1.0, np.float32), (0, 0, 9, 9), (9, 9))
    assert region.area == 0
    assert region.mask.shape == (9, 9)
