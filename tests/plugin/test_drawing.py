"""Prompts drawn with the mouse on the canvas, as a user draws them."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from napari.layers import Shapes
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

from napari_sam.plugin.layers import COLOURS
from napari_sam.session.marks import prompts_on_plane
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


def scribble(mouse, y):
    mouse.drag((y, 28), (y, 36))


def colours(layer):
    return [to_hex(colour) for colour in layer.edge_color]


def test_scribbles_take_away_while_remove_is_on(widget, mouse, wait, qtbot):
    session, shapes = widget.session, widget.controller.layers.shapes
    widget.tool_buttons["path"].click()
    scribble(mouse, 24)
    wait(widget)
    widget.remove_button.click()
    scribble(mouse, 4)
    wait(widget)
    qtbot.keyClick(mouse.canvas.native, Qt.Key.Key_Q)
    assert session.state.positive
    scribble(mouse, 28)
    wait(widget)
    assert [(s.kind, s.positive) for s in session.marks.shapes] == [
        ("path", True),
        ("path", False),
        ("path", True),
    ]
    green, red = COLOURS["positive"], COLOURS["negative"]
    assert colours(shapes) == [green, red, green]
    prompts = prompts_on_plane(session.marks, session.view, session.volume)
    np.testing.assert_array_equal(prompts.polarity, prompts.points_yx[:, 0] > 20)
    assert not prompts.polarity.all()

    session.undo()
    session.undo()
    session.redo()
    wait(widget)
    assert [s.positive for s in session.marks.shapes] == [True, False]
    assert colours(shapes) == [green, red]


def test_a_scribble_begun_and_given_up_does_not_lend_its_polarity(widget, mouse, wait):
    widget.tool_buttons["path"].click()
    mouse.click((24, 28))
    mouse.click((24, 28))  # too short to be a path
    widget.remove_button.click()
    scribble(mouse, 4)
    wait(widget)
    assert [s.positive for s in widget.session.marks.shapes] == [False]
    widget.clear_button.click()
    widget.add_button.click()
    scribble(mouse, 24)
    wait(widget)
    assert [s.positive for s in widget.session.marks.shapes] == [True]


def test_a_box_is_positive_and_looks_so_while_remove_is_on(widget, mouse, wait):
    shapes = widget.controller.layers.shapes
    widget.tool_buttons["path"].click()
    widget.remove_button.click()
    widget.tool_buttons["rectangle"].click()
    mouse.drag((14, 22), (34, 42))
    wait(widget)
    shapes.mode = "add_polyline"  # as with napari's own buttons
    mouse.click((4, 4))
    mouse.click((4, 20))
    mouse.double_click((4, 40))
    wait(widget)
    assert [(s.kind, s.positive) for s in widget.session.marks.shapes] == [
        ("rectangle", True),
        ("path", False),
    ]
    assert colours(shapes) == [COLOURS["positive"], COLOURS["negative"]]


def test_a_shapes_layer_of_the_users_keeps_its_features_and_takes_polarity(widget, mouse, wait):
    line = [[8, 24, 28], [8, 24, 36]]
    mine = Shapes([line], shape_type="path", scale=(2, 0.5, 0.5), features={"who": ["me"]}, name="mine")
    widget.viewer.add_layer(mine)
    widget.controller.adopt(mine)
    widget.tool_buttons["path"].click()
    widget.remove_button.click()
    scribble(mouse, 4)
    wait(widget)
    assert [s.positive for s in widget.session.marks.shapes] == [True, False]
    assert mine.features["who"][0] == "me"
