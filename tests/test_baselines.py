"""The methods that a model is compared with do what they can on an easy picture."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_sam.training.evaluate import Evaluation, EvaluationLimits, evaluate_image, evaluate_sets

PATH = Path(__file__).resolve().parents[1] / "benchmarks" / "bench_baselines.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_baselines", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(PATH.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(PATH.parent))
    return module


def picture(dark=False):
    rows, cols = np.mgrid[:60, :80]
    labels = ((rows - 20) ** 2 + (cols - 22) ** 2 < 120).astype(np.uint16)
    labels[(rows - 42) ** 2 + (cols - 58) ** 2 < 80] = 2
    image = np.where(labels > 0, 190, 40) + np.random.default_rng(0).normal(0, 4, labels.shape)
    return (255 - image if dark else image).astype(np.uint8), labels


@pytest.mark.parametrize("name", ["otsu", "watershed", "random walker"])
@pytest.mark.parametrize("dark", [False, True])
def test_an_easy_picture_is_segmented_from_one_click_and_a_box(bench, name, dark):
    found = evaluate_image(*picture(dark), bench.Baseline(bench.METHODS[name]), EvaluationLimits(clicks=3))
    assert found.curves.shape == (2, 3)
    assert found.curves[:, -1].min() > 0.85
    assert found.boxes.min() > 0.85


def test_a_negative_click_takes_a_component_away(bench):
    from napari_sam.core.prompts import PromptSet

    grey = np.full((20, 40), 10.0)
    grey[5:15, 5:15] = grey[5:15, 25:35] = 200
    clicks = PromptSet([(9, 9), (9, 30), (9, 30)], [True, True, False])
    assert np.flatnonzero(bench.otsu(grey, clicks).any(0)).tolist() == list(range(5, 15))


@pytest.mark.parametrize("name", ["otsu", "watershed", "random walker"])
def test_a_flat_picture_breaks_nothing(bench, name):
    labels = np.zeros((30, 30), np.uint16)
    labels[10:20, 10:20] = 1
    flat = np.full((30, 30), 7, np.uint8)
    found = evaluate_image(flat, labels, bench.Baseline(bench.METHODS[name]), EvaluationLimits(clicks=2))
    assert np.isfinite(found.curves).all()


def test_the_table_has_a_row_for_each_set_and_says_who_is_better(bench, tmp_path):
    import tifffile

    image, labels = picture()
    tifffile.imwrite(tmp_path / "0_img.tif", image)
    tifffile.imwrite(tmp_path / "0_lbl.tif", labels)
    limits = EvaluationLimits(clicks=5)
    results = {
        name: Evaluation(tuple(evaluate_sets(tmp_path, bench.Baseline(bench.METHODS[name]), limits)), limits)
        for name in ("otsu", "watershed")
    }
    lines = bench.table(results).splitlines()
    assert lines[0].startswith("| set | @1, otsu | @1, watershed | @3, otsu |")
    assert lines[0].endswith("| box, otsu | box, watershed |")
    assert len(lines) == 2 + 1 + 1
    values = [float(cell) for cell in lines[-1].split("|")[2:-1]]
    assert all(0 < value <= 1 for value in values)
    worse = [
        key
        for key in bench.KEYS
        if results["watershed"].sets[0].miou[key] > results["otsu"].sets[0].miou[key]
    ]
    said = bench.beaten(results, "otsu")
    assert [key for key in bench.KEYS if f"(watershed, {key})" in said] == worse
