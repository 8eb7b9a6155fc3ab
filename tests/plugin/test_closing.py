"""When the widget goes, its thread goes; what was being written is written."""

import pytest

from napari_sam.testing.phantoms import ball_volume

pytestmark = pytest.mark.gui


def test_taking_the_dock_away_ends_the_session(segment, qtbot):
    widget = segment(ball_volume().image)
    session = widget.session
    widget.viewer.window.remove_dock_widget(widget)
    widget.close()
    qtbot.waitUntil(lambda: session.close(timeout=0), timeout=5000)
    assert widget.controller.closed


def test_closing_the_viewer_in_the_middle_of_work_ends_the_session(segment, qtbot, wait, backend):
    phantom = ball_volume()
    widget = segment(phantom.image, name="balls")
    widget.viewer.dims.set_point(0, 12)
    widget.controller.layers.points.add([12, 31.5, 39.5])
    wait(widget)
    backend.predictor.predict_delay_s = 0.1
    session, labels = widget.session, widget.session.labels.array
    session.propagate()
    qtbot.waitUntil(lambda: len(session.record.written) > 1, timeout=5000)
    session.commit()
    widget.close()
    qtbot.waitUntil(lambda: session.close(timeout=0), timeout=5000)
    assert (labels[12] > 0).any()
