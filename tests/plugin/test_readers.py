"""Files that the plugin opens lie where they say, and a session folder opens its image so as well."""

import gc
from importlib.resources import files

import numpy as np
import pytest
import tifffile
from napari.layers import Image, Labels
from npe2 import PluginManifest

from napari_sam.core.planes import PlaneRef
from napari_sam.errors import InputWarning
from napari_sam.io.save import save_labels
from napari_sam.plugin.readers import PLUGIN, get_reader, reader_for
from napari_sam.plugin.space import axes_choices, open_layer
from napari_sam.testing.images import write_ome_zarr
from napari_sam.testing.phantoms import ball_volume

pytestmark = pytest.mark.gui
IMAGE = ball_volume((6, 40, 48), [(3, 20, 24)], 5.0).image
SPACING, PLACE = (0.8, 0.2, 0.1), (4.0, -2.0, 7.0)


def read(path):
    """The layer that napari would make."""
    ((data, attributes, kind),) = get_reader(str(path))([str(path)])
    return {"image": Image, "labels": Labels}[kind](data, **attributes)


def geometry(volume):
    return volume.spacing_zyx, volume.translate_zyx, volume.unit


def test_an_ome_zarr_keeps_levels_scale_place_unit_and_axes(tmp_path):
    layer = read(write_ome_zarr(tmp_path / "cells.ome.zarr", IMAGE, spacing_zyx=SPACING, translate_zyx=PLACE))
    assert (layer.name, layer.multiscale, len(layer.data)) == ("cells", True, 2)
    np.testing.assert_allclose(layer.scale, SPACING)
    np.testing.assert_allclose(layer.translate, PLACE)
    assert layer.axis_labels == ("z", "y", "x")
    np.testing.assert_array_equal(layer.data[1][3], IMAGE[3, ::2, ::2])
    volume = open_layer(layer, axes_choices(layer)[0])
    assert geometry(volume) == (SPACING, PLACE, "micrometer")
    np.testing.assert_array_equal(volume.read_plane(PlaneRef(0, 3)), IMAGE[3])


@pytest.mark.parametrize("name", ["labels.ome.zarr", "labels.ome.tif"])
def test_what_was_saved_lies_where_it_did(tmp_path, name):
    labels = (IMAGE > 100).astype(np.uint16)
    place = PLACE if name.endswith("zarr") else (0.0, 0.0, 0.0)  # a TIFF has no place for it
    save_labels(labels, tmp_path / name, spacing_zyx=SPACING, translate_zyx=place, unit="micrometer")
    layer = read(tmp_path / name)
    assert isinstance(layer, Labels if name.endswith("zarr") else Image)
    np.testing.assert_allclose(layer.scale, SPACING)
    np.testing.assert_allclose(layer.translate, place)
    gc.collect()  # the file of a TIFF is still open
    np.testing.assert_array_equal(layer.data[2], labels[2])


@pytest.mark.parametrize("name", ["labels.ome.zarr", "labels.ome.tif", "labels.tif"])
def test_labels_come_with_what_is_known_of_their_objects(tmp_path, name):
    labels = (IMAGE > 100).astype(np.uint16) * 7
    labels[0, 0, 0] = 2
    known = {7: {"name": "left", "predicted_iou": 0.9}, 2: {"name": "42"}}
    save_labels(labels, tmp_path / name, properties=known, spacing_zyx=SPACING)
    layer = read(tmp_path / name)
    assert isinstance(layer, Labels)
    rows = layer.features.set_index("index")
    assert rows.loc[[2, 7], "name"].tolist() == ["42", "left"]
    assert rows.loc[7, "predicted_iou"] == 0.9
    gc.collect()


@pytest.mark.parametrize("unit", ["foo", "stage units"])
def test_a_unit_that_nobody_knows_becomes_pixels(tmp_path, unit):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, IMAGE.astype("u2"), imagej=True, resolution=(2, 2), metadata={"axes": "ZYX", "unit": unit}
    )
    with pytest.warns(InputWarning, match=f"sizes in '{unit}'"):
        layer = read(path)
    assert [str(one) for one in layer.units] == ["pixel"] * 3
    np.testing.assert_allclose(layer.scale, (1, 0.5, 0.5))


def test_only_a_single_zarr_or_tiff_is_taken(tmp_path):
    (tmp_path / "empty.zarr").mkdir()
    assert get_reader(str(tmp_path / "empty.zarr")) is None
    assert get_reader(str(tmp_path / "notes.txt")) is None
    assert get_reader(["a.ome.tif", "b.ome.tif"]) is None


def test_a_session_folder_opens_its_image_where_it_lies(segment, wait, npe2pm, tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAM_CACHE", str(tmp_path / "cache"))
    path = write_ome_zarr(tmp_path / "ball.ome.zarr", IMAGE, spacing_zyx=SPACING, translate_zyx=PLACE)
    widget = segment()
    viewer, controller = widget.viewer, widget.controller
    assert reader_for(path) == "napari"
    manifest = PluginManifest.from_file(str(files("napari_sam") / "napari.yaml"))
    with npe2pm.tmp_plugin(manifest=manifest):
        assert reader_for(path) == PLUGIN
        viewer.open(path, plugin=PLUGIN)
        wait(widget)
        viewer.dims.set_point(0, PLACE[0] + 3 * SPACING[0])
        controller.layers.points.add((3, 20, 24))
        wait(widget)
        widget.session.commit()
        wait(widget)
        labels, folder = np.asarray(widget.session.labels.array[:]), widget.session.folder
        viewer.layers.clear()
        wait(widget)
        controller.open_session(folder)
        wait(widget)
    np.testing.assert_allclose(controller.image.translate, PLACE)
    np.testing.assert_array_equal(widget.session.labels.array[:], labels)
    assert labels[3].any()
