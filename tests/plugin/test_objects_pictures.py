"""A picture of the table of objects and the strip of doubt, in a real window.

``python scripts/make_pictures.py`` keeps it in docs/images.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtWidgets import QApplication

from napari_sam.plugin import SegmentWidget
from napari_sam.session.marks import Marks
from napari_sam.testing.phantoms import Look, ball_volume

pytestmark = [pytest.mark.gui, pytest.mark.slow]

CENTRES = [(20, 70, 80), (18, 30, 60), (22, 35, 110), (24, 75, 135), (20, 120, 60), (19, 125, 120)]
NAMES = ["middle", "left", "right", "", "lower", ""]


def test_objects_with_doubt(make_napari_viewer, qtbot, wait, backend):
    folder = os.environ.get("NAPARI_SAM_PICTURES")
    phantom = ball_volume((40, 160, 192), CENTRES, [15, 11, 14, 12, 13, 16], look=Look(noise=12))
    image = phantom.image.copy()
    image[26] = 0  # a plane that is missing
    image[13:16, 110:135] = np.roll(image[13:16, 110:135], 9, axis=2)  # and three that are shifted
    viewer = make_napari_viewer(show=True)
    viewer.add_image(image, name="phantom", scale=(2, 1, 1))
    widget = SegmentWidget(viewer, backend)
    viewer.window.add_dock_widget(widget, name="napari-sam: Segment", area="right")
    wait(widget)
    session = widget.session
    session.state.idle_reach = 0
    for object_id, (centre, name) in enumerate(zip(CENTRES, NAMES), 1):
        session.state.object_id = object_id
        widget.controller.go_to_plane(centre[0])
        session.set_marks(Marks([(0, *centre)], [True]))
        wait(widget)
        session.editing.rename(object_id, name)
        session.editing.classify(object_id, "cell")
    session.propagate_objects(range(1, 7))
    wait(widget)
    session.editing.mark_reviewed(2)
    session.state.object_id = 5
    widget.controller.next_doubtful()
    wait(widget)
    viewer.window._qt_window.resize(1500, 1150)
    for _ in range(5):
        qtbot.wait(100)
        QApplication.processEvents()
    widget.refresh()
    picture = viewer.screenshot(canvas_only=False, flash=False)
    assert picture.std() > 10
    assert widget.object_list.table.rowCount() == 6
    assert any(score.doubt.value > 0.3 for score in session.record.scores.values())
    if folder:
        viewer.screenshot(str(Path(folder) / "objects.png"), canvas_only=False, flash=False)
    assert session.close(timeout=10)
