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
    """Self-attention on a square of tokens with decomposed relative positions (MViTv2, arXiv 2112.01526).

    The bias of query (y, x) for key (v, u) is ``q . rel_pos_h[y - v] + q . rel_pos_w[x - u]``, with q as
    it is before scaling.

    Parameters
    ----------
    dim, heads : int
        Width of the tokens and number of heads.
    size : int
        Side of the square.
    path : "fast" or "explicit"
        "fast" uses `scaled_dot_product_attention`, one head at a time, and never holds the weights of all
        heads. "explicit" writes the formula out, as a reference; both agree to rounding.
    """

    def __init__(self, dim: int, heads: int, size: int, path: AttentionPath) -> None:
        super().__init__()
        self.heads, self.size, self.path = heads, size, path
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * size - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * size - 1, dim // heads))

    def forward(self, x: Tensor) -> Tensor:
        """(B, size, size, dim) to the same shape."""
        batch, size, _, dim = x.shape
        qkv = self.qkv(x).view(batch, size * size, 3, self.heads, -1).permute(2, 3, 0, 1, 4)
        attend = self._explicit if self.path == "explicit" else self._fast
        out = attend(*qkv.unbind(0))  # each (heads, B, size * size, dim / heads)
        out = out.permute(1, 2, 0, 3).reshape(batch, size, size, dim)
        result: Tensor = self.proj(out)
        return result

    def _bias(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Both parts of the bias for queries (..., size * size, d): each (..., size, size, size)."""
        index = torch.arange(self.size, device=q.device)
        index = index[:, None] - index[None, :] + self.size - 1  # (query, key)
        grid = q.reshape(*q.shape[:-2], self.size, self.size, q.shape[-1])
        by_row = torch.einsum("...yxd,yvd->...yxv", grid, self.rel_pos_h[index])
        by_col = torch.einsum("...yxd,xud->...yxu", grid, self.rel_pos_w[index])
        return by_row, by_col

    def _mask(self, q: Tensor) -> Tensor:
        by_row, by_col = self._bias(q)
        bias = by_row[..., :, None] + by_col[..., None, :]  # (..., y, x, v, u)
        return bias.flatten(-2).flatten(-3, -2)

    def _explicit(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + self._mask(q)
        out: Tensor = weights.softmax(-1) @ v
        return out

    def _fast(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = [
            F.scaled_dot_product_attention(a[:, None], b[:, None], c[:, None], self._mask(a)[:, None])[:, 0]
            for a, b, c in zip(q, k, v, strict=True)
        ]
        return torch.stack(heads)


class Block(nn.Module):
    """Transformer block; attends inside windows when `window` is not 0, else to the whole grid."""

    def __init__(self, config: ViTConfig, grid: int, window: int, path: AttentionPath) -> None:
        super().__init__()
        dim = config.embed_dim
        self.window = window
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = RelPosAttention(dim, config.heads, window or grid, path)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLPBlock(dim, int(dim * config.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, dim) to the same shape."""
        x = x + self._attend(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def _attend(self, x: Tensor) -> Tensor:
        if not self.window:
            whole: Tensor = self.attn(x)
            return whole
        windows = self.attn(split_windows(x, self.window))
        return join_windows(windows, x.shape[1], x.shape[2])


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
            Block(config, grid, 0 if i in config.global_blocks else config.window, path)
            for i in range(config.depth)
        )
        self.neck = neck(config.embed_dim, out_channels)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, image_size, image_size) to (B, C, grid, grid)."""
        x = self.patch_embed(images) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return out
