"""One training step as functions: images and masks to a loss with all its decoder rounds."""

from __future__ import annotations

from typing import cast

import numpy as np
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


def device_of(sam: Sam) -> torch.device:
    """Where the model is, and with it everything that a step computes."""
    return next(sam.parameters()).device


def seeded(sam: Sam, seed: int) -> torch.Generator:
    """A generator of random numbers on the model's device."""
    return torch.Generator(device_of(sam)).manual_seed(seed)


def random_window(sam: Sam, cells: int, generator: torch.Generator) -> Window:
    """Where in the model's full input a crop of `cells` cells lies; the same for the same seed."""
    free = max(sam.config.grid - cells, 0)
    row, col = _decisions(generator, 0).integers(free + 1, size=2).tolist()
    return row, col, cells, cells


def _decisions(generator: torch.Generator, what: int) -> np.random.Generator:
    """For what is decided once a step, by its seed: drawn here, so that nobody waits for a GPU to answer."""
    return np.random.default_rng([generator.initial_seed(), what])


def computing(precision: str, device: torch.device) -> torch.autocast:
    """The context in which networks run; see `TrainConfig.precision`."""
    dtype = choose_runtime(str(device), precision).dtype
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def dense_step(
    sam: Sam, head: DenseHead, batch: Batch, window: Window, precision: str = "float32"
) -> tuple[Tensor, Tensor]:
    """Embedding of the crops, as if they lay at `window`, and the loss of the auxiliary head."""
    encoder = cast(PyramidEncoder, sam.image_encoder)
    device = device_of(sam)
    images = normalised(torch.from_numpy(batch.images).to(device, non_blocking=True), sam)
    with computing(precision, device):
        embedding, votes = encoder.encode_with_votes(images, window[:2])
        maps = head(embedding)
    targets = torch.from_numpy(batch.dense).to(device, non_blocking=True).float()
    loss = dense_loss(
        maps.float(), targets, torch.from_numpy(batch.inside).to(device, non_blocking=True).float()
    )
    return embedding, loss + VOTE_WEIGHT * vote_loss(votes.float(), targets)


def decode(sam: Sam, embedding: Tensor, prompts: Prompts, window: Window) -> tuple[Tensor, Tensor]:
    """All outputs for N prompts of which only some have a mask; embedding is (N, C, h, w)."""
    shift = torch.tensor([window[1], window[0]], device=prompts.points.device) * sam.config.stride
    sparse = sam.prompt_encoder.embed_points(prompts.points + shift, prompts.labels)
    given = sam.prompt_encoder.embed_masks(prompts.masks[:, None])
    nothing = sam.prompt_encoder.no_mask(len(sparse), window)
    dense = torch.where(prompts.has_mask[:, None, None, None], given, nothing)
    return sam.mask_decoder.predict_masks(embedding, sam.prompt_encoder.dense_pe(window), sparse, dense)


def objects_of(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Truth (0..1), rough mask (bool) and inside (0 or 1) of all N objects of a batch, each (N, h, w)."""
    masks, rough, inside = (
        torch.from_numpy(array).to(device, non_blocking=True)
        for array in (batch.masks, batch.rough, batch.inside)
    )
    count = masks.shape[1]
    return masks.flatten(0, 1).float() / 255, rough.flatten(0, 1), inside.repeat_interleave(count, 0).float()


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
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Loss of all rounds of simulated interaction, averaged, and the mean IoU of each round.

    `generator` belongs to the model's device.
    """
    count, device, decisions = batch.masks.shape[1], device_of(sam), _decisions(generator, 1)
    truth, rough, inside = objects_of(batch, device)
    masks = truth > 0.5
    embedding = embedding.repeat_interleave(count, 0)
    middle = sam.config.prompt.box_middle
    prompts = first_prompts(masks, rough, config, generator, box_middle=middle)
    rounds = int(decisions.choice(config.rounds))
    total, ious = torch.zeros((), device=device), []
    for number in range(rounds):
        with computing(config.precision, device):
            logits, predicted = decode(sam, embedding, prompts, window)
        outputs = logits.float(), predicted.float()
        loss, iou = round_loss(outputs, truth, inside, prompts.ambiguous, config, fraction)
        chosen = default_answers(outputs, prompts.ambiguous)
        rows = torch.arange(len(chosen), device=device)
        total = total + loss
        ious.append(iou[rows, chosen].mean())
        if number + 1 < rounds:
            answers = outputs[0][rows, chosen].detach()
            if decisions.random() < config.mask_only_share:
                prompts = feed_back(prompts, answers)
            else:
                deep = torch.rand(len(masks), generator=generator, device=device) < config.deepest_share
                prompts = correct(prompts, masks, answers, deep, generator)
    return total / rounds, tuple(ious)
