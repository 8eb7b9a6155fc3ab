"""A volume gives the planes that numpy would, whatever the order of the axes."""

import doctest
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sam.core.planes import PlaneRef
from napari_sam.core.protocols import VolumeLike
from napari_sam.errors import AxesError, InputWarning, VolumeError
from napari_sam.io import volume as volume_module
from napari_sam.io.save import save_labels
from napari_sam.io.volume import open_volume

SIZES = {"T": 2, "Z": 3, "Y": 4, "X": 5, "C": 2}
DTYPES = ["bool", "u1", "i1", ">u2", "<u2", "i4", "u8", "f2", ">f4", "f8"]
ALL_AXES = [
    "".join(p)
    for n in range(4)
    for extra in itertools.combinations("TZC", n)
    for p in itertools.permutations("YX" + "".join(extra))
]


def tzyxc(array, axes):
    """The same array as (T, Z, Y, X, C), by another way than the one under test."""
    full = array.reshape(array.shape + (1,) * (5 - array.ndim))
    order = axes + "".join(a for a in "TZYXC" if a not in axes)
    return np.einsum(f"{order}->TZYXC", full)


def expected_plane(array, axes, plane):
    image = np.take(tzyxc(array, axes)[plane.time], plane.index, axis=plane.axis)
    return image[..., 0] if image.shape[-1] == 1 else image


def sources(array, kind, tmp_path_factory):
    if kind == "zarr":
        chunks = tuple(max(1, n - 1) for n in array.shape)
        return zarr.create_array({}, data=np.ascontiguousarray(array), chunks=chunks)
    return da.from_array(array, chunks=2) if kind == "dask" else array


@settings(max_examples=150, deadline=None)
@given(data=st.data(), axes=st.sampled_from(ALL_AXES), dtype=st.sampled_from(DTYPES))
def test_planes_of_any_axes_and_dtype(data, axes, dtype):
    shape = tuple(SIZES[a] for a in axes)
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    kind = data.draw(st.sampled_from(["numpy", "dask", "zarr"]))
    given_axes = data.draw(st.sampled_from([axes, axes.lower(), list(axes)]))
    volume = open_volume(sources(array, kind, None), given_axes)
    axis = data.draw(st.integers(0, 2))
    index = data.draw(st.integers(0, volume.shape_zyx()[axis] - 1))
    plane = PlaneRef(axis, index, 0, data.draw(st.integers(0, volume.n_time - 1)))

    image = volume.read_plane(plane)

    assert np.array_equal(image, expected_plane(array, axes, plane))
    assert image.shape[:2] == volume.plane_shape(axis)
    assert image.dtype == volume.dtype == np.dtype(dtype).newbyteorder("=")


def test_it_is_a_volume_like():
    assert isinstance(open_volume(np.zeros((3, 4))), VolumeLike)


@pytest.mark.parametrize(
    ("shape", "dtype", "axes", "rgb"),
    [
        ((4, 5), "u1", "YX", False),
        ((3, 4, 5), "u1", "ZYX", False),
        ((4, 5, 3), "u1", "YXC", True),
        ((4, 5, 4), "u1", "YXC", True),
        ((4, 5, 3), "u2", "ZYX", False),
    ],
)
def test_what_is_guessed(shape, dtype, axes, rgb):
    volume = open_volume(np.zeros(shape, dtype))
    assert (volume.axes, volume.is_rgb) == (axes, rgb)


@pytest.mark.parametrize("ndim", [1, 4, 5, 6])
def test_what_is_not_guessed(ndim):
    with pytest.raises(AxesError, match=r"pass axes, one letter a dimension, such as axes='TCZYX'"):
        open_volume(np.zeros((2,) * ndim, "u2"))


@pytest.mark.parametrize("axes", ["ZY", "ZYXC", "ZZX", "QYX", "ZYC", ""])
def test_axes_that_do_not_fit(axes):
    with pytest.raises(AxesError, match="axes"):
        open_volume(np.zeros((2, 3, 4)), axes)


@pytest.mark.parametrize("dtype", ["complex64", "U3", "O", "M8[s]"])
def test_pixels_must_be_real_numbers(dtype):
    with pytest.raises(VolumeError, match="numbers"):
        open_volume(np.zeros((3, 4), dtype))


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 4, 5)])
def test_volumes_are_not_empty(shape):
    with pytest.raises(VolumeError, match="empty"):
        open_volume(np.zeros(shape))


@pytest.mark.parametrize("source", [None, 3, [], [1, 2], {"a": 1}])
def test_what_cannot_be_opened(source):
    with pytest.raises(VolumeError):
        open_volume(source)


@pytest.mark.parametrize(
    ("plane", "match"),
    [
        (PlaneRef(0, 3), "0 to 2"),
        (PlaneRef(1, 4), "0 to 3"),
        (PlaneRef(2, 5), "0 to 4"),
        (PlaneRef(0, 0, 1), "levels 0 to 0"),
        (PlaneRef(0, 0, 0, 2), "0 to 1"),
    ],
)
def test_planes_that_are_not_there(plane, match):
    with pytest.raises(VolumeError, match=match):
        open_volume(np.zeros((2, 3, 4, 5)), "TZYX").read_plane(plane)


def test_levels_from_a_list():
    fine, coarse = np.arange(240).reshape(4, 6, 10), np.arange(15).reshape(1, 3, 5)
    volume = open_volume([fine, da.from_array(coarse)])
    assert volume.n_levels == 2
    assert volume.level_factors(1) == (4.0, 2.0, 2.0)
    assert np.array_equal(volume.read_plane(PlaneRef(1, 2, 1)), coarse[:, 2])


def test_levels_must_agree():
    with pytest.raises(VolumeError, match="level 1"):
        open_volume([np.zeros((2, 8, 8)), np.zeros((4, 4))])
    with pytest.raises(VolumeError, match="along C"):
        open_volume([np.zeros((2, 8, 8)), np.zeros((1, 4, 4))], "CYX")


def test_geometry_that_is_given():
    volume = open_volume(np.zeros((2, 3, 4)), spacing=(2, 0.5, 0.25), translate=(1, 2, 3), unit="µm")
    assert volume.spacing_zyx == (2.0, 0.5, 0.25)
    assert volume.translate_zyx == (1.0, 2.0, 3.0)
    assert volume.unit == "micrometer"


@pytest.mark.parametrize("spacing", [(1, 2), (0, 1, 1), (1, -1, 1), (1, np.nan, 1)])
def test_spacing_that_cannot_be(spacing):
    with pytest.raises(VolumeError, match="spacing_zyx must be three"):
        open_volume(np.zeros((2, 3, 4)), spacing=spacing)


def test_subset_of_time_and_channels():
    array = np.arange(3 * 4 * 5 * 6).reshape(3, 4, 5, 6)
    volume = open_volume(array, "TCYX")
    part = volume.subset(time=[2, 0], channels=[3, 1])
    assert (part.n_time, part.n_channels) == (2, 2)
    assert np.array_equal(part.read_plane(PlaneRef(0, 0, 0, 0)), array[2, [3, 1]].transpose(1, 2, 0))
    again = part.subset(channels=1)
    assert np.array_equal(again.read_plane(PlaneRef(0, 0, 0, 1)), array[0, 1])
    assert volume.n_channels == 4
    with pytest.raises(VolumeError, match="0 to 1"):
        part.subset(channels=2)


def test_colours_survive_only_whole():
    volume = open_volume(np.zeros((4, 5, 4), "u1"))
    assert volume.subset(channels=[0, 1, 2]).is_rgb
    assert not volume.subset(channels=[2, 1, 0]).is_rgb
    assert not open_volume(np.zeros((3, 4, 5), "u1"), "CYX").is_rgb


def test_a_volume_in_memory_is_not_pickled():
    with pytest.raises(VolumeError, match="in memory"):
        pickle.dumps(open_volume(np.zeros((3, 4))))


def test_a_volume_on_disk_is_pickled_by_its_path(tmp_path):
    array = np.arange(2 * 3 * 400 * 500, dtype="u2").reshape(2, 3, 400, 500)
    zarr.create_array(tmp_path / "a.zarr", data=array, chunks=(1, 1, 400, 500))
    volume = open_volume(tmp_path / "a.zarr", "CZYX", spacing=(3, 1, 1), unit="nm").subset(channels=1)
    sent = pickle.dumps(volume)
    assert len(sent) < 1000
    received = pickle.loads(sent)
    assert (received.source, received.spacing_zyx, received.unit) == (
        volume.source,
        (3.0, 1.0, 1.0),
        "nanometer",
    )
    assert np.array_equal(received.read_plane(PlaneRef(0, 2)), array[1, 2])


def test_what_is_not_there(tmp_path):
    with pytest.raises(VolumeError, match=r"no file or folder .*nowhere\.tif"):
        open_volume(tmp_path / "nowhere.tif")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(VolumeError, match="neither a zarr nor a TIFF"):
        open_volume(tmp_path / "notes.txt")
    with pytest.raises(VolumeError, match="without zarr metadata"):
        open_volume(tmp_path)


@pytest.mark.parametrize("url", ["https://x.org/a.ome.zarr", "s3://x/a.zarr", "file:///data/a.tif"])
def test_urls_are_not_read(url):
    for source in (url, Path(url).absolute()):
        with pytest.raises(VolumeError, match="is a URL, which is not read"):
            open_volume(source)


def test_reading_fails_with_a_named_error():
    class Broken:
        shape, dtype = (3, 4, 5), np.dtype("u1")

        def __getitem__(self, index):
            raise OSError("the disk is gone")

    with pytest.raises(VolumeError, match="the disk is gone"):
        open_volume(Broken()).read_plane(PlaneRef(0, 0))


def test_an_implausible_voxel_size_is_forgotten(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr", attributes={"ome": {"version": "0.5", "multiscales": [
        {"axes": [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"],
         "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [0, 1, 1]}]}]}
    ]}})  # fmt: skip
    group.create_array("0", data=np.ones((2, 3, 4)))
    with pytest.warns(InputWarning, match="voxel size"):
        volume = open_volume(tmp_path / "a.zarr")
    assert (volume.spacing_zyx, volume.unit) == ((1.0, 1.0, 1.0), "")


@pytest.mark.parametrize("name", ["a.zarr", "a.tif"])
def test_several_threads_may_read(tmp_path, name):
    array = np.random.default_rng(0).integers(0, 999, (60, 64, 64)).astype("u2")
    if name == "a.zarr":
        zarr.create_array(tmp_path / name, data=array, chunks=(1, 32, 32))
    else:
        tifffile.imwrite(tmp_path / name, array, compression="zlib", photometric="minisblack")
    with open_volume(tmp_path / name) as volume, ThreadPoolExecutor(4) as pool:
        planes = list(pool.map(lambda z: volume.read_plane(PlaneRef(0, z)), range(60)))
    assert np.array_equal(np.array(planes), array)


def test_the_example_of_the_module_is_true():
    result = doctest.testmod(volume_module)
    assert result.attempted > 3
    assert not result.failed


@pytest.mark.parametrize("axes", ["ZYX", "CTZYX", "ZYXC"])
def test_a_box_is_what_the_planes_hold(axes):
    sizes = dict(zip("TZYXC", (2, 5, 6, 7, 3)))
    array = np.random.default_rng(0).integers(0, 99, [sizes[a] for a in axes]).astype(np.uint8)
    volume = open_volume(array, axes=axes)
    time = volume.n_time - 1
    box = volume.read_box(((1, 4), (2, 9), (0, 7)), time=time)
    planes = [volume.read_plane(PlaneRef(0, z, 0, time)) for z in range(1, 4)]
    np.testing.assert_array_equal(box, np.stack(planes)[:, 2:])
    if volume.n_channels == 3:
        chosen = volume.subset(channels=2).read_box(((1, 4), (2, 6), (0, 7)), time=time)
        np.testing.assert_array_equal(chosen, box[..., 2])


def test_tracking_exchanges_time_and_z(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (4, 3, 5, 6, 2), np.uint8)  # T Z Y X C
    path = tmp_path / "series.zarr"
    zarr.save_array(str(path), image)
    volume = open_volume(path, axes="TZYXC:T", spacing=(2.0, 0.5, 0.5), time_step=30.0)
    assert volume.axes == "TZYXC:T"
    assert (volume.shape_zyx(), volume.n_time) == ((4, 5, 6), 3)
    assert (volume.spacing_zyx, volume.time_step) == ((30.0, 0.5, 0.5), 2.0)
    np.testing.assert_array_equal(volume.read_plane(PlaneRef(0, 3, time=1)), image[3, 1])
    other = pickle.loads(pickle.dumps(volume.subset(channels=1)))
    assert other.is_tracked
    np.testing.assert_array_equal(other.read_plane(PlaneRef(0, 2, time=2)), image[2, 2, ..., 1])


def test_tracking_keeps_the_levels_that_have_every_plane():
    fine, coarse, coarsest = (np.zeros(s, np.uint8) for s in ((4, 6, 32, 32), (4, 6, 16, 16), (4, 3, 8, 8)))
    volume = open_volume([fine, coarse, coarsest], axes="tzyx:t")
    assert volume.n_levels == 2
    assert volume.level_factors(1) == (1, 2, 2)


def test_tracking_needs_time():
    with pytest.raises(VolumeError, match="no time to track"):
        open_volume(np.zeros((3, 4, 5), np.uint8), axes="ZYX:T")


def test_labels_like_a_tracked_volume_keep_time(tmp_path):
    labels = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6)
    volume = open_volume(labels, axes="TYX:T", time_step=30.0)
    with open_volume(save_labels(labels, tmp_path / "tracks.ome.zarr", like=volume)) as saved:
        assert (saved.n_time, saved.shape_zyx(), saved.time_step) == (4, (1, 5, 6), 30.0)
        np.testing.assert_array_equal(saved.read_plane(PlaneRef(0, 0, time=3)), labels[3])
