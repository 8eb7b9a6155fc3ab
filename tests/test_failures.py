"""The picture of the worst first answers shows the worst ones, of sets that may be shown."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_sam.testing.fakes import FakePredictor
from napari_sam.training.evaluate import EvaluationLimits

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "failures.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("failures", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path):
    """Three images of two objects; in the second the larger one looks like the background."""
    labels = np.zeros((90, 120), np.uint16)
    labels[5:15, 5:15], labels[30:60, 40:80] = 1, 2
    for name in ("dsb2018", "not_to_be_shown"):
        for number in range(3):
            hidden = labels == (2 if number == 1 else 9)
            image = np.where(hidden, 0, labels > 0).astype(np.uint8) * 200
            path = tmp_path / name / f"{number}_img.tif"
            path.parent.mkdir(exist_ok=True)
            tifffile.imwrite(path, image)
            tifffile.imwrite(path.with_name(f"{number}_lbl.tif"), labels)
    return tmp_path


def test_the_worst_of_different_images_are_found(script, folder):
    found = script.find(folder, FakePredictor(), EvaluationLimits())
    assert [(one.set_name, one.iou) for one in found] == [("dsb2018", 0), ("dsb2018", 1)]
    worst = found[0]
    assert worst.truth.sum() == 30 * 40
    assert worst.truth[worst.click_yx]
    assert worst.image.shape == worst.answer.shape == worst.truth.shape == (90, 120)
    other = found[1]
    assert other.truth.shape == (48, 48)  # in the corner of the image
    assert other.truth[other.click_yx]
    assert (other.truth == other.answer).all()


def test_the_picture_is_the_same_each_time(script, folder, tmp_path):
    pictures = []
    for name in ("a.png", "b.png"):
        script.draw(script.find(folder, FakePredictor(), EvaluationLimits()), tmp_path / name)
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0].startswith(b"\x89PNG")
    assert pictures[0] == pictures[1]
