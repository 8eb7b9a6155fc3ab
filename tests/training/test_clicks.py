"""Simulated prompts lie where they should."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sam.training.clicks import (
    STRIDE,
    correct,
    depth,
    feed_back,
    first_prompts,
    jitter_boxes,
    pick,
    tight_boxes,
)
from napari_sam.training.config import TrainConfig


def blob(seed, count=3, size=24):
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, size, size), bool)
    for mask in masks:
        y, x = rng.integers(0, size - 8, 2)
        h, w = rng.integers(1, 8, 2)
        mask[y : y + h, x : x + w] = True
    return torch.from_numpy(masks)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def at(masks, points):
    """Value of each mask under its point."""
    cells = torch.div(points + 0.5, STRIDE, rounding_mode="floor").long()
    return masks[torch.arange(len(masks)), cells[:, 1], cells[:, 0]]


def test_depth_of_a_square():
    mask = torch.zeros(1, 9, 9, dtype=torch.bool)
    mask[0, 2:7, 2:7] = True
    assert depth(mask)[0, 4].tolist() == [0, 0, 1, 2, 3, 2, 1, 0, 0]
    assert depth(~mask & False).sum() == 0


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_first_points_lie_in_the_object(seed):
    masks = blob(seed)
    config = TrainConfig(box_share=0.0, mask_share=0.0)
    prompts = first_prompts(masks, masks & False, config, generator(seed))
    assert prompts.ambiguous.all()
    assert (prompts.labels[:, 0] == 1).all()
    assert at(masks, prompts.points[:, 0]).all()


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_corrections_lie_in_the_error_with_the_right_polarity(seed):
    masks, answers = blob(seed), blob(seed + 1)
    first = first_prompts(masks, masks, TrainConfig(), generator(seed))
    deep = torch.tensor([True, False, True])
    logits = torch.where(answers, 3.0, -3.0)
    prompts = correct(first, masks, logits, deep, generator(seed))
    clicked = prompts.points[:, -1]
    wrong = (masks ^ answers).flatten(1).any(1)
    assert torch.equal(at(masks ^ answers, clicked)[wrong], torch.ones(int(wrong.sum()), dtype=torch.bool))
    assert torch.equal(at(masks, clicked).long(), prompts.labels[:, -1])
    assert prompts.has_mask.all()
    assert not prompts.ambiguous.any()


def test_boxes_are_outer_edges_in_crop_pixels():
    mask = torch.zeros(1, 10, 10, dtype=torch.bool)
    mask[0, 2:5, 3:8] = True
    assert tight_boxes(mask).tolist() == [[5.5, 3.5, 15.5, 9.5]]
    moved = jitter_boxes(tight_boxes(mask).repeat(500, 1), generator())
    assert (moved[:, 2:] > moved[:, :2]).all()
    assert ((moved - tight_boxes(mask)).abs() <= 20).all()


def test_kinds_of_first_prompt_follow_their_shares():
    masks = torch.zeros(400, 16, 16, dtype=torch.bool)
    masks[:, 4:12, 4:12] = True
    rough = masks.clone()
    rough[80:] = False
    config = TrainConfig(box_share=0.5, mask_share=0.2)
    prompts = first_prompts(masks, rough, config, generator(3))
    assert prompts.has_mask.nonzero().flatten().tolist() == list(range(80))
    box_only = (prompts.labels == 2).any(1) & ~prompts.has_mask
    assert box_only.float().mean().item() == pytest.approx(0.5, abs=0.09)
    assert (prompts.ambiguous == ((prompts.labels >= 0).sum(1) == 1) & ~prompts.has_mask).all()


def test_an_object_that_has_ended_is_asked_for_by_its_mask():
    masks, rough = torch.zeros(60, 16, 16, dtype=torch.bool), torch.zeros(60, 16, 16, dtype=torch.bool)
    rough[:, 8:12, 0:4] = True
    prompts = first_prompts(masks, rough, TrainConfig(), generator(4))
    assert prompts.has_mask.all()
    clicked = prompts.points[prompts.labels == 1]
    assert len(clicked)
    assert ((clicked >= torch.tensor([0, 16])) & (clicked <= torch.tensor([8, 24]))).all()


def test_feeding_back_adds_no_click():
    masks = blob(1)
    first = first_prompts(masks, masks, TrainConfig(), generator())
    again = feed_back(first, masks.float())
    assert torch.equal(again.points, first.points)
    assert again.has_mask.all()


def test_an_empty_region_gives_an_index_all_the_same():
    assert pick(
        torch.zeros(2, 4, 4, dtype=torch.bool), torch.tensor([True, False]), generator()
    ).tolist() == [0, 0]
