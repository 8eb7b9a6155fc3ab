"""Going on answering as before where nothing new is taught (Li and Hoiem 2016, arXiv 1606.09282).

On crops that have nothing to do with the user's labels, generated ones and real ones of what the model in the package
learned from (`rehearsed/README.md`), the model that learns is held to the answers that the
model at the start gives to the same prompts: all of its masks and its estimates of their IoU. So it is for the
objects that the model at the start found; where it was wrong the model is free, for the user's labels may teach it
better.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from napari_sam.model.sam import Sam
from napari_sam.training.clicks import correct, first_prompts
from napari_sam.training.config import TrainConfig
from napari_sam.training.examples import Batch
from napari_sam.training.losses import measured_iou
from napari_sam.training.packed import LabelledPlane, read_packed
from napari_sam.training.steps import Window, computing, decode, default_answers, device_of, objects_of
from napari_sam.training.synthetic import generate_planes

REHEARSED = Path(__file__).parent / "rehearsed" / "crops.npz"
"""Real crops, written by `scripts/make_rehearsed.py`."""
GENERATED = 64
"""Generated planes beside them."""
CORRECTED = 0.5
"""Share of steps that ask for the answer to a corrected prompt instead of a first one."""
FOUND = 0.75
"""IoU from which on an object was found."""


def rehearsed_planes(seed: int) -> list[LabelledPlane]:
    """Planes that have nothing to do with a user's labels: generated ones, by the seed, and real ones."""
    return generate_planes(GENERATED, seed) + read_packed(REHEARSED)


def rehearsal_loss(
    models: tuple[Sam, Sam],
    embeddings: tuple[Tensor, Tensor],
    batch: Batch,
    config: TrainConfig,
    window: Window,
    generator: torch.Generator,
) -> Tensor:
    """How far the answers of a model are from those of another one, for objects that the other one finds.

    Parameters
    ----------
    models : (Sam, Sam)
        The one that learns, and the one at the start.
    embeddings : pair of (B, C, h, w) tensor
        Of the crops, by either.
    batch : Batch
        Objects that are clicked.
    config : TrainConfig
        Shares of prompts.
    window : tuple of int
        Where in the full input the crops lie.
    generator : torch.Generator
        On the device of the models; what is random follows from it.

    Returns
    -------
    scalar tensor
    """
    count = batch.masks.shape[1]
    device = device_of(models[0])
    truth, rough, inside = objects_of(batch, device)
    masks = truth > 0.5
    now, before = (embedding.repeat_interleave(count, 0) for embedding in embeddings)
    sam, start = models
    rows = torch.arange(len(masks), device=device)
    prompts = first_prompts(masks, rough, config, generator, box_middle=sam.config.prompt.box_middle)
    with computing(config.precision, device), torch.no_grad():
        wanted = decode(start, before, prompts, window)
        if float(torch.rand((), generator=generator, device=device)) < CORRECTED:
            answers = wanted[0][rows, default_answers(wanted, prompts.ambiguous)].float()
            deep = torch.rand(len(masks), generator=generator, device=device) < config.deepest_share
            prompts = correct(prompts, masks, answers, deep, generator)
            wanted = decode(start, before, prompts, window)
    with computing(config.precision, device):
        outputs = decode(sam, now, prompts, window)
    iou = measured_iou(wanted[0], truth, inside)[rows, default_answers(wanted, prompts.ambiguous)]
    found = (iou >= FOUND).float()
    change = mask_difference(outputs[0].float(), wanted[0].float(), inside)
    change = change + ((outputs[1] - wanted[1]).float() ** 2).mean(1)
    return (change * found).sum() / found.sum().clamp(min=1)


def mask_difference(logits: Tensor, wanted: Tensor, inside: Tensor) -> Tensor:
    """Squared difference of masks relative to their area, (N,) mean over M: 0 where they are equal, else up to 1.

    Parameters
    ----------
    logits, wanted : (N, M, h, w) tensor
    inside : (N, h, w) tensor
        0 where there is padding.
    """
    p, q = (values.sigmoid() * inside[:, None] for values in (logits, wanted))
    areas = (p**2 + q**2).sum((-2, -1))
    return (((p - q) ** 2).sum((-2, -1)) / (areas + 1)).mean(1)
