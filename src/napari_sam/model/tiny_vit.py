"""TinyViT (Wu et al. 2022, arXiv 2207.10666) as the image encoder of MobileSAM (arXiv 2306.14289).

Published files also hold a classifier for 1000 classes that nothing here uses; it is not built.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_sam.model.configs import TinyViTConfig
from napari_sam.model.layers import Gelu2d, join_windows, neck, split_windows


class ConvNorm(nn.Module):
    """Convolution without bias, then batch normalisation."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) to (B, c_out, H / stride, W / stride)."""
        out: Tensor = self.bn(self.c(x))
        return out


class PatchEmbed(nn.Module):
    """Two strided convolutions: (B, 3, H, W) to (B, dim, H / 4, W / 4)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, dim // 2, 3, 2), Gelu2d(), ConvNorm(dim // 2, dim, 3, 2))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, dim, H / 4, W / 4)."""
        out: Tensor = self.seq(images)
        return out


class MBConv(nn.Module):
    """Inverted bottleneck: widen, convolve each channel, narrow, add."""

    def __init__(self, dim: int, expand_ratio: float) -> None:
        super().__init__()
        hidden = int(dim * expand_ratio)
        self.conv1 = ConvNorm(dim, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, dim)
        self.act = Gelu2d()

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape."""
        hidden = self.act(self.conv2(self.act(self.conv1(x))))
        out: Tensor = self.act(x + self.conv3(hidden))
        return out


class PatchMerging(nn.Module):
    """Change the width and halve the grid (or keep it, with stride 1)."""

    def __init__(self, dim: int, out_dim: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, out_dim)
        self.conv2 = ConvNorm(out_dim, out_dim, 3, stride, groups=out_dim)
        self.conv3 = ConvNorm(out_dim, out_dim)
        self.act = Gelu2d()

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to (B, out_dim, H / stride, W / stride)."""
        out: Tensor = self.conv3(self.act(self.conv2(self.act(self.conv1(x)))))
        return out


class BiasAttention(nn.Module):
    """Self-attention in a window, with one learned bias for each pair of distances along rows and columns."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) to the same shape."""
        height, width = x.shape[1:3]
        # Windows that do not fit are filled up with zeros before the normalisation, by the published weights'
        # rule; filling up with what zeros become is less work.
        windows = split_windows(self.qkv(self.norm(x)), self.window, self.qkv(self.norm.bias))
        qkv = windows.view(len(windows), self.window**2, self.heads, 3, -1)
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)  # each (n, heads, window * window, d)
        out = F.scaled_dot_product_attention(q, k, v, self._bias()).transpose(1, 2)
        joined = join_windows(out.reshape(*windows.shape[:3], -1), height, width)
        result: Tensor = self.proj(joined)
        return result

    def _bias(self) -> Tensor:
        axis = torch.arange(self.window, device=self.attention_biases.device)
        y, x = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
        rows, cols = (y[:, None] - y).abs(), (x[:, None] - x).abs()
        bias: Tensor = self.attention_biases[None, :, rows * self.window + cols]
        return bias


class Mlp(nn.Module):
    """Normalise, widen, narrow."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to the same shape."""
        out: Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return out


class TinyViTBlock(nn.Module):
    """Attention in windows, a convolution that joins them, MLP."""

    def __init__(self, dim: int, heads: int, window: int, mlp_ratio: float) -> None:
        super().__init__()
        self.window = window
        self.attn = BiasAttention(dim, heads, window)
        self.local_conv = ConvNorm(dim, dim, 3, groups=dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to the same shape."""
        last = x.permute(0, 2, 3, 1)
        x = (last + self.attn(last)).permute(0, 3, 1, 2)
        last = self.local_conv(x).permute(0, 2, 3, 1)
        out: Tensor = (last + self.mlp(last)).permute(0, 3, 1, 2)
        return out


class Stage(nn.Module):
    """Blocks of one width, then the step to the next (`downsample`)."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim, H, W) to (B, next dim, H / stride, W / stride)."""
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.downsample(x)
        return out


def _stage(config: TinyViTConfig, i: int) -> Stage:
    dim = config.embed_dims[i]
    blocks: list[nn.Module]
    if i == 0:
        blocks = [MBConv(dim, config.expand_ratio) for _ in range(config.depths[0])]
    else:
        heads, window, ratio = config.heads[i], config.windows[i], config.mlp_ratio
        blocks = [TinyViTBlock(dim, heads, window, ratio) for _ in range(config.depths[i])]
    last = i == len(config.depths) - 1
    merge = None if last else PatchMerging(dim, config.embed_dims[i + 1], config.merge_strides[i])
    return Stage(blocks, merge)


class TinyViT(nn.Module):
    """Images to embeddings. Batch normalisation makes `eval()` matter.

    Parameters
    ----------
    config : TinyViTConfig
        Widths and depths.
    out_channels : int
        Channels of the embedding.
    """

    def __init__(self, config: TinyViTConfig, out_channels: int) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed(config.embed_dims[0])
        self.layers = nn.ModuleList(_stage(config, i) for i in range(len(config.depths)))
        self.neck = neck(config.embed_dims[-1], out_channels)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, C, H / stride, W / stride)."""
        x = self.patch_embed(images)
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.neck(x)
        return out
