"""Planes, regions, prompts, keys and results: frozen, checked, picklable."""

import hashlib
import json
import pickle
from dataclasses import FrozenInstanceError, asdict, fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_sam.core.arrays import frozen_array
from napari_sam.core.contrast import Contrast
from napari_sam.core.keys import EmbeddingKey, digest_array
from napari_sam.core.models import ModelSpec
from napari_sam.core.planes import PackedRegion, PlaneRef, Region
from napari_sam.core.prompts import PromptSet, merge_prompts
from napari_sam.core.results import (
    EncodeEvent,
    ImageEmbedding,
    LabelEdit,
    MaskCandidate,
    MaskPrediction,
    PropagationStep,
    StopReason,
    TileEmbedding,
    as_image,
)
from napari_sam.core.spaces import LayerSpace, Level, ModelSpace, VolumeSpace
from napari_sam.errors import PromptError, VolumeError
from napari_sam.testing.conformance import example_key

masks = arrays(bool, (9, 11))

# frozen arrays


def test_the_source_of_a_frozen_array_may_change() -> None:
    source = np.zeros(5)
    results = [frozen_array(source), frozen_array(source[1:3]), frozen_array(source, float)]
    read_only = source[:]
    read_only.flags.writeable = False
    results.append(frozen_array(read_only))
    results.append(frozen_array(_Wraps(source)))
    source[:] = 7
    for result in results:
        assert not result.any()
        with pytest.raises(ValueError, match="read-only"):
            result[0] = 1
        assert result.flags.owndata
    assert source.flags.writeable


class _Wraps:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.array


def test_frozen_arrays_are_not_copied_again() -> None:
    frozen = frozen_array([1.0, 2.0])
    assert frozen_array(frozen) is frozen
    assert frozen_array(frozen, np.float32) is not frozen


# planes and regions


@pytest.mark.parametrize("arguments", [(3, 0), (-1, 0), (0, -1), (0, 0, -1), (0, 0, 0, -1)])
def test_planes_that_cannot_be_are_refused(arguments) -> None:
    with pytest.raises(ValueError, match="plane"):
        PlaneRef(*arguments)


def test_planes_are_whole_numbers() -> None:
    plane = PlaneRef(np.int64(1), np.uint8(5))
    assert type(plane.index) is int
    assert plane == PlaneRef(1, 5)
    assert plane.at(6) == PlaneRef(1, 6)
    with pytest.raises(TypeError):
        PlaneRef(0, 1.5)


@given(masks, masks)
def test_regions_are_their_masks(first, second) -> None:
    a, b = Region.from_mask(first), Region.from_mask(second)
    np.testing.assert_array_equal(a.mask, first)
    assert a.area == first.sum()
    union = (first | second).sum()
    assert a.iou(b) == b.iou(a) == ((first & second).sum() / union if union else 1.0)
    if first.any():
        assert a.crop.any(0)[[0, -1]].all()
        assert a.crop.any(1)[[0, -1]].all()


def test_a_region_does_not_keep_the_plane_alive() -> None:
    mask = np.zeros((500, 500), bool)
    mask[3:5, 4:6] = True
    mask.flags.writeable = False
    assert Region.from_mask(mask).crop.base is None


@given(masks, masks)
def test_a_packed_region_is_the_same_region(first, second):
    region, other = Region.from_mask(first), Region.from_mask(second)
    packed = PackedRegion.of(region)
    assert isinstance(packed, Region)
    assert (packed.plane_shape, packed.box_yxyx, packed.area) == (
        region.plane_shape,
        region.box_yxyx,
        region.area,
    )
    np.testing.assert_array_equal(packed.mask, first)
    assert packed.iou(other) == other.iou(packed) == region.iou(other)
    assert not packed.crop.flags.writeable
    again = replace(packed, box_yxyx=other.box_yxyx, crop=other.crop)
    np.testing.assert_array_equal(again.mask, second)


@pytest.mark.parametrize("box", [(0, 0, 2, 3), (-1, 0, 1, 2), (8, 0, 10, 2), (0, 10, 2, 12), (2, 2, 0, 0)])
def test_regions_whose_box_does_not_fit_are_refused(box) -> None:
    with pytest.raises(ValueError, match="box"):
        Region((9, 11), box, np.ones((2, 2), bool))


def test_regions_of_different_planes_are_not_compared() -> None:
    with pytest.raises(ValueError, match="different planes"):
        Region.from_mask(np.ones((3, 4))).iou(Region.from_mask(np.ones((4, 3))))


# prompts


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"points_yx": []},
        {"points_yx": np.zeros((0, 2)), "positive": []},
        {"points_yx": [(1, np.nan)]},
        {"points_yx": [(np.inf, 1)]},
        {"points_yx": [(1, 2, 3)]},
        {"points_yx": (1, 2)},
        {"points_yx": [(1, 2), (3,)]},
        {"points_yx": "here"},
        {"points_yx": [(1, 2)], "positive": [True, False]},
        {"points_yx": [(1, 2)], "positive": [2]},
        {"points_yx": [(1, 2)], "positive": True},
        {"box_yxyx": (0, 0, 5)},
        {"box_yxyx": (0, 0, 0, 5)},
        {"box_yxyx": (5, 5, 1, 9)},
        {"box_yxyx": (0, np.nan, 1, 1)},
        {"box_yxyx": (0, None, "x", 1)},
        {"mask": np.zeros((4, 5), bool)},
        {"mask": np.ones(4, bool)},
        {"mask": np.full((4, 5), np.nan)},
        {"mask": np.zeros((0, 5))},
        {"low_res_logits": np.zeros(4)},
        {"low_res_logits": np.full((4, 4), np.nan)},
    ],
    ids=str,
)
def test_prompts_that_cannot_be_used_are_refused(arguments) -> None:
    with pytest.raises(PromptError) as caught:
        PromptSet(**arguments)
    assert len(str(caught.value)) > 20


@pytest.mark.parametrize(
    "prompts",
    [
        PromptSet([(-0.51, 3)]),
        PromptSet([(5, 5), (9.5, 3)]),
        PromptSet([(3, 11.5)]),
        PromptSet([(3, -4)]),
        PromptSet(box_yxyx=(-9, 0, -1, 5)),
        PromptSet(box_yxyx=(0, 12, 5, 20)),
        PromptSet(mask=np.ones((11, 10))),
    ],
)
def test_prompts_outside_the_plane_are_refused(prompts) -> None:
    with pytest.raises(PromptError, match=r"outside|fit"):
        prompts.check_inside((10, 12))


def test_prompts_at_the_very_edge_are_inside() -> None:
    PromptSet([(-0.5, -0.5), (9.49, 11.49)], box_yxyx=(-5, -5, 50, 50)).check_inside((10, 12))


def test_prompts_do_not_change_with_their_source() -> None:
    points, positive = np.array([[1.0, 2.0]]), np.array([True])
    prompts = PromptSet(points, positive)
    points[:], positive[:] = 9, False
    assert prompts.points_yx.tolist() == [[1, 2]]
    assert prompts.polarity.tolist() == [True]
    with pytest.raises(ValueError, match="read-only"):
        prompts.points_yx[0] = 3
    with pytest.raises(FrozenInstanceError):
        prompts.mask = None


def test_one_positive_point_alone_is_ambiguous() -> None:
    one = PromptSet([(1, 2)])
    assert one.is_ambiguous
    specific = [
        PromptSet([(1, 2)], [False]),
        PromptSet([(1, 2), (3, 4)]),
        PromptSet([(1, 2)], box_yxyx=(0, 0, 3, 3)),
        PromptSet([(1, 2)], mask=np.eye(4)),
        one.with_logits(np.zeros((4, 4))),
    ]
    assert not any(prompts.is_ambiguous for prompts in specific)
    assert one.with_logits(np.zeros((4, 4))).with_logits(None).is_ambiguous


def test_merging_keeps_everything() -> None:
    merged = merge_prompts(
        [
            PromptSet([(1, 2)], [False], (2, 3, 4, 5), np.eye(3)),
            PromptSet([(3, 4)], None, (1, 4, 3, 9), np.eye(3)[::-1], np.ones((2, 2))),
        ]
    )
    assert merged.points_yx.tolist() == [[1, 2], [3, 4]]
    assert merged.polarity.tolist() == [False, True]
    assert merged.box_yxyx.tolist() == [1, 3, 4, 9]
    assert merged.mask.sum() == 5
    assert merged.low_res_logits.shape == (2, 2)
    with pytest.raises(PromptError):
        merge_prompts([])


# keys


CHANGED = {
    "model_digest": "x",
    "architecture": "x",
    "compute_dtype": "x",
    "contrast": "x",
    "axis": 2,
    "level": 2,
    "tile_yxyx": (0, 0, 8, 9),
    "pixels": "x",
    "preprocessing": 9,
    "scale": 2,
    "side": 1,
}


def test_keys_differ_when_any_field_differs() -> None:
    assert set(CHANGED) == {field.name for field in fields(EmbeddingKey)}
    changed = [example_key(**{name: value}) for name, value in CHANGED.items()]
    assert len({key.hex for key in (example_key(), *changed)}) == len(CHANGED) + 1


def test_records_from_before_there_were_scales_and_sides_are_found() -> None:
    values = {name: value for name, value in asdict(example_key()).items() if name not in ("scale", "side")}
    text = json.dumps(values, sort_keys=True).encode()
    assert example_key().hex == hashlib.sha256(text).hexdigest()[:40]


def test_equal_keys_have_equal_names_whatever_the_type_of_their_numbers() -> None:
    other = replace(example_key(), axis=np.int64(0), tile_yxyx=list(np.array([0, 0, 8, 8])))
    assert other == example_key()
    assert hash(other) == hash(example_key())
    assert other.hex == example_key().hex
    assert len(other.hex) == 40


def test_digests_see_values_type_and_shape_but_not_layout() -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    changed = array.copy()
    changed[1, 2] = 9
    others = [changed, array.astype(np.int8), array.reshape(3, 2), array[:, :0], array[:0]]
    assert len({digest_array(one) for one in (array, *others)}) == 6
    assert digest_array(np.asfortranarray(array)) == digest_array(array)


# results


def candidate(iou: float = 0.5) -> MaskCandidate:
    return MaskCandidate(Region.from_mask(np.eye(4)), iou, 0.9, np.zeros((2, 2)))


def test_answers_can_be_cycled() -> None:
    prediction = MaskPrediction((candidate(0.1), candidate(0.2), candidate(0.3)), 2)
    assert prediction.predicted_iou == 0.3
    assert prediction.cycled().predicted_iou == 0.1
    assert prediction.cycled(-1).predicted_iou == 0.2
    assert prediction.mask.sum() == 4
    assert prediction.stability_score == 0.9
    assert prediction.low_res_logits.dtype == np.float32
    with pytest.raises(ValueError, match="chosen"):
        MaskPrediction(())


def test_an_answer_is_drawn_when_it_is_wanted_and_once() -> None:
    asked = []

    def draw() -> Region:
        asked.append(1)
        return Region.from_mask(np.eye(4))

    one = MaskCandidate(draw, 0.5, 0.9, np.eye(2))
    assert one.cells == 2
    assert not one.is_drawn
    assert not asked
    assert one.region is one.region
    assert one.is_drawn
    assert len(asked) == 1
    assert pickle.loads(pickle.dumps(MaskCandidate(draw, 0.5, 0.9, np.eye(2)))).region.area == 4


def test_an_embedding_of_one_tile_and_of_several() -> None:
    tile = TileEmbedding(np.ones((2, 3, 3), np.float16), (0, 0, 8, 8), (8, 8))
    assert ImageEmbedding((8, 8), (tile,), "m").array.shape == (2, 3, 3)
    both = ImageEmbedding((8, 16), (tile, tile), "m")
    assert both.array.shape == (2, 2, 3, 3)
    assert both.nbytes == 2 * 18 * 2


@pytest.mark.parametrize("shape", [(0, 4), (4,), (4, 0, 3), (1, 2, 3, 4)])
def test_images_without_pixels_are_refused(shape) -> None:
    with pytest.raises(VolumeError, match="one pixel"):
        as_image(np.zeros(shape))


@pytest.mark.parametrize("diameter", [0, -3, float("nan"), float("inf")])
def test_objects_have_a_positive_diameter(diameter) -> None:
    with pytest.raises(PromptError, match="positive number of pixels"):
        ModelSpec(object_diameter=diameter)


PLANE = PlaneRef(1, 2, 3, 4)
VALUES = [
    PLANE,
    Region.from_mask(np.eye(4)),
    PackedRegion.of(Region.from_mask(np.eye(4))),
    PromptSet([(1, 2)], [True], (0, 0, 2, 2), np.eye(4), np.zeros((2, 2))),
    PromptSet([(1, 2)]),
    example_key(),
    ModelSpec("a", "cpu"),
    TileEmbedding(np.ones((2, 3, 3)), (0, 0, 8, 8), (8, 8)),
    ImageEmbedding((8, 8), (TileEmbedding(np.ones((2, 3, 3)), (0, 0, 8, 8), (8, 8)),), "m"),
    candidate(),
    MaskPrediction((candidate(), candidate()), 1),
    LabelEdit(PLANE, Region.from_mask(np.eye(4)), 3),
    PropagationStep(1, PLANE, Region.from_mask(np.eye(4)), 0.9, 0.8, True, StopReason.EMPTY),
    EncodeEvent(PLANE, True, 1, 2),
    Contrast((0, 1), (2, 3), [(1, 0, 0), (0, 1, 0)]),
    LayerSpace(np.eye(4)),
    Level((1, 2, 2), (0, 0.5, 0.5)),
    VolumeSpace(((3, 4, 5), (3, 2, 2))),
    ModelSpace((0, 0, 4, 5), (8, 10)),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_every_value_survives_a_pickle_frozen(value, protocol) -> None:
    again = pickle.loads(pickle.dumps(value, protocol))
    assert_same(again, value)
    with pytest.raises(FrozenInstanceError):
        setattr(again, fields(value)[0].name, None)
    assert not hasattr(value, "__dict__")


def assert_same(first, second) -> None:
    assert type(first) is type(second)
    if isinstance(first, np.ndarray):
        np.testing.assert_array_equal(first, second)
        assert first.dtype == second.dtype
        assert not first.flags.writeable
        assert not second.flags.writeable
    elif hasattr(first, "__dataclass_fields__"):
        for field in fields(first):
            assert_same(getattr(first, field.name), getattr(second, field.name))
    elif isinstance(first, tuple):
        assert len(first) == len(second)
        for a, b in zip(first, second):
            assert_same(a, b)
    else:
        assert first == second


@given(st.integers(0, 2), st.integers(0, 99), st.integers(0, 5), st.integers(0, 5))
def test_planes_are_ordered_and_hashable(axis, index, level, time) -> None:
    plane = PlaneRef(axis, index, level, time)
    assert {plane: 1}[PlaneRef(axis, index, level, time)] == 1
    assert plane < plane.at(index + 1)
