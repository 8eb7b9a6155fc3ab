"""Tables, meshes and COCO files from the command line."""

import csv
import json
from itertools import pairwise

import numpy as np
import pytest

from napari_sam.errors import InputWarning
from napari_sam.io.export import iter_export
from napari_sam.io.properties import read_colors, read_properties
from napari_sam.io.save import save_labels
from napari_sam.io.volume import open_volume


@pytest.fixture
def labels_path(tmp_path, phantom):
    path = tmp_path / "labels.ome.zarr"
    properties = {1: {"name": "left", "class": "cell"}, 2: {"name": "right"}}
    return save_labels(
        phantom.labels, path, properties=properties, spacing_zyx=(2.0, 0.5, 0.5), unit="micrometer"
    )


def test_table_with_intensities(call, labels_path, image_path, phantom, tmp_path):
    code, said, err = call("export", labels_path, tmp_path / "t.csv", "--image", image_path)
    assert code == 0, err
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert [(r["label"], r["name"], r["class"]) for r in rows] == [("1", "left", "cell"), ("2", "right", "")]
    assert [int(r["voxels"]) for r in rows] == np.bincount(phantom.labels.ravel())[1:].tolist()
    assert all(float(r["mean_intensity"]) == 200 for r in rows)
    assert "saved" in said


def test_table_takes_the_voxel_size_of_the_labels(call, labels_path, tmp_path):
    assert call("export", labels_path, tmp_path / "t.csv")[0] == 0
    (first, _) = csv.DictReader((tmp_path / "t.csv").read_text().splitlines())
    assert float(first["volume"]) == int(first["voxels"]) * 0.5
    assert first["unit"] == "micrometer"


def test_what_is_known_of_objects_goes_from_format_to_format(call, labels_path, tmp_path):
    paths = [labels_path, *(tmp_path / name for name in ("a.ome.tif", "b.tif", "c.ome.zarr"))]
    for first, second in pairwise(paths):
        assert call("export", first, second)[0] == 0
    assert call("export", paths[1], tmp_path / "c.json")[0] == 0
    assert read_properties(paths[-1]) == {1: {"name": "left", "class": "cell"}, 2: {"name": "right"}}
    coco = json.loads((tmp_path / "c.json").read_text())
    assert [c["name"] for c in coco["categories"]] == ["object", "cell"]


def test_colours_go_along(call, phantom, tmp_path):
    path = save_labels(phantom.labels, tmp_path / "a.ome.zarr", colors={1: (255, 0, 10), 2: (0.0, 1.0, 0.0)})
    assert call("export", path, tmp_path / "b.ome.zarr")[0] == 0
    assert read_colors(tmp_path / "b.ome.zarr") == {1: [255, 0, 10, 255], 2: [0, 255, 0, 255]}
    with open_volume(path, missing_chunks="fill") as labels, pytest.warns(InputWarning, match="colors"):
        list(iter_export(labels, tmp_path / "b.tif"))


def test_coco_has_classes(call, labels_path, tmp_path):
    assert call("export", labels_path, tmp_path / "c.json", "--axis", "y")[0] == 0
    coco = json.loads((tmp_path / "c.json").read_text())
    assert [c["name"] for c in coco["categories"]] == ["object", "cell"]
    assert len(coco["images"]) == 48


def test_meshes(call, labels_path, tmp_path):
    assert call("export", labels_path, tmp_path / "m", "--meshes", "stl")[0] == 0
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["object_00001.stl", "object_00002.stl"]
    assert call("export", labels_path, tmp_path / "one.obj", "--object", "2")[0] == 0
    assert "object_2" in (tmp_path / "one.obj").read_text()
    assert "object_1" not in (tmp_path / "one.obj").read_text()


def test_meshes_of_a_time_point(call, phantom, tmp_path):
    movie = np.stack([phantom.labels == 1, 7 * (phantom.labels == 1)]).astype("u1")
    save_labels(movie, tmp_path / "movie.ome.zarr")
    code, _, err = call("export", tmp_path / "movie.ome.zarr", tmp_path / "a.obj", "--time", "1")
    assert (code, err) == (0, "")
    assert "o object_7" in (tmp_path / "a.obj").read_text()


def test_what_cannot_be_is_said(call, labels_path, image_path, tmp_path):
    assert call("export", labels_path, tmp_path / "m", "--meshes", "ply")[0] == 2
    assert call("export", labels_path, tmp_path / "m.obj", "--object", "two")[0] == 2
    code, _, err = call("export", labels_path, tmp_path / "m.obj", "--object", "9")
    assert (code, "no object 9" in err) == (1, True)
    code, _, err = call("export", image_path, tmp_path / "t.xlsx")
    assert (code, "cannot tell a format" in err) == (1, True)


def test_an_option_of_meshes_is_refused_where_there_are_none(call, tmp_path):
    for option in ("--object", "--time"):
        code, _, err = call("export", tmp_path / "labels.zarr", tmp_path / "a.csv", option, 1)
        assert code == 2
        assert "meshes" in err


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a.ome.tif", ("--axis", "y"), "--axis is for COCO"),
        ("a.csv", ("--meshes", "obj"), "a.csv names a file"),
        ("a.ome.zarr", ("--meshes", "stl"), "a.ome.zarr names a file"),
    ],
)
def test_an_option_without_an_effect_is_refused(call, labels_path, tmp_path, name, options, words):
    code, _, err = call("export", labels_path, tmp_path / "new" / name, *options)
    assert code == 2
    assert words in " ".join(err.split())
