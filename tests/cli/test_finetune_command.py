"""``napari-sam finetune``: what it says, keeps and refuses."""

from pathlib import Path

import pytest

from napari_sam.cli.finetune import parse_slice
from napari_sam.training import finetune as module
from napari_sam.training.finetune import FinetuneEvent


@pytest.fixture
def scripted(monkeypatch):
    """A run of known events; what it was asked is returned."""
    asked = []

    def run(data, model, **options):
        asked.append((data, model, options))
        return events()

    def events():
        yield FinetuneEvent("validation", 0, 0.0, 0.1, {"figure": 0.4})
        for step in range(1, 45):
            yield FinetuneEvent("step", step, step / 44, 1.0, {"loss": 1.0})
        yield FinetuneEvent("saved", 44, 1.0, 2.0, {"figure": 0.6}, Path("mine.safetensors"))
        yield FinetuneEvent("end", 44, 1.0, 2.0, {"best": 0.6}, Path("mine.safetensors"))

    monkeypatch.setattr(module, "finetune", run)
    return asked


def test_it_reports_and_names_the_file(call, scripted, tmp_path):
    code, said, err = call("finetune", tmp_path, "--name", "mine", "--planes", "0:20", "--minutes", 2)
    assert code == 0, err
    lines = said.splitlines()
    assert [line.split()[0] for line in lines] == [
        "validation",
        "step",
        "step",
        "step",
        "saved",
        "end",
        "saved",
    ]
    assert lines[-1].endswith("use it as --model mine")
    data, model, options = scripted[0]
    assert (data, model, options["planes"]) == (tmp_path, "default", slice(0, 20))
    assert options["settings"].minutes == 2


def test_ctrl_c_keeps_what_was_saved(call, monkeypatch, tmp_path):
    closed = []

    def events():
        try:
            yield FinetuneEvent("saved", 3, 0.5, 2.0, {"figure": 0.6}, Path("mine.safetensors"))
            raise KeyboardInterrupt
        finally:
            closed.append(True)

    monkeypatch.setattr(module, "finetune", lambda *_, **__: events())
    code, said, err = call("finetune", tmp_path)
    assert (code, err.strip()) == (130, "stopped")
    assert "use it as --model mine" in said
    assert closed


def test_wrong_words_are_one_line(call, tmp_path):
    code, _, err = call("finetune", tmp_path, "--mode", "magic")
    assert (code, err.count("\n")) == (1, 1)
    assert "decoder" in err
    code, _, err = call("finetune", tmp_path)
    assert code == 1
    assert "learn" in err or "labelled" in err
    assert call("finetune", tmp_path, "--planes", "a:b")[0] == 2


def test_planes_are_understood():
    assert parse_slice(None) is None
    assert [parse_slice(text) for text in ("0:20", "5:", ":9", "7")] == [
        slice(0, 20),
        slice(5, None),
        slice(None, 9),
        slice(7, 8),
    ]
