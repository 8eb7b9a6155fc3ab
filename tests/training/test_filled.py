"""Generated neurites with the insides of real objects."""

from dataclasses import replace

import numpy as np
import pytest

from napari_sam.errors import TrainingError
from napari_sam.training.filled import FILLED, fill_planes, find_interiors
from napari_sam.training.packed import LabelledPlane
from napari_sam.training.synthetic import PLANES, neurites


def axons(grain=60):
    """A plane with a chequered disc, a smaller one, and one too small to cut a square from."""
    y, x = np.mgrid[:120, :120]
    labels = np.zeros((120, 120), np.uint16)
    for number, (row, col, radius) in enumerate([(50, 60, 30), (95, 100, 12), (10, 10, 5)], 1):
        labels[np.hypot(y - row, x - col) < radius] = number
    image = np.where(labels > 0, 120 + grain * ((x // 4 + y // 4) % 2), 20).astype(np.uint8)
    return [LabelledPlane("axons", image, labels)]


def test_squares_are_cut_from_inside_the_objects():
    large, small = find_interiors(axons(grain=0))
    assert large.shape == (42, 42)
    assert small.shape == (16, 16)
    assert not large.any(), "nothing of the surroundings, and of mean 0"
    assert np.ptp(find_interiors(axons())[0]) == pytest.approx(60 / 255)


def test_neurites_fill_the_plane_and_hold_what_is_drawn_in_them():
    def even(grey):
        return lambda side, rng: np.full((PLANES, side, side), grey)

    plain, objects = neurites(128, np.random.default_rng(3), even(0.0))
    bright, same = neurites(128, np.random.default_rng(3), even(1.0))
    np.testing.assert_array_equal(objects, same)
    assert objects.min() > 0, "objects meet in the middle of their membranes"
    np.testing.assert_allclose(bright - plain, 1, atol=1e-5)


def test_membranes_are_dark_where_objects_meet():
    image, objects = neurites(128, np.random.default_rng(5))
    meet = objects[:, :, 1:] != objects[:, :, :-1]
    away = ~(meet | np.roll(meet, 1, 2) | np.roll(meet, -1, 2))
    assert image[:, :, 1:][meet].mean() < image[:, :, 1:][away].mean() - 0.1


def test_planes_are_the_same_whatever_the_number_of_processes():
    with pytest.raises(TrainingError, match="no object whose inside"):
        fill_planes([replace(one, held_out=True) for one in axons()], 2, 0)
    alone, shared = (fill_planes(axons(), 4, 3, workers) for workers in (0, 2))
    assert {plane.set_name for plane in alone} == {FILLED}
    for a, b in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.labels, b.labels)
