import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_sam.core.planes import Region
from napari_sam.errors import ExportError
from napari_sam.io.coco import CocoOptions, compressed, iter_save_coco, run_lengths
from napari_sam.io.volume import open_volume
from napari_sam.testing.phantoms import ball_volume

TWO = ball_volume((24, 64, 80), [(12, 20, 20), (11, 40, 55)], [8.2, 9.4]).labels

MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)))


def expand(lengths, shape):
    values = np.repeat(np.arange(len(lengths)) % 2, lengths)
    return values.reshape(shape, order="F").astype(bool)


def decompress(text):
    """The run lengths behind COCO's characters, written from the format's description."""
    lengths, at = [], 0
    while at < len(text):
        value = shift = 0
        while True:
            bits = ord(text[at]) - 48
            at += 1
            value |= (bits & 0x1F) << shift
            shift += 5
            if not bits & 0x20:
                break
        if bits & 0x10:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
    return lengths


@settings(max_examples=300, deadline=None)
@given(MASKS)
def test_run_lengths_hold_the_mask(mask):
    lengths = run_lengths(Region.from_mask(mask))
    assert lengths.sum() == mask.size
    assert (lengths[1:] > 0).all()
    np.testing.assert_array_equal(expand(lengths, mask.shape), mask)
    assert decompress(compressed(lengths)) == lengths.tolist()


def test_known_text():
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:3] = True
    lengths = run_lengths(Region.from_mask(mask))
    assert lengths.tolist() == [5, 2, 2, 2, 5]
    assert compressed(lengths) == "52203"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_plane_comes_back(tmp_path, axis):
    labels = TWO
    volume = open_volume(labels, axes="ZYX", spacing=(2, 1, 1), unit="micrometer")
    options = CocoOptions(axis, classes={1: "cell"}, names={2: "left"})
    steps = list(iter_save_coco(volume, tmp_path / "c.json", options=options))
    assert steps[-1] == (labels.shape[axis],) * 2
    coco = json.loads((tmp_path / "c.json").read_text())
    again = np.zeros_like(labels)
    index_of = {image["id"]: image["plane"] for image in coco["images"]}
    for one in coco["annotations"]:
        counts = decompress(one["segmentation"]["counts"])
        mask = expand(counts, one["segmentation"]["size"])
        np.moveaxis(again, axis, 0)[index_of[one["image_id"]]][mask] = one["object_id"]
        x, y, w, h = one["bbox"]
        assert one["area"] == mask.sum() == mask[y : y + h, x : x + w].sum()
        assert one["category_id"] == (2 if one["object_id"] == 1 else 1)
    np.testing.assert_array_equal(again, labels)
    assert [c["name"] for c in coco["categories"]] == ["object", "cell"]
    assert coco["info"]["spacing_zyx"] == [2, 1, 1]
    assert len({one["id"] for one in coco["annotations"]}) == len(coco["annotations"])
    assert {one.get("name") for one in coco["annotations"] if one["object_id"] == 2} == {"left"}


def test_empty_planes_may_be_left_out(tmp_path):
    labels = np.zeros((2, 5, 6, 7), np.uint32)
    labels[1, 3, 2, 2] = 5
    list(iter_save_coco(labels, tmp_path / "c.json", options=CocoOptions(empty_planes=False)))
    coco = json.loads((tmp_path / "c.json").read_text())
    assert [(i["file_name"], i["plane"], i["time"]) for i in coco["images"]] == [("t0001_z00003.png", 3, 1)]
    list(iter_save_coco(labels * 0, tmp_path / "empty.json"))
    assert json.loads((tmp_path / "empty.json").read_text())["annotations"] == []


def test_old_file_stays_when_it_fails(tmp_path):
    (tmp_path / "c.json").write_text("precious")
    labels = np.ones((2, 3, 3), np.int16)
    with pytest.raises(ExportError, match="exists"):
        list(iter_save_coco(labels, tmp_path / "c.json"))
    labels[1] = -1
    with pytest.raises(ExportError, match="negative"):
        list(iter_save_coco(labels, tmp_path / "c.json", options=CocoOptions(overwrite=True)))
    assert (tmp_path / "c.json").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_others_read_it(tmp_path):
    coco_module = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    labels = TWO
    list(iter_save_coco(labels, tmp_path / "c.json"))
    coco = coco_module.COCO(str(tmp_path / "c.json"))
    again = np.zeros_like(labels)
    for one in coco.loadAnns(coco.getAnnIds()):
        plane = coco.loadImgs(one["image_id"])[0]["plane"]
        again[plane][coco.annToMask(one).astype(bool)] = one["object_id"]
    np.testing.assert_array_equal(again, labels)
