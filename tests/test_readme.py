"""The example of README.md runs as it is written."""

import re
from pathlib import Path

import numpy as np
import pytest

import napari_sam as ns
from napari_sam.core.planes import PlaneRef
from napari_sam.testing.phantoms import ball_volume

PAGE = Path(__file__).resolve().parents[1] / "README.md"


def test_the_python_example_runs(tmp_path, monkeypatch):
    if not PAGE.is_file():
        pytest.skip("the README is not part of this checkout")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    ball = ball_volume((20, 160, 160), [(12, 140, 80)], radii=[6.0])
    ns.save_labels(np.where(ball.labels, 200, 40).astype(np.uint8), "cells.ome.zarr")
    exec(compile(code, str(PAGE), "exec"), {})
    with ns.open_volume("labels.ome.zarr", missing_chunks="fill") as labels:
        assert labels.shape_zyx() == (20, 160, 160)
        assert labels.read_plane(PlaneRef(0, 12))[140, 80] == 1
