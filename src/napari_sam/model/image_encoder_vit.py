"""The vision transformer of SAM (paper, section 3 and appendix A; after ViTDet, arXiv 2203.16527)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_sam.model.configs import ViTConfig
from napari_sam.model.layers import MLPBlock, join_windows, neck, split_windows

AttentionPath = Literal["fast", "explicit"]


class PatchEmbed(nn.Module):
    """Cut the image into squares and project each to one token."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, H / patch, W / patch, dim)."""
        tokens: Tensor = self.proj(images)
        return tokens.permute(0, 2, 3, 1)


class RelPosAttention(nn.Module):
    """Self-attention in squares of tokens with decomposed relative positions (MViTv2, arXiv 2112.01526).

    The bias of query (y, x) for key (v, u) is ``q . rel_pos_h[y - v] + q . rel_pos_w[x - u]``, with q as
    it is before scaling.

    Parameters
    ----------
    dim, heads : int
        Width of the tokens and number of heads.
    size : int
        Side of a square: a window, or the whole grid.
    path : "fast" or "explicit"
        "fast" uses `scaled_dot_product_attention` for one head and some rows of queries at a time, so that
        their bias stays in the processor's cache. "explicit" writes the formula out, for all heads at once,
        as a reference. Both agree to rounding.
    """

    def __init__(self, dim: int, heads: int, size: int, path: AttentionPath) -> None:
        super().__init__()
        self.heads, self.size, self.path = heads, size, path
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * size - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * size - 1, dim // heads))

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, dim) to the same shape."""
        height, width = x.shape[1:3]
        # The squares that do not fit are filled up with zeros before the projection, by the published
        # weights' rule; projecting first and filling up with what zeros become (the bias) is less work.
        squares = split_windows(self.qkv(x), self.size, self.qkv.bias)
        joined = join_windows(self._attend(squares), height, width)
        out: Tensor = self.proj(joined)
        return out

    def _attend(self, squares: Tensor) -> Tensor:
        """(n, size, size, 3 * dim) to (n, size, size, dim)."""
        n, size = squares.shape[:2]
        qkv = squares.view(n, size * size, 3, self.heads, -1).permute(2, 3, 0, 1, 4)
        q, k, v = qkv.unbind(0)  # each (heads, n, size * size, d)
        if self.path == "explicit":
            heads = list(self._explicit(q, k, v))
        else:
            heads = [self._fast(*head) for head in zip(q, k, v, strict=True)]
        return torch.stack(heads, dim=-2).view(n, size, size, -1)

    def _bias(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Both parts of the bias for queries (..., size * size, d): each (..., size, size, size)."""
        index = torch.arange(self.size, device=q.device)
        index = index[:, None] - index[None, :] + self.size - 1  # (query, key)
        grid = q.reshape(*q.shape[:-2], self.size, self.size, q.shape[-1])
        by_row = torch.einsum("...yxd,yvd->...yxv", grid, self.rel_pos_h[index])
        by_col = torch.einsum("...yxd,xud->...yxu", grid, self.rel_pos_w[index])
        return by_row, by_col

    def _explicit(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        bias = _joined(*self._bias(q))
        weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias
        out: Tensor = weights.softmax(-1) @ v
        return out

    def _fast(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One head: (n, size * size, d) three times to the same shape.

        The fused kernel takes only tensors of four dimensions; with three, torch falls back to a slow one.
        """
        rows = max(1, _BIAS_NUMBERS // (len(q) * self.size**3))
        by_row, by_col = (torch.split(part, rows, dim=1) for part in self._bias(q))
        queries = torch.split(q, rows * self.size, dim=1)
        parts = [
            F.scaled_dot_product_attention(some[:, None], k[:, None], v[:, None], _joined(row, col)[:, None])
            for some, row, col in zip(queries, by_row, by_col, strict=True)
        ]
        return torch.cat(parts, dim=2).squeeze(1)


_BIAS_NUMBERS = 2**22
"""How much of the bias is made at a time: 16 MB in float32 (measured on a processor with 32 MB of cache)."""


def _joined(by_row: Tensor, by_col: Tensor) -> Tensor:
    """(..., y, x, v) and (..., y, x, u) to the bias (..., y * x, v * u)."""
    bias = by_row[..., :, None] + by_col[..., None, :]
    return bias.flatten(-2).flatten(-3, -2)


class Block(nn.Module):
    """Transformer block that attends inside squares of `size` tokens."""

    def __init__(self, config: ViTConfig, size: int, path: AttentionPath) -> None:
        super().__init__()
        dim = config.embed_dim
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = RelPosAttention(dim, config.heads, size, path)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLPBlock(dim, int(dim * config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, dim) to the same shape."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class ImageEncoderViT(nn.Module):
    """Images of one fixed size to embeddings.

    Parameters
    ----------
    config : ViTConfig
        Widths and depths.
    image_size : int
        Side of the square input.
    out_channels : int
        Channels of the embedding.
    path : "fast" or "explicit"
        How attention is computed, see `RelPosAttention`.
    """

    def __init__(
        self, config: ViTConfig, image_size: int, out_channels: int, path: AttentionPath = "fast"
    ) -> None:
        super().__init__()
        grid = image_size // config.patch_size
        self.patch_embed = PatchEmbed(config.patch_size, config.embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, config.embed_dim))
        self.blocks = nn.ModuleList(
            Block(config, grid if i in config.global_blocks else config.window, path)
            for i in range(config.depth)
        )
        self.neck = neck(config.embed_dim, out_channels)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, image_size, image_size) to (B, C, grid, grid)."""
        # the projection leaves the channels first in memory, and everything after it wants them last
        x = self.patch_embed(images).contiguous() + self.pos_embed
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return out
