"""Prompts to tokens and to a dense embedding (SAM paper, section 3 and appendix A, "Prompt encoder").

Coordinates are in model space: xy, where a pixel's centre is an integer. Half a pixel is added here, so
that positions count from the corner of the image, and they are divided by the configured image size.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from napari_sam.model.configs import PromptEncoderConfig
from napari_sam.model.layers import Gelu2d, LayerNorm2d

Window = tuple[int, int, int, int]
"""First row, first column, rows and columns of a part of the embedding grid."""

PADDING, NEGATIVE, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT = -1, 0, 1, 2, 3


class PositionEncoding(nn.Module):
    """Random Fourier features of positions in the unit square (Tancik et al. 2020, arXiv 2006.10739)."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, dim: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", scale * torch.randn(2, dim // 2))

    def forward(self, xy: Tensor) -> Tensor:
        """(..., 2) positions in 0..1 to (..., dim)."""
        frequencies = self.positional_encoding_gaussian_matrix
        centred = 2 * xy.to(frequencies.dtype) - 1
        # a product of matrices would be rounded to half precision under autocast
        phase = 2 * math.pi * (centred[..., :1] * frequencies[0] + centred[..., 1:] * frequencies[1])
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


def _mask_downscaling(hidden: int, dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, hidden // 4, 2, stride=2),
        LayerNorm2d(hidden // 4),
        Gelu2d(),
        nn.Conv2d(hidden // 4, hidden, 2, stride=2),
        LayerNorm2d(hidden),
        Gelu2d(),
        nn.Conv2d(hidden, dim, 1),
    )


class PromptEncoder(nn.Module):
    """Points and boxes become sparse tokens, a mask becomes a dense embedding.

    Parameters
    ----------
    config : PromptEncoderConfig
        Channels and frequencies.
    dim : int
        Width of the tokens and channels of the dense embedding.
    image_size : int
        Side of model space in pixels.
    grid : int
        Cells along one side of the embedding of a full-size input.
    """

    def __init__(self, config: PromptEncoderConfig, dim: int, image_size: int, grid: int) -> None:
        super().__init__()
        self.image_size, self.grid, self.box_middle = image_size, grid, config.box_middle
        self.pe_layer = PositionEncoding(dim, config.pe_scale)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = _mask_downscaling(config.mask_channels, dim)
        self.no_mask_embed = nn.Embedding(1, dim)

    def forward(
        self,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        window: Window | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Embed B sets of prompts.

        Parameters
        ----------
        points : (B, N, 2) tensor, optional
            xy in model space.
        labels : (B, N) tensor, needed with points
            1 positive, 0 negative, -1 no point (fills up sets of different length).
        boxes : (B, 4) tensor, optional
            x0, y0, x1, y1 in model space.
        masks : (B, 1, 4 h, 4 w) tensor, optional
            Logits, four pixels to a cell of the embedding along each side.
        window : (int, int, int, int), optional
            Part of the grid that was encoded, the whole by default; see `dense_pe`.

        Returns
        -------
        sparse : (B, T, dim) tensor
            T is N + 1 for points (a "no point" is added), N + 2 for points and a box, 2 for a box; one more
            for a box where its middle is embedded too.
        dense : (B, dim, h, w) tensor
            Without masks one embedding for all, expanded without a copy.
        """
        parts = []
        if points is not None:
            assert labels is not None, "points come with labels"
            if boxes is None:
                points, labels = _with_padding(points, labels)
            parts.append(self.embed_points(points, labels))
        if boxes is not None:
            parts.append(self.embed_boxes(boxes))
        given = [value for value in (points, boxes, masks) if value is not None]
        batch = given[0].shape[0] if given else 1
        sparse = torch.cat(parts, dim=1) if parts else self.no_mask_embed.weight.new_zeros(batch, 0, self.dim)
        return sparse, self.embed_masks(masks) if masks is not None else self.no_mask(batch, window)

    @property
    def dim(self) -> int:
        """Width of the tokens."""
        return self.no_mask_embed.embedding_dim

    def embed_points(self, points: Tensor, labels: Tensor) -> Tensor:
        """(B, N, 2) xy and (B, N) labels to (B, N, dim), nothing added.

        Labels 2 and 3 mean the top left and the bottom right corner of a box, so that one batch can mix
        sets with a box and sets without.
        """
        positions = self.pe_layer((points + 0.5) / self.image_size)
        tables = [self.not_a_point_embed, *self.point_embeddings]
        kinds = torch.cat([cast(nn.Embedding, table).weight for table in tables])
        present = (labels != PADDING).unsqueeze(-1)
        embedded: Tensor = positions * present + kinds[labels.long() + 1]
        return embedded

    def embed_boxes(self, boxes: Tensor) -> Tensor:
        """(B, 4) x0, y0, x1, y1 to (B, 2, dim), or (B, 3, dim) where the middle is embedded too."""
        points, kinds = boxes.view(-1, 2, 2), [BOX_TOP_LEFT, BOX_BOTTOM_RIGHT]
        if self.box_middle:
            points, kinds = torch.cat([points, points.mean(1, keepdim=True)], dim=1), [*kinds, POSITIVE]
        labels = torch.tensor(kinds, device=boxes.device)
        return self.embed_points(points, labels.expand(len(points), len(kinds)))

    def embed_masks(self, masks: Tensor) -> Tensor:
        """(B, 1, 4 h, 4 w) logits to (B, dim, h, w)."""
        out: Tensor = self.mask_downscaling(masks)
        return out

    def no_mask(self, batch: int, window: Window | None = None) -> Tensor:
        """The learned embedding that stands for "no mask", (batch, dim, h, w) without a copy."""
        height, width = window[2:] if window else (self.grid, self.grid)
        return self.no_mask_embed.weight.view(1, -1, 1, 1).expand(batch, -1, height, width)

    def dense_pe(self, window: Window | None = None) -> Tensor:
        """Position encoding of the cells of the embedding grid.

        Parameters
        ----------
        window : (int, int, int, int), optional
            First row, first column, rows and columns, in cells, of the part that was encoded; it may be
            smaller than the grid (a crop) and lie anywhere. The whole grid by default. Points stay in the
            coordinates of the whole.

        Returns
        -------
        (1, dim, h, w) tensor
        """
        row, col, height, width = window or (0, 0, self.grid, self.grid)
        matrix = self.pe_layer.positional_encoding_gaussian_matrix
        y = (torch.arange(row, row + height, device=matrix.device) + 0.5) / self.grid
        x = (torch.arange(col, col + width, device=matrix.device) + 0.5) / self.grid
        xy = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)  # (h, w, 2)
        encoded: Tensor = self.pe_layer(xy)
        return encoded.permute(2, 0, 1).unsqueeze(0)


def _with_padding(points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Add one "no point" to each set: the published weights expect it wherever there is no box."""
    zeros = points.new_zeros(points.shape[0], 1, 2)
    absent = labels.new_full((labels.shape[0], 1), PADDING)
    return torch.cat([points, zeros], dim=1), torch.cat([labels, absent], dim=1)
