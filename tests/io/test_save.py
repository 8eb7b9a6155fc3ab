"""What is saved is what was given, at the same place, in the form asked for."""

import re
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from napari_sam.core.planes import PlaneRef
from napari_sam.errors import ExportError, InputWarning
from napari_sam.io import save_tiff
from napari_sam.io.label_source import label_source
from napari_sam.io.labels import create_labels
from napari_sam.io.properties import OME, read_properties
from napari_sam.io.save import SaveOptions, iter_save_labels, save_labels
from napari_sam.io.save_zarr import SMALLEST_SIDE, plan_alone
from napari_sam.io.volume import open_volume

ENDINGS = [".ome.zarr", ".zarr", ".ome.tif", ".ome.tiff", ".tif", ".tiff"]
WHERE = {"spacing_zyx": (3.0, 0.5, 0.25), "translate_zyx": (10.0, 20.0, 30.0), "unit": "micrometer"}


def blobs(shape=(6, 40, 50), largest=300, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 9, shape).astype("u4") * (rng.random(shape) > 0.4)
    labels.flat[0] = largest
    return labels.astype("u4")


def read_all(path):
    with open_volume(path, missing_chunks="fill") as volume:
        planes = [
            [volume.read_plane(PlaneRef(0, z, 0, t)) for z in range(volume.shape_zyx()[0])]
            for t in range(volume.n_time)
        ]
        return np.array(planes), volume


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr", "volume"])
def test_round_trip(tmp_path, ending, kind):
    labels = blobs()
    given_labels = labels
    if kind == "dask":
        given_labels = da.from_array(labels, chunks=20)
    elif kind == "zarr":
        given_labels = create_labels(tmp_path / "work.zarr", labels.shape)
        given_labels[:] = labels
    elif kind == "volume":
        given_labels = open_volume(labels)
    where = dict(WHERE) if "zarr" in ending else {**WHERE, "translate_zyx": None}
    path = save_labels(given_labels, tmp_path / f"out{ending}", **where)
    assert path == tmp_path / f"out{ending}"
    saved, volume = read_all(path)
    assert np.array_equal(saved[0], labels)
    assert (volume.spacing_zyx, volume.unit) == (WHERE["spacing_zyx"], "micrometer")
    assert volume.translate_zyx == (WHERE["translate_zyx"] if "zarr" in ending else (0.0, 0.0, 0.0))
    assert volume.axes == "ZYX"
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "work.zarr") == [f"out{ending}"]


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    dtype=st.sampled_from(["bool", "u1", "<u2", ">u2", "u4", "u8", "i1", "i4", "i8"]),
    ending=st.sampled_from([".ome.zarr", ".ome.tif", ".tif"]),
    version=st.sampled_from(["0.4", "0.5"]),
)
def test_round_trip_of_any_shape_and_dtype(tmp_path_factory, shape, dtype, ending, version):
    labels = (np.arange(np.prod(shape)).reshape(shape) % 120 + 1).astype(dtype)
    path = save_labels(labels, tmp_path_factory.mktemp("s") / f"a{ending}", ome_zarr_version=version)
    saved, volume = read_all(path)
    assert np.array_equal(saved, labels.reshape((1,) * (4 - len(shape)) + tuple(shape)))
    assert volume.dtype.kind == "u"


def test_geometry_from_the_image(tmp_path):
    image = open_volume(np.zeros((6, 40, 50), "u1"), spacing=(3, 1, 0.5), translate=(1, 2, 3), unit="nm")
    _, volume = read_all(save_labels(blobs(), tmp_path / "a.ome.zarr", image))
    assert (volume.spacing_zyx, volume.translate_zyx, volume.unit) == ((3, 1, 0.5), (1, 2, 3), "nanometer")
    _, volume = read_all(
        save_labels(blobs(), tmp_path / "b.ome.zarr", image, spacing_zyx=(7, 7, 7), unit="um")
    )
    assert (volume.spacing_zyx, volume.unit) == ((7, 7, 7), "micrometer")


def test_geometry_that_the_labels_keep(tmp_path):
    labels = create_labels(tmp_path / "work.zarr", (6, 40, 50), **WHERE)
    labels[:] = blobs()
    _, volume = read_all(save_labels(labels, tmp_path / "a.ome.zarr"))
    assert (volume.spacing_zyx, volume.translate_zyx) == (WHERE["spacing_zyx"], WHERE["translate_zyx"])


def test_time_is_kept(tmp_path):
    labels = blobs((2, 3, 8, 9))
    image = open_volume(labels, "TZYX")
    for ending in (".ome.zarr", ".ome.tif", ".tif"):
        saved, volume = read_all(save_labels(labels, tmp_path / f"a{ending}", image))
        assert np.array_equal(saved, labels)
        assert volume.axes == "TZYX"


@pytest.mark.parametrize(
    ("name", "step", "unit"), [("a.tif", 0.02, "second"), ("a.ome.tif", 20.0, "millisecond")]
)
def test_any_unit_of_time_is_kept_in_a_tiff(tmp_path, name, step, unit):
    source = replace(label_source(np.ones((2, 3, 9, 9), "u1"), time_step=20.0), time_unit="millisecond")
    save_labels(source, tmp_path / name)
    with open_volume(tmp_path / name) as volume:
        assert (volume.time_step, volume.time_unit) == (pytest.approx(step), unit)


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [(200, "u1"), (255, "u1"), (256, "u2"), (65535, "u2"), (65536, "u4"), (2**32 - 1, "u4")],
)
def test_tiff_takes_the_smallest_type(tmp_path, largest, dtype):
    path = save_labels(blobs(largest=largest).astype("u8"), tmp_path / "a.tif")
    with tifffile.TiffFile(path) as tif:
        assert tif.series[0].dtype == np.dtype(dtype)
        assert tif.is_imagej == (dtype != "u4")
        assert tif.is_ome == (dtype == "u4")
        assert not tif.is_bigtiff
        assert tif.pages[0].compression == 8


def test_ids_beyond_32_bits(tmp_path):
    labels = blobs().astype("u8")
    labels[0, 0, 0] = 2**40
    with pytest.raises(ExportError, match=f"label {2**40} needs more than the 32 bits"):
        save_labels(labels, tmp_path / "a.ome.tif")
    saved, _ = read_all(save_labels(labels, tmp_path / "a.ome.zarr"))
    assert saved.max() == 2**40


def test_large_files_are_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr(save_tiff, "_CLASSIC_LIMIT", 1000)
    path = save_labels(blobs(largest=9), tmp_path / "a.tif", spacing_zyx=(3, 1, 1), unit="um")
    with tifffile.TiffFile(path) as tif:
        assert tif.is_bigtiff
        assert tif.is_ome
    assert read_all(path)[1].spacing_zyx == (3.0, 1.0, 1.0)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (4, 1, 1), (1.5, 1, 1)])
def test_levels_hold_no_invented_ids_and_lie_on_each_other(tmp_path, version, spacing):
    labels = blobs((9, 601, 530))
    path = save_labels(labels, tmp_path / "a.ome.zarr", spacing_zyx=spacing, ome_zarr_version=version)
    with open_volume(path) as volume:
        assert volume.n_levels == 3
        for level in range(volume.n_levels):
            z, y, x = (int(f) for f in volume.level_factors(level))
            assert (y, x) == (2**level, 2**level)
            assert z == (1 if spacing[0] == 4 and level < 3 else 2**level)
            plane = volume.read_plane(PlaneRef(0, 1 if z < 9 else 0, level))
            assert np.array_equal(plane, labels[z if z < 9 else 0][::y, ::x])
        assert max(volume.shape_zyx(2)[1:]) <= 256
    group = zarr.open_group(path, mode="r")
    attributes = group.attrs.asdict()
    multiscale = attributes.get("ome", attributes)["multiscales"][0]
    shift = multiscale["datasets"][1]["coordinateTransformations"][1]["translation"]
    assert shift[1:] == [0.5, 0.5]  # the centre of two voxels
    assert group["0"].metadata.zarr_format == (2 if version == "0.4" else 3)


@settings(max_examples=300)
@given(st.tuples(*[st.integers(1, 9000)] * 3), st.tuples(*[st.floats(1e-3, 1e3)] * 3))
@example((3, 300, 2), (1.0, 5.0, 1.0))
def test_levels_are_added_until_planes_are_small(shape, spacing):
    where = label_source(np.broadcast_to(np.uint8(1), shape), spacing_zyx=spacing)
    levels = plan_alone(where, "0.5", "labels", {}).levels
    lengths = [[len(picked) for picked in level.picks] for level in levels]
    assert max(lengths[-1][1:]) <= SMALLEST_SIDE
    assert all(max(one[1:]) > SMALLEST_SIDE for one in lengths[:-1])
    assert all(a >= b for one, two in pairwise(lengths) for a, b in zip(one, two))


def test_properties_and_colours(tmp_path):
    path = save_labels(
        blobs(),
        tmp_path / "a.ome.zarr",
        properties={2: {"area": np.int64(7), "score": np.float32(0.5), "note": "doubtful"}, 1: {"area": 3}},
        colors={1: (1.0, 0.0, 0.5), 2: np.array([1, 2, 3, 4], "u1")},
        name="cells",
    )
    ome = zarr.open_group(path, mode="r").attrs["ome"]
    assert ome["multiscales"][0]["name"] == "cells"
    assert ome["image-label"]["colors"] == [
        {"label-value": 1, "rgba": [255, 0, 128, 255]},
        {"label-value": 2, "rgba": [1, 2, 3, 4]},
    ]
    assert ome["image-label"]["properties"] == [
        {"label-value": 1, "area": 3},
        {"label-value": 2, "area": 7, "score": 0.5, "note": "doubtful"},
    ]


def test_what_tiff_cannot_keep_is_told(tmp_path):
    with pytest.warns(InputWarning, match="no place for colors, translation"):
        save_labels(blobs(), tmp_path / "a.tif", colors={1: (1.0, 0.0, 0.0)}, translate_zyx=(1, 0, 0))


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
PROPERTIES = st.dictionaries(
    st.integers(1, 2**32 - 1),
    st.dictionaries(st.sampled_from(["name", "class", "predicted_iou", "größe <&>"]), VALUES),
    min_size=1,
)


@settings(max_examples=60, deadline=None)
@given(PROPERTIES, st.sampled_from(["a.ome.zarr", "a.ome.tif", "a.tif"]))
def test_properties_come_back_as_they_were(tmp_path_factory, properties, name):
    labels = np.ones((2, 3, 4), "u1")
    path = save_labels(labels, tmp_path_factory.mktemp("p") / name, properties=properties)
    assert read_properties(path) == properties
    assert np.array_equal(read_all(path)[0][0], labels)


def test_files_of_others_have_no_properties(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", blobs(), metadata={"axes": "ZYX"})
    info = {"Properties": {"colour": "red"}, "Info": "{}"}
    tifffile.imwrite(tmp_path / "a.tif", blobs().astype("u2"), imagej=True, metadata=info)
    tifffile.imwrite(tmp_path / "b.tif", blobs())
    assert [read_properties(tmp_path / name) for name in ("a.ome.tif", "a.tif", "b.tif")] == [{}, {}, {}]
    assert read_properties(tmp_path / "notes.txt") == read_properties(None) == {}


def test_annotations_stand_where_the_schema_of_ome_wants_them(tmp_path):
    known = {3: {"name": "left", "class": "cell", "state": "reviewed", "doubt": 0.25}, 9: {"name": "0042"}}
    path = save_labels(blobs(), tmp_path / "a.ome.tif", properties=known)
    with tifffile.TiffFile(path) as tif:
        root = ElementTree.fromstring(tif.ome_metadata)
        assert tif.series[0].axes == "ZYX"
    assert [local_name(one) for one in root] == ["Image", "StructuredAnnotations"]
    references = root[0][1:]
    assert [local_name(one) for one in root[0]] == ["Pixels", "AnnotationRef", "AnnotationRef"]
    annotations = list(root[1])
    assert {local_name(one) for one in annotations} == {"MapAnnotation"}
    assert [one.get("ID") for one in annotations] == [one.get("ID") for one in references]
    assert all(re.fullmatch(r"Annotation:\S+", one.get("ID")) for one in annotations)
    texts = {entry.get("K"): entry.text for entry in annotations[0].iter(f"{{{OME}}}M")}
    wanted = {"label-value": "3", "name": "left", "class": "cell", "state": "reviewed", "doubt": "0.25"}
    assert texts == wanted


def local_name(element):
    return element.tag.removeprefix(f"{{{OME}}}")


@pytest.mark.parametrize("ending", [".ome.zarr", ".ome.tif"])
def test_labels_without_objects_are_told(tmp_path, ending):
    with pytest.warns(InputWarning, match="no object"):
        path = save_labels(np.zeros((3, 4, 5), "u1"), tmp_path / f"a{ending}")
    assert not read_all(path)[0].any()


def drive(steps):
    """All that a generator yields, and what it returns."""
    seen = []

    def outer():
        seen.append((yield from steps))

    return list(outer()), seen[0]


def test_progress_counts_up_to_the_total(tmp_path):
    for ending, total in ((".ome.zarr", 6), (".tif", 12)):
        path = tmp_path / f"a{ending}"
        events, result = drive(iter_save_labels(blobs(), path, options=SaveOptions(unit="um")))
        assert result == path
        assert events == [(done, total) for done in range(1, total + 1)]
