"""A volume of two balls, its prompts, and the command line with a predictor that knows the truth."""

import json

import numpy as np
import pytest
import zarr

from napari_sam.cli import jobs
from napari_sam.cli.app import run
from napari_sam.testing.fakes import FakeEncoder, FakePredictor
from napari_sam.testing.phantoms import ball_volume


@pytest.fixture
def phantom():
    return ball_volume((20, 48, 80), [(9, 22, 20), (9, 24, 58)], radii=[7.2, 8.6])


@pytest.fixture
def image_path(tmp_path, phantom):
    path = tmp_path / "image.zarr"
    zarr.save_array(str(path), phantom.image)
    return path


@pytest.fixture
def prompts_path(tmp_path):
    objects = [
        {"id": 1, "name": "left", "prompts": [{"plane": 9, "positive": [[22, 20]]}]},
        {"id": 2, "prompts": [{"plane": 9, "positive": [[24, 58]]}]},
    ]
    section = {"min_iou": None, "max_area_change": None}
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"objects": objects, "propagation": section}))
    return path


@pytest.fixture
def fake_model(monkeypatch):
    """The command line answers with a FakePredictor, which is returned."""
    predictor = FakePredictor()

    def open_encoder(job):
        from napari_sam.io.volume import open_volume

        return FakeEncoder(open_volume(job.volume, axes=job.axes), predictor)

    monkeypatch.setattr(jobs, "open_encoder", open_encoder)
    return predictor


@pytest.fixture
def call(capsys):
    """Run a command: exit code, stdout, stderr."""

    def _call(*arguments):
        code = run([str(one) for one in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return _call


def read_labels(path):
    from napari_sam.core.planes import PlaneRef
    from napari_sam.io.volume import open_volume

    with open_volume(path, missing_chunks="fill") as labels:
        return np.stack([labels.read_plane(PlaneRef(0, i)) for i in range(labels.shape_zyx()[0])])


@pytest.fixture(name="read_labels")
def _read_labels():
    return read_labels
