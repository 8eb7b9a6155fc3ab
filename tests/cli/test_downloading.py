"""Every command that needs a model that is not there fetches it, with the bar of `models fetch`."""

import queue

import numpy as np
import pytest
import tifffile

from napari_sam.cli import jobs
from napari_sam.core.models import ModelSpec
from napari_sam.core.planes import PlaneRef
from napari_sam.inference.registry import is_on_disk, model_file
from napari_sam.io.volume import open_volume
from napari_sam.session.engine import SamBackend
from napari_sam.session.marks import Marks
from napari_sam.session.session import Session

BAR = "remote.safetensors: 100%"


@pytest.fixture(autouse=True)
def forget_the_encoder():
    jobs._open_encoder.cache_clear()
    jobs._load.cache_clear()
    yield
    jobs._open_encoder.cache_clear()
    jobs._load.cache_clear()


@pytest.fixture
def labelled(tmp_path):
    folder = tmp_path / "labelled"
    folder.mkdir()
    labels = np.zeros((64, 64), np.uint16)
    labels[8:24, 8:24], labels[34:54, 30:56] = 1, 2
    for name in ("a", "b"):
        tifffile.imwrite(folder / f"{name}_img.tif", (labels > 0).astype(np.uint8) * 200)
        tifffile.imwrite(folder / f"{name}_lbl.tif", labels)
    return folder


@pytest.mark.parametrize("command", ["models", "embed", "segment", "evaluate", "finetune"])
def test_a_bar_is_shown(call, remote_model, image_path, prompts_path, labelled, tmp_path, command):
    out = tmp_path / "out.ome.zarr"
    arguments = {
        "models": ["models", "fetch", "remote"],
        "embed": ["embed", image_path, "--planes", "0:1", "--model", "remote"],
        "segment": ["segment", image_path, "--prompts", prompts_path, "--output", out, "--model", "remote"],
        "evaluate": ["evaluate", labelled, "--clicks", 5, "--objects", 1, "--images", 1, "--model", "remote"],
        "finetune": ["finetune", labelled, "--steps", 2, "--overwrite", "--model", "remote"],
    }[command]
    code, _, err = call(*arguments)
    assert code == 0 or "nothing better" in err, err  # two steps of learning may not help
    assert BAR in err
    assert is_on_disk("remote")
    _, _, err = call(*arguments, *(["--overwrite"] if command == "segment" else []))
    assert BAR not in err


def test_a_replay_shows_the_bar(call, remote_model, image_path, tmp_path, phantom):
    events = queue.SimpleQueue()
    session = Session(SamBackend(), events.put, tmp_path / "session")
    session.state.idle_reach = 0
    session.state.model = ModelSpec("remote", "cpu")
    with open_volume(image_path) as volume:
        session.use_volume(volume, "image")
        session.show(PlaneRef(0, 9))
        session.set_marks(Marks([(0, 9, 22, 20)], [True]))
        settle(session, events)
        session.commit()
        settle(session, events)
        assert session.record.written
    assert session.close(timeout=20)
    call("models", "fetch", "remote")
    code, said, err = call("replay", tmp_path / "session")
    assert code == 0, err
    assert BAR not in err
    model_file("remote").unlink()
    code, said, err = call("replay", tmp_path / "session")
    assert code == 0, err
    assert "identical" in said
    assert BAR in err


def settle(session, events):
    while session.is_busy:
        events.get(timeout=60)()
