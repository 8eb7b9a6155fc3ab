"""Programs that we did not write read what we write: equal voxels, equal physical scale."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
import zarr.errors

from napari_sam.errors import ExportError
from napari_sam.io.save import save_labels
from napari_sam.io.volume import open_volume

SPACING, TRANSLATE = (3.0, 0.5, 0.25), (10.0, 20.0, 30.0)
LABELS = (np.arange(6 * 300 * 280).reshape(6, 300, 280) // 5000 % 40).astype("u4")
VERSIONS = ["0.4", "0.5"]


@pytest.fixture(params=VERSIONS)
def saved(request, tmp_path):
    folder = tmp_path / "one" / "two"
    folder.mkdir(parents=True)
    return save_labels(
        LABELS,
        folder / "cells.ome.zarr",
        spacing_zyx=SPACING,
        translate_zyx=TRANSLATE,
        unit="micrometer",
        colors={3: (1.0, 0.0, 0.0)},
        properties={3: {"area": 5}},
        ome_zarr_version=request.param,
    )


def make_image(path, version, axes="czyx", levels=3):
    """An image written by the reference package."""
    writer = pytest.importorskip("ome_zarr.writer")
    formats = pytest.importorskip("ome_zarr.format")
    image = np.random.default_rng(0).integers(
        1, 255, {"c": (2,), "t": (1,)}.get(axes[0], ()) + LABELS.shape, "u1"
    )
    fmt = formats.FormatV04() if version == "0.4" else formats.FormatV05()
    pyramid = [image[..., :: 2**i, :: 2**i] for i in range(levels)]
    transforms = [
        [{"type": "scale", "scale": [1.0] * (image.ndim - 3) + [3.0, 0.5 * 2**i, 0.25 * 2**i]}]
        for i in range(levels)
    ]
    entries = [
        {"name": a, "type": "space", "unit": "micrometer"}
        if a in "zyx"
        else {"name": a, "type": {"c": "channel", "t": "time"}[a]}
        for a in axes
    ]
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    writer.write_multiscale(pyramid, group, axes=entries, coordinate_transformations=transforms, fmt=fmt)
    return path


def test_the_validator_is_content(saved):
    yaozarrs = pytest.importorskip("yaozarrs")
    yaozarrs.validate_zarr_store(str(saved))


def test_ome_zarr_py_reads_it(saved):
    reader, io = pytest.importorskip("ome_zarr.reader"), pytest.importorskip("ome_zarr.io")
    node = next(iter(reader.Reader(io.parse_url(str(saved)))()))
    assert np.array_equal(np.asarray(node.data[0]), LABELS)
    scale, translation = node.metadata["coordinateTransformations"][0]
    assert (scale["scale"], translation["translation"]) == (list(SPACING), list(TRANSLATE))
    assert [axis["unit"] for axis in node.metadata["axes"]] == ["micrometer"] * 3
    assert node.metadata["color"] == {3: [1.0, 0.0, 0.0, 1.0]}
    assert node.metadata["properties"] == {3: {"area": 5}}


def test_napari_ome_zarr_reads_it(saved):
    plugin = pytest.importorskip("napari_ome_zarr", exc_type=ImportError)
    [(data, metadata, kind)] = plugin.napari_get_reader(str(saved))(str(saved))
    assert kind == "labels"
    assert np.array_equal(np.asarray(data[0]), LABELS)
    assert metadata["scale"] == list(SPACING)
    assert metadata["units"] == ("micrometer",) * 3
    assert metadata["colormap"] == {3: [1.0, 0.0, 0.0, 1.0]}
    assert metadata["properties"] == {"area": [5], "index": [3]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("axes", ["zyx", "czyx"])
def test_labels_join_an_image(tmp_path, version, axes):
    image = make_image(tmp_path / "image.ome.zarr", version, axes)
    place = save_labels(LABELS, image, open_volume(image), into_image=True, name="cells")
    assert place == image / "labels" / "cells"
    pytest.importorskip("yaozarrs").validate_zarr_store(str(image))
    reader, io = pytest.importorskip("ome_zarr.reader"), pytest.importorskip("ome_zarr.io")
    nodes = list(reader.Reader(io.parse_url(str(image)))())
    [node] = [n for n in nodes if "cells" in str(n.zarr)]
    assert np.array_equal(np.asarray(node.data[0]).squeeze(), LABELS)
    assert len(node.data) == 3
    for level, data in enumerate(node.data):
        assert data.shape[-2:] == LABELS[:, :: 2**level, :: 2**level].shape[1:]
        assert set(np.unique(np.asarray(data))) <= set(np.unique(LABELS))
    with open_volume(place) as volume:
        assert (volume.spacing_zyx, volume.unit, volume.n_levels) == (SPACING, "micrometer", 3)


def edit_multiscale(image, change):
    """Change what an image of version 0.5 says of its levels."""
    document = json.loads((image / "zarr.json").read_text())
    change(document["attributes"]["ome"]["multiscales"][0])
    (image / "zarr.json").write_text(json.dumps(document))


def name_in_words(multiscale):
    for axis, name in zip(multiscale["axes"], ["depth", "height", "width"]):
        axis["name"] = name


def add_identity(multiscale):
    multiscale["coordinateTransformations"] = [{"type": "identity"}]


@pytest.mark.parametrize("change", [name_in_words, add_identity])
def test_labels_join_an_image_that_says_it_in_other_words(tmp_path, change):
    image = make_image(tmp_path / "image.ome.zarr", "0.5", "zyx")
    edit_multiscale(image, change)
    with open_volume(save_labels(LABELS, image, into_image=True)) as volume:
        assert (volume.spacing_zyx, volume.n_levels) == (SPACING, 3)
        assert np.array_equal(volume.read_box([(0, n) for n in LABELS.shape]), LABELS)


@pytest.mark.parametrize("version", VERSIONS)
def test_labels_join_the_first_image_of_a_converted_file(tmp_path, version):
    root = tmp_path / "converted.zarr"
    group = zarr.create_group(root, zarr_format=2 if version == "0.4" else 3)
    group.attrs["bioformats2raw.layout"] = 3
    make_image(root / "0", version)
    assert save_labels(LABELS, root, into_image=True, name="a") == root / "0" / "labels" / "a"
    assert save_labels(LABELS, root / "labels" / "b") == root / "0" / "labels" / "b"
    assert not (root / "labels").exists()


def test_a_zip_file_is_only_read(tmp_path):
    image = make_image(tmp_path / "image.ome.zarr", "0.5")
    packed = shutil.make_archive(str(image), "zip", image)
    with pytest.raises(ExportError, match="labels join an image in a folder; unpack a zip"):
        save_labels(LABELS, packed, into_image=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("axes", ["zyx", "czyx"])
def test_napari_ome_zarr_reads_image_and_labels(tmp_path, version, axes):
    plugin = pytest.importorskip("napari_ome_zarr", exc_type=ImportError)
    image = make_image(tmp_path / "image.ome.zarr", version, axes)
    save_labels(LABELS, image, into_image=True)
    layers = plugin.napari_get_reader(str(image))(str(image))
    [(data, metadata, _)] = [layer for layer in layers if layer[2] == "labels"]
    assert np.array_equal(np.asarray(data[0]).squeeze(), LABELS)
    assert metadata["scale"][-3:] == list(SPACING)


@pytest.mark.parametrize("version", VERSIONS)
def test_labels_of_an_image_are_listed_once(tmp_path, version):
    image = make_image(tmp_path / "image.ome.zarr", version)
    save_labels(LABELS, image / "labels" / "cells")
    save_labels(LABELS, image, into_image=True, name="nuclei")
    with pytest.raises(ExportError, match=r"cells exists"):
        save_labels(LABELS, image, into_image=True, name="cells")
    save_labels(LABELS + 1, image, into_image=True, name="cells", overwrite=True)
    listing = zarr.open_group(image / "labels", mode="r").attrs.asdict()
    assert listing.get("ome", listing)["labels"] == ["cells", "nuclei"]
    assert zarr.open_array(image / "labels/cells/0", mode="r")[:].min() == 1
    assert sorted(p.name for p in (image / "labels").iterdir() if not p.name.startswith((".z", "zarr"))) == [
        "cells",
        "nuclei",
    ]


def test_consolidated_metadata_stay_true(tmp_path):
    image = make_image(tmp_path / "image.ome.zarr", "0.5")
    with pytest.warns(zarr.errors.ZarrUserWarning):
        zarr.consolidate_metadata(image)
    save_labels(LABELS, image, into_image=True)
    assert "labels/labels/0" in dict(zarr.open_group(image, mode="r").members(max_depth=None))


def test_labels_that_do_not_fit_an_image(tmp_path):
    image = make_image(tmp_path / "image.ome.zarr", "0.5")
    before = json.loads((image / "zarr.json").read_text())
    with pytest.raises(ExportError, match="do not fit the image"):
        save_labels(LABELS[:3], image, into_image=True)
    with pytest.raises(ExportError, match="not an OME-Zarr image"):
        save_labels(LABELS, tmp_path, into_image=True)
    zarr.save_array(tmp_path / "plain.zarr", LABELS)
    with pytest.raises(ExportError, match="not an OME-Zarr image"):
        save_labels(LABELS, tmp_path / "plain.zarr" / "labels" / "a")
    with pytest.raises(ExportError, match="no name for a label image"):
        save_labels(LABELS, image, into_image=True, name="../evil")
    assert json.loads((image / "zarr.json").read_text()) == before
    assert not (image / "labels").exists()


@pytest.mark.parametrize("ending", [".ome.tif", ".tif"])
def test_tifffile_reads_it(tmp_path, ending):
    path = save_labels(LABELS, tmp_path / f"a{ending}", spacing_zyx=SPACING, unit="micrometer")
    with tifffile.TiffFile(path) as tif:
        assert tif.series[0].axes == "ZYX"
        assert np.array_equal(tif.asarray(), LABELS)
        x, y = (tif.pages[0].tags[name].value for name in ("XResolution", "YResolution"))
        assert (x[1] / x[0], y[1] / y[0]) == (0.25, 0.5)
        if ending == ".tif":
            metadata = tif.imagej_metadata
            assert (metadata["spacing"], metadata["unit"], metadata["slices"]) == (3.0, "um", 6)
        else:
            pixels = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
            assert [pixels[f"PhysicalSize{a}"] for a in "ZYX"] == list(SPACING)
            assert {pixels[f"PhysicalSize{a}Unit"] for a in "ZYX"} == {"µm"}


def test_the_old_format_is_in_the_files(tmp_path):
    path = Path(save_labels(LABELS, tmp_path / "a.ome.zarr", ome_zarr_version="0.4"))
    attributes = json.loads((path / ".zattrs").read_text())
    assert attributes["multiscales"][0]["version"] == attributes["image-label"]["version"] == "0.4"
    assert (path / "0" / "0" / "0" / "0").is_file()
