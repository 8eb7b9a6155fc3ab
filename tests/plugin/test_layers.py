"""Layers are held by reference: deleting, renaming, reordering and moving them breaks nothing."""

from importlib.resources import files

import numpy as np
import pytest
from napari.layers import Points
from npe2 import PluginManifest

from napari_sam.plugin import controller
from napari_sam.session.state import OverlapPolicy
from napari_sam.testing.phantoms import ball_volume

pytestmark = pytest.mark.gui
PHANTOM = ball_volume((16, 48, 64), [(8, 24, 32)], 8.0)


@pytest.fixture
def widget(segment):
    made = segment(PHANTOM.image, name="balls")
    made.viewer.dims.set_point(0, 8)
    return made


def click(widget, wait, point=(8, 24, 32)):
    widget.controller.use_tool("points")
    widget.controller.layers.points.add(point)
    wait(widget)


def test_layers_may_be_renamed_and_reordered(widget, wait):
    viewer = widget.viewer
    for i, layer in enumerate(list(viewer.layers)):
        layer.name = f"renamed {i}"
    viewer.layers.move(0, len(viewer.layers))
    viewer.layers.reverse()
    click(widget, wait)
    widget.session.commit()
    wait(widget)
    np.testing.assert_array_equal(widget.controller.layers.labels.data[8] > 0, PHANTOM.labels[8] > 0)
    assert widget.image_box.currentText().startswith("renamed")


@pytest.mark.parametrize("name", ["points", "shapes", "preview", "labels"])
def test_a_deleted_layer_is_made_again_when_it_is_needed(widget, wait, name):
    layers = widget.controller.layers
    widget.viewer.layers.remove(getattr(layers, name))
    click(widget, wait)
    widget.session.commit()
    wait(widget)
    written = widget.session.labels.array
    np.testing.assert_array_equal(written[8] > 0, PHANTOM.labels[8] > 0)
    layer = getattr(layers, name)
    assert layer is not None
    assert layer in widget.viewer.layers


def test_marks_come_back_with_a_new_points_layer(widget, wait):
    click(widget, wait)
    layers = widget.controller.layers
    widget.viewer.layers.remove(layers.points)
    wait(widget)
    widget.controller.use_tool("points")
    wait(widget)
    assert layers.points.data.tolist() == [[8, 24, 32]]
    assert widget.session.record.pending


def test_an_image_that_is_opened_later_is_ready_for_clicks(segment, wait):
    widget = segment()
    widget.viewer.add_image(PHANTOM.image, name="later")
    wait(widget)
    assert widget.viewer.layers.selection.active is widget.controller.layers.points
    assert widget.tool_buttons["points"].isChecked()
    assert widget.status.text().startswith("Click on object 1")
    widget.viewer.layers.selection.active = widget.viewer.layers["later"]
    wait(widget)
    assert widget.status.text().startswith("Press Point")


def test_deleting_the_image_ends_the_work_with_a_reason(widget, wait):
    click(widget, wait)
    widget.viewer.layers.remove(widget.viewer.layers["balls"])
    wait(widget)
    widget.refresh()
    assert "Choose an image layer" in widget.status.text()
    widget.viewer.add_image(PHANTOM.image, name="again")
    wait(widget)
    click(widget, wait)
    assert widget.session.record.pending


def test_moving_the_image_moves_the_rest(widget, wait):
    image, layers = widget.viewer.layers["balls"], widget.controller.layers
    image.scale = (3, 2, 2)
    image.translate = (10, 20, 30)
    for layer in (layers.points, layers.shapes, layers.preview, layers.labels):
        np.testing.assert_array_equal(layer.scale, image.scale)
        np.testing.assert_array_equal(layer.translate, image.translate)
    widget.viewer.dims.set_point(0, 10 + 8 * 3)
    click(widget, wait)
    np.testing.assert_array_equal(layers.preview._slice.image.raw > 0, PHANTOM.labels[8] > 0)


def test_a_points_layer_of_the_users_is_adopted(widget, wait):
    mine = Points(np.zeros((0, 3)), name="mine", ndim=3)
    assert not widget.adopt_button.isEnabled()
    widget.viewer.add_layer(mine)
    wait(widget)
    assert widget.adopt_button.isEnabled()
    widget.adopt_button.click()
    mine.add([8, 24, 32])
    wait(widget)
    np.testing.assert_array_equal(widget.session.preview[0, 8] > 0, PHANTOM.labels[8] > 0)
    widget.close()
    assert mine in widget.viewer.layers


def test_what_is_in_a_labels_layer_of_the_users_is_copied_and_the_layer_stays_as_it_is(widget, wait):
    data = np.zeros(PHANTOM.labels.shape, np.uint16)
    data[2, 5:9, 5:9] = 11
    data[8, 1:3, 1:3] = 4
    mine = widget.viewer.add_labels(data.copy(), name="mine")
    widget.controller.adopt(mine)
    wait(widget)
    shown = widget.controller.layers.labels
    assert not mine.visible
    np.testing.assert_array_equal(shown._slice.image.raw, data[8])
    click(widget, wait)
    assert widget.session.state.object_id == 12
    widget.session.commit()
    wait(widget)
    np.testing.assert_array_equal(shown._slice.image.raw == 12, PHANTOM.labels[8] > 0)
    np.testing.assert_array_equal(mine.data, data)
    widget.session.undo()
    widget.session.undo()
    widget.session.undo()
    wait(widget)
    assert not widget.session.labels.array[:].any()


def test_copied_labels_are_seen_along_any_axis(widget, wait, qtbot):
    widget.viewer.dims.order = (2, 0, 1)
    widget.viewer.dims.set_point(2, 30)
    data = np.zeros(PHANTOM.labels.shape, np.uint16)
    data[:, 5:9, 28:32] = 3
    widget.controller.adopt(widget.viewer.add_labels(data, name="mine"))
    wait(widget)
    shown = widget.controller.layers.labels
    qtbot.waitUntil(lambda: (shown._slice.image.raw == data[:, :, 30]).all(), timeout=5000)


def test_labels_that_do_not_fit_are_refused_with_a_reason(widget):
    wrong = widget.viewer.add_labels(np.zeros((4, 5, 6), np.uint8))
    before = widget.session.labels
    with pytest.raises(ValueError, match="do not fit"):
        widget.controller.adopt(wrong)
    assert widget.session.labels is before


def test_painted_ids_are_not_given_to_new_objects(widget, wait):
    labels = widget.controller.layers.labels
    labels.selected_label = 30
    labels.paint((8, 3, 3), 30)
    wait(widget)
    assert widget.session.next_free_id == 31


@pytest.mark.parametrize(
    ("tool", "corners"),
    [
        ("rectangle", [(12, 20), (12, 44), (36, 44), (36, 20)]),
        ("ellipse", [(14, 22), (14, 42), (34, 42), (34, 22)]),
        ("polygon", [(14, 22), (14, 42), (34, 42)]),
        ("path", [(24, 28), (24, 36)]),
    ],
)
def test_shapes_are_prompts(widget, wait, tool, corners):
    widget.controller.use_tool(tool)
    widget.controller.layers.shapes.add(np.array([(8, y, x) for y, x in corners]), shape_type=tool)
    wait(widget)
    np.testing.assert_array_equal(widget.session.preview[0, 8] > 0, PHANTOM.labels[8] > 0)


def test_undo_takes_the_last_point_off_its_layer(widget, wait):
    click(widget, wait)
    click(widget, wait, (8, 2, 2))
    widget.session.undo()
    wait(widget)
    assert widget.controller.layers.points.data.tolist() == [[8, 24, 32]]
    widget.session.undo()
    wait(widget)
    assert len(widget.controller.layers.points.data) == 0
    assert not widget.session.preview[0, 8].any()


def test_a_widget_opened_by_napari_knows_its_layers(make_napari_viewer, npe2pm, wait, monkeypatch, backend):
    """napari hands a widget that it makes itself a proxy of the viewer, whose layers are proxies as well."""
    monkeypatch.setattr("napari_sam.plugin.controller.SamBackend", lambda: backend)
    manifest = PluginManifest.from_file(str(files("napari_sam") / "napari.yaml"))
    with npe2pm.tmp_plugin(manifest=manifest):
        viewer = make_napari_viewer()
        viewer.add_image(ball_volume().image, name="balls")
        _, widget = viewer.window.add_plugin_dock_widget("napari-sam-volumes", "napari-sam: Segment")
    wait(widget)
    layers = widget.controller.layers
    assert layers.tool == "points"
    assert widget.tool_buttons["points"].isChecked()
    assert not widget.adopt_button.isEnabled()  # the selected layer is the session's own
    mine = viewer.add_points(ndim=3, name="mine")
    viewer.layers.selection.active = mine
    wait(widget)
    widget.adopt_button.click()
    assert layers.points is mine
    viewer.layers.remove("balls")
    wait(widget)
    assert widget.controller.image is None
    assert widget.session.close(timeout=10)


@pytest.mark.parametrize(
    ("translate", "warns"), [((1.0, 2.0, 3.0), False), ((0.0, 0.0, 0.0), True), (None, False)]
)
def test_labels_that_lie_elsewhere_on_screen_are_taken_with_a_warning(
    segment, wait, monkeypatch, translate, warns
):
    warned = []
    monkeypatch.setattr(controller, "show_warning", warned.append)
    widget = segment(PHANTOM.image, scale=(2, 0.5, 0.5), translate=(1, 2, 3))
    own = {} if translate is None else {"scale": (2, 0.5, 0.5), "translate": translate}
    layer = widget.viewer.add_labels(PHANTOM.labels, **own)
    widget.controller.adopt(layer)
    wait(widget)
    np.testing.assert_array_equal(widget.session.labels.array[:] > 0, PHANTOM.labels > 0)
    assert ["lies elsewhere" in text for text in warned] == [True] * warns


def test_an_object_that_was_only_painted_can_be_propagated(segment, wait):
    widget = segment(PHANTOM.image)
    widget.viewer.dims.set_point(0, 8)
    click(widget, wait)
    widget.session.next_object()
    wait(widget)
    labels = widget.controller.layers.labels
    labels.selected_label = 2
    labels.data[8, 2:8, 2:8] = 2
    widget.session.hand.finish()
    widget.controller.choose_object(2)
    wait(widget)
    assert widget.propagate_button.isEnabled()


def test_a_mask_that_lies_in_another_object_is_not_said_to_be_kept(segment, wait, monkeypatch):
    shown = []
    monkeypatch.setattr(controller, "show_error", shown.append)
    widget = segment(PHANTOM.image)
    widget.viewer.dims.set_point(0, 8)
    click(widget, wait)
    widget.session.next_object()
    click(widget, wait)
    widget.session.commit()
    wait(widget)
    assert ["nothing was written" in text for text in shown] == [True]
    assert "Kept" not in widget.status.text()
    assert "(1 kept so far)" in widget.object_label.text()
    widget.session.state.policy = OverlapPolicy.OVERWRITE
    widget.session.commit()
    wait(widget)
    np.testing.assert_array_equal(widget.session.labels.array[8] == 2, PHANTOM.labels[8] > 0)
