"""Which answer a user gets."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sam.core.planes import Region
from napari_sam.core.prompts import PromptSet
from napari_sam.core.results import MaskCandidate
from napari_sam.inference.answers import (
    against_mask,
    choose,
    denies_mask,
    heed_clicks,
    outputs_for,
    prompted_parts,
    small_step,
    stability_score,
    violations,
)
from napari_sam.inference.resample import bilinear

SHAPE = (20, 20)


def candidate(rows, cols, iou=0.9):
    mask = np.zeros(SHAPE, bool)
    mask[rows, cols] = True
    return MaskCandidate(Region.from_mask(mask), iou, 1.0, mask)


WHOLE = candidate(slice(2, 18), slice(2, 18), 0.8)
LEFT = candidate(slice(2, 18), slice(2, 9), 0.9)
TOP = candidate(slice(2, 9), slice(2, 18), 0.6)
NOTHING = candidate(slice(0, 0), slice(0, 0), 0.9)
NOTHING_SURE = replace(NOTHING, stability_score=0.0)


def test_one_click_offers_three_and_takes_the_best_estimate():
    prompts = PromptSet([(4, 4)])
    assert outputs_for(prompts) == (1, 2, 3)
    answer = choose([WHOLE, LEFT, TOP], prompts)
    assert answer.best is LEFT
    areas = [c.region.area for c in answer.candidates]
    assert areas == sorted(areas)
    assert {id(answer.cycled(i).best) for i in range(3)} == {id(WHOLE), id(LEFT), id(TOP)}


def test_of_two_answers_that_are_expected_to_be_as_good_the_one_with_the_sharper_edge_is_taken():
    blurred, click = replace(LEFT, stability_score=0.64), PromptSet([(4, 4)])  # 0.9 * 0.8 = 0.72
    worse, better = replace(TOP, predicted_iou=0.7), replace(TOP, predicted_iou=0.75)
    assert choose([blurred, worse, NOTHING_SURE], click).best is blurred
    assert choose([blurred, better, NOTHING_SURE], click).best is better


@pytest.mark.parametrize(
    "prompts",
    [
        PromptSet([(4, 4), (5, 5)]),
        PromptSet([(4, 4)], [False]),
        PromptSet([(4, 4)], [True], (6, 6, 9, 9)),  # the box does not say where it ends
    ],
)
def test_anything_more_takes_the_single_output(prompts):
    assert outputs_for(prompts) == (0, 1, 2, 3)
    assert choose([TOP, LEFT, WHOLE, NOTHING], prompts).best is TOP


def test_a_box_alone_takes_the_answer_that_fills_it():
    prompts = PromptSet(box_yxyx=(1.5, 1.5, 8.5, 17.5))
    assert outputs_for(prompts) == (0, 1, 2, 3)
    assert choose([WHOLE, LEFT, TOP, NOTHING], prompts).best is TOP
    hopeless = candidate(slice(2, 9), slice(2, 18), 0.1)
    assert choose([WHOLE, LEFT, hopeless, NOTHING], prompts).best is WHOLE
    assert choose([NOTHING] * 4, prompts).best is NOTHING


@pytest.mark.parametrize(("points", "positive"), [([(4, 4)], [True]), ([(4, 4), (15, 4)], [True, False])])
def test_clicks_inside_a_box_leave_the_end_of_the_object_to_it(points, positive):
    prompts = PromptSet(points, positive, (1.5, 1.5, 8.5, 17.5))
    assert choose([WHOLE, LEFT, TOP, NOTHING], prompts).best is TOP
    assert choose([WHOLE, LEFT, TOP, NOTHING], prompts, earlier=LEFT).best is WHOLE, (
        "what corrects stays what it was"
    )


@pytest.mark.parametrize(
    ("prompts", "denied"),
    [
        (PromptSet([(10, 5)], [False], mask=LEFT.region.mask), True),
        (PromptSet([(10, 2)], [False], mask=LEFT.region.mask), False),  # at its edge
        (PromptSet([(10, 15)], [False], mask=LEFT.region.mask), False),  # beside it
        (PromptSet([(10, 5), (4, 4)], [False, True], mask=LEFT.region.mask), False),
        (PromptSet([(10, 5)], [True], mask=LEFT.region.mask), False),
        (PromptSet([(10, 5)], [False]), False),
        (PromptSet([(10, 5)], [False], LEFT.region.box_yxyx, LEFT.region.mask), False),
    ],
)
def test_a_negative_click_in_the_middle_of_a_mask_denies_it(prompts, denied):
    assert denies_mask(prompts) is denied
    answer = choose([TOP, LEFT, WHOLE, NOTHING], prompts)
    assert (answer.best.region.area == 0) is denied
    own = answer.candidates[1:] if denied else answer.candidates
    assert own == (TOP, LEFT, WHOLE, NOTHING), "the model's own answers can be cycled to"


def test_violations_count_both_polarities():
    prompts = PromptSet([(4, 4), (4, 15), (15, 4), (0, 0)], [True, False, True, False])
    assert violations(LEFT.region, prompts) == 0
    assert violations(TOP.region, prompts) == 2
    assert violations(NOTHING.region, prompts) == 2
    assert violations(WHOLE.region, prompts) == 1


def fed_back(points, positive):
    return PromptSet(points, positive, None, None, np.zeros((4, 4)))


def test_an_answer_that_loses_a_click_is_not_taken():
    prompts = fed_back([(4, 4), (15, 4)], [True, True])
    answer = choose([TOP, NOTHING, NOTHING, TOP], prompts, earlier=LEFT)
    assert answer.best is LEFT
    assert answer.candidates[0] is TOP


def test_an_answer_that_gains_a_click_is_taken():
    prompts = fed_back([(4, 4), (4, 15)], [True, True])
    assert choose([TOP, LEFT, LEFT, LEFT], prompts, earlier=LEFT).best is TOP


def test_equal_answers_take_the_new_one_unless_it_collapsed():
    prompts = fed_back([(4, 4)], [True])
    assert choose([TOP, LEFT, LEFT, LEFT], prompts, earlier=LEFT).best is TOP
    collapsed = candidate(slice(2, 9), slice(2, 18), 0.05)
    assert choose([collapsed, NOTHING, NOTHING, NOTHING], prompts, earlier=LEFT).best is LEFT


def test_a_small_step_is_half_way_and_keeps_what_is_unknown():
    new, earlier = np.array([[4.0, -20.0, 2.0, -20.0]]), np.array([[-2.0, 3.0, -20.0, -20.0]])
    assert small_step(new, earlier, -20.0).tolist() == [[1.0, 3.0, 2.0, -20.0]]


clicks = st.lists(
    st.tuples(st.floats(0, 31), st.floats(0, 31), st.booleans()),
    min_size=1,
    max_size=6,
    unique_by=lambda c: c[:2],
)


@given(clicks, st.integers(0, 99))
def test_the_last_click_holds_whatever_was_answered(clicks, seed):
    logits = np.random.default_rng(seed).normal(0, 5, (32, 32)).astype(np.float32)
    at, positive = np.array([c[:2] for c in clicks]), np.array([c[2] for c in clicks])
    bent = heed_clicks(logits, at, positive, np.ones(len(at), bool))
    value = bilinear(bent, at[-1][:1], at[-1][1:]).item()
    assert (value > 0) == positive[-1]


def test_a_lost_click_leaves_the_other_kind_and_the_rest_of_the_mask_in_peace():
    logits = np.full((64, 64), -4.0)
    logits[20:44, 20:44] = 4.0
    at, positive = np.array([(30.0, 24.0), (30.0, 40.0)]), np.array([True, False])
    bent = heed_clicks(logits, at, positive, np.array([False, True]))
    assert (bent[28:33, 38:43] < 0).all()
    assert (bent[20:44, 20:30] > 0).all()
    assert ((bent > 0) <= (logits > 0)).all()
    np.testing.assert_array_equal(heed_clicks(logits, at, positive, np.array([True, False])), logits)
    held = heed_clicks(logits, at, np.array([True, True]), np.array([True, True]))
    np.testing.assert_array_equal(held, logits)


def test_only_clicks_against_a_mask_prompt_correct_it():
    mask = WHOLE.region.mask
    prompts = PromptSet([(4, 4), (4, 15), (0, 0), (19, 19)], [True, False, True, False], mask=mask)
    assert against_mask(prompts).tolist() == [False, True, True, False]
    assert not against_mask(PromptSet([(4, 4)])).any()


def test_stability():
    logits = np.array([[-3.0, -0.5, 0.5, 3.0]])
    assert stability_score(logits) == pytest.approx(1 / 3)
    assert stability_score(np.full((2, 2), -9.0)) == 0.0


def in_parts():
    """Three squares: (2..5, 2..5), (2..5, 12..15), and (10..13, 2..5) with a corner that touches nothing."""
    mask = np.zeros((20, 20), bool)
    for y, x in ((2, 2), (2, 12), (10, 2)):
        mask[y : y + 4, x : x + 4] = True
    return Region.from_mask(mask)


@pytest.mark.parametrize(
    ("prompts", "kept"),
    [
        (PromptSet([(3, 3)]), [(2, 2)]),
        (PromptSet([(3, 3), (11, 3)], [True, False]), [(2, 2)]),
        (PromptSet([(3, 3), (3, 14)]), [(2, 2), (2, 12)]),
        (PromptSet(box_yxyx=(1.5, 9.5, 8.5, 18.5)), [(2, 12)]),
        (PromptSet(box_yxyx=(-0.5, -0.5, 11.5, 8.5)), [(2, 2)]),
        (PromptSet(mask=np.arange(400).reshape(20, 20) < 60), [(2, 2), (2, 12)]),
        (PromptSet([(18, 18)]), [(2, 2), (2, 12), (10, 2)]),
    ],
)
def test_only_parts_that_prompts_point_at_are_kept(prompts, kept):
    found = prompted_parts(in_parts(), prompts).mask
    expected = np.zeros((20, 20), bool)
    for y, x in kept:
        expected[y : y + 4, x : x + 4] = True
    np.testing.assert_array_equal(found, expected)


def test_a_mask_in_one_piece_or_empty_is_left_alone():
    for mask in (np.zeros((5, 5), bool), np.eye(5, dtype=bool)[:1] * np.ones((5, 1), bool)):
        region = Region.from_mask(mask)
        assert prompted_parts(region, PromptSet([(4, 4)])) is region


def test_the_answer_to_a_box_ends_near_it_unless_a_point_lies_outside():
    region = Region.from_mask(np.ones((40, 40), bool))
    found = prompted_parts(region, PromptSet(box_yxyx=(9.5, -0.5, 29.5, 19.5)))
    assert found.box_yxyx == (9, 0, 31, 21)
    with_points = PromptSet([(12, 3), (35, 3)], [True, False], (9.5, -0.5, 29.5, 19.5))
    assert prompted_parts(region, with_points).box_yxyx == (9, 0, 31, 21)
    assert prompted_parts(region, PromptSet([(35, 3)], box_yxyx=(9.5, -0.5, 29.5, 19.5))) is region


@pytest.mark.parametrize(
    "prompts", [PromptSet([(8005.0, 8005.0)]), PromptSet(box_yxyx=(7999, 7999, 8025, 8070))]
)
def test_what_is_kept_of_a_mask_costs_no_more_on_a_large_plane(prompts):
    crop = np.ones((60, 60), bool)
    crop[20:30] = False
    region = Region((16_384, 16_384), (8000, 8000, 8060, 8060), crop)
    tracemalloc.start()
    try:
        assert prompted_parts(region, prompts).box_yxyx == (8000, 8000, 8020, 8060)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
