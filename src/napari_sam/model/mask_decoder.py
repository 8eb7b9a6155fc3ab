"""Embedding and prompts to masks (SAM paper, section 3 and appendix A, "Lightweight mask decoder")."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_sam.model.configs import MaskDecoderConfig
from napari_sam.model.layers import MLP, Gelu2d, LayerNorm2d
from napari_sam.model.transformer import TwoWayTransformer


def _upscaling(dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(dim, dim // 4, 2, stride=2),
        LayerNorm2d(dim // 4),
        Gelu2d(),
        nn.ConvTranspose2d(dim // 4, dim // 8, 2, stride=2),
        Gelu2d(),
    )


class MaskDecoder(nn.Module):
    """One mask for a clear prompt and several for an ambiguous one, each with an estimate of its IoU.

    Parameters
    ----------
    config : MaskDecoderConfig
        Depths and heads.
    dim : int
        Width of the tokens and channels of the embedding.
    """

    def __init__(self, config: MaskDecoderConfig, dim: int) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(config, dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(config.mask_tokens, dim)
        self.output_upscaling = _upscaling(dim)
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(dim, dim, dim // 8, 3) for _ in range(config.mask_tokens)
        )
        self.iou_prediction_head = MLP(dim, config.iou_head_dim, config.mask_tokens, config.iou_head_depth)

    def forward(
        self, image_embedding: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """Decode, and keep the answers to an ambiguous prompt or the one to a clear prompt.

        Parameters
        ----------
        image_embedding, image_pe, sparse, dense : tensor
            As for `predict_masks`.
        multimask : bool
            True keeps outputs 1, 2, 3; False keeps output 0.

        Returns
        -------
        low_res_logits : (B, 3 or 1, 4 h, 4 w) tensor
        predicted_iou : (B, 3 or 1) tensor
        """
        logits, iou = self.predict_masks(image_embedding, image_pe, sparse, dense)
        keep = slice(1, None) if multimask else slice(0, 1)
        return logits[:, keep], iou[:, keep]

    def predict_masks(
        self, image_embedding: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All outputs.

        Parameters
        ----------
        image_embedding : (B or 1, dim, h, w) tensor
            One embedding serves all B sets of prompts, or each has its own.
        image_pe : (1 or B, dim, h, w) tensor
            Position encoding of its cells.
        sparse : (B, T, dim) tensor
            Embedded points and boxes.
        dense : (B or 1, dim, h, w) tensor
            Embedded masks.

        Returns
        -------
        low_res_logits : (B, 4, 4 h, 4 w) tensor
        predicted_iou : (B, 4) tensor
        """
        grid = image_embedding.shape[-2:]
        if dense.stride(0) == 0:  # "no mask", expanded: what is the same for all is computed once
            dense = dense[:1]
        image = image_embedding + dense
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)
        tokens, image = self.transformer(_cells(image), _cells(image_pe), tokens)
        logits = self._masks(image.unflatten(1, grid), tokens[:, 1 : len(own)])
        return logits, self.iou_prediction_head(tokens[:, 0])

    def _masks(self, image: Tensor, tokens: Tensor) -> Tensor:
        """(B, h, w, dim) cells and (B, 4, dim) mask tokens to (B, 4, 4 h, 4 w)."""
        pairs = zip(self.output_hypernetworks_mlps, tokens.unbind(1), strict=True)
        weights = torch.stack([mlp(token) for mlp, token in pairs], dim=1)
        upscaled = self.output_upscaling(image.permute(0, 3, 1, 2))
        return torch.einsum("bkc,bchw->bkhw", weights, upscaled)


def _cells(x: Tensor) -> Tensor:
    """(B, dim, h, w) to (B, h * w, dim)."""
    return x.flatten(2).transpose(1, 2).contiguous()
