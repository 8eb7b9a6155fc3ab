"""What is not stored is not read, and what is saved is the same."""

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sam.errors import InputWarning, VolumeError
from napari_sam.io.label_source import label_source
from napari_sam.io.labels import CHUNK_DEPTH, create_labels, open_labels
from napari_sam.io.save import save_labels
from napari_sam.io.stored import stored_parts
from napari_sam.io.volume import Volume, open_volume

ENCODINGS = {
    "v3": {},
    "v3 with dots": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "v3 named as v2": {"chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "v2": {"zarr_format": 2},
    "v2 with slashes": {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
    "shards": {"shards": (4, 16, 16)},
}


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("inside", [False, True])
def test_boxes_hold_what_was_written_and_little_else(tmp_path, name, inside):
    options = {"chunks": (2, 8, 8), "shape": (9, 40, 30), "dtype": "u4", **ENCODINGS[name]}
    if inside:
        group = zarr.create_group(tmp_path / "g", zarr_format=options.pop("zarr_format", 3))
    array = (
        group.create_array("a", **options) if inside else zarr.create_array(tmp_path / "a.zarr", **options)
    )
    assert stored_parts(array, "ZYX").boxes == {}
    array[5, 17, 3] = 7
    array[5, 33, 29] = 1
    found = stored_parts(array, "ZYX")
    large = name == "shards"
    assert found.depth == (4 if large else 2)
    assert found.box(5) == found.box(4) == ((16, 0, 40, 30))
    assert [z for z in range(9) if found.box(z)] == ([4, 5, 6, 7] if large else [4, 5])


@pytest.mark.parametrize("axes", ["ZYX", "XYZ", "TZYX", "YX"])
def test_axes_in_any_order(tmp_path, axes):
    shape = [{"T": 3, "Z": 5, "Y": 20, "X": 30}[letter] for letter in axes]
    chunks = [{"T": 1, "Z": 1, "Y": 10, "X": 10}[letter] for letter in axes]
    array = zarr.create_array(tmp_path / "a.zarr", shape=shape, chunks=chunks, dtype="u1")
    array[tuple({"T": 2, "Z": 3, "Y": 12, "X": 25}[letter] for letter in axes)] = 1
    found = stored_parts(array, axes)
    assert found.box(3 if "Z" in axes else 0) == (10, 20, 20, 30)


def test_nothing_is_known_of_other_arrays(tmp_path):
    filled = zarr.create_array(
        tmp_path / "a.zarr", shape=(4, 8, 8), chunks=(1, 8, 8), dtype="u1", fill_value=3
    )
    assert stored_parts(filled, "ZYX") is None
    assert stored_parts(np.zeros((4, 8, 8), "u1"), "ZYX") is None
    odd = zarr.create_array(tmp_path / "b.zarr", shape=(4, 8, 8), chunks=(1, 8, 8), dtype="u1")
    odd[0] = 1
    assert {*stored_parts(odd, "ZYX").boxes} == {0}
    (tmp_path / "b.zarr" / "c" / "strange").write_text("")
    assert stored_parts(odd, "ZYX") is None


@settings(max_examples=25, deadline=None)
@given(
    marks=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 599), st.integers(0, 310)), max_size=4),
    version=st.sampled_from(["0.4", "0.5"]),
    ending=st.sampled_from([".ome.zarr", ".tif"]),
)
@pytest.mark.filterwarnings("ignore:the labels hold no object")
def test_sparse_labels_are_saved_as_dense_ones_are(tmp_path_factory, marks, version, ending):
    folder = tmp_path_factory.mktemp("s")
    sparse = create_labels(folder / "work.zarr", (10, 600, 311), "uint16", (2, 128, 128))
    for value, (z, y, x) in enumerate(marks, 1):
        sparse[z, y : y + 5, x : x + 9] = value
    dense = np.array(sparse[:])
    paths = [
        save_labels(labels, folder / f"{name}{ending}", name="n", ome_zarr_version=version)
        for name, labels in (("sparse", sparse), ("dense", dense))
    ]
    if ending == ".tif":
        assert paths[0].read_bytes() == paths[1].read_bytes()
        return
    ours, theirs = (zarr.open_group(path, mode="r") for path in paths)
    assert ours.attrs.asdict() == theirs.attrs.asdict()
    assert sorted(ours.array_keys()) == sorted(theirs.array_keys()) == ["0", "1", "2"]
    for name in theirs.array_keys():
        assert np.array_equal(ours[name][:], theirs[name][:])
    files = [sorted(str(f.relative_to(path)) for f in path.rglob("*")) for path in paths]
    assert files[0] == files[1]


def test_of_a_large_volume_only_the_planes_with_labels_are_read(tmp_path, monkeypatch):
    create_labels(tmp_path / "work.zarr", (2000, 4096, 4096))
    labels = open_labels(tmp_path / "work.zarr")
    labels[1001, 1500:1600, 2040:2060] = 5
    reads = []
    read_box = Volume.read_box

    def counted(self, box, **options):
        reads.append(box)
        return read_box(self, box, **options)

    monkeypatch.setattr(Volume, "read_box", counted)
    monkeypatch.setattr(Volume, "read_plane", lambda *_: pytest.fail("a whole plane was read"))
    path = save_labels(labels, tmp_path / "out.ome.zarr")
    assert reads == [((z, z + 1), (1280, 1792), (1792, 2304)) for z in range(1000, 1000 + CHUNK_DEPTH)]
    saved = zarr.open_group(path, mode="r")
    assert saved["0"].shape == (2000, 4096, 4096)
    assert np.count_nonzero(saved["0"][1001, 1400:1700, 2000:2100]) == 2000
    chunks = {
        str(f.relative_to(path / "0" / "c"))
        for f in (path / "0").rglob("*")
        if f.is_file() and f.name != "zarr.json"
    }
    assert chunks == {"1001/1/1", "1001/1/2"}


def test_planes_are_whole(tmp_path):
    labels = create_labels(tmp_path / "work.zarr", (6, 300, 300))
    labels[2, 280, 290] = 9
    planes = [plane for _, _, plane in label_source(labels).planes()]
    assert [plane.shape for plane in planes] == [(300, 300)] * 6
    assert [int(plane.sum()) for plane in planes] == [0, 0, 9, 0, 0, 0]
    assert planes[2][280, 290] == 9


def test_a_file_that_may_be_half_copied_is_still_complained_about(tmp_path):
    labels = create_labels(tmp_path / "work.zarr", (6, 300, 300))
    labels[2, 280, 290] = 9
    with pytest.warns(InputWarning, match="not stored"):
        save_labels(open_volume(tmp_path / "work.zarr"), tmp_path / "a.ome.zarr")
    with pytest.raises(VolumeError, match="not stored"):
        save_labels(open_volume(tmp_path / "work.zarr", missing_chunks="error"), tmp_path / "b.ome.zarr")


def test_of_a_store_that_may_not_list_its_chunks_nothing_is_known():
    array = zarr.create_array(zarr.storage.MemoryStore(), shape=(4, 8, 8), chunks=(1, 8, 8), dtype="u1")
    assert stored_parts(array, "ZYX") is None
