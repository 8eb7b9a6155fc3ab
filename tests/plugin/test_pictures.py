"""The scripted session that the documentation shows: a sample volume, the model in the package, a real window.

``python scripts/make_pictures.py`` runs it and keeps the pictures in docs/images; otherwise they go to a temporary
folder.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_sam.core.planes import PlaneRef
from napari_sam.io.volume import open_volume
from napari_sam.plugin import SegmentWidget
from napari_sam.plugin.samples import ovule_nuclei

pytestmark = [pytest.mark.gui, pytest.mark.slow]
SIZE = (1400, 900)
CLICK = (40, 49, 70)


@pytest.fixture
def folder(tmp_path):
    return Path(os.environ.get("NAPARI_SAM_PICTURES", tmp_path))


def picture(widget, qtbot, path):
    """Grab the whole window as a user sees it."""
    widget.viewer.window._qt_window.resize(*SIZE)
    for _ in range(5):
        qtbot.wait(100)
        QApplication.processEvents()
    image = widget.viewer.screenshot(str(path), canvas_only=False, flash=False)
    assert image.std() > 10, "the picture is empty"


def test_click_preview_keep_propagate_save_and_reopen(make_napari_viewer, qtbot, wait, folder, tmp_path):
    viewer = make_napari_viewer(show=True)
    data, attributes, _ = ovule_nuclei()[0]
    viewer.add_image(data, **attributes)
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, name="napari-sam: Segment", area="right")
    session, layers = widget.session, widget.controller.layers
    session.state.idle_reach = 3
    viewer.dims.set_point(0, CLICK[0] * attributes["scale"][0])
    wait(widget)

    layers.points.add(CLICK)
    wait(widget)
    assert session.record.pending, widget.status.text()
    picture(widget, qtbot, folder / "first-click.png")

    session.commit()
    wait(widget)
    session.propagate()
    wait(widget)
    assert len(session.record.written) >= 3
    picture(widget, qtbot, folder / "propagated.png")

    widget.controller.save(tmp_path / "labels.ome.zarr")
    wait(widget)
    plane = PlaneRef(0, CLICK[0])
    saved = open_volume(tmp_path / "labels.ome.zarr").read_plane(plane)
    np.testing.assert_array_equal(saved, session.labels.array[CLICK[0]])
    assert session.close(timeout=10)
