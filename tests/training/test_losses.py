"""Losses against numbers worked out by hand; only the best of three answers is learned from."""

import math
from dataclasses import replace

import pytest
import torch

from napari_sam.training.config import TrainConfig
from napari_sam.training.losses import dice_loss, focal_loss, measured_iou, round_loss


def one_pixel(logit, truth):
    return torch.tensor([[[[logit]]]]), torch.tensor([[[truth]]]), torch.ones(1, 1, 1)


def test_focal_by_hand():
    # p = 0.5, target 1: 0.25 * 0.5^2 * ln 2
    assert focal_loss(*one_pixel(0.0, 1.0)).item() == pytest.approx(0.25 * 0.25 * math.log(2))
    # target 0: the other class weighs 0.75
    assert focal_loss(*one_pixel(0.0, 0.0)).item() == pytest.approx(0.75 * 0.25 * math.log(2))
    p = 1 / (1 + math.exp(-2))
    expected = 0.25 * (1 - p) ** 2 * -math.log(p)
    assert focal_loss(*one_pixel(2.0, 1.0)).item() == pytest.approx(expected)


def test_dice_by_hand():
    # answers 0.5 everywhere, truth half of 4 pixels: 1 - (2 * 1 + 1) / (2 + 2 + 1)
    truth = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    loss = dice_loss(torch.zeros(1, 1, 2, 2), truth, torch.ones(1, 2, 2))
    assert loss.item() == pytest.approx(1 - 3 / 5)


def test_padding_does_not_count():
    truth = torch.tensor([[[1.0, 0.0]]])
    inside = torch.tensor([[[1.0, 0.0]]])
    good, bad = torch.tensor([[[[9.0, -9.0]]]]), torch.tensor([[[[9.0, 9.0]]]])
    for loss in (focal_loss, dice_loss, measured_iou):
        assert torch.equal(loss(good, truth, inside), loss(bad, truth, inside))


def outputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 4, 8, 8, generator=generator).requires_grad_()
    return logits, torch.zeros(2, 4, requires_grad=True)


def test_only_the_best_of_three_masks_gets_a_gradient():
    logits, predicted = outputs()
    truth = torch.zeros(2, 8, 8)
    truth[:, 2:6, 2:6] = 1
    config = TrainConfig()
    loss, _ = round_loss((logits, predicted), truth, torch.ones(2, 8, 8), torch.tensor([True, False]), config)
    loss.backward()
    moved = logits.grad.abs().sum((2, 3)) > 0
    per_answer = 20 * focal_loss(logits, truth, torch.ones(2, 8, 8)) + dice_loss(
        logits, truth, torch.ones(2, 8, 8)
    )
    best = int(per_answer[0, 1:].argmin()) + 1
    assert moved[0].nonzero().flatten().tolist() == [0, best]
    assert moved[1].tolist() == [True, False, False, False]


def test_all_three_learn_where_labels_say_what_is_meant():
    truth, inside, one_click = torch.zeros(2, 8, 8), torch.ones(2, 8, 8), torch.tensor([True, False])
    truth[:, 2:6, 2:6] = 1
    losses = []
    for share in (0.0, 0.5, 1.0):
        logits, predicted = outputs()
        loss, _ = round_loss(
            (logits, predicted), truth, inside, one_click, replace(TrainConfig(), others_share=share)
        )
        loss.backward()
        losses.append(loss.item())
    assert bool((logits.grad[0].abs().sum((1, 2)) > 0).all())
    assert (logits.grad[1].abs().sum((1, 2)) > 0).tolist() == [True, False, False, False]
    assert losses[0] < losses[1] < losses[2]
    assert losses[1] == pytest.approx((losses[0] + losses[2]) / 2)


def test_predicted_iou_is_pulled_to_the_measured():
    truth = torch.zeros(1, 4, 4)
    truth[0, :2] = 1
    logits = torch.full((1, 4, 4, 4), -20.0)
    logits[0, 0, :1] = 20.0  # half of the object
    predicted = torch.tensor([[0.2, 0.0, 0.0, 0.0]], requires_grad=True)
    _, iou = round_loss((logits, predicted), truth, torch.ones(1, 4, 4), torch.tensor([False]), TrainConfig())
    assert iou[0].tolist() == pytest.approx([0.5, 0, 0, 0])
