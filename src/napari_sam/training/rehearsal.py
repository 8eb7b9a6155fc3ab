"""Going on answering as before where nothing new is taught (Li and Hoiem 2016, arXiv 1606.09282).

On crops that have nothing to do with the user's labels, the model that learns is held to the answers that the
model at the start gives to the same prompts: all of its masks and its estimates of their IoU. What the labels of
such crops say does not matter, but for where it is clicked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from napari_sam.model.sam import Sam
from napari_sam.training.clicks import correct, first_prompts
from napari_sam.training.config import TrainConfig
from napari_sam.training.examples import Batch
from napari_sam.training.steps import Window, computing, decode, default_answers

CORRECTED = 0.5
"""Share of steps that ask for the answer to a corrected prompt instead of a first one."""


def rehearsal_loss(
    models: tuple[Sam, Sam],
    embeddings: tuple[Tensor, Tensor],
    batch: Batch,
    config: TrainConfig,
    window: Window,
    generator: torch.Generator,
) -> Tensor:
    """How far the answers of a model are from those of another one.

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
        What is random follows from it.

    Returns
    -------
    scalar tensor
    """
    count = batch.masks.shape[1]
    masks = torch.from_numpy(batch.masks).flatten(0, 1) > 127
    rough = torch.from_numpy(batch.rough).flatten(0, 1)
    inside = torch.from_numpy(batch.inside).repeat_interleave(count, 0)[:, None].float()
    now, before = (embedding.repeat_interleave(count, 0) for embedding in embeddings)
    sam, start = models
    prompts = first_prompts(masks, rough, config, generator, box_middle=sam.config.prompt.box_middle)
    with computing(config.precision):
        with torch.no_grad():
            wanted = decode(start, before, prompts, window)
            if float(torch.rand((), generator=generator)) < CORRECTED:
                chosen = default_answers(wanted, prompts.ambiguous)
                answers = wanted[0][torch.arange(len(chosen)), chosen].float()
                deep = torch.rand(len(masks), generator=generator) < config.deepest_share
                prompts = correct(prompts, masks, answers, deep, generator)
                wanted = decode(start, before, prompts, window)
        outputs = decode(sam, now, prompts, window)
    difference = mask_difference(outputs[0].float(), wanted[0].float(), inside)
    return difference + ((outputs[1] - wanted[1]).float() ** 2).mean()


def mask_difference(logits: Tensor, wanted: Tensor, inside: Tensor) -> Tensor:
    """Mean over masks of their squared difference relative to their area: 0 where they are equal, else up to 1.

    Parameters
    ----------
    logits, wanted : (N, M, h, w) tensor
    inside : (N, 1, h, w) tensor
        0 where there is padding.
    """
    p, q = (values.sigmoid() * inside for values in (logits, wanted))
    areas = (p**2 + q**2).sum((-2, -1))
    return (((p - q) ** 2).sum((-2, -1)) / (areas + 1)).mean()
