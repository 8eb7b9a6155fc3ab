"""`napari-sam train`: one recipe after the other."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch

from napari_sam.model.checkpoints import load_checkpoint


@pytest.mark.filterwarnings("default:the run is not drawn")
def test_recipes_follow_each_other(call, tmp_path, monkeypatch):
    """Each starts from what the one before it found, also where it is deeper; what is done is not done again."""
    from napari_sam.model.configs import CONFIGS
    from napari_sam.training.config import TrainConfig

    small = CONFIGS["micro_test"]
    deep = replace(small, name="deep_test", encoder=replace(small.encoder, blocks=(1, 2, 1, 1)))
    monkeypatch.setitem(CONFIGS, "deep_test", deep)
    labels = np.zeros((64, 64), np.uint16)
    labels[8:24, 8:28], labels[36:56, 30:50] = 1, 2
    for number in range(5):
        tifffile.imwrite(tmp_path / f"data_{number}_img.tif", (labels > 0).astype(np.uint8) * 180 + 30)
        tifffile.imwrite(tmp_path / f"data_{number}_lbl.tif", labels)
    recipes = []
    for name, model in (("first", "micro_test"), ("second", "deep_test")):
        config = TrainConfig(
            model,
            max_steps=2,
            threads=1,
            validation_crops=4,
            stages=((0.0, 64, 1),),
            warm_start=0.0,
            workers=0,
            model_input=64,
        )
        recipes.append(tmp_path / f"{name}.json")
        recipes[-1].write_text(config.to_json())
    recipes.append(tmp_path / "third.json")
    recipes[-1].write_text(replace(config, rehearsal=1.0, runs=2).to_json())
    arguments = ["train", tmp_path, tmp_path / "out", "--synthetic", "0"]
    for recipe in recipes:
        arguments += ["--recipe", recipe]
    code, _, err = call(*arguments)
    assert code == 0, err
    assert load_checkpoint(tmp_path / "out" / "second" / "best.safetensors")[0].name == "deep_test"
    first = tmp_path / "out" / "first" / "best.safetensors"
    for stage in ("first", "second"):
        assert (tmp_path / "out" / stage / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert str(first) in (tmp_path / "out" / "second" / "config.json").read_text()
    mean, *runs = (
        load_checkpoint(tmp_path / "out" / "third" / place / "best.safetensors")[1]
        for place in ("", "0", "1")
    )
    name = next(iter(mean))
    assert not torch.equal(runs[0][name], runs[1][name])
    torch.testing.assert_close(
        mean[name].float(), (runs[0][name].float() + runs[1][name].float()) / 2, rtol=1e-3, atol=1e-3
    )
    before = first.read_bytes()
    (tmp_path / "out" / "first" / "loss.png").unlink()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, err = call(*arguments)
    assert code == 0
    assert "the run is not drawn" in err
    assert "pip install matplotlib" in err
    assert first.read_bytes() == before
    assert not (tmp_path / "out" / "first" / "loss.png").exists()


def test_an_output_that_is_a_file_is_refused(call, tmp_path):
    (tmp_path / "out").write_text("mine")
    code, _, err = call("train", tmp_path, tmp_path / "out")
    assert (code, err.count("\n")) == (1, 1)
    assert "is a file" in err
