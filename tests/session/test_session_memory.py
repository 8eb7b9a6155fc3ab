"""A session holds no more for more planes than their masks, packed."""

import json
import subprocess
import sys

import pytest

SIDE = 512

MEASURE = """
import gc, json, resource, sys, tracemalloc
import numpy as np
from napari_sam.core.planes import PlaneRef
from napari_sam.session.marks import Marks
from napari_sam.testing.fakes import FakeEncoder, ArrayVolume
from napari_sam.testing.sessions import Desk, FakeBackend

SIDE, n_planes, folder = 512, int(sys.argv[1]), sys.argv[2]


class Rod:
    '''A bright rod from end to end; a plane is made when it is read.'''

    source, n_levels, n_time, n_channels, is_rgb = None, 1, 1, 1, False
    spacing_zyx, translate_zyx, unit = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), ""

    def shape_zyx(self, level=0):
        return n_planes, SIDE, SIDE

    def plane_shape(self, axis, level=0):
        return SIDE, SIDE

    def read_plane(self, plane):
        y, x = np.ogrid[:SIDE, :SIDE]
        return np.where((y - 256) ** 2 + (x - 200 - plane.index % 9) ** 2 < 60**2, 200, 20).astype(np.uint8)


class Forgetting(FakeEncoder):
    '''Keeps the embedding of the last plane alone, as a store on disk does.'''

    def embedding(self, plane, prompts=None):
        if plane not in self._kept:
            self._kept.clear()
        return super().embedding(plane, prompts)


class Backend(FakeBackend):
    def make_encoder(self, volume, predictor):
        return Forgetting(volume, predictor)


desk = Desk(folder, Backend())
session = desk.session
session.use_volume(Rod())
desk.settle()
desk.click(Marks([(0, n_planes // 2, 256, 203)], [True]), PlaneRef(0, n_planes // 2))
gc.collect()
tracemalloc.start()
session.propagate()
desk.settle(timeout=300)  # counting memory makes everything slow
gc.collect()
held, _ = tracemalloc.get_traced_memory()
tracemalloc.stop()
assert desk.errors == [] and len(session.record.written) == n_planes
session.undo()
desk.settle()
session.redo()
desk.settle()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert session.close(timeout=60)
print(json.dumps({"held": held, "peak": peak * 1024}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts kilobytes as Linux does")
def test_memory_does_not_grow_with_planes(tmp_path):
    found = {}
    for n_planes in (50, 400):
        run = subprocess.run(
            [sys.executable, "-c", MEASURE, str(n_planes), str(tmp_path / str(n_planes))],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        found[n_planes] = json.loads(run.stdout)
    more_planes, pixels = 350, 350 * SIDE**2
    held, peak = (found[400][name] - found[50][name] for name in ("held", "peak"))
    assert held < more_planes * 6000, found  # its box alone has 14641 pixels, the plane 262144
    assert peak < pixels / 4, found  # the labels have four bytes a pixel, the image one
