"""Simulated prompts: where a user would click first, and where next (SAM paper, appendix A).

Everything works on N objects at once, on masks at stride 2; points are xy in pixels of the crop. Tokens of
a prompt are points with labels: 1 positive, 0 negative, 2 and 3 the corners of a box, -1 nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_sam.training.config import TrainConfig

STRIDE = 2
"""Crop pixels along one side of a mask pixel."""
DEPTH_LIMIT = 12
ROUGH_LOGIT = (4.0, 12.0)
"""Magnitude of the logits made of a rough mask; varied, since nobody knows it later."""


@dataclass(slots=True)
class Prompts:
    """What N objects have been prompted with so far.

    Parameters
    ----------
    points : (N, T, 2) tensor
        xy in crop pixels.
    labels : (N, T) tensor
    masks : (N, h, w) tensor
        Logits; only those with `has_mask` count.
    has_mask : (N,) bool tensor
    ambiguous : (N,) bool tensor
        One positive point and nothing else.
    """

    points: Tensor
    labels: Tensor
    masks: Tensor
    has_mask: Tensor
    ambiguous: Tensor


def depth(masks: Tensor, limit: int = DEPTH_LIMIT) -> Tensor:
    """Chessboard distance of the pixels of (N, h, w) bool masks to their border, at most `limit`."""
    left, total = masks, masks.float()
    for _ in range(limit - 1):
        if left.is_cuda:  # few kernels, and nobody waits for an answer
            left = F.max_pool2d((~left).half()[:, None], 3, 1, 1)[:, 0] == 0
        else:
            left = _eroded(_eroded(left).mT).mT
            if not left.any():
                break
        total += left
    return total


def _eroded(masks: Tensor) -> Tensor:
    """Without the pixels that have one outside the mask above or below; the edge of the image is no border."""
    kept = masks.clone()
    kept[:, 1:] &= masks[:, :-1]
    kept[:, :-1] &= masks[:, 1:]
    return kept


def pick(regions: Tensor, deep: Tensor, generator: torch.Generator) -> Tensor:
    """One pixel of each region: near its deepest where `deep` (N,), anywhere else.

    Returns
    -------
    (N,) long tensor
        Flat index; of an empty region 0.
    """
    chance = torch.rand(regions.shape, generator=generator, device=regions.device)
    keys = torch.where(deep[:, None, None], depth(regions) + 1.5 * chance, chance + 1e-6) * regions
    return keys.flatten(1).argmax(1)


def to_points(flat: Tensor, width: int, generator: torch.Generator | None = None) -> Tensor:
    """Flat mask pixels (N,) to xy of the crop (N, 2), spread over the pixel where a generator is given."""
    yx = torch.stack([flat // width, flat % width], 1).float() * STRIDE + (STRIDE - 1) / 2
    if generator is not None:
        yx = yx + (torch.rand(yx.shape, generator=generator, device=yx.device) - 0.5) * (STRIDE - 1)
    return yx.flip(1)


def tight_boxes(masks: Tensor) -> Tensor:
    """(N, h, w) bool to (N, 4) x0 y0 x1 y1 in crop pixels, outer edges."""
    height, width = masks.shape[1:]
    cols, rows = masks.any(1).float(), masks.any(2).float()
    first = torch.stack([cols.argmax(1), rows.argmax(1)], 1)
    last = torch.stack([width - 1 - cols.flip(1).argmax(1), height - 1 - rows.flip(1).argmax(1)], 1)
    return torch.cat([first * STRIDE, last * STRIDE + STRIDE], 1).float() - 0.5


def jitter_boxes(boxes: Tensor, generator: torch.Generator) -> Tensor:
    """Move each side by a tenth of its length (standard deviation), at most 20 px; half of them far less."""
    side = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    strength = torch.where(
        torch.rand(len(boxes), 1, generator=generator, device=boxes.device) < 0.5, 0.1, 0.02
    )
    noise = torch.randn(boxes.shape, generator=generator, device=boxes.device) * strength * side
    return boxes + noise.clamp(-20, 20).clamp(-0.4 * side, 0.4 * side)


def first_prompts(
    masks: Tensor,
    rough: Tensor,
    config: TrainConfig,
    generator: torch.Generator,
    *,
    box_middle: bool = False,
) -> Prompts:
    """A point, a jittered box, or a rough mask with or without either.

    Parameters
    ----------
    masks, rough : (N, h, w) bool tensor
        The objects, and what propagation would hand over; see `Batch`.
    box_middle : bool
        See `PromptEncoderConfig`.
    """
    count, _, width = masks.shape
    kind = torch.rand(count, generator=generator, device=masks.device)
    ended, has_mask = ~masks.flatten(1).any(1), rough.flatten(1).any(1)
    extra = torch.rand(count, generator=generator, device=masks.device)
    box = torch.where(has_mask, extra < 0.4, kind < config.box_share / max(1 - config.mask_share, 1e-6))
    point = torch.where(has_mask, (extra > 0.3) & (extra < 0.8), ~box)
    deep = torch.rand(count, generator=generator, device=masks.device) < config.deepest_share
    both = torch.where(ended[:, None, None], rough, rough & masks)
    source = torch.where((has_mask & both.flatten(1).any(1))[:, None, None], both, masks)
    clicks = to_points(pick(source, deep, generator), width, generator)
    outline = torch.where(has_mask[:, None, None], rough, masks)
    corners = jitter_boxes(tight_boxes(outline), generator).view(count, 2, 2)
    points = torch.cat([corners, corners.mean(1, keepdim=True), clicks[:, None]], 1)
    middle = box if box_middle else torch.zeros_like(box)
    labels = torch.stack([_where(box, 2), _where(box, 3), _where(middle, 1), _where(point, 1)], 1)
    low, high = ROUGH_LOGIT
    scale = low + (high - low) * torch.rand(count, 1, 1, generator=generator, device=masks.device)
    return Prompts(
        *_compact(points, labels), (rough.float() * 2 - 1) * scale, has_mask, point & ~box & ~has_mask
    )


def _where(given: Tensor, label: int) -> Tensor:
    return torch.where(given, label, -1)


def _compact(points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Drop the columns nobody uses; what is absent goes to the end, as inference lays tokens out."""
    order = (labels < 0).int().argsort(dim=1, stable=True)
    labels = labels.gather(1, order)
    points = points.gather(1, order[..., None].expand(-1, -1, 2))
    if labels.is_cuda:  # which would have to be waited for
        return points, labels
    used = max(int((labels >= 0).sum(1).max()), 2)
    return points[:, :used], labels[:, :used]


def correct(
    prompts: Prompts, masks: Tensor, logits: Tensor, deep: Tensor, generator: torch.Generator
) -> Prompts:
    """Add a click in the error region to each object and feed the logits back.

    Parameters
    ----------
    masks : (N, h, w) bool tensor
        The truth.
    logits : (N, h, w) tensor
        The last answers.
    deep : (N,) bool tensor
        Click near the deepest pixel of the error region, not anywhere.
    """
    answers = logits > 0
    missed, spilled = masks & ~answers, ~masks & answers
    keys = _click_keys(missed, deep, generator), _click_keys(spilled, deep, generator)
    flat = torch.maximum(*keys).flatten(1).argmax(1)
    perfect = ~(missed | spilled).flatten(1).any(1)
    flat = torch.where(perfect, pick(masks, deep, generator), flat)
    positive = masks.flatten(1).gather(1, flat[:, None])
    clicks = to_points(flat, masks.shape[2], generator)
    return Prompts(
        torch.cat([prompts.points, clicks[:, None]], 1),
        torch.cat([prompts.labels, positive.long()], 1),
        logits,
        torch.ones_like(prompts.has_mask),
        torch.zeros_like(prompts.ambiguous),
    )


def _click_keys(regions: Tensor, deep: Tensor, generator: torch.Generator) -> Tensor:
    chance = torch.rand(regions.shape, generator=generator, device=regions.device)
    return torch.where(deep[:, None, None], depth(regions) + 0.9 * chance, chance + 1e-6) * regions


def feed_back(prompts: Prompts, logits: Tensor) -> Prompts:
    """No new click: the last answer alone is fed back with the prompts so far."""
    return Prompts(
        prompts.points,
        prompts.labels,
        logits,
        torch.ones_like(prompts.has_mask),
        torch.zeros_like(prompts.ambiguous),
    )
