"""Saving is all or nothing, and says what is wrong."""

import errno
import sys

import numpy as np
import pytest
import tifffile
import zarr

from napari_sam.core.planes import PlaneRef
from napari_sam.errors import ExportError, VolumeError
from napari_sam.io.export import ExportOptions, iter_export
from napari_sam.io.labels import create_labels
from napari_sam.io.save import SaveOptions, iter_save_labels, save_labels
from napari_sam.io.volume import open_volume

OLD, NEW = np.full((5, 20, 30), 3, "u4"), np.full((5, 20, 30), 4, "u4")
ENDINGS = [".ome.zarr", ".ome.tif", ".tif"]


class FailsAt:
    """An array that cannot be read beyond a plane."""

    dtype, shape, ndim = np.dtype("u4"), (5, 20, 30), 3

    def __init__(self, plane, error):
        self.plane, self.error = plane, error

    def __getitem__(self, index):
        if index[0] >= self.plane:
            raise self.error
        return NEW[index]


def content(path):
    with open_volume(path) as volume:
        return np.array([volume.read_plane(PlaneRef(0, z)) for z in range(5)])


def files(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_overwritten_without_being_told(tmp_path, ending):
    path = save_labels(OLD, tmp_path / f"a{ending}")
    with pytest.raises(ExportError, match=r"a\..* exists; choose another name, or allow to overwrite it"):
        save_labels(NEW, path)
    assert np.array_equal(content(path), OLD)
    save_labels(NEW, path, overwrite=True)
    assert np.array_equal(content(path), NEW)
    assert files(tmp_path) == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("exists", [True, False])
def test_a_failed_save_leaves_what_was_there(tmp_path, ending, exists):
    path = tmp_path / f"a{ending}"
    if exists:
        save_labels(OLD, path)
    with pytest.raises(VolumeError, match="the disk is gone"):
        save_labels(FailsAt(3, OSError("the disk is gone")), path, overwrite=True)
    assert files(tmp_path) == ([path.name] if exists else [])
    assert not exists or np.array_equal(content(path), OLD)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_leaves_what_was_there(tmp_path, ending, monkeypatch):
    path = save_labels(OLD, tmp_path / f"a{ending}")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    target = (zarr.Array, "__setitem__") if "zarr" in ending else (tifffile.TiffWriter, "write")
    monkeypatch.setattr(*target, full)
    with pytest.raises(ExportError, match=r"a\..*No space left.*unchanged"):
        save_labels(NEW, path, overwrite=True)
    monkeypatch.undo()
    assert files(tmp_path) == [path.name]
    assert np.array_equal(content(path), OLD)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_cancelled_save_leaves_what_was_there(tmp_path, ending):
    path = save_labels(OLD, tmp_path / f"a{ending}")
    steps = iter_save_labels(NEW, path, options=SaveOptions(overwrite=True))
    for _ in range(4 if "zarr" in ending else 9):
        next(steps)
    assert len(files(tmp_path)) == 2
    steps.close()
    assert files(tmp_path) == [path.name]
    assert np.array_equal(content(path), OLD)


@pytest.mark.parametrize("name", ["old", "new"])
def test_a_failed_exchange_of_folders_is_undone(tmp_path, monkeypatch, name):
    import os

    path = save_labels(OLD, tmp_path / "a.ome.zarr")
    original, calls = os.rename, []

    def second_fails(source, target):
        calls.append(source)
        if len(calls) == (1 if name == "old" else 2):
            raise OSError("busy")
        original(source, target)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(ExportError, match="busy"):
        save_labels(NEW, path, overwrite=True)
    assert files(tmp_path) == [path.name]
    assert np.array_equal(content(path), OLD)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (None, "must be an array"),
        (np.zeros((0, 3, 4), "u1"), "no labels to save"),
        (np.ones((3, 4), "f4"), "must be integers, got float32"),
        (np.ones((3, 4), "c8"), "must be integers"),
        (np.full((3, 4), -1), "negative label -1"),
        (np.ones(4, "u1"), "axes YX, ZYX or TZYX"),
        (np.ones((1, 1, 2, 3, 4), "u1"), "axes YX, ZYX or TZYX"),
    ],
)
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_are_no_labels(tmp_path, labels, match, ending):
    with pytest.raises(ExportError, match=match):
        save_labels(labels, tmp_path / f"a{ending}")
    assert files(tmp_path) == []


def test_labels_of_another_image(tmp_path):
    with pytest.raises(ExportError, match=r"\(1, 5, 20, 30\) do not fit the image of shape \(1, 5, 20, 31\)"):
        save_labels(NEW, tmp_path / "a.tif", open_volume(np.zeros((5, 20, 31))))
    with pytest.raises(ExportError, match="have no channels"):
        save_labels(open_volume(NEW, "CYX"), tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("a.png", {}, "cannot tell a format"),
        ("nowhere/a.tif", {}, "there is no folder"),
        ("a.ome.zarr", {"ome_zarr_version": "0.6"}, "choose '0.5' or '0.4'"),
        ("a.ome.zarr", {"spacing_zyx": (1, 0, 1)}, "spacing_zyx must be three"),
        ("a.ome.zarr", {"colors": {1: (2.0, 0, 0)}}, "reals 0 to 1"),
        ("a.ome.zarr", {"colors": {1: (1, 0)}}, "3 or 4 numbers"),
    ],
)
def test_what_cannot_be_asked_for(tmp_path, name, options, match):
    with pytest.raises(ExportError, match=match):
        save_labels(NEW, tmp_path / name, **options)
    assert files(tmp_path) == []


def test_images_and_foreign_folders_are_never_replaced(tmp_path):
    image = tmp_path / "image.ome.zarr"
    zarr.create_group(image, attributes={"ome": {"version": "0.5", "multiscales": [{"datasets": []}]}})
    with pytest.raises(ExportError, match=r"is an image, not labels; save as .*into_image=True"):
        save_labels(NEW, image, overwrite=True)
    folder = tmp_path / "holiday.zarr"
    folder.mkdir()
    (folder / "photo.jpg").write_text("")
    with pytest.raises(ExportError, match="without zarr metadata; it is not replaced"):
        save_labels(NEW, folder, overwrite=True)
    assert (folder / "photo.jpg").exists()
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(ExportError, match="is a folder"):
        save_labels(NEW, tmp_path / "folder.tif", overwrite=True)


def write_group(path, *inner, **attributes):
    """Images in a zarr group."""
    zarr.create_group(path, attributes=attributes)
    for place in inner:
        image = {"ome": {"version": "0.5", "multiscales": [{"datasets": [{"path": "0"}]}]}}
        zarr.create_group(path / place, attributes=image).create_array("0", data=NEW)


FOREIGN = {
    "array.zarr": lambda path: zarr.save_array(path, NEW),
    "reals.zarr": lambda path: zarr.save_array(path, NEW.astype("f4")),
    "converted.zarr": lambda path: write_group(path, "0", "1", **{"bioformats2raw.layout": 3}),
    "plate.ome.zarr": lambda path: write_group(path, "A/1/0", plate={"wells": [{"path": "A/1"}]}),
    "several.zarr": lambda path: write_group(path, "a", "b"),
    "damaged.zarr": lambda path: (path.mkdir(), (path / "zarr.json").write_text("{")),
    "plain.tif": lambda path: tifffile.imwrite(path, NEW),
    "imagej.tif": lambda path: tifffile.imwrite(path, NEW.astype("u2"), imagej=True),
    "image.ome.tif": lambda path: tifffile.imwrite(path, NEW, metadata={"axes": "ZYX"}),
    "text.tif": lambda path: path.write_text("no image"),
}


def bytes_below(path):
    """Content of a file, or of all files in a folder."""
    return {p: p.read_bytes() for p in (path, *path.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_labels_of_ours_is_never_replaced(tmp_path, name):
    FOREIGN[name](tmp_path / name)
    before = bytes_below(tmp_path)
    with pytest.raises(ExportError, match=r"may be an image, which is never replaced.*delete it yourself"):
        save_labels(NEW, tmp_path / name, overwrite=True)
    assert bytes_below(tmp_path) == before


def test_label_arrays_of_ours_are_replaced(tmp_path):
    create_labels(tmp_path / "a.zarr", NEW.shape)
    assert np.array_equal(content(save_labels(NEW, tmp_path / "a.zarr", overwrite=True)), NEW)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_link_stays_a_link(tmp_path, ending):
    path, link = save_labels(OLD, tmp_path / f"a{ending}"), tmp_path / f"link{ending}"
    link.symlink_to(path.name)
    save_labels(NEW, link, overwrite=True)
    assert link.is_symlink()
    assert np.array_equal(content(path), NEW)
    with pytest.raises(ExportError, match="is being read from"):
        save_labels(open_volume(path), link, overwrite=True)


@pytest.mark.parametrize("name", ["a.tif", "a.ome.zarr"])
def test_what_an_image_is_read_from_is_not_written(tmp_path, name):
    path = save_labels(OLD, tmp_path / name)
    (tmp_path / "inner").mkdir()
    same = tmp_path / "inner" / ".." / path.name
    with open_volume(path) as image, pytest.raises(ExportError, match="is being read from"):
        list(iter_export(NEW, same, options=ExportOptions(SaveOptions(overwrite=True), image=image)))
    assert np.array_equal(content(path), OLD)


def test_what_is_being_read_is_not_written(tmp_path):
    labels = create_labels(tmp_path / "a.zarr", NEW.shape)
    labels[:] = NEW
    with pytest.raises(ExportError, match="is being read from"):
        save_labels(labels, tmp_path / "a.zarr", overwrite=True)
    tifffile.imwrite(tmp_path / "image.tif", NEW)
    with (
        open_volume(tmp_path / "image.tif") as image,
        pytest.raises(ExportError, match="is being read from"),
    ):
        save_labels(labels, tmp_path / "image.tif", image, overwrite=True)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that nobody can write to")
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_folder_that_cannot_be_written(ending):
    with pytest.raises(ExportError, match=r"cannot write /proc/.*choose a folder|Choose a folder"):
        save_labels(NEW, f"/proc/a{ending}")
