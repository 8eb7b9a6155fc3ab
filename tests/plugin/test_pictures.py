"""The scripted session that the documentation shows, in a real window: click, preview, keep, propagate, save, reopen.

It runs on a phantom with the fake predictor; with NAPARI_SAM_PICTURES_OF=sample on a sample volume with the model that
comes in the package. ``python scripts/make_pictures.py`` runs it and keeps the pictures in docs/images; otherwise they go
to a temporary folder.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_sam.core.planes import PlaneRef
from napari_sam.io.volume import open_volume
from napari_sam.plugin import SegmentWidget
from napari_sam.testing.phantoms import Look, ball_volume

pytestmark = [pytest.mark.gui, pytest.mark.slow]
SIZE = (1400, 900)
LEAST_STD = 10.0


@pytest.fixture
def folder():
    """Where the pictures go."""
    chosen = os.environ.get("NAPARI_SAM_PICTURES")
    return Path(chosen) if chosen else None


@pytest.fixture
def scene(backend):
    """Image, its attributes, where to click, and the backend (None for the real one)."""
    if os.environ.get("NAPARI_SAM_PICTURES_OF") != "sample":
        centres = [
            (20, 70, 80),
            (18, 30, 60),
            (22, 35, 110),
            (17, 60, 30),
            (24, 75, 135),
            (20, 120, 60),
            (19, 125, 120),
        ]
        phantom = ball_volume((40, 160, 192), centres, [15, 11, 14, 9, 12, 13, 16], look=Look(noise=12))
        return phantom.image, {"name": "phantom", "scale": (2, 1, 1)}, (20, 70, 80), backend
    from napari_sam.plugin.samples import ovule_nuclei

    data, attributes, _ = ovule_nuclei()[0]
    return data, attributes, SAMPLE_CLICK, None


SAMPLE_CLICK = (40, 49, 70)


def look(widget, qtbot, path):
    """Grab the whole window as a user sees it; keep it if a path is given."""
    widget.viewer.window._qt_window.resize(*SIZE)
    for _ in range(5):
        qtbot.wait(100)
        QApplication.processEvents()
    image = widget.viewer.screenshot(canvas_only=False, flash=False)
    assert image.std() > LEAST_STD, "the picture is empty"
    if path is not None:
        widget.viewer.screenshot(str(path), canvas_only=False, flash=False)
    return image


def test_click_preview_keep_propagate_save_and_reopen(
    make_napari_viewer, qtbot, wait, scene, folder, tmp_path
):
    image, attributes, at, backend = scene
    viewer = make_napari_viewer(show=True)
    viewer.add_image(image, **attributes)
    widget = SegmentWidget(viewer, backend)
    viewer.window.add_dock_widget(widget, name="napari-sam: Segment", area="right")
    session, layers = widget.session, widget.controller.layers
    session.state.idle_reach = 3
    viewer.dims.set_point(0, at[0] * attributes["scale"][0])
    wait(widget)
    before = look(widget, qtbot, None)

    layers.points.add(at)
    wait(widget)
    assert session.record.pending, widget.status.text()
    clicked = look(widget, qtbot, folder and folder / "first-click.png")
    assert (clicked != before).any()

    session.commit()
    wait(widget)
    session.propagate()
    wait(widget)
    assert len(session.record.written) >= 3
    propagated = look(widget, qtbot, folder and folder / "propagated.png")
    assert (propagated != clicked).any()

    session.save(tmp_path / "labels.ome.zarr")
    wait(widget)
    saved = open_volume(tmp_path / "labels.ome.zarr")
    for plane in session.record.written:
        np.testing.assert_array_equal(saved.read_plane(plane), session.labels.array[plane.index])
    assert PlaneRef(0, at[0]) in session.record.written
    assert session.close(timeout=10)
