"""Every kind of image layer: 2D, time, channels, levels, colour; and those that cannot be used."""

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_sam.core.planes import PlaneRef
from napari_sam.io.volume import open_volume
from napari_sam.plugin import SegmentWidget, controller
from napari_sam.session.resolve import Blocked
from napari_sam.testing.phantoms import ball_volume, discs_plane, drifting_disc_volume

pytestmark = pytest.mark.gui


def click(widget, wait, point):
    widget.controller.layers.points.add(point)
    wait(widget)


def shown(layer):
    return layer._slice.image.raw > 0


def test_a_flat_image(segment, wait):
    phantom = discs_plane()
    widget = segment(phantom.image, name="discs")
    click(widget, wait, [30, 32])
    np.testing.assert_array_equal(shown(widget.controller.layers.preview), phantom.labels == 1)
    widget.session.commit()
    wait(widget)
    labels = widget.controller.layers.labels
    assert isinstance(labels.data.array, zarr.Array)
    np.testing.assert_array_equal(labels.data[:] == 1, phantom.labels == 1)
    assert "only one plane" in widget.session.resolved.propagate_blocked.reason
    assert not widget.planes_section.isVisibleTo(widget)


def test_time_points_are_segmented_apart(segment, wait):
    phantom = ball_volume((8, 32, 40), [(4, 16, 20)], 6.0)
    movie = np.stack([np.zeros_like(phantom.image), phantom.image, np.zeros_like(phantom.image)])
    widget = segment(movie, name="movie")
    assert widget.axes_box.currentData() == "TZYX"
    widget.viewer.dims.set_point([0, 1], [1, 4])
    click(widget, wait, [1, 4, 16, 20])
    assert widget.session.view == PlaneRef(0, 4, time=1)
    widget.session.propagate()
    wait(widget)
    data = widget.controller.layers.labels.data
    assert data.shape == movie.shape
    assert not data[0].any()
    assert not data[2].any()
    assert (data[1] > 0).sum() > 100
    np.testing.assert_array_equal(data[1, 4] > 0, phantom.labels[4] > 0)


def test_channels_share_their_labels_and_one_can_be_chosen(segment, wait):
    phantom = ball_volume((8, 32, 40), [(4, 16, 20)], 6.0)
    image = np.stack([np.zeros_like(phantom.image), phantom.image])
    widget = segment(image, name="two")
    widget.axes_box.setCurrentText("CZYX")
    wait(widget)
    assert widget.channel_box.count() == 3
    widget.channel_box.setCurrentIndex(2)
    wait(widget)
    assert widget.session.volume.n_channels == 1
    widget.viewer.dims.set_point([0, 1], [0, 4])
    click(widget, wait, [0, 4, 16, 20])
    layers = widget.controller.layers
    np.testing.assert_array_equal(shown(layers.preview), phantom.labels[4] > 0)
    widget.session.commit()
    wait(widget)
    for channel in (0, 1):
        np.testing.assert_array_equal(layers.labels.data[channel, 4] > 0, phantom.labels[4] > 0)
    assert widget.session.labels.array.shape == phantom.labels.shape


def test_another_slicing_axis(segment, wait):
    phantom = ball_volume((20, 32, 40), [(10, 16, 20)], 6.0)
    widget = segment(phantom.image, name="balls", scale=(2, 1, 1))
    widget.viewer.dims.order = (1, 0, 2)
    widget.viewer.dims.set_point(1, 16)
    wait(widget)
    click(widget, wait, [10, 16, 20])
    assert widget.session.view == PlaneRef(1, 16)
    layers = widget.controller.layers
    np.testing.assert_array_equal(shown(layers.preview), phantom.labels[:, 16] > 0)
    widget.viewer.dims.order = (1, 2, 0)
    wait(widget)
    click(widget, wait, [11, 16, 20])
    np.testing.assert_array_equal(shown(layers.preview), phantom.labels[:, 16].T > 0)
    widget.session.commit()
    wait(widget)
    np.testing.assert_array_equal(shown(layers.labels), phantom.labels[:, 16].T > 0)
    np.testing.assert_array_equal(layers.labels.data[:, 16] > 0, phantom.labels[:, 16] > 0)


@pytest.mark.parametrize("choice", [0, 1, 2])
def test_labels_of_a_multiscale_image_are_at_full_resolution(segment, wait, choice):
    """Whether the model looks at the level that suits, at the finest or at the coarsest."""
    phantom = ball_volume((8, 64, 80), [(4, 32, 40)], 12.0)
    pyramid = [phantom.image, phantom.image[:, ::2, ::2]]
    widget = segment(pyramid, name="pyramid", multiscale=True)
    folder = widget.session.folder
    widget.level_box.setCurrentIndex(choice)
    wait(widget)
    assert widget.session.folder == folder, "the same session goes on"
    assert widget.session.state.seen_level == (None, 0, 1)[choice]
    widget.viewer.dims.set_point(0, 4)
    click(widget, wait, [4, 32, 40])
    widget.session.commit()
    wait(widget)
    np.testing.assert_array_equal(widget.session.labels.array[4] > 0, phantom.labels[4] > 0)
    np.testing.assert_allclose(widget.controller.layers.labels.scale, (1, 1, 1))


def test_colour_images(segment, wait):
    phantom = discs_plane()
    widget = segment(np.stack([phantom.image] * 3, axis=-1).astype(np.uint8), name="rgb", rgb=True)
    assert widget.session.volume.is_rgb
    click(widget, wait, [30, 32])
    np.testing.assert_array_equal(shown(widget.controller.layers.preview), phantom.labels == 1)


def reason(widget):
    view = widget.session.resolved
    assert isinstance(view, Blocked)
    assert widget.status.text() == view.reason
    assert view.reason in widget.propagate_button.toolTip()
    assert not widget.keep_button.isEnabled()
    return view.reason


def test_without_an_image_it_says_what_to_do(segment):
    assert "Choose an image layer" in reason(segment())


def test_a_layer_of_too_many_dimensions_is_refused(segment, wait):
    widget = segment()
    widget.viewer.add_image(np.zeros((2, 2, 2, 2, 2, 2)), name="six")
    wait(widget)
    assert "'six' has 6 dimension(s)" in reason(widget)


def test_labels_of_a_huge_image_are_of_the_finest_level_that_can_be_edited(segment, wait, backend):
    huge = da.zeros((3, 30_000, 30_000), dtype=np.uint8, chunks=(1, 3000, 3000))
    small = ball_volume((3, 300, 300)).image
    widget = segment([huge, small], name="huge", multiscale=True, contrast_limits=(0, 255))
    assert widget.session.labels.array.shape == (3, 300, 300)
    assert not [widget.level_box.itemData(i) for i in range(widget.level_box.count())].count(0)
    click(widget, wait, [1, 15000, 15000])
    assert widget.session.record.pending


def test_a_huge_plane_of_one_level_is_refused(segment, wait, backend):
    huge = da.zeros((3, 30_000, 30_000), dtype=np.uint8, chunks=(1, 3000, 3000))
    widget = segment(huge, name="huge", contrast_limits=(0, 255))
    assert "crop it or open a multiscale version" in reason(widget)
    assert backend.predictor.n_encodes == 0


def test_the_3d_view_is_left_alone_with_a_reason(segment, wait):
    widget = segment(ball_volume((8, 32, 40)).image, name="balls")
    widget.viewer.dims.ndisplay = 3
    wait(widget)
    assert "3D view" in reason(widget)
    widget.viewer.dims.ndisplay = 2
    wait(widget)
    assert "Click on object 1" in widget.status.text()


def test_objects_are_tracked_through_time(segment, wait, tmp_path):
    drift = drifting_disc_volume((6, 48, 64), start_yx=(24.0, 20.0), radius=8.0)
    movie = np.stack([np.zeros_like(drift.image), drift.image], axis=1)
    widget = segment(movie, name="movie", scale=(30.0, 2.0, 0.5, 0.5))
    widget.axes_box.setCurrentText("TZYX, track through T")
    wait(widget)
    widget.viewer.dims.set_current_step([0, 1], [2, 1])
    click(widget, wait, [2, 1, 24, 26])
    assert widget.session.view == PlaneRef(0, 2, time=1)
    np.testing.assert_array_equal(shown(widget.controller.layers.preview), drift.labels[2] > 0)
    widget.session.propagate()
    wait(widget)
    data = widget.controller.layers.labels.data
    assert data.shape == movie.shape
    np.testing.assert_array_equal(data[:, 1] > 0, drift.labels > 0)
    assert not data[:, 0].any()
    widget.session.save(tmp_path / "tracks.ome.zarr")
    wait(widget)
    with open_volume(tmp_path / "tracks.ome.zarr") as saved:
        assert (saved.n_time, saved.shape_zyx()) == (6, (2, 48, 64))
        assert (saved.spacing_zyx, saved.time_step) == ((2.0, 0.5, 0.5), 30.0)
        np.testing.assert_array_equal(saved.read_plane(PlaneRef(0, 1, time=5)) > 0, drift.labels[5] > 0)


def test_choosing_again_leaves_no_empty_layers(segment, wait):
    widget = segment(np.zeros((4, 6, 32, 32), np.uint8), name="movie")
    widget.axes_box.setCurrentText("CZYX")
    wait(widget)
    assert len(widget.viewer.layers) == 5  # the image, points, shapes, mask, objects
    click(widget, wait, [0, 2, 16, 16])
    widget.axes_box.setCurrentText("TZYX")
    wait(widget)
    assert len(widget.viewer.layers) == 8  # what was done stays


def test_the_range_is_of_the_axis_that_is_sliced(segment, wait, qtbot):
    widget = segment(np.zeros((10, 40, 50), np.uint8))
    ends = widget.plane_range
    widget.viewer.dims.order = (1, 0, 2)
    qtbot.waitUntil(lambda: ends.last.maximum() == 39)
    assert (ends.first.value(), ends.last.value()) == (0, 39)
    assert (widget.session.state.first_plane, widget.session.state.last_plane) == (0, 39)
    ends.last.setValue(20)
    widget.viewer.dims.set_point(1, 7)
    wait(widget)
    assert ends.last.value() == 20  # what the user chose of this axis stays
    widget.viewer.dims.order = (0, 1, 2)
    qtbot.waitUntil(lambda: ends.last.maximum() == 9)
    assert ends.last.value() == 9


def test_the_range_is_known_once_the_3d_view_is_left(make_napari_viewer, wait, backend, qtbot):
    viewer = make_napari_viewer(ndisplay=3)
    viewer.add_image(np.zeros((10, 40, 50), np.uint8))
    widget = SegmentWidget(viewer, backend)
    viewer.window.add_dock_widget(widget)
    viewer.dims.ndisplay = 2
    qtbot.waitUntil(lambda: widget.plane_range.last.value() == 9)
    assert widget.session.close(timeout=10)


@pytest.mark.parametrize("shape", [(16, 48, 64), (20, 70, 80)])
def test_other_pixels_in_the_layer_begin_anew(segment, wait, monkeypatch, shape):
    warned = []
    monkeypatch.setattr(controller, "show_warning", warned.append)
    phantom = ball_volume((16, 48, 64), [(8, 24, 32)], 8.0)
    widget = segment(phantom.image, name="balls")
    widget.viewer.dims.set_point(0, 8)
    widget.controller.layers.points.add((8, 24, 32))
    wait(widget)
    widget.session.commit()
    wait(widget)
    folder = widget.session.folder
    layer = widget.viewer.layers["balls"]
    layer.data = ball_volume(shape, [(4, 20, 20)], 8.0).image
    wait(widget)
    assert widget.session.folder != folder
    assert str(folder) in warned[0]
    assert widget.session.volume.shape_zyx() == shape
    assert widget.plane_range.last.maximum() == shape[0] - 1
    widget.viewer.dims.set_point(0, 4)
    widget.controller.layers.points.add((4, 20, 20))
    wait(widget)
    truth = ball_volume(shape, [(4, 20, 20)], 8.0).labels[4] > 0
    np.testing.assert_array_equal(widget.session.shown_prediction.mask, truth)


def test_choosing_an_object_goes_to_its_time_as_well(segment, wait):
    movie = np.stack([ball_volume((6, 48, 64), [(3, 24, 32)], 8.0).image] * 4)
    widget = segment(movie, scale=(2.0, 3.0, 1.0, 1.0))
    widget.viewer.dims.set_point((0, 1), (2.0, 9.0))
    widget.controller.layers.points.add((1, 3, 24, 32))
    wait(widget)
    widget.session.next_object()
    wait(widget)
    widget.viewer.dims.set_point((0, 1), (6.0, 0.0))
    widget.controller.choose_object(1)
    assert widget.session.view == PlaneRef(0, 3, 0, 1)
