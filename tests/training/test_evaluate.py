"""Measuring a predictor whose answers are known to the pixel."""

import json

import numpy as np
import pytest
import tifffile

from napari_sam.errors import TrainingError
from napari_sam.testing.fakes import FakePredictor
from napari_sam.training.evaluate import EvaluationLimits, evaluate


def write(folder, image, labels, name="0000"):
    folder.mkdir(parents=True)
    tifffile.imwrite(folder / f"{name}_img.tif", image, photometric="minisblack")
    tifffile.imwrite(folder / f"{name}_lbl.tif", labels, photometric="minisblack")


def squares():
    labels = np.zeros((40, 60), np.uint16)
    labels[5:15, 5:15], labels[20:35, 30:50], labels[30, 5] = 1, 2, 3
    return (labels > 0).astype(np.uint8) * 200, labels


def test_a_perfect_predictor_scores_one_everywhere(tmp_path):
    image, labels = squares()
    write(tmp_path / "squares", image, labels)
    write(tmp_path / "volumes", np.stack([image] * 3), np.stack([labels] * 3), "cube")
    found = evaluate(tmp_path, FakePredictor(), EvaluationLimits(clicks=5, planes=2))
    assert [(s.name, s.images, s.objects) for s in found.sets] == [("squares", 1, 2), ("cube", 2, 4)]
    assert set(found.mean.values()) == {1.0, 0.0}  # all IoU and clicks 1, none worse
    assert found.mean["worse"] == 0
    assert json.loads(json.dumps(found.to_dict()))["mean"]["noc85"] == 1


def test_an_object_that_looks_like_background_is_missed(tmp_path):
    image, labels = squares()
    image[20:35, 30:50] = 0
    write(tmp_path / "squares", image, labels)
    found = evaluate(tmp_path, FakePredictor(), EvaluationLimits(clicks=6)).sets[0]
    assert found.miou["1"] == pytest.approx(0.5)
    assert found.noc85 == pytest.approx((1 + 6) / 2)


def test_nothing_to_measure_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="measured"):
        evaluate(tmp_path, FakePredictor())
