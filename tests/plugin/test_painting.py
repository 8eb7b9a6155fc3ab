"""What a move of the brush costs does not depend on how large the volume is."""

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_sam.core.planes import PlaneRef, Region

pytestmark = pytest.mark.gui

BRUSH = 20
SMALL, LARGE = (4, 512, 512), (64, 4096, 4096)


@pytest.fixture
def chunks(monkeypatch):
    """Names of the chunks that are read from, and written to, the disk."""
    touched = {"get": [], "set": []}
    for name, found in touched.items():
        original = getattr(zarr.storage.LocalStore, name)

        async def noted(store, key, *rest, original=original, found=found, **options):
            if key.startswith("c/"):
                found.append(key)
            return await original(store, key, *rest, **options)

        monkeypatch.setattr(zarr.storage.LocalStore, name, noted)
    return touched


@pytest.fixture
def planes_made(monkeypatch):
    """Shapes of the masks over whole planes that are made."""
    made = []
    original = Region.mask.fget
    monkeypatch.setattr(
        Region, "mask", property(lambda region: (made.append(region.plane_shape), original(region))[1])
    )
    return made


def stroke(widget, chunks, positions):
    """Move the brush; for each move the chunks that were read and written, and bytes that were journalled."""
    layer, session = widget.controller.layers.labels, widget.session
    layer.brush_size = BRUSH
    costs = []
    for y, x in positions:
        chunks["get"].clear()
        chunks["set"].clear()
        before = session.journal.path.stat().st_size
        layer.paint((1, y, x), 1)
        grown = session.journal.path.stat().st_size - before
        costs.append((sorted(chunks["get"]), sorted(chunks["set"]), grown))
    return costs


@pytest.mark.parametrize("shape", [SMALL, LARGE])
def test_a_move_touches_only_the_chunks_under_the_brush(segment, wait, qtbot, chunks, planes_made, shape):
    widget = segment(da.zeros(shape, np.uint8, chunks=(1, 512, 512)), show=True, name="image")
    widget.session.state.idle_reach = 0
    widget.viewer.dims.set_point(0, 1)
    wait(widget)
    labels = widget.controller.layers.labels
    node = widget.viewer.window._qt_viewer.canvas.layer_to_visual[labels].node
    qtbot.waitUntil(lambda: node._texture.shape[:2] == shape[1:], timeout=60000)  # napari has drawn it
    inside, at_corner = [(100, 100), (104, 110), (110, 120)], [(256, 256)]
    planes_made.clear()
    costs = stroke(widget, chunks, inside + at_corner)
    for read, written, grown in costs[:3]:
        assert set(written) == {"c/0/0/0"}
        assert set(read) <= {"c/0/0/0"}
        assert len(read) <= 4
        assert len(written) == 1
        assert grown < 1500
    read, written, _ = costs[3]
    assert sorted(written) == ["c/0/0/0", "c/0/0/1", "c/0/1/0", "c/0/1/1"]
    assert len(read) <= 4 * 4
    assert planes_made == []
    wait(widget)
    written = widget.session.objects[1].written[PlaneRef(0, 1)]
    np.testing.assert_array_equal(written.crop, layer_box(widget, written.box_yxyx) == 1)
    assert len(widget.session.history) == 1


def layer_box(widget, box_yxyx):
    y0, x0, y1, x1 = box_yxyx
    return np.asarray(widget.session.labels.array[1, y0:y1, x0:x1])
