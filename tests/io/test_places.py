"""Levels lie where their file says: coordinates, voxel sizes, and labels beside an image."""

import numpy as np
import pytest
import zarr

from napari_sam.core.planes import PlaneRef
from napari_sam.core.spaces import Level, VolumeSpace, level_geometry
from napari_sam.errors import InputWarning
from napari_sam.io.save import save_labels
from napari_sam.io.volume import open_volume

SHAPE = (3, 505, 505)
CROPPED = (slice(None), slice(2, 482, 4), slice(2, 482, 4))


def write_pyramid(path, transforms, axes="zyx"):
    """An image whose level 1 is every fourth pixel of a part of level 0; each pixel is its own row."""
    image = np.broadcast_to(np.arange(505, dtype="u2")[:, None], SHAPE)
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [{"type": kind, kind: value} for kind, value in steps],
        }
        for level, steps in enumerate(transforms)
    ]
    entries = [{"name": a, "type": "time" if a == "t" else "space"} for a in axes]
    multiscales = [{"axes": entries, "datasets": datasets}]
    group = zarr.create_group(path, attributes={"ome": {"version": "0.5", "multiscales": multiscales}})
    group.create_array("0", data=image)
    group.create_array("1", data=image[CROPPED])
    return path


SCALES = [("scale", [1.0, 0.5, 0.5])], [("scale", [1.0, 2.0, 2.0])]
PLACED = [*SCALES[0], ("translation", [0.0] * 3)], [*SCALES[1], ("translation", [0.0, 1.0, 1.0])]


@pytest.mark.parametrize("axes", ["zyx", "tyx"])
def test_size_and_place_of_a_level_are_those_of_the_file(tmp_path, axes):
    with open_volume(
        write_pyramid(tmp_path / "a.zarr", PLACED, axes), ":T" if axes == "tyx" else None
    ) as volume:
        assert volume.level_places == (Level(), Level((1.0, 4.0, 4.0), (0.0, 2.0, 2.0)))
        found = level_geometry(volume, 1)
        assert (found["spacing_zyx"], found["translate_zyx"]) == ((1.0, 2.0, 2.0), (0.0, 1.0, 1.0))
        row = VolumeSpace.of(volume).to_plane([(0, 400.0, 400.0)], PlaneRef(0, 0, 1))[0, 0]
        assert row == 99.5
        assert [volume.read_plane(PlaneRef(0, 0, 1))[int(row + i), 0] for i in (0, 1)] == [398, 402]


def test_levels_without_a_place_are_means(tmp_path):
    with open_volume(write_pyramid(tmp_path / "a.zarr", SCALES)) as volume:
        assert volume.level_places[1] == Level.averaged((1.0, 4.0, 4.0))


@pytest.mark.parametrize(
    "second",
    [
        [("scale", [1.0, 0.5, 0.5])],
        [("scale", [1.0, 0.0, 2.0])],
        [("scale", [1.0, 2.0, 2.0]), ("translation", [0.0, 500.0, 1.0])],
    ],
)
def test_levels_that_cannot_lie_so_lie_as_their_shapes_do(tmp_path, second):
    path = write_pyramid(tmp_path / "a.zarr", (PLACED[0], second))
    with pytest.warns(InputWarning, match="do not show one volume"), open_volume(path) as volume:
        assert volume.level_places[1] == Level.from_shapes(SHAPE, (3, 120, 120))


def test_labels_beside_an_image_show_what_its_levels_show(tmp_path):
    path = write_pyramid(tmp_path / "a.zarr", PLACED)
    labels = np.broadcast_to(np.arange(505, dtype="u2")[:, None], SHAPE)
    place = save_labels(labels, path, into_image=True)
    np.testing.assert_array_equal(zarr.open_group(place, mode="r")["1"][:], labels[CROPPED])
