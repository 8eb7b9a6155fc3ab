"""Variants of the SAM family as data: a network is built from one of these values and nothing else.

Numbers of ViT-B, L and H: SAM paper, appendix A, "Image encoder"; of TinyViT: MobileSAM (arXiv 2306.14289)
and TinyViT (arXiv 2207.10666). `medium` is the model that ships with this program, `micro` and `small` what it grew from.
"""

from __future__ import annotations

from dataclasses import dataclass

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ViTConfig:
    """Vision transformer with windowed and global attention (SAM paper, appendix A; ViTDet).

    Parameters
    ----------
    embed_dim, depth, heads : int
        Width, number of blocks, attention heads of a block.
    global_blocks : tuple of int
        Blocks that attend to the whole grid; all others attend inside windows.
    patch_size : int
        Side of the square of pixels that becomes one token, hence also the stride.
    window : int
        Side of an attention window, in tokens.
    mlp_ratio : float
        Hidden width of a block's MLP over `embed_dim`.
    """

    embed_dim: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    patch_size: int = 16
    window: int = 14
    mlp_ratio: float = 4.0

    @property
    def stride(self) -> int:
        """Pixels along one side of a cell of the embedding."""
        return self.patch_size


@dataclass(frozen=True, slots=True)
class TinyViTConfig:
    """Convolutions first, then windowed attention: the image encoder of MobileSAM.

    Parameters
    ----------
    embed_dims, depths, heads, windows : tuple of int
        One entry a stage. The first stage is convolutional and uses neither heads nor window.
    merge_strides : tuple of int
        Stride of the downsampling after each stage but the last. The last one is 1, so that the grid is
        as fine as that of a ViT with patches of 16.
    mlp_ratio, expand_ratio : float
        Hidden width of the MLP of attention blocks and of the inverted bottlenecks of the first stage.
    """

    embed_dims: tuple[int, int, int, int] = (64, 128, 160, 320)
    depths: tuple[int, int, int, int] = (2, 2, 6, 2)
    heads: tuple[int, int, int, int] = (2, 4, 5, 10)
    windows: tuple[int, int, int, int] = (7, 7, 14, 7)
    merge_strides: tuple[int, int, int] = (2, 2, 1)
    mlp_ratio: float = 4.0
    expand_ratio: float = 4.0

    @property
    def stride(self) -> int:
        """Pixels along one side of a cell of the embedding."""
        first, second, third = self.merge_strides
        return 4 * first * second * third


@dataclass(frozen=True, slots=True)
class PyramidConfig:
    """Residual convolutions with a top-down feature pyramid: our own image encoder.

    Parameters
    ----------
    stem : int
        Channels at stride 2.
    widths, blocks : tuple of int
        Channels and number of residual blocks at stride 4, 8, 16, 32.
    """

    stem: int = 32
    widths: tuple[int, int, int, int] = (48, 96, 192, 288)
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)

    @property
    def stride(self) -> int:
        """Pixels along one side of a cell of the embedding."""
        return 8


EncoderConfig = ViTConfig | TinyViTConfig | PyramidConfig


@dataclass(frozen=True, slots=True)
class PromptEncoderConfig:
    """Prompt encoder (SAM paper, appendix A, "Prompt encoder").

    Parameters
    ----------
    mask_channels : int
        Channels in the middle of the convolutions that embed a mask prompt.
    pe_scale : float
        Standard deviation of the random frequencies that a position is encoded with; larger means
        finer. It only matters where weights are drawn: a checkpoint brings its own frequencies.
    box_middle : bool
        A box is embedded as its corners and, as a positive point, its middle. A small model otherwise takes
        long to learn what lies between two corners.
    """

    mask_channels: int = 16
    pe_scale: float = 1.0
    box_middle: bool = False


@dataclass(frozen=True, slots=True)
class MaskDecoderConfig:
    """Two-way transformer and output heads (SAM paper, appendix A, "Lightweight mask decoder").

    Parameters
    ----------
    depth, heads, mlp_dim : int
        Blocks, attention heads and hidden width of the two-way transformer.
    attention_downsample : int
        The attention between tokens and image works at the prompt width over this.
    multimask_outputs : int
        Answers to an ambiguous prompt; there is one output more, for an unambiguous one.
    iou_head_depth, iou_head_dim : int
        Layers and hidden width of the MLP that estimates the IoU.
    """

    depth: int = 2
    heads: int = 8
    mlp_dim: int = 2048
    attention_downsample: int = 2
    multimask_outputs: int = 3
    iou_head_depth: int = 3
    iou_head_dim: int = 256

    @property
    def mask_tokens(self) -> int:
        """Number of masks the decoder computes."""
        return self.multimask_outputs + 1


@dataclass(frozen=True, slots=True)
class SamConfig:
    """A whole model.

    Parameters
    ----------
    name : str
        Name of the architecture; stamped on embeddings and checkpoints.
    image_size : int
        Side of the square of model space, in pixels. Positions are encoded relative to it.
    encoder : ViTConfig, TinyViTConfig or PyramidConfig
        Image encoder.
    prompt, decoder : PromptEncoderConfig, MaskDecoderConfig
        The other two parts.
    prompt_dim : int
        Channels of the embedding and width of every token.
    pixel_mean, pixel_std : (float, float, float)
        Normalisation of red, green and blue on 0..255.
    multimask : bool
        Besides the single output, the three for ambiguous prompts are offered.
    connected : bool
        Objects hang together: parts of a mask that no prompt points at are left out of the answer.
    looks_closer : bool
        Small objects are looked at enlarged: encoding again is cheap, and gains were measured.
    doubt : float
        Answers with a lower predicted IoU are asked for again from other sides (mirrored, turned), and the mean is
        taken: encoding again is cheap, and gains were measured. 0 never does.
    """

    name: str
    image_size: int
    encoder: EncoderConfig
    prompt: PromptEncoderConfig = PromptEncoderConfig()
    decoder: MaskDecoderConfig = MaskDecoderConfig()
    prompt_dim: int = 256
    pixel_mean: Triple = (123.675, 116.28, 103.53)
    pixel_std: Triple = (58.395, 57.12, 57.375)
    multimask: bool = True
    connected: bool = False
    looks_closer: bool = False
    doubt: float = 0.0

    @property
    def stride(self) -> int:
        """Pixels along one side of a cell of the embedding."""
        return self.encoder.stride

    @property
    def grid(self) -> int:
        """Cells along one side of the embedding of a full-size input."""
        return self.image_size // self.stride

    @property
    def mask_size(self) -> int:
        """Side of the low_res_logits of a full-size input, which is also that of a mask prompt."""
        return 4 * self.grid


_TEST_DECODER = MaskDecoderConfig(heads=2, mlp_dim=32, iou_head_dim=16)
_TEST_PROMPT = PromptEncoderConfig(mask_channels=8)


def _small_sam(name: str, encoder: PyramidConfig) -> SamConfig:
    """A model of ours: they differ in their image encoder alone."""
    prompt = PromptEncoderConfig(pe_scale=3.0, box_middle=True)
    decoder = MaskDecoderConfig(heads=4, mlp_dim=512, iou_head_dim=128)
    return SamConfig(name, 512, encoder, prompt, decoder, 128, connected=True, looks_closer=True, doubt=0.9)


_ALL = (
    SamConfig("vit_b", 1024, ViTConfig(768, 12, 12, (2, 5, 8, 11))),
    SamConfig("vit_l", 1024, ViTConfig(1024, 24, 16, (5, 11, 17, 23))),
    SamConfig("vit_h", 1024, ViTConfig(1280, 32, 16, (7, 15, 23, 31))),
    SamConfig("vit_t", 1024, TinyViTConfig()),
    _small_sam("micro", PyramidConfig()),
    _small_sam("small", PyramidConfig(blocks=(2, 4, 6, 3))),
    _small_sam("medium", PyramidConfig(blocks=(4, 8, 7, 3))),
    SamConfig("vit_test", 64, ViTConfig(32, 2, 2, (1,), window=3), _TEST_PROMPT, _TEST_DECODER, 32),
    SamConfig(
        "tiny_vit_test",
        64,
        TinyViTConfig((8, 8, 16, 16), (1, 1, 1, 1), (1, 1, 2, 2), (3, 3, 4, 3)),
        _TEST_PROMPT,
        _TEST_DECODER,
        32,
    ),
    SamConfig(
        "micro_test",
        64,
        PyramidConfig(8, (8, 8, 16, 16), (1, 1, 1, 1)),
        PromptEncoderConfig(8, pe_scale=3.0, box_middle=True),
        _TEST_DECODER,
        32,
    ),
)

CONFIGS: dict[str, SamConfig] = {config.name: config for config in _ALL}
"""Every architecture by name. Those that end in `_test` are small enough for tests and have no weights."""
