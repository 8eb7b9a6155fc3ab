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

from napari_sam.model.pyramid import PyramidEncoder
from napari_sam.model.sam import Sam
from napari_sam.model.transformer import Attention, TwoWayBlock, TwoWayTransformer

SHARPNESS = 1.8
"""Scale of queries and keys: the logit where both are at the same place is twice its square."""
CONTENT = 0.4
"""Scale of what is normalised beside the encoding, so that the place counts for more at first."""


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
