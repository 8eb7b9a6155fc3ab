"""Measuring a predictor whose answers are known to the pixel."""

import json

import numpy as np
import pytest
import tifffile

from napari_sam.errors import DependencyError, ExportError, InputWarning, TrainingError
from napari_sam.inference.seen import SeenImage
from napari_sam.testing.fakes import FakePredictor
from napari_sam.training import curves
from napari_sam.training.curves import draw_curves, draw_run
from napari_sam.training.evaluate import EvaluationLimits, check_pairs, click_curves, evaluate
from napari_sam.training.packed import find_pairs


def write(folder, image, labels, name="0000"):
    folder.mkdir(parents=True, exist_ok=True)
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
    with pytest.raises(TrainingError, match="there is no folder"):
        evaluate(tmp_path / "nowhere", FakePredictor())


def test_means_are_over_objects_then_images_then_sets(tmp_path):
    image, labels = squares()
    missed = np.where(labels == 2, 0, image).astype(np.uint8)
    write(tmp_path / "a", image, labels, "0000")  # both found: 1
    write(tmp_path / "a", missed, labels, "0001")  # one of two found: 0.5
    one = np.where(labels == 2, labels, 0)
    write(tmp_path / "b", missed, one)  # its only object missed: 0
    found = evaluate(tmp_path, FakePredictor(), EvaluationLimits(clicks=5))
    assert [s.miou["1"] for s in found.sets] == [pytest.approx(0.75), 0]
    assert found.mean["1"] == pytest.approx(0.375)
    assert found.curve == (pytest.approx(0.375),) * 5
    assert found.mean["noc85"] == pytest.approx(((1 + 3) / 2 + 5) / 2)


def test_volumes_have_means_of_their_own(tmp_path):
    image, labels = squares()
    missed = np.where(labels == 2, 0, image).astype(np.uint8)
    write(tmp_path / "a", image, labels)
    write(tmp_path / "b", image, labels)
    write(tmp_path / "volumes", np.stack([missed] * 2), np.stack([labels] * 2), "cube")
    found = evaluate(tmp_path, FakePredictor(), EvaluationLimits(clicks=5))
    assert [s.group for s in found.sets] == ["images", "images", "planes"]
    assert {name: group["1"] for name, group in found.groups.items()} == {
        "images": 1,
        "planes": pytest.approx(0.5),
    }
    assert found.groups["planes"]["noc85"] == pytest.approx(3)
    assert found.mean["1"] == pytest.approx(2.5 / 3)
    assert set(evaluate(tmp_path / "a", FakePredictor(), EvaluationLimits(clicks=5)).groups) == {"images"}


def test_every_click_follows_from_the_answer_before(tmp_path):
    """The second click and the fed back logits are those of the protocol, not of training's simulation."""
    image = np.zeros((20, 60), np.uint8)
    image[5:15, 5:15] = image[5:15, 20:50] = 200
    truth = image > 0  # one object in two parts, of which each click finds one
    asked = []

    class Listening(FakePredictor):
        def predict_many(self, embedding, prompts):
            asked.extend(prompts)
            return super().predict_many(embedding, prompts)

    predictor = Listening()
    curve = click_curves(SeenImage(image, predictor), [truth], 4)
    assert curve[0].tolist() == [pytest.approx(0.25), 1, 1, 1]
    assert len(asked) == 2  # nothing is clicked once it is perfect
    assert asked[0].points_yx.tolist() == [[9, 9]]
    assert asked[0].low_res_logits is None
    assert asked[1].points_yx.tolist() == [[9, 9], [9, 24]]
    assert asked[1].low_res_logits is not None


def test_small_objects_and_empty_labels_are_left_out_with_a_word(tmp_path):
    image, labels = squares()
    write(tmp_path / "squares", image, labels)
    write(tmp_path / "empty", image, np.zeros_like(labels))
    dots = np.zeros_like(labels)
    dots[30, 5] = 7
    write(tmp_path / "dots", image, dots)
    with pytest.warns(InputWarning) as said:
        found = evaluate(tmp_path, FakePredictor(), EvaluationLimits(clicks=5))
    assert sorted(str(one.message).split()[0] for one in said) == ["dots", "empty"]
    assert [s.name for s in found.sets] == ["squares"]
    with pytest.warns(InputWarning), pytest.raises(TrainingError, match="at least 30 pixels"):
        evaluate(tmp_path / "dots", FakePredictor(), EvaluationLimits(clicks=5))


def test_one_pixel_objects_can_be_measured(tmp_path):
    labels = np.zeros((9, 9), np.uint16)
    labels[3, 4] = 5
    write(tmp_path, (labels > 0).astype(np.uint8) * 200, labels)
    found = evaluate(tmp_path, FakePredictor(), EvaluationLimits(clicks=5, min_area=1))
    assert (found.sets[0].images, found.sets[0].objects) == (1, 1)
    assert found.mean["1"] == found.mean["box"] == 1


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.zeros((40, 61), np.uint16), "has shape"),
        (np.zeros((3, 40, 60), np.uint16), "has shape"),
        (np.zeros((2, 2, 40, 60), np.uint16), "labels are whole numbers"),
        (np.zeros((40, 60), np.float32), "labels are whole numbers"),
    ],
)
def test_labels_that_do_not_fit_are_an_error_that_names_them(tmp_path, labels, match):
    write(tmp_path / "squares", squares()[0], labels)
    with pytest.raises(TrainingError, match=match) as error:
        evaluate(tmp_path, FakePredictor())
    assert "0000_lbl.tif" in str(error.value)


def test_an_image_without_a_label_file_is_an_error(tmp_path):
    write(tmp_path, *squares())
    (tmp_path / "0000_lbl.tif").unlink()
    with pytest.raises(TrainingError, match="no labels at"):
        evaluate(tmp_path, FakePredictor())


def test_large_labels_take_no_memory(tmp_path):
    image, labels = squares()
    write(tmp_path, image, labels.astype(np.uint32) * 1_000_000_000)
    assert evaluate(tmp_path, FakePredictor(), EvaluationLimits(clicks=5)).mean["1"] == 1


def test_measuring_repeats(tmp_path):
    image, labels = squares()
    image[20:35, 30:40] = 0
    write(tmp_path, image, labels)
    twice = [evaluate(tmp_path, FakePredictor(), EvaluationLimits(clicks=5)).to_dict() for _ in range(2)]
    assert twice[0] == twice[1]


def test_the_curve_is_drawn(tmp_path):
    path = tmp_path / "clicks.png"
    draw_curves({"a": [0.2, 0.5, 0.6], "b": [0.4, 0.5, 0.9]}, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ExportError, match="png"):
        draw_curves({"a": [0.2]}, tmp_path / "clicks.nonsense")
    with pytest.raises(ExportError, match="no curve"):
        draw_curves({}, path)


def log_line(kind, step, **values):
    event = {"kind": kind, "step": step, "fraction": 0.5, "seconds": 36.0 * step, "values": values}
    return json.dumps(event) + "\n"


@pytest.fixture
def drawn_axes(monkeypatch):
    """The axes of the figure that is saved last."""
    from matplotlib.figure import Figure

    found, save = [], Figure.savefig

    def watched(self, *args, **options):
        found[:] = self.axes
        save(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", watched)
    return found


def lines_of(axes):
    """Hours and values by name, of the lines that have a name."""
    return {
        line.get_label(): line.get_xydata().tolist()
        for line in axes.lines
        if not line.get_label().startswith("_")
    }


def test_a_run_is_drawn_from_its_log(tmp_path, drawn_axes):
    log = tmp_path / "log.jsonl"
    log.write_text(
        log_line("step", 100, dense=4.0, rate=0.1, norm=3.0)
        + log_line("step", 200, dense=9.0, masks=9.0)
        + '{"kind": "st'  # killed here; it goes on from its last checkpoint
        + "\n"
        + log_line("step", 200, dense=2.0, masks=1.0, iou0=0.3, iou1=0.4)
        + log_line("validation", 200, click1=0.5, figure=0.6, **{"click1/cells": 0.7})
        + log_line("end", 200)
    )
    with pytest.warns(InputWarning, match="line 3 of .*log.jsonl is damaged"):
        draw_run(log, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    losses, ious, figures = (lines_of(axes) for axes in drawn_axes)
    assert losses == {"dense": [[1, 4], [2, 2]], "masks": [[2, 1]]}
    assert ious == {"iou0": [[2, 0.3]], "iou1": [[2, 0.4]]}
    assert figures == {"click1": [[2, 0.5]], "figure": [[2, 0.6]]}


def test_the_noise_of_a_long_run_is_smoothed(tmp_path, drawn_axes):
    log = tmp_path / "log.jsonl"
    log.write_text("".join(log_line("step", n, masks=2.0 + (-1) ** n) for n in range(400)))
    draw_run(log, tmp_path / "loss.png")
    values = np.array(lines_of(drawn_axes[0])["masks"])[:, 1]
    assert len(values) == 400
    assert np.abs(values[8:-8] - 2).max() < 0.2
    assert np.ptp(drawn_axes[0].lines[1].get_ydata()) == 2  # and shown thin behind


def test_without_matplotlib_the_remedy_is_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DependencyError, match="pip install matplotlib"):
        curves.draw_curves({"a": [0.2]}, tmp_path / "clicks.png")


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".TIF"])
def test_labels_are_found_by_any_ending_of_a_tiff(tmp_path, suffix):
    image, labels = squares()
    tifffile.imwrite(tmp_path / "a_img.tif", image)
    tifffile.imwrite(tmp_path / f"a_lbl{suffix}", labels)
    assert find_pairs(tmp_path) == [(tmp_path / "a_img.tif", tmp_path / f"a_lbl{suffix}")]


@pytest.mark.parametrize("wrong", ["shape", "text"])
def test_what_is_wrong_with_the_last_pair_is_said_before_the_first_is_measured(tmp_path, wrong):
    image, labels = squares()
    write(tmp_path / "a", image, labels)
    write(tmp_path / "b", image, labels[:-1] if wrong == "shape" else labels)
    if wrong == "text":
        (tmp_path / "b" / "0000_img.tif").write_text("no image")
    with pytest.raises(TrainingError, match=r"b.0000_(lbl|img)\.tif"):
        check_pairs(tmp_path)
