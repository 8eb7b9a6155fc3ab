"""Zarr and OME-Zarr as volumes: what is understood, what is read, what is refused."""

import json
import shutil
import warnings

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore, WrapperStore, ZipStore

from napari_sam.core.planes import PlaneRef
from napari_sam.errors import AxesError, InputWarning, VolumeError
from napari_sam.io.volume import open_volume

ARRAY = np.arange(2 * 3 * 8 * 16 * 32, dtype="u2").reshape(2, 3, 8, 16, 32) + 1


def write_image(path, version="0.5", axes="tczyx", units=None, transforms=None):
    """An OME-Zarr image of two levels, by hand."""
    array = ARRAY[(0,) * (5 - len(axes))]
    units = units or {"z": "micrometer", "y": "micrometer", "x": "micrometer", "t": "second"}
    types = {"t": "time", "c": "channel"}
    entries = [
        {"name": a, "type": types.get(a, "space"), **({"unit": units[a]} if a in units else {})} for a in axes
    ]
    scale = {"t": 5.0, "c": 1.0, "z": 3.0, "y": 0.5, "x": 0.25}
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": [scale[a] * (2**level if a in "yx" else 1) for a in axes]},
                {"type": "translation", "translation": [10.0 if a in "zyx" else 0.0 for a in axes]},
            ],
        }
        for level in range(2)
    ]
    multiscale = {"axes": entries, "datasets": datasets, "name": "image", **(transforms or {})}
    if version == "0.4":
        group = zarr.create_group(path, zarr_format=2)
        group.attrs["multiscales"] = [{**multiscale, "version": "0.4"}]
    else:
        group = zarr.create_group(path, attributes={"ome": {"version": version, "multiscales": [multiscale]}})
    for level, data in enumerate([array, array[..., ::2, ::2]]):
        group.create_array(str(level), data=data, chunks=(1,) * (len(axes) - 2) + (8, 8))
    return array


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr(tmp_path, version):
    write_image(tmp_path / "a.ome.zarr", version)
    volume = open_volume(tmp_path / "a.ome.zarr")
    assert (volume.axes, volume.n_levels, volume.n_time, volume.n_channels) == ("TCZYX", 2, 2, 3)
    assert volume.spacing_zyx == (3.0, 0.5, 0.25)
    assert volume.translate_zyx == (10.0, 10.0, 10.0)
    assert (volume.unit, volume.time_step, volume.time_unit) == ("micrometer", 5.0, "second")
    assert volume.level_factors(1) == (1.0, 2.0, 2.0)
    assert volume.shape_zyx(1) == (8, 8, 16)
    fine = volume.read_plane(PlaneRef(1, 5, 0, 1))
    assert np.array_equal(fine, ARRAY[1, :, :, 5].transpose(1, 2, 0))
    coarse = volume.read_plane(PlaneRef(2, 3, 1, 0))
    assert np.array_equal(coarse, ARRAY[0, :, :, ::2, 6].transpose(1, 2, 0))


def test_transformations_of_the_whole_image_come_last(tmp_path):
    outer = {"coordinateTransformations": [
        {"type": "scale", "scale": [2.0, 2.0, 2.0]}, {"type": "translation", "translation": [1.0, 0.0, 0.0]}
    ]}  # fmt: skip
    write_image(tmp_path / "a.zarr", axes="zyx", transforms=outer)
    volume = open_volume(tmp_path / "a.zarr")
    assert volume.spacing_zyx == (6.0, 1.0, 0.5)
    assert volume.translate_zyx == (21.0, 20.0, 20.0)


def test_units_that_differ_are_made_equal(tmp_path):
    write_image(
        tmp_path / "a.zarr", axes="zyx", units={"z": "micrometer", "y": "nanometer", "x": "nanometer"}
    )
    volume = open_volume(tmp_path / "a.zarr")
    assert volume.unit == "nanometer"
    assert volume.spacing_zyx == pytest.approx((3000.0, 0.5, 0.25))


def test_axes_of_version_3_and_none(tmp_path):
    array = write_image(tmp_path / "a.zarr", "0.4", "czyx")
    attributes = json.loads((tmp_path / "a.zarr/.zattrs").read_text())
    attributes["multiscales"][0]["axes"] = ["c", "z", "y", "x"]
    (tmp_path / "a.zarr/.zattrs").write_text(json.dumps(attributes))
    assert np.array_equal(
        open_volume(tmp_path / "a.zarr").read_plane(PlaneRef(0, 1)), np.moveaxis(array[:, 1], 0, 2)
    )
    write_image(tmp_path / "b.zarr", "0.4")
    attributes = json.loads((tmp_path / "b.zarr/.zattrs").read_text())
    del attributes["multiscales"][0]["axes"]
    (tmp_path / "b.zarr/.zattrs").write_text(json.dumps(attributes))
    assert open_volume(tmp_path / "b.zarr").axes == "TCZYX"


def test_first_image_of_a_converted_file(tmp_path):
    zarr.create_group(tmp_path / "a.zarr", zarr_format=2, attributes={"bioformats2raw.layout": 3})
    write_image(tmp_path / "a.zarr/0", "0.4")
    assert open_volume(tmp_path / "a.zarr").shape_zyx() == (8, 16, 32)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_plain_arrays(tmp_path, zarr_format):
    zarr.create_array(tmp_path / "a.zarr", data=ARRAY[0, 0], zarr_format=zarr_format)
    volume = open_volume(tmp_path / "a.zarr")
    assert volume.axes == "ZYX"
    assert np.array_equal(volume.read_plane(PlaneRef(0, 2)), ARRAY[0, 0, 2])
    assert volume.source == str(tmp_path / "a.zarr")


def test_names_of_dimensions_are_used(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=ARRAY[0], dimension_names=["c", "z", "y", "x"])
    assert open_volume(tmp_path / "a.zarr").n_channels == 3
    array = zarr.create_array(tmp_path / "b.zarr", data=ARRAY[0], zarr_format=2)
    array.attrs["_ARRAY_DIMENSIONS"] = ["c", "z", "y", "x"]
    assert open_volume(tmp_path / "b.zarr").n_channels == 3


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (["time", "y", "x"], "TYX"),
        (["channel", "Y", "X"], "CYX"),
        (["depth", "height", "width"], "ZYX"),
        (["columns", "rows", "band"], "XYZ"),
        (["a", "b", "c"], "ZYX"),
    ],
)
def test_long_names_of_dimensions_are_used(tmp_path, names, axes):
    zarr.create_array(tmp_path / "a.zarr", data=ARRAY[0, 0], dimension_names=names)
    assert open_volume(tmp_path / "a.zarr").axes == axes


@pytest.mark.parametrize("last", ["z", "depth", "slice"])
def test_names_of_axes_that_are_known_stay(tmp_path, last):
    multiscale = {
        "axes": [{"name": name, "type": "space"} for name in ("x", "y", last)],
        "datasets": [
            {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0, 2.0, 3.0]}]}
        ],
    }
    group = zarr.create_group(
        tmp_path / "a.zarr", attributes={"ome": {"version": "0.5", "multiscales": [multiscale]}}
    )
    group.create_array("0", data=ARRAY[0, 0].T)
    volume = open_volume(tmp_path / "a.zarr")
    assert (volume.axes, volume.spacing_zyx) == ("XYZ", (3.0, 2.0, 1.0))


@pytest.mark.parametrize("names", ["yx", "czyx"])
def test_as_many_names_as_dimensions(tmp_path, names):
    multiscale = {"axes": [{"name": name} for name in names], "datasets": [{"path": "0"}]}
    group = zarr.create_group(
        tmp_path / "a.zarr", attributes={"ome": {"version": "0.5", "multiscales": [multiscale]}}
    )
    group.create_array("0", data=ARRAY[0, 0])
    with pytest.raises(
        AxesError, match=f"names {len(names)} dimensions '{names.upper()}', but the array has 3"
    ):
        open_volume(tmp_path / "a.zarr")
    assert open_volume(tmp_path / "a.zarr", axes="ZYX").shape_zyx() == (8, 16, 32)


def test_a_zipped_folder_says_so(tmp_path):
    zarr.create_array(tmp_path / "in" / "a.zarr", data=ARRAY[0, 0])
    shutil.make_archive(str(tmp_path / "a.zarr"), "zip", tmp_path / "in")
    with pytest.raises(VolumeError, match=r"no zarr metadata at its top.*zip what is in the folder"):
        open_volume(tmp_path / "a.zarr.zip")


def test_five_dimensions_without_axes(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", data=ARRAY)
    with pytest.raises(AxesError, match="axes='TCZYX'"):
        open_volume(tmp_path / "a.zarr")
    assert open_volume(tmp_path / "a.zarr", "tczyx").n_time == 2


def test_a_group_that_holds_one_array_or_several(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("data", data=ARRAY[0, 0])
    assert open_volume(tmp_path / "a.zarr").shape_zyx() == (8, 16, 32)
    group.create_array("more", data=ARRAY[0, 0])
    with pytest.raises(VolumeError, match=r"arrays \['data', 'more'\]"):
        open_volume(tmp_path / "a.zarr")


def test_a_plate_and_a_well_say_where_an_image_is(tmp_path):
    plate = tmp_path / "plate.zarr"
    zarr.create_group(plate, attributes={"ome": {"plate": {}}})
    zarr.create_group(plate / "A/1", attributes={"ome": {"well": {}}})
    write_image(plate / "A/1/0")
    for folder, kind in ((plate, "plate"), (plate / "A/1", "well")):
        with pytest.raises(VolumeError, match=f"is a {kind} of many images; pass .*{plate}/A/1/0$"):
            open_volume(folder)


def test_opened_nodes_and_zip_files(tmp_path):
    write_image(tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="r+")
    assert open_volume(group).n_levels == 2
    volume = open_volume(group["0"], "TCZYX")
    assert volume.source == str(tmp_path / "a.zarr/0")
    volume.close()
    assert int(group["0"][0, 0, 0, 0, 0]) == 1
    shutil.make_archive(str(tmp_path / "a.zarr"), "zip", tmp_path / "a.zarr")
    with open_volume(tmp_path / "a.zarr.zip") as zipped:
        assert np.array_equal(zipped.read_plane(PlaneRef(0, 0)), np.moveaxis(ARRAY[0, :, 0], 0, 2))
    with ZipStore(tmp_path / "a.zarr.zip", mode="r") as store:
        assert open_volume(zarr.open_group(store, mode="r")).n_time == 2
    (tmp_path / "b.zip").write_text("no zip")
    with pytest.raises(VolumeError, match=r"b\.zip"):
        open_volume(tmp_path / "b.zip")


class CountingStore(WrapperStore):
    """Remembers which chunks were read."""

    def __init__(self, store, keys=None):
        super().__init__(store)
        self.keys = [] if keys is None else keys

    def _with_store(self, store):
        return type(self)(store, self.keys)

    async def get(self, key, prototype, byte_range=None):
        if "/c/" in key:
            self.keys.append(key)
        return await self._store.get(key, prototype, byte_range)


@pytest.mark.parametrize(("axis", "chunks"), [(0, 2 * 4), (1, 8 * 4), (2, 8 * 2)])
def test_a_plane_reads_the_chunks_it_crosses_and_no_others(tmp_path, axis, chunks):
    write_image(tmp_path / "a.zarr")
    store = CountingStore(LocalStore(tmp_path / "a.zarr"))
    volume = open_volume(zarr.open_group(store, mode="r"))
    assert store.keys == []
    volume.read_plane(PlaneRef(axis, 3, 0, 1))
    assert len(store.keys) == len(set(store.keys)) == 3 * chunks
    assert all(key.startswith("0/c/1/") for key in store.keys)


def test_chunks_that_are_missing(tmp_path):
    write_image(tmp_path / "a.zarr", axes="zyx")
    (tmp_path / "a.zarr/0/c/3/0/1").unlink()
    volume = open_volume(tmp_path / "a.zarr")
    volume.read_plane(PlaneRef(0, 2))
    with pytest.warns(InputWarning, match=r"1 chunk.*0/c/3/0/1.*copy it again"):
        plane = volume.read_plane(PlaneRef(0, 3))
    assert not plane[:8, 8:16].any()
    assert plane[8:].all()
    volume.read_plane(PlaneRef(1, 0))  # told once
    with pytest.raises(VolumeError, match="missing_chunks='fill'"):
        open_volume(tmp_path / "a.zarr", missing_chunks="error").read_plane(PlaneRef(0, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_volume(tmp_path / "a.zarr", missing_chunks="fill").read_plane(PlaneRef(0, 3))


def test_no_chunk_at_all_is_an_error(tmp_path):
    zarr.create_array(tmp_path / "a.zarr", shape=(3, 4, 5), dtype="u1")
    with pytest.raises(VolumeError, match="no data: not one chunk"):
        open_volume(tmp_path / "a.zarr").read_plane(PlaneRef(0, 0))


def test_damaged_chunks_and_metadata(tmp_path):
    write_image(tmp_path / "a.zarr", axes="zyx")
    (tmp_path / "a.zarr/0/c/3/0/1").write_bytes(b"junk")
    with pytest.raises(VolumeError, match="may be damaged"):
        open_volume(tmp_path / "a.zarr").read_plane(PlaneRef(0, 3))
    shutil.rmtree(tmp_path / "a.zarr/1")
    with pytest.raises(VolumeError, match="incomplete"):
        open_volume(tmp_path / "a.zarr")
    (tmp_path / "a.zarr/zarr.json").write_text("{")
    with pytest.raises(VolumeError, match=r"a\.zarr"):
        open_volume(tmp_path / "a.zarr")
