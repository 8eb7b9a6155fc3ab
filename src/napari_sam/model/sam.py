"""The whole model: image encoder, prompt encoder, mask decoder (SAM paper, section 3, figure 4)."""

from __future__ import annotations

from torch import Tensor, nn

from napari_sam.model.configs import SamConfig, TinyViTConfig, ViTConfig
from napari_sam.model.image_encoder_vit import AttentionPath, ImageEncoderViT
from napari_sam.model.mask_decoder import MaskDecoder
from napari_sam.model.prompt_encoder import PromptEncoder, Window
from napari_sam.model.pyramid import PyramidEncoder
from napari_sam.model.tiny_vit import TinyViT


class Sam(nn.Module):
    """The three parts of a model, composed by `build_sam`."""

    def __init__(
        self,
        config: SamConfig,
        image_encoder: nn.Module,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
    ) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder

    def encode(self, images: Tensor) -> Tensor:
        """Encode normalised images.

        Parameters
        ----------
        images : (B, 3, H, W) float tensor
            Mean and standard deviation as `config` says. A ViT takes only squares of `config.image_size`,
            a pyramid any multiple of 32.

        Returns
        -------
        (B, C, H / stride, W / stride) tensor
        """
        out: Tensor = self.image_encoder(images)
        return out

    def decode(
        self,
        embedding: Tensor,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        *,
        window: Window | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Answer B sets of prompts with all outputs of the decoder.

        Parameters
        ----------
        embedding : (B or 1, C, h, w) tensor
            One embedding serves all sets, or each set has its own.
        points, labels, boxes, masks : tensor, optional
            As `PromptEncoder.forward` takes them.
        window : (int, int, int, int), optional
            Part of the grid the embedding covers; by default its first h rows and w columns.

        Returns
        -------
        low_res_logits : (B, 4, 4 h, 4 w) tensor
        predicted_iou : (B, 4) tensor
            Output 0 answers a clear prompt, the others an ambiguous one.
        """
        height, width = embedding.shape[-2:]
        window = window or (0, 0, height, width)
        sparse, dense = self.prompt_encoder(points, labels, boxes, masks, window)
        image_pe = self.prompt_encoder.dense_pe(window)
        return self.mask_decoder.predict_masks(embedding, image_pe, sparse, dense)


def _build_encoder(config: SamConfig, attention: AttentionPath, prompts: PromptEncoder) -> nn.Module:
    if isinstance(config.encoder, ViTConfig):
        return ImageEncoderViT(config.encoder, config.image_size, config.prompt_dim, attention)
    if isinstance(config.encoder, TinyViTConfig):
        return TinyViT(config.encoder, config.prompt_dim)
    return PyramidEncoder(config.encoder, config.prompt_dim, prompts.pe_layer, config.grid)


def build_sam(config: SamConfig, attention: AttentionPath = "fast") -> Sam:
    """Build a model with freshly drawn weights, in training mode.

    Parameters
    ----------
    config : SamConfig
        Usually one of `configs.CONFIGS`.
    attention : "fast" or "explicit"
        How a ViT computes attention; the answers agree to rounding.
    """
    dim = config.prompt_dim
    prompts = PromptEncoder(config.prompt, dim, config.image_size, config.grid)
    return Sam(config, _build_encoder(config, attention, prompts), prompts, MaskDecoder(config.decoder, dim))
