"""Our keys are free in napari, and work while a prompt layer is drawn on."""

import pytest
from qtpy.QtCore import Qt

from napari_sam.plugin.keys import KEYS
from napari_sam.testing.phantoms import ball_volume

pytestmark = pytest.mark.gui


def napari_bindings():
    """Every key that napari binds by default: shortcuts, layer and viewer classes, menus."""
    from napari import layers
    from napari._app_model import get_app_model
    from napari.components import ViewerModel
    from napari.utils.shortcuts import default_shortcuts

    found = {str(key) for keys in default_shortcuts.values() for key in keys}
    classes = [getattr(layers, name) for name in layers.NAMES for name in [name.capitalize()]]
    for owner in (ViewerModel, *classes):
        found |= {str(key) for key in owner.class_keymap if key is not Ellipsis}
    found |= {str(rule.keybinding) for rule in get_app_model().keybindings}
    return {binding.replace("Control", "Ctrl") for binding in found}


def test_no_key_is_taken_by_napari(make_napari_viewer):
    make_napari_viewer()
    taken = napari_bindings()
    assert {"M", "Ctrl+Z"} <= {binding.replace("-", "+") for binding in taken}
    assert not {key.replace("-", "+") for key in KEYS.values()} & {b.replace("-", "+") for b in taken}


def test_keys_act_on_the_session_while_points_are_added(segment, wait, qtbot):
    widget = segment(ball_volume().image)
    session, canvas = widget.session, widget.viewer.window._qt_viewer.canvas.native
    widget.controller.layers.points.add([12, 31.5, 39.5])
    widget.viewer.dims.set_point(0, 12)
    wait(widget)
    qtbot.keyClick(canvas, Qt.Key.Key_K)
    wait(widget)
    assert session.record.written
    qtbot.keyClick(canvas, Qt.Key.Key_U)
    wait(widget)
    assert not session.record.written
    qtbot.keyClick(canvas, Qt.Key.Key_U, Qt.KeyboardModifier.ShiftModifier)
    wait(widget)
    assert session.record.written
    qtbot.keyClick(canvas, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    wait(widget)
    assert not session.record.written
    qtbot.keyClick(
        canvas, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
    )
    wait(widget)
    assert session.record.written
    qtbot.keyClick(canvas, Qt.Key.Key_Q)
    assert not session.state.positive
    qtbot.keyClick(canvas, Qt.Key.Key_N)
    wait(widget)
    assert session.state.object_id == 2


def test_keys_are_freed_when_the_widget_closes(segment):
    widget = segment(ball_volume().image)
    assert widget.viewer.keymap
    widget.close()
    assert not widget.viewer.keymap
