"""What the manifest promises is there and works through napari's own doors."""

from contextlib import nullcontext
from importlib import import_module
from importlib.resources import files

import numpy as np
import pytest
from npe2 import PluginManifest

from napari_sam.errors import DependencyError, InputWarning
from napari_sam.io.volume import open_volume
from napari_sam.plugin import SegmentWidget
from napari_sam.plugin.writers import write_labels

MANIFEST = files("napari_sam") / "napari.yaml"
NAME = "napari-sam-volumes"


@pytest.fixture
def manifest():
    return PluginManifest.from_file(str(MANIFEST))


def test_every_command_can_be_imported(manifest):
    manifest.validate_imports()
    for command in manifest.contributions.commands:
        module, _, name = command.python_name.partition(":")
        assert callable(getattr(import_module(module), name))
        assert command.id.startswith(NAME)


@pytest.mark.gui
def test_the_widget_is_in_the_segment_menu(make_napari_viewer, npe2pm, manifest):
    from napari._app_model import get_app_model

    with npe2pm.tmp_plugin(manifest=manifest):
        make_napari_viewer()
        entries = get_app_model().menus.get_menu("napari/layers/segment")
        assert any("Segment" in str(getattr(e, "command", e)) for e in entries)


@pytest.mark.parametrize("name", ["labels.ome.zarr", "labels.ome.tif"])
def test_a_labels_layer_is_written_with_its_size(tmp_path, name):
    from napari.layers import Labels

    data = np.zeros((4, 20, 30), np.int32)
    data[1, 2:8, 3:9] = 300
    layer = Labels(data, scale=(2, 0.5, 0.5), units=("micrometer",) * 3)
    path = tmp_path / name
    for _ in range(2):  # the second time replaces the first
        assert write_labels(str(path), *layer.as_layer_data_tuple()[:2]) == [str(path)]
    volume = open_volume(path)
    np.testing.assert_allclose(volume.spacing_zyx, (2, 0.5, 0.5))
    assert volume.unit == "micrometer"
    from napari_sam.core.planes import PlaneRef

    np.testing.assert_array_equal(volume.read_plane(PlaneRef(0, 1)), data[1])


@pytest.mark.parametrize("name", ["labels.ome.zarr", "labels.ome.tif"])
@pytest.mark.parametrize(
    ("shape", "scale", "units", "expected"),
    [
        (
            (2, 3, 9, 9),
            (5, 2, 0.5, 0.5),
            ("ms", "um", "um", "um"),
            ((2, 0.5, 0.5), "micrometer", 5.0, "millisecond"),
        ),
        ((3, 9, 9), (500, 0.5, 0.5), ("nm", "um", "um"), ((0.5, 0.5, 0.5), "micrometer", 1.0, "")),
        ((3, 9, 9), (5, 0.5, 0.5), ("s", "um", "um"), ((1, 0.5, 0.5), "micrometer", 5.0, "second")),
        ((9, 9), (0.5, 0.5), ("um", "um"), ((1, 0.5, 0.5), "micrometer", 1.0, "")),
        ((2, 3, 9, 9), (5, 2, 0.5, 0.5), None, ((2, 0.5, 0.5), "", 5.0, "")),
    ],
)
def test_units_and_time_of_a_labels_layer_are_written(tmp_path, name, shape, scale, units, expected):
    from napari.layers import Labels

    data, attributes, _ = Labels(np.ones(shape, np.uint8), scale=scale, units=units).as_layer_data_tuple()
    lost = len(shape) == 4 and units is None and name.endswith("tif")
    with pytest.warns(InputWarning, match="no place for a time step") if lost else nullcontext():
        write_labels(str(tmp_path / name), data, attributes)
    volume = open_volume(tmp_path / name)
    found = volume.spacing_zyx, volume.unit, volume.time_step, volume.time_unit
    assert found == (pytest.approx(expected[0]), expected[1], 1.0 if lost else expected[2], expected[3])
    volume.close()


def test_the_older_plugin_of_the_same_name_is_found_and_named(make_napari_viewer, older_plugin):
    with pytest.raises(DependencyError, match="pip uninstall napari-sam"):
        SegmentWidget(make_napari_viewer())
