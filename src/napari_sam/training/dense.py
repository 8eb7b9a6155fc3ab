"""An auxiliary head that only training has: it reads borders, depth and offsets off the embedding.

Every pixel of every object teaches the image encoder something here, from the first step on, while the
mask decoder first has to find out what a prompt is.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from napari_sam.training.examples import DENSE_CHANNELS

UPSCALE = 4


class DenseHead(nn.Module):
    """(B, C, h, w) embedding to (B, 5, 4 h, 4 w): foreground, border, depth, offset y, offset x."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(dim, dim, 1),
            nn.GELU(),
            nn.Conv2d(dim, DENSE_CHANNELS * UPSCALE**2, 1),
            nn.PixelShuffle(UPSCALE),
        )

    def forward(self, embedding: Tensor) -> Tensor:
        """Predict the five maps; the first two are logits."""
        out: Tensor = self.layers(embedding)
        return out


def dense_loss(maps: Tensor, targets: Tensor, inside: Tensor) -> Tensor:
    """Cross-entropy and dice of foreground and border, absolute error of depth and offset.

    Parameters
    ----------
    maps : (B, 5, h, w) tensor
    targets : (B, 6, h, w) tensor
        See `Batch.dense`.
    inside : (B, h, w) tensor
        0 where there is padding.
    """
    weight = inside[:, None]
    pixels = weight.sum().clamp(min=1)
    classes = F.binary_cross_entropy_with_logits(maps[:, :2], targets[:, :2], reduction="none") * weight
    shares = maps[:, :2].sigmoid() * weight
    overlap = (shares * targets[:, :2]).sum((0, 2, 3))
    dice = 1 - (2 * overlap + 1) / (shares.sum((0, 2, 3)) + (targets[:, :2] * weight).sum((0, 2, 3)) + 1)
    inner = targets[:, :1] * weight
    depth = ((maps[:, 2:3] - targets[:, 2:3]).abs() * weight).sum() / pixels
    offset = ((maps[:, 3:] - targets[:, 3:5]).abs() * inner).sum() / inner.sum().clamp(min=1)
    return classes.sum() / pixels + 0.5 * dice.sum() + 2 * depth + 2 * offset


def vote_loss(votes: Tensor, targets: Tensor) -> Tensor:
    """Absolute error, in diameters, of the votes of the cells that lie in an object.

    Parameters
    ----------
    votes : (B, 2, h / 4, w / 4) tensor
        See `PyramidEncoder.encode_with_votes`.
    targets : (B, 6, h, w) tensor
        See `Batch.dense`.
    """
    here = targets[:, :, UPSCALE // 2 :: UPSCALE, UPSCALE // 2 :: UPSCALE]
    inside, diameters = here[:, 0], (here[:, 5] / UPSCALE).clamp(min=1)
    error = (votes.flip(1) - here[:, 3:5] * diameters[:, None]).abs().sum(1) / diameters
    return (error * inside).sum() / inside.sum().clamp(min=1)
