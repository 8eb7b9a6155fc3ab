"""The window with the model that comes in the package: what the fakes cannot show."""

import numpy as np
import pytest

from napari_sam.plugin import SegmentWidget

pytestmark = [pytest.mark.gui, pytest.mark.slow]


def test_a_click_is_answered_by_the_model_in_the_package(make_napari_viewer, qtbot, wait):
    image = np.random.default_rng(0).normal(40, 5, (3, 96, 96)).astype(np.float32)
    image[:, 30:60, 30:60] += 100
    viewer = make_napari_viewer()
    viewer.add_image(image)
    widget = SegmentWidget(viewer)
    viewer.window.add_dock_widget(widget, name="napari-sam: Segment", area="right")
    viewer.dims.set_point(0, 1)
    wait(widget)
    widget.controller.layers.points.add((1, 45, 45))
    wait(widget)
    prediction = widget.session.shown_prediction
    assert prediction is not None
    assert len(prediction.candidates) == 3
    assert prediction.mask.shape == (96, 96)
    assert widget.session.close(timeout=10)
