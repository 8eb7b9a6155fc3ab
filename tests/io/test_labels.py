import numpy as np
import pytest
import zarr

from napari_sam.core.planes import PlaneRef
from napari_sam.errors import ExportError, VolumeError
from napari_sam.io.labels import create_labels, open_labels, smallest_label_dtype
from napari_sam.io.volume import open_volume


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [(0, "u1"), (255, "u1"), (256, "u2"), (65535, "u2"), (65536, "u4"), (2**32 - 1, "u4"), (2**32, "u8")],
)
def test_smallest_dtype(largest, dtype):
    assert smallest_label_dtype(largest) == np.dtype(dtype)


def test_negative_ids_are_no_labels():
    with pytest.raises(ExportError, match="must not be negative"):
        smallest_label_dtype(-1)


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [((700, 40), (256, 40)), ((9, 700, 40), (8, 256, 40)), ((2, 3, 700, 40), (1, 3, 256, 40))],
)
def test_only_chunks_that_are_touched_are_kept(tmp_path, shape, chunks):
    labels = create_labels(tmp_path / "a.zarr", shape)
    assert labels.chunks == chunks
    assert (labels.shape, labels.dtype, labels.metadata.zarr_format) == (shape, np.dtype("u4"), 3)
    assert not [p for p in (tmp_path / "a.zarr").rglob("*") if p.name != "zarr.json"]
    labels[..., 600, :] = 7
    stored = [p for p in (tmp_path / "a.zarr").rglob("*") if p.is_file() and p.name != "zarr.json"]
    assert len(stored) == int(np.prod([-(-n // c) for n, c in zip(shape[:-2], chunks)], dtype=int))
    again = open_labels(tmp_path / "a.zarr")
    again[..., 0, 0] = 9
    assert np.unique(labels[:]).tolist() == [0, 7, 9]


def test_geometry_is_kept(tmp_path):
    labels = create_labels(
        tmp_path / "a.zarr", (2, 3, 4), spacing_zyx=(3, 1, 0.5), translate_zyx=(1, 2, 3), unit="µm"
    )
    labels[0] = 1
    volume = open_volume(tmp_path / "a.zarr")
    assert (volume.spacing_zyx, volume.translate_zyx, volume.unit) == (
        (3.0, 1.0, 0.5),
        (1.0, 2.0, 3.0),
        "micrometer",
    )
    assert volume.read_plane(PlaneRef(0, 0)).all()


def test_nothing_is_overwritten(tmp_path):
    create_labels(tmp_path / "a.zarr", (2, 3, 4))[:] = 5
    with pytest.raises(ExportError, match=r"a\.zarr exists; choose another name"):
        create_labels(tmp_path / "a.zarr", (2, 3, 4))
    assert open_labels(tmp_path / "a.zarr")[:].min() == 5


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2, 0, 4), "u4"), ((4,), "u4"), ((1, 2, 3, 4, 5), "u4"), ((2, 3, 4), "f4"), ((3, 4), "i4")],
)
def test_what_cannot_be_labels(tmp_path, shape, dtype):
    with pytest.raises(ExportError):
        create_labels(tmp_path / "a.zarr", shape, dtype)
    assert not (tmp_path / "a.zarr").exists()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="choose a folder you can write to"):
        create_labels(tmp_path / "file" / "a.zarr", (3, 4))


def test_what_cannot_be_opened_as_labels(tmp_path):
    with pytest.raises(VolumeError, match="create_labels"):
        open_labels(tmp_path / "nowhere.zarr")
    zarr.create_array(tmp_path / "a.zarr", data=np.zeros((3, 4)))
    with pytest.raises(VolumeError, match="float64"):
        open_labels(tmp_path / "a.zarr")
