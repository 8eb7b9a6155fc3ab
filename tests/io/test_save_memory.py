"""Saving needs no more memory for more planes."""

import subprocess
import sys

import numpy as np
import pytest

from napari_sam.io.labels import create_labels

MEASURE = """
import resource, sys
import numpy as np
from napari_sam.io.labels import open_labels
from napari_sam.io.save import save_labels
save_labels(open_labels(sys.argv[1]), sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts kilobytes as Linux does")
@pytest.mark.parametrize("ending", [".ome.zarr", ".ome.tif"])
def test_memory_does_not_grow_with_planes(tmp_path, ending):
    peaks = []
    for n_planes in (20, 300):
        labels = create_labels(tmp_path / f"{n_planes}.zarr", (n_planes, 256, 256))
        plane = np.random.default_rng(0).integers(0, 1000, (256, 256)).astype("u4")
        for z in range(n_planes):
            labels[z] = plane
        arguments = [tmp_path / f"{n_planes}.zarr", tmp_path / f"out{n_planes}{ending}"]
        run = subprocess.run(
            [sys.executable, "-c", MEASURE, *map(str, arguments)], capture_output=True, text=True, check=True
        )
        peaks.append(int(run.stdout) / 1024)
    whole = 300 * 256 * 256 * 4 / 2**20
    assert peaks[1] - peaks[0] < min(20, whole / 4), f"{peaks} MB"
