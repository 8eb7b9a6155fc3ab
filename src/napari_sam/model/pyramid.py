"""The image encoder of the model that ships: residual convolutions and a feature pyramid.

Residual blocks after He et al. 2016 (arXiv 1512.03385), the way back up after Lin et al. 2017
(arXiv 1612.03144). Cells are small objects' size (stride 8), and the features at stride 4 enter the output
directly, because what is segmented in a microscope is often few pixels wide.

Where a ViT adds the position of each cell to its features, this encoder adds the position of the middle of
the object that the cell believes it is part of (votes for a middle: Neven et al. 2019, arXiv 1906.11109).
All cells of an object then carry about the same code, and its neighbours another: just what the dot product
at the end of the mask decoder tells apart.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_sam.model.configs import PyramidConfig
from napari_sam.model.layers import LayerNorm2d
from napari_sam.model.prompt_encoder import PositionEncoding


def conv_norm(c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, then batch normalisation."""
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out))


def conv_norm_relu(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch normalisation, ReLU."""
    return nn.Sequential(*conv_norm(c_in, c_out, 3, stride), nn.ReLU(inplace=True))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions added to their input, which is projected where the shapes differ."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = conv_norm_relu(c_in, c_out, stride)
        self.conv2 = conv_norm(c_out, c_out)
        same = c_in == c_out and stride == 1
        self.skip = nn.Identity() if same else conv_norm(c_in, c_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) to (B, c_out, H / stride, W / stride)."""
        return F.relu(self.conv2(self.conv1(x)) + self.skip(x))


def _stage(c_in: int, c_out: int, blocks: int) -> nn.Sequential:
    rest = [ResidualBlock(c_out, c_out) for _ in range(blocks - 1)]
    return nn.Sequential(ResidualBlock(c_in, c_out, stride=2), *rest)


class PyramidEncoder(nn.Module):
    """Images to embeddings at stride 8; any size that is a multiple of 32.

    Parameters
    ----------
    config : PyramidConfig
        Widths and depths.
    out_channels : int
        Channels of the embedding.
    position : PositionEncoding
        How the prompt encoder encodes positions; a copy is kept.
    grid : int
        Cells along one side of the embedding of a full-size input.
    """

    def __init__(
        self, config: PyramidConfig, out_channels: int, position: PositionEncoding, grid: int
    ) -> None:
        super().__init__()
        self.grid = grid
        self.stem = nn.Sequential(
            conv_norm_relu(3, config.stem, stride=2), conv_norm_relu(config.stem, config.stem)
        )
        widths = (config.stem, *config.widths)
        self.stages = nn.ModuleList(_stage(*pair, n) for pair, n in zip(pairwise(widths), config.blocks))
        fine, *coarse = config.widths
        self.fine = nn.Conv2d(fine, out_channels, 2, stride=2)
        self.laterals = nn.ModuleList(nn.Conv2d(width, out_channels, 1) for width in coarse)
        self.merges = nn.ModuleList(conv_norm_relu(out_channels, out_channels) for _ in coarse[1:])
        self.out = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm = LayerNorm2d(out_channels)
        self.vote = nn.Conv2d(out_channels, 2, 3, padding=1)
        self.position = copy.deepcopy(position)
        self._initialise()

    def forward(self, images: Tensor, origin: tuple[int, int] = (0, 0)) -> Tensor:
        """(B, 3, H, W) to (B, C, H / 8, W / 8).

        `origin` is the row and column of the first cell in the grid of a full-size input, where the images
        are only a part of it.
        """
        return self.encode_with_votes(images, origin)[0]

    def encode_with_votes(self, images: Tensor, origin: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The embedding, and (B, 2, H / 8, W / 8): xy from each cell to the middle of its object, in cells."""
        x = self.stem(images)
        levels = []  # strides 4, 8, 16, 32
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        features = self._top_down(levels)
        votes = self.vote(features)
        return self.norm(self.out(features)) + self._encoded(votes, origin), votes

    def _encoded(self, votes: Tensor, origin: tuple[int, int]) -> Tensor:
        """(B, C, h, w) position encoding of the middles that were voted for."""
        height, width = votes.shape[-2:]
        y = torch.arange(height, device=votes.device) + origin[0] + 0.5
        x = torch.arange(width, device=votes.device) + origin[1] + 0.5
        cells = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (h, w, 2)
        middles = (cells + votes.permute(0, 2, 3, 1)) / self.grid
        encoded: Tensor = self.position(middles)  # stays float32 under autocast
        return encoded.permute(0, 3, 1, 2)

    def _top_down(self, levels: list[Tensor]) -> Tensor:
        """Carry what the coarse levels know down to stride 8."""
        stride_4, *rest = levels
        stride_8, stride_16, stride_32 = (conv(x) for conv, x in zip(self.laterals, rest))
        middle: Tensor = self.merges[1](stride_16 + _double(stride_32))
        finest: Tensor = self.merges[0](stride_8 + _double(middle) + self.fine(stride_4))
        return finest

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.vote.weight)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
