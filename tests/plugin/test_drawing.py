"""Prompts drawn with the mouse on the canvas, as a user draws them."""

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

from napari_sam.testing.phantoms import ball_volume

pytestmark = pytest.mark.gui
PHANTOM = ball_volume((16, 48, 64), [(8, 24, 32)], 8.0)
LEFT = Qt.MouseButton.LeftButton


class Mouse:
    """Moves on the canvas by (row, column) of the plane that is shown."""

    def __init__(self, qtbot, viewer, scale):
        self.qtbot, self.viewer, self.scale = qtbot, viewer, scale
        self.canvas = viewer.window._qt_viewer.canvas

    def at(self, yx):
        world = np.multiply(yx, self.scale)
        mapped = (self.canvas.view.transform * self.canvas.view.scene.transform).map([world[1], world[0]])
        return QPoint(round(mapped[0]), round(mapped[1]))

    def click(self, yx):
        self.qtbot.mouseMove(self.canvas.native, self.at(yx))
        self.qtbot.mouseClick(self.canvas.native, LEFT, pos=self.at(yx))

    def double_click(self, yx):
        self.click(yx)
        self.qtbot.mouseDClick(self.canvas.native, LEFT, pos=self.at(yx))

    def move_held(self, point):
        """A move with the button held; what qtbot sends has no button."""
        native, none = self.canvas.native, Qt.KeyboardModifier.NoModifier
        position, everywhere = QPointF(point), QPointF(native.mapToGlobal(point))
        kind = QEvent.Type.MouseMove
        QApplication.sendEvent(
            native, QMouseEvent(kind, position, everywhere, Qt.MouseButton.NoButton, LEFT, none)
        )
        self.qtbot.wait(20)

    def drag(self, start, end):
        native = self.canvas.native
        self.qtbot.mousePress(native, LEFT, pos=self.at(start))
        for part in np.linspace(0, 1, 6)[1:]:
            self.move_held(self.at(np.add(start, np.multiply(part, np.subtract(end, start)))))
        self.qtbot.mouseRelease(native, LEFT, pos=self.at(end))


@pytest.fixture
def widget(segment, qtbot):
    made = segment(PHANTOM.image, name="ball", show=True, scale=(2, 0.5, 0.5))
    made.viewer.dims.set_point(0, 16)
    made.viewer.reset_view()
    qtbot.wait(100)
    return made


@pytest.fixture
def mouse(widget, qtbot):
    return Mouse(qtbot, widget.viewer, (0.5, 0.5))


def test_points_boxes_and_outlines_are_drawn_and_answered(widget, mouse, wait):
    session, expected = widget.session, PHANTOM.labels[8] > 0

    mouse.click((24, 32))
    wait(widget)
    np.testing.assert_allclose(session.marks.points, [[0, 8, 24, 32]], atol=0.5)
    np.testing.assert_array_equal(session.preview[0, 8] > 0, expected)

    widget.remove_button.click()
    mouse.click((4, 4))
    wait(widget)
    assert session.marks.positive.tolist() == [True, False]

    widget.clear_button.click()
    widget.tool_buttons["rectangle"].click()
    mouse.drag((14, 22), (34, 42))
    wait(widget)
    assert [s.kind for s in session.marks.shapes] == ["rectangle"]
    assert len(session.history) == 4  # one step for the box, however the mouse went
    np.testing.assert_array_equal(session.preview[0, 8] > 0, expected)

    widget.clear_button.click()
    widget.tool_buttons["polygon"].click()
    for corner in [(14, 22), (14, 42)]:
        mouse.click(corner)
    assert session.marks.is_empty
    mouse.double_click((34, 32))
    wait(widget)
    assert [s.kind for s in session.marks.shapes] == ["polygon"]
    np.testing.assert_array_equal(session.preview[0, 8] > 0, expected)
