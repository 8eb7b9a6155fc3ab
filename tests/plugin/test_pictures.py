"""A scripted session on a real volume, in a real window, with the model that comes in the package.

Click, preview, keep, propagate, save, reopen. ``make pictures`` keeps its pictures in docs/images, where the
documentation shows them; otherwise they go nowhere.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_sam.core.planes import PlaneRef
from napari_sam.io.samples import open_sample
from napari_sam.io.volume import open_volume
from napari_sam.plugin import SegmentWidget
from napari_sam.plugin.samples import chloroplasts

pytestmark = [pytest.mark.gui, pytest.mark.slow]
SIZE = (1500, 950)
LEAST_STD = 10.0
PLANE = 5
CLICKS = [(60, 123), (21, 39), (273, 49), (101, 391)]
"""Rows and columns; some of those that ``napari-sam demo`` starts from."""


@pytest.fixture
def folder():
    """Where the pictures go, if anywhere."""
    chosen = os.environ.get("NAPARI_SAM_PICTURES")
    return Path(chosen) if chosen else None


@pytest.fixture(scope="module")
def truth():
    """The labels published with the volume."""
    with open_sample("chloroplasts", "labels") as labels:
        return whole(labels)


def whole(volume):
    """All planes of a small volume."""
    return np.stack([volume.read_plane(PlaneRef(0, z)) for z in range(volume.shape_zyx()[0])])


def look(widget, qtbot, path):
    """Grab the whole window as a user sees it; keep it if a path is given."""
    widget.viewer.window._qt_window.resize(*SIZE)
    for _ in range(5):
        qtbot.wait(100)
        QApplication.processEvents()
    image = widget.viewer.screenshot(str(path) if path else None, canvas_only=False, flash=False)
    assert image.std() > LEAST_STD, "the picture is empty"
    return image


def overlap(a, b):
    """IoU of two masks."""
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def test_click_preview_keep_propagate_save_and_reopen(
    make_napari_viewer, qtbot, wait, folder, truth, tmp_path
):
    ((image, attributes, _),) = chloroplasts()
    viewer = make_napari_viewer(show=True)
    viewer.add_image(image, **attributes)
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, name="napari-sam: Segment", area="right")
    session, layers = widget.session, widget.controller.layers
    viewer.dims.set_point(0, PLANE * attributes["scale"][0])
    wait(widget)
    before = look(widget, qtbot, None)

    for number, click in enumerate(CLICKS):
        layers.points.add((PLANE, *click))
        wait(widget)
        assert session.shown_prediction is not None, widget.status.text()
        mask = session.shown_prediction.mask
        assert mask[click]
        assert overlap(mask, truth[PLANE] == truth[PLANE][click]) > 0.4
        if number == 0:
            clicked = look(widget, qtbot, folder and folder / "first-click.png")
            assert (clicked != before).any()
        session.commit()
        session.propagate()
        wait(widget)
        if number + 1 < len(CLICKS):
            session.next_object()
    propagated = look(widget, qtbot, folder and folder / "propagated.png")
    assert (propagated != clicked).any()

    session.save(tmp_path / "labels.ome.zarr")
    wait(widget)
    found = np.asarray(session.labels.array)
    with open_volume(tmp_path / "labels.ome.zarr") as saved:
        assert saved.spacing_zyx == pytest.approx(attributes["scale"])
        np.testing.assert_array_equal(whole(saved), found)
    overlaps = [overlap(found == i + 1, truth == truth[PLANE][c]) for i, c in enumerate(CLICKS)]
    assert np.mean(overlaps) > 0.5, overlaps
    assert session.close(timeout=10)
