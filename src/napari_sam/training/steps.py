"""One training step as functions: images and masks to a loss with all its decoder rounds."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from napari_sam.inference.device import choose_runtime
from napari_sam.model.pyramid import PyramidEncoder
from napari_sam.model.sam import Sam
from napari_sam.training.clicks import Prompts, correct, feed_back, first_prompts
from napari_sam.training.config import TrainConfig
from napari_sam.training.dense import DenseHead, dense_loss, vote_loss
from napari_sam.training.examples import Batch
from napari_sam.training.losses import round_loss

Window = tuple[int, int, int, int]
VOTE_WEIGHT = 2.0


def normalised(images: Tensor, sam: Sam) -> Tensor:
    """(B, 3, S, S) uint8 to what the image encoder takes."""
    mean = torch.tensor(sam.config.pixel_mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(sam.config.pixel_std, device=images.device).view(1, 3, 1, 1)
    return ((images.float() - mean) / std).contiguous(memory_format=torch.channels_last)


def random_window(sam: Sam, cells: int, generator: torch.Generator) -> Window:
    """Where in the model's full input a crop of `cells` cells lies."""
    free = max(sam.config.grid - cells, 0)
    row, col = torch.randint(free + 1, (2,), generator=generator).tolist()
    return row, col, cells, cells


def computing(precision: str) -> torch.autocast:
    """The context in which networks run; see `TrainConfig.precision`."""
    dtype = choose_runtime("cpu", precision).dtype
    return torch.autocast("cpu", dtype, enabled=dtype != torch.float32)


def dense_step(
    sam: Sam, head: DenseHead, batch: Batch, window: Window, precision: str = "float32"
) -> tuple[Tensor, Tensor]:
    """Embedding of the crops, as if they lay at `window`, and the loss of the auxiliary head."""
    encoder = cast(PyramidEncoder, sam.image_encoder)
    images = normalised(torch.from_numpy(batch.images), sam)
    with computing(precision):
        embedding, votes = encoder.encode_with_votes(images, window[:2])
        maps = head(embedding)
    targets = torch.from_numpy(batch.dense).float()
    loss = dense_loss(maps.float(), targets, torch.from_numpy(batch.inside).float())
    return embedding, loss + VOTE_WEIGHT * vote_loss(votes.float(), targets)


def decode(sam: Sam, embedding: Tensor, prompts: Prompts, window: Window) -> tuple[Tensor, Tensor]:
    """All outputs for N prompts of which only some have a mask; embedding is (N, C, h, w)."""
    shift = torch.tensor([window[1], window[0]]) * sam.config.stride
    sparse = sam.prompt_encoder.embed_points(prompts.points + shift, prompts.labels)
    dense = sam.prompt_encoder.no_mask(len(sparse), window)
    with_mask = prompts.has_mask.nonzero()[:, 0]
    if len(with_mask) == len(sparse):
        dense = sam.prompt_encoder.embed_masks(prompts.masks[:, None])
    elif len(with_mask):
        dense = dense.clone().index_copy(
            0, with_mask, sam.prompt_encoder.embed_masks(prompts.masks[with_mask, None])
        )
    else:
        dense = dense.clone()
    return sam.mask_decoder.predict_masks(embedding, sam.prompt_encoder.dense_pe(window), sparse, dense)


def default_answers(outputs: tuple[Tensor, Tensor], ambiguous: Tensor) -> Tensor:
    """(N,) which output a user would get: by predicted IoU for one point, else output 0."""
    best = 1 + outputs[1][:, 1:].argmax(1)
    return torch.where(ambiguous, best, 0)


def interactive_step(
    sam: Sam,
    embedding: Tensor,
    batch: Batch,
    config: TrainConfig,
    window: Window,
    generator: torch.Generator,
    fraction: float = 1.0,
) -> tuple[Tensor, tuple[float, ...]]:
    """Loss of all rounds of simulated interaction, averaged, and the mean IoU of each round."""
    count = batch.masks.shape[1]
    truth = torch.from_numpy(batch.masks).flatten(0, 1).float() / 255
    masks, rough = truth > 0.5, torch.from_numpy(batch.rough).flatten(0, 1)
    inside = torch.from_numpy(batch.inside).repeat_interleave(count, 0).float()
    embedding = embedding.repeat_interleave(count, 0)
    middle = sam.config.prompt.box_middle
    prompts = first_prompts(masks, rough, config, generator, box_middle=middle)
    rounds = config.rounds[int(torch.randint(len(config.rounds), (1,), generator=generator))]
    total, ious = embedding.new_zeros(()), []
    for number in range(rounds):
        with computing(config.precision):
            logits, predicted = decode(sam, embedding, prompts, window)
        outputs = logits.float(), predicted.float()
        loss, iou = round_loss(outputs, truth, inside, prompts.ambiguous, config, fraction)
        chosen = default_answers(outputs, prompts.ambiguous)
        rows = torch.arange(len(chosen))
        total = total + loss
        ious.append(float(iou[rows, chosen].mean()))
        if number + 1 < rounds:
            prompts = _next(prompts, masks, outputs[0][rows, chosen].detach(), config, generator)
    return total / rounds, tuple(ious)


def _next(
    prompts: Prompts, masks: Tensor, answers: Tensor, config: TrainConfig, generator: torch.Generator
) -> Prompts:
    if float(torch.rand((), generator=generator)) < config.mask_only_share:
        return feed_back(prompts, answers)
    deep = torch.rand(len(masks), generator=generator) < config.deepest_share
    return correct(prompts, masks, answers, deep, generator)
