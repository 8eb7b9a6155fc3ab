"""Weights to start from: attention that finds the place of a click before anything has been learned.

The dot product of two position encodings is a Gaussian of the distance (Rahimi and Recht 2007; Tancik et
al. 2020, arXiv 2006.10739). With the query and key projections drawn so that they keep a part of the
encoding, tokens attend to the cells around their point from the first step on. Weights drawn as usual
attend everywhere, and a short training is spent on finding out what a position is.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from napari_sam.errors import TrainingError
from napari_sam.model.checkpoints import fill, load_checkpoint
from napari_sam.model.pyramid import PyramidEncoder, ResidualBlock
from napari_sam.model.sam import Sam
from napari_sam.model.transformer import Attention, TwoWayBlock, TwoWayTransformer

SHARPNESS = 1.8
"""Scale of queries and keys: the logit where both are at the same place is twice its square."""
CONTENT = 0.4
"""Scale of what is normalised beside the encoding, so that the place counts for more at first."""


@torch.no_grad()
def start_from(sam: Sam, path: str) -> None:
    """Take the weights of a file; residual blocks that it does not have begin by changing nothing.

    A residual block whose last normalisation is zero is the identity (Goyal et al. 2017, arXiv 1706.02677), so
    that a deeper network answers as the one it grew from (Chen et al. 2016, arXiv 1511.05641).

    Raises
    ------
    TrainingError
        What is missing in the file is more than whole residual blocks.
    ModelNotFoundError, CheckpointError
        As `load_checkpoint` and `fill`.
    """
    _, given = load_checkpoint(path)
    missing = sam.state_dict().keys() - given.keys()
    for name, module in sam.named_modules():
        if isinstance(module, ResidualBlock) and f"{name}.conv1.0.weight" in missing:
            if not isinstance(module.skip, nn.Identity):
                raise TrainingError(
                    f"{path} has no {name}, which is not a block that can begin as the identity"
                )
            nn.init.zeros_(cast(nn.BatchNorm2d, module.conv2[1]).weight)
            given |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    fill(sam, given, path)


@torch.no_grad()
def look_at_positions(sam: Sam) -> None:
    """Draw the attention between tokens and image anew, in place."""
    transformer: TwoWayTransformer = sam.mask_decoder.transformer
    crossing = [transformer.final_attn_token_to_image]
    for layer in cast(list[TwoWayBlock], transformer.layers):
        crossing += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
        for norm in (layer.norm1, layer.norm2, layer.norm3):
            nn.init.constant_(norm.weight, CONTENT)
    for attention in crossing:
        _keep_position(attention)
    if isinstance(sam.image_encoder, PyramidEncoder):
        nn.init.constant_(sam.image_encoder.norm.weight, CONTENT)


def _keep_position(attention: Attention) -> None:
    """Queries, keys and values are a part of the encoding, sine and cosine of the same frequencies."""
    inner, dim = attention.q_proj.weight.shape
    chosen = _frequencies(inner, dim, attention.heads)
    part = torch.zeros(inner, dim)
    part[torch.arange(inner), chosen] = 1.0
    for projection in (attention.q_proj, attention.k_proj):
        noise = 0.02 * torch.randn(inner, dim)
        projection.weight.copy_(SHARPNESS * part + noise)
        nn.init.zeros_(projection.bias)


def _frequencies(inner: int, dim: int, heads: int) -> Tensor:
    """(inner,) channel of the encoding for each channel of the attention; the heads share them out."""
    pairs = torch.randperm(dim // 2)[: inner // 2].view(heads, -1)
    return torch.cat([pairs, pairs + dim // 2], dim=1).flatten()
