"""``napari-sam evaluate`` and ``ns.evaluate``: planes and whole objects, in one table and one picture."""

import json

import numpy as np
import pytest
import tifffile

import napari_sam as ns
from napari_sam.errors import InputWarning, TrainingError
from napari_sam.testing.fakes import FakePredictor
from napari_sam.training.evaluate import EvaluationLimits


def write(folder, image, labels, name):
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / f"{name}_img.tif", image, photometric="minisblack")
    tifffile.imwrite(folder / f"{name}_lbl.tif", labels, photometric="minisblack")


@pytest.fixture
def labelled(tmp_path, phantom):
    labels = phantom.labels.astype(np.uint16)
    write(tmp_path / "data" / "volumes", phantom.image, labels, "balls")
    write(tmp_path / "data" / "planes", phantom.image[9], labels[9], "0000")
    return tmp_path / "data"


@pytest.fixture
def knows_the_truth(monkeypatch):
    from napari_sam.inference import predictor

    made = FakePredictor()
    monkeypatch.setattr(predictor, "load_model", lambda *_, **__: made)
    return made


def test_everything_is_measured_from_python(labelled):
    found = ns.evaluate(labelled, FakePredictor(), limits=EvaluationLimits(clicks=5))
    assert [one.name for one in found.planes.sets] == ["planes", "balls"]
    assert found.planes.mean["1"] == 1
    assert [(one.name, set(one.one_click)) for one in found.volumes] == [("balls", {1, 2})]
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["curve"] == [1.0] * 5
    assert plain["volumes"][0]["mean_corrected"] == found.volumes[0].means[1]
    assert list(plain["groups"]) == ["images", "planes", "objects"]
    one_click, corrected = found.volumes[0].means
    assert plain["groups"]["objects"] == {"one_click": one_click, "corrected": corrected}


def test_the_command_prints_writes_and_draws(call, labelled, knows_the_truth, tmp_path):
    out, picture = tmp_path / "figures.json", tmp_path / "clicks.png"
    code, said, err = call("evaluate", labelled, "--json", out, "--plot", picture, "--clicks", 5)
    assert code == 0, err
    rows, table = (part.splitlines() for part in said.split("\n\n"))
    assert [line.split()[0] for line in rows] == ["planes", "balls", "balls"]
    assert "3D IoU from one click" in rows[2]
    assert table[0].split() == ["mean", "of", "1", "2", "3", "5", "box", "noc85", "worse"]
    assert [line.split("(")[0].strip() for line in table[1:]] == [
        "sets of images",
        "planes of volumes",
        "all sets",
        "whole objects",
    ]
    assert table[1].split()[-7:] == ["1.000"] * 6 + ["0.000"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    figures = json.loads(out.read_text())
    assert figures["limits"]["min_area"] == 30
    assert len(figures["volumes"]) == 1


def test_volumes_can_be_left_out(call, labelled, knows_the_truth):
    said = call("evaluate", labelled, "--clicks", 5, "--volume-objects", -1)[1]
    assert "3D IoU" not in said
    assert "whole objects" not in said


def test_a_volume_without_deep_objects_is_left_out_with_a_word(tmp_path, phantom):
    labels = phantom.labels.astype(np.uint16)
    labels[:9] = labels[11:] = 0
    write(tmp_path, phantom.image, labels, "flat")
    with pytest.warns(InputWarning, match="flat has no object over 3 planes"):
        found = ns.evaluate(tmp_path, FakePredictor(), limits=EvaluationLimits(clicks=5))
    assert found.volumes == ()
    assert found.planes.sets[0].images == 2


def test_errors_are_one_line(call, tmp_path, knows_the_truth):
    code, _, err = call("evaluate", tmp_path / "nowhere")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("TrainingError: there is no folder")
    with pytest.raises(TrainingError):
        ns.evaluate(tmp_path, FakePredictor())


@pytest.mark.parametrize(
    "options",
    [("--json", "nowhere/f.json"), ("--json", "."), ("--plot", "f.txt"), ("--plot", "nowhere/f.png")],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_model_is_loaded(
    call, tmp_path, monkeypatch, options
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("napari_sam.inference.predictor.load_model", lambda *_, **__: pytest.fail("too late"))
    code, said, err = call("evaluate", tmp_path, *options)
    assert (code, said, err.count("\n")) == (1, "", 1)
