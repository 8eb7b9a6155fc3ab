"""Layers that several parts share."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of (B, C, H, W), each pixel for itself.

    Computed with the channels last: the answer keeps that memory layout.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        last = x.permute(0, 2, 3, 1)
        return self.channels_last(last).permute(0, 3, 1, 2)

    def channels_last(self, x: Tensor) -> Tensor:
        """(..., C) to the same shape."""
        return F.layer_norm(x, (x.shape[-1],), self.weight, self.bias, self.eps)


class Gelu2d(nn.Module):
    """GELU of (B, C, H, W) maps, in the memory layout that they have: the fast kernels of a CPU want it in order."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return F.gelu(x) if x.is_contiguous() else F.gelu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MLPBlock(nn.Module):
    """The two-layer MLP of a transformer block."""

    def __init__(self, dim: int, hidden: int, activation: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to the same shape."""
        out: Tensor = self.lin2(self.act(self.lin1(x)))
        return out


class MLP(nn.Module):
    """Linear layers with ReLU between them: the decoder's output heads."""

    def __init__(self, dim: int, hidden: int, out_dim: int, depth: int) -> None:
        super().__init__()
        widths = [dim, *[hidden] * (depth - 1), out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to (..., out_dim)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


def neck(in_channels: int, out_channels: int) -> nn.Sequential:
    """Bring an image encoder's output to the width of the prompts (SAM paper, appendix A)."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        LayerNorm2d(out_channels),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        LayerNorm2d(out_channels),
    )


def split_windows(x: Tensor, window: int, filling: Tensor | None = None) -> Tensor:
    """(B, H, W, C) to (B * n, window, window, C).

    Where windows do not fit, cells are added right and below, with (C,) `filling` in them, or zeros.
    """
    height, width, channels = x.shape[1:]
    below, right = -height % window, -width % window
    if below or right:
        x = _extend(x, below, right, filling)
    rows, cols = x.shape[1] // window, x.shape[2] // window
    x = x.view(-1, rows, window, cols, window, channels)
    return x.transpose(2, 3).reshape(-1, window, window, channels)


def _extend(x: Tensor, below: int, right: int, filling: Tensor | None) -> Tensor:
    if filling is None:
        return F.pad(x, (0, 0, 0, right, 0, below))
    batch, height, width, channels = x.shape
    x = torch.cat([x, filling.expand(batch, height, right, channels)], dim=2)
    return torch.cat([x, filling.expand(batch, below, width + right, channels)], dim=1)


def join_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """Undo `split_windows`: (B * n, window, window, C) to (B, height, width, C)."""
    window, channels = windows.shape[1], windows.shape[3]
    rows, cols = -(-height // window), -(-width // window)
    x = windows.view(-1, rows, cols, window, window, channels).transpose(2, 3)
    return x.reshape(-1, rows * window, cols * window, channels)[:, :height, :width]
