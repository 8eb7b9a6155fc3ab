"""The prompts file: what it may say, and errors that name the place."""

import json
from dataclasses import fields

import numpy as np
import pytest
import tifffile

from napari_sam.cli.prompts import read_prompts
from napari_sam.errors import PromptError
from napari_sam.propagation import Carry, Direction, PropagationSettings
from napari_sam.testing.fakes import ArrayVolume


@pytest.fixture
def volume():
    return ArrayVolume(np.zeros((10, 40, 50), np.uint8))


@pytest.fixture
def read(tmp_path, volume):
    def _read(content):
        path = tmp_path / "prompts.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_prompts(path, volume)

    return _read


def one(**entry):
    return {"objects": [{"id": 7, "prompts": [{"plane": 3, **entry}]}]}


def test_points_and_box(read):
    found = read(one(positive=[[10, 20], [11, 21.5]], negative=[[1, 2]], box=[5, 6, 20, 30]))
    prompts = found.seeds[7][3]
    assert prompts.points_yx.tolist() == [[10, 20], [11, 21.5], [1, 2]]
    assert prompts.polarity.tolist() == [True, True, False]
    assert prompts.box_yxyx.tolist() == [5, 6, 20, 30]
    assert found.settings == PropagationSettings()
    assert [plane.index for plane in found.planes] == [3]


def test_polygon_becomes_a_box_and_a_mask(read):
    prompts = read(one(polygon=[[10, 10], [10, 20], [20, 20], [20, 10]])).seeds[7][3]
    assert prompts.box_yxyx.tolist() == [10, 10, 20, 20]
    assert prompts.mask[15, 15]
    assert not prompts.mask[25, 15]


def test_mask_file_is_found_beside_the_prompts(read, tmp_path):
    mask = np.zeros((40, 50), np.uint8)
    mask[3:9, 4:8] = 200
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    np.testing.assert_array_equal(read(one(mask="mask.tif")).seeds[7][3].mask, mask > 0)


def test_prompts_of_one_plane_are_joined(read):
    entries = [
        {"plane": 3, "positive": [[1, 1]]},
        {"plane": 3, "negative": [[2, 2]]},
        {"plane": 5, "positive": [[3, 3]]},
    ]
    found = read({"axis": 0, "objects": [{"id": 2, "name": "cell", "prompts": entries}]})
    assert len(found.seeds[2][3].points_yx) == 2
    assert set(found.seeds[2]) == {3, 5}
    assert found.in_plane(5).keys() == {2}
    assert found.objects[0].name == "cell"


def test_propagation_section(read):
    section = {"carry": ["box", "point"], "min_iou": None, "plane_range": [2, 8], "direction": "forward"}
    section["follow_motion"] = False
    settings = read({**one(positive=[[1, 1]]), "propagation": section}).settings
    assert settings.carry == (Carry.BOX, Carry.POINT)
    assert settings.min_iou is None
    assert settings.plane_range == (2, 8)
    assert settings.direction is Direction.FORWARD
    assert not settings.follow_motion


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{not json", "not valid JSON"),
        ([], r"prompts.json must be an object"),
        ({}, "lacks the field 'objects'"),
        ({"objects": []}, "objects is empty"),
        ({"objects": [{"prompts": []}]}, r"objects\[0\] lacks the field 'id'"),
        ({"objects": [{"id": 0, "prompts": []}]}, r"objects\[0\]: id must be a whole number from 1, got 0"),
        (
            {"objects": [{"id": 2**64, "prompts": []}]},
            "id must be at most 18446744073709551615, got 1844",
        ),
        ({"objects": [{"id": True, "prompts": []}]}, "whole number"),
        ({"objects": [{"id": 7, "prompts": []}]}, "object 7 has no prompts"),
        ({"objects": [{"id": 7, "points": []}]}, "unknown field 'points'"),
        ({**one(positive=[[1, 1]]), "axis": 3}, "axis must be a whole number from 0 to 2, got 3"),
        ({**one(positive=[[1, 1]]), "level": 1}, "level"),
        (one(), r"object 7: prompts\[0\]: "),
        (one(positive=[[1, 2, 3]]), r"object 7: prompts\[0\]: positive\[0\] must be a point"),
        (one(positive=[["a", 2]]), "finite"),
        (one(positive=[[1, 60]]), r"object 7: prompts\[0\]: point .* outside the plane of 40 x 50"),
        (one(negative=[[-3, 6]]), "outside the plane"),
        (one(box=[1, 2, 3]), r"object 7: prompts\[0\]: box must be a box"),
        (one(box=[5, 5, 5, 9]), r"object 7: prompts\[0\]: .*has no area"),
        (one(polygon=[[1, 1], [2, 2]]), "polygon must be a polygon of at least 3"),
        (one(mask="nowhere.tif"), r"object 7: prompts\[0\]: mask: cannot read"),
        (
            {"objects": [{"id": 7, "prompts": [{"plane": 10, "positive": [[1, 1]]}]}]},
            "plane must be .* 0 to 9, got 10",
        ),
        ({"objects": one(positive=[[1, 1]])["objects"] * 2}, "id 7 is used twice"),
        (
            {**one(positive=[[1, 1]]), "propagation": {"carry": ["wings"]}},
            r"carry\[0\] must be one of mask, box",
        ),
        ({**one(positive=[[1, 1]]), "propagation": {"min_iou": "x"}}, "min_iou must be a finite number"),
        (
            {**one(positive=[[1, 1]]), "propagation": {"follow_motion": 0}},
            "follow_motion must be true or false",
        ),
        ({**one(positive=[[1, 1]]), "propagation": {"plane_range": [5, 5]}}, "plane_range .* is empty"),
    ],
)
def test_errors_name_the_place(read, content, words):
    with pytest.raises(PromptError, match=words):
        read(content)


def test_nan_is_refused(read):
    with pytest.raises(PromptError, match="finite"):
        read('{"objects": [{"id": 1, "prompts": [{"plane": 0, "positive": [[NaN, 3]]}]}]}')


def test_mask_of_another_shape_is_refused(read, tmp_path):
    tifffile.imwrite(tmp_path / "mask.tif", np.ones((4, 4), np.uint8))
    with pytest.raises(PromptError, match=r"shape \(4, 4\)"):
        read(one(mask="mask.tif"))


def test_missing_file_is_named(tmp_path, volume):
    with pytest.raises(PromptError, match="cannot read the prompts file"):
        read_prompts(tmp_path / "none.json", volume)


def test_every_setting_of_a_propagation_can_be_given(read):
    wanted = {
        "carry": ["mask", "box"],
        "box_margin": 0.2,
        "min_iou": None,
        "max_area_change": 3,
        "min_predicted_iou": 0.4,
        "min_likeness": None,
        "min_presence": 0.3,
        "plane_range": [1, 9],
        "direction": "forward",
        "fusion": "nearer",
        "between": "interpolate",
        "bridge": 0,
        "bridge_iou": 0.4,
        "fill_gaps": False,
        "snap_iou": 0.7,
        "part_by_logit": False,
        "follow_motion": False,
    }
    assert set(wanted) == {field.name for field in fields(PropagationSettings)} - {"extra_rules"}
    found = read(one(positive=[[1, 1]]) | {"propagation": wanted}).settings
    given = wanted | {"carry": (Carry.MASK, Carry.BOX), "plane_range": (1, 9)}
    assert found == PropagationSettings(**given)


def test_a_byte_order_mark_of_an_editor_is_no_matter(read):
    assert read("\ufeff" + json.dumps(one(positive=[[1, 1]]))).seeds[7]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("[" * 100_000, "too deep"), ('{"objects": [], "objects": []}', "'objects' twice")],
)
def test_what_json_lets_pass_is_refused(read, text, wrong):
    with pytest.raises(PromptError, match=wrong):
        read(text)
