"""A scripted session in a real window: click, preview, keep, propagate, undo, save, reopen."""

import dask.array as da
import numpy as np
import pytest
import zarr

from napari_sam.io.volume import open_volume
from napari_sam.testing.phantoms import ball_volume

pytestmark = pytest.mark.gui


def test_a_click_on_a_dask_layer(segment, wait):
    phantom = ball_volume()
    lazy = da.from_array(phantom.image, chunks=(1, *phantom.image.shape[1:]))
    widget = segment(lazy, name="lazy")
    middle = [(side - 1) / 2 for side in phantom.image.shape]
    widget.viewer.dims.set_point(0, round(middle[0]))
    widget.controller.layers.points.add([round(middle[0]), middle[1], middle[2]])
    wait(widget)
    shown = widget.controller.layers.preview._slice.image.raw > 0
    np.testing.assert_array_equal(shown, phantom.labels[round(middle[0])] > 0)


def test_click_keep_propagate_undo_save(segment, wait, tmp_path):
    phantom = ball_volume()
    widget = segment(phantom.image, name="balls", scale=(2.0, 0.5, 0.5))
    session, layers = widget.session, widget.controller.layers
    middle = [(side - 1) / 2 for side in phantom.image.shape]
    plane = round(middle[0])

    widget.viewer.dims.set_point(0, plane * 2.0)
    layers.points.add([plane, middle[1], middle[2]])
    wait(widget)
    expected = phantom.labels[plane] > 0
    np.testing.assert_array_equal(layers.preview._slice.image.raw > 0, expected)

    session.commit()
    wait(widget)
    assert isinstance(layers.labels.data.array, zarr.Array)
    np.testing.assert_array_equal(layers.labels.data[plane] == 1, expected)
    np.testing.assert_array_equal(layers.labels._slice.image.raw == 1, expected)
    assert not layers.preview._slice.image.raw.any()

    session.propagate()
    wait(widget)
    np.testing.assert_array_equal(layers.labels.data[:] == 1, phantom.labels == 1)
    assert "Stopped at plane" in widget.status.text()
    assert "the mask became empty" in widget.status.text()

    session.undo()
    wait(widget)
    only_plane = np.zeros(phantom.labels.shape, bool)
    only_plane[plane] = expected
    np.testing.assert_array_equal(layers.labels.data[:] == 1, only_plane)
    session.redo()
    wait(widget)

    path = tmp_path / "labels.ome.zarr"
    widget.session.save(path)
    wait(widget)
    volume = open_volume(path)
    np.testing.assert_allclose(volume.spacing_zyx, (2.0, 0.5, 0.5))
    assert volume.shape_zyx() == phantom.labels.shape


def test_the_status_line_follows_undo_and_redo(segment, wait):
    phantom = ball_volume()
    widget = segment(phantom.image, name="balls")
    middle = [round((side - 1) / 2) for side in phantom.image.shape]
    widget.viewer.dims.set_point(0, middle[0])
    widget.controller.layers.points.add(middle)
    wait(widget)
    widget.session.propagate()
    wait(widget)
    assert widget.status.text().startswith("Propagated object 1.")
    widget.session.undo()
    wait(widget)
    assert widget.status.text().startswith("Is the mask right?")
    widget.session.redo()
    wait(widget)
    assert widget.status.text().startswith("Object 1 is in planes")
