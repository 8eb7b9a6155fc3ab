"""Measuring propagation, with a predictor that knows the truth and one that does not."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile

from napari_sam.cli.volumes import VolumeTrial, evaluate_volumes, measured_labels
from napari_sam.inference.encode import CachedEncoder
from napari_sam.propagation import PropagationSettings
from napari_sam.testing.fakes import ArrayVolume, FakePredictor
from napari_sam.testing.phantoms import ball_volume, drifting_disc_volume

EXACT = PropagationSettings(min_iou=None, max_area_change=None)


@pytest.fixture
def phantom():
    return ball_volume((20, 48, 80), [(9, 22, 20), (9, 24, 58)], radii=[7.2, 8.6])


def trial(image, labels, settings=EXACT):
    predictor = FakePredictor()
    return VolumeTrial(CachedEncoder(ArrayVolume(image), predictor), predictor, labels, settings)


def test_a_perfect_predictor_scores_one(phantom):
    result = trial(phantom.image, phantom.labels).run("balls")
    assert result.one_click == {1: 1.0, 2: 1.0}
    assert result.means == (1.0, 1.0)
    assert "balls  3D IoU from one click 1.000" in result.row()


def test_a_correction_reaches_what_one_click_missed():
    phantom = drifting_disc_volume(step_yx=(0, 0))
    image = phantom.image.copy()
    image[9] = 20
    unaided = replace(EXACT, bridge=0, fill_gaps=False)
    result = trial(image, phantom.labels, unaided).run("interrupted")
    assert result.one_click[1] == pytest.approx(9 / 16)
    assert result.corrected[1] >= result.one_click[1]


def test_leaks_count_against_the_object(phantom):
    labels = np.where(phantom.labels == 1, 1, 0)
    labels[12:] = 0
    shared = (labels == 1).sum()
    result = trial(phantom.image, labels).run("cut")
    assert result.one_click[1] == pytest.approx(shared / (phantom.labels == 1).sum())


def test_only_objects_worth_measuring(phantom):
    labels = phantom.labels.copy()
    labels[0, :2, :2] = 3
    assert measured_labels(labels) == [1, 2]
    assert measured_labels(labels, most=1) == [1]


def test_files(phantom, tmp_path):
    pair = (tmp_path / "balls_img.tif", tmp_path / "balls_lbl.tif")
    for path, array in zip(pair, phantom):
        tifffile.imwrite(path, array, metadata={"axes": "ZYX"}, imagej=True)
    (result,) = evaluate_volumes([pair], FakePredictor(), EXACT)
    assert result.name == "balls"
    assert result.means[0] == 1.0


def test_an_object_is_measured_alone():
    """Where two things run together, the mark on the one must not hold the other back."""
    phantom = ball_volume((20, 48, 80), [(9, 24, 30), (9, 24, 46)], radii=[9.0, 9.0])
    both = trial(phantom.image, phantom.labels).run("touching")
    one = trial(phantom.image, np.where(phantom.labels == 1, 1, 0)).run("one")
    assert both.one_click[1] == one.one_click[1] < 1
