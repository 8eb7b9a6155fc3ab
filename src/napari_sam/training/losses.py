"""Focal and dice loss of masks, squared error of predicted IoU (SAM paper, appendix A, "Losses").

Logits are (N, M, h, w): N objects, M answers. Truth is (N, h, w) in 0..1, soft where a pixel at the
decoder's stride is partly inside the object. `inside` is (N, h, w), 0 where there is padding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_sam.training.config import TrainConfig

ALPHA = 0.25
GAMMA = 2.0
EASED = 0.25
"""Share of the run after which the weights of the losses have reached their last values."""


def between(ends: tuple[float, float], fraction: float) -> float:
    """A weight that goes from one value to another."""
    return ends[0] + (ends[1] - ends[0]) * min(fraction, 1.0)


def focal_loss(logits: Tensor, truth: Tensor, inside: Tensor) -> Tensor:
    """(N, M) focal loss (Lin et al. 2017), alpha 0.25, gamma 2, mean over the pixels inside."""
    target = truth[:, None].expand_as(logits)
    error = (logits.sigmoid() - target).abs()
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    balance = ALPHA * target + (1 - ALPHA) * (1 - target)
    weight = inside[:, None]
    total = (balance * error**GAMMA * entropy * weight).sum((-2, -1))
    return total / weight.sum((-2, -1)).clamp(min=1)


def balanced_loss(logits: Tensor, truth: Tensor, inside: Tensor) -> Tensor:
    """(N, M) cross-entropy in which object and background weigh the same, whatever their areas.

    Not in the paper. Focal and dice loss of small objects are nearly flat where everything is background,
    and a decoder that starts from nothing stays there for a long time; this has a slope there.
    """
    target = truth[:, None].expand_as(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    parts = [(truth * inside)[:, None], ((1 - truth) * inside)[:, None]]
    means = [(entropy * part).sum((-2, -1)) / part.sum((-2, -1)).clamp(min=1) for part in parts]
    return (means[0] + means[1]) / 2


def dice_loss(logits: Tensor, truth: Tensor, inside: Tensor) -> Tensor:
    """(N, M) soft dice loss, 0 for a perfect mask."""
    answer = logits.sigmoid() * inside[:, None]
    target = (truth * inside)[:, None]
    overlap = (answer * target).sum((-2, -1))
    sizes = answer.sum((-2, -1)) + target.sum((-2, -1))
    return 1 - (2 * overlap + 1) / (sizes + 1)


def measured_iou(logits: Tensor, truth: Tensor, inside: Tensor) -> Tensor:
    """(N, M) IoU of the thresholded masks, without gradient."""
    with torch.no_grad():
        answer = (logits > 0) & (inside[:, None] > 0)
        target = (truth[:, None] > 0.5) & (inside[:, None] > 0)
        either = (answer | target).sum((-2, -1))
        return (answer & target).sum((-2, -1)) / either.clamp(min=1)


def round_loss(
    outputs: tuple[Tensor, Tensor],
    truth: Tensor,
    inside: Tensor,
    ambiguous: Tensor,
    config: TrainConfig,
    fraction: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Loss of one round.

    Parameters
    ----------
    outputs : (N, 4, h, w) and (N, 4) tensors
        Logits and predicted IoU; output 0 is the answer to a clear prompt.
    truth, inside : (N, h, w) tensor
    ambiguous : (N,) bool tensor
        Objects with one positive point only: of the three answers for it, the best alone is learned from but for
        `config.others_share` (and output 0 beside it, at half weight, as it must know the object for the clicks to
        come).
    config : TrainConfig
        Weights.
    fraction : float
        Share of the budget that is used up.

    Returns
    -------
    loss : scalar tensor
    iou : (N, 4) tensor
        Measured, without gradient.
    """
    logits, predicted = outputs
    focal, balanced = (
        between(ends, fraction / EASED) for ends in (config.focal_weight, config.balanced_weight)
    )
    masks = focal * focal_loss(logits, truth, inside)
    masks = masks + config.dice_weight * dice_loss(logits, truth, inside)
    if balanced:
        masks = masks + balanced * balanced_loss(logits, truth, inside)
    iou = measured_iou(logits, truth, inside)
    estimate = (predicted - iou) ** 2
    clear = masks[:, 0] + config.iou_weight * estimate[:, 0]
    best, mean = masks[:, 1:].amin(1), masks[:, 1:].mean(1)
    several = best + config.others_share * (mean - best) + config.iou_weight * estimate[:, 1:].mean(1)
    loss = torch.where(ambiguous, (several + 0.5 * clear) / 1.5, clear).mean()
    return loss, iou
