"""Which architecture a state dict belongs to, told from the shapes of its tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from napari_sam.errors import CheckpointError
from napari_sam.model.configs import (
    CONFIGS,
    EncoderConfig,
    MaskDecoderConfig,
    PromptEncoderConfig,
    PyramidConfig,
    SamConfig,
    TinyViTConfig,
    ViTConfig,
)

State = Mapping[str, Tensor]
_ENCODER, _PROMPT, _DECODER = "image_encoder.", "prompt_encoder.", "mask_decoder."


def detect_config(state: State) -> SamConfig:
    """Tell the architecture from tensor shapes.

    A known architecture is returned as it is in `CONFIGS`. Another one of the same families gets a name
    made of its numbers. What no shape shows (decoder heads, image size of convolutional encoders) then
    has the published default.

    Raises
    ------
    CheckpointError
        The tensors are not those of a SAM image encoder, prompt encoder and mask decoder.
    """
    try:
        encoder, image_size = _encoder(state)
        found = SamConfig("", image_size, encoder, _prompt(state), _decoder(state), _prompt_dim(state))
    except KeyError as error:
        raise CheckpointError(
            f"no SAM model: tensor {error} is missing; its {len(state)} tensors start with "
            f"{', '.join(sorted(state)[:3]) or 'nothing'}"
        ) from None
    same = [known for known in CONFIGS.values() if _visible(known) == _visible(found)]
    return same[0] if same else replace(found, name=_name(found))


def _visible(config: SamConfig) -> SamConfig:
    """The same configuration with everything that shapes do not show set to one value."""
    encoder, image_size = config.encoder, config.image_size
    if isinstance(encoder, TinyViTConfig):
        encoder, image_size = replace(encoder, merge_strides=(2, 2, 1)), 0
    if isinstance(encoder, PyramidConfig):
        image_size = 0
    return SamConfig(
        "",
        image_size,
        encoder,
        replace(config.prompt, pe_scale=1.0, box_middle=False),
        replace(config.decoder, heads=8),
        config.prompt_dim,
    )


def _name(config: SamConfig) -> str:
    encoder = config.encoder
    if isinstance(encoder, ViTConfig):
        return f"vit_{encoder.embed_dim}x{encoder.depth}_{config.image_size}"
    if isinstance(encoder, TinyViTConfig):
        return f"tiny_vit_{'_'.join(map(str, encoder.embed_dims))}"
    return f"pyramid_{'_'.join(map(str, encoder.widths))}"


def _count(state: State, prefix: str) -> int:
    """Length of the module list at `prefix`."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return len({match[1] for key in state if (match := pattern.match(key))})


def _encoder(state: State) -> tuple[EncoderConfig, int]:
    if f"{_ENCODER}pos_embed" in state:
        return _vit(state)
    if f"{_ENCODER}patch_embed.seq.0.c.weight" in state:
        return _tiny_vit(state), 1024
    if f"{_ENCODER}stem.0.0.weight" in state:
        return _pyramid(state), 512
    raise KeyError(f"{_ENCODER}pos_embed")


def _vit(state: State) -> tuple[ViTConfig, int]:
    _, grid, _, dim = state[f"{_ENCODER}pos_embed"].shape
    patch = state[f"{_ENCODER}patch_embed.proj.weight"].shape[-1]
    depth = _count(state, f"{_ENCODER}blocks.")
    tables = [state[f"{_ENCODER}blocks.{i}.attn.rel_pos_h"] for i in range(depth)]
    sides = [(len(table) + 1) // 2 for table in tables]
    heads = dim // tables[0].shape[1]
    windows = [side for side in sides if side != grid]
    hidden = state[f"{_ENCODER}blocks.0.mlp.lin1.weight"].shape[0]
    global_blocks = tuple(i for i, side in enumerate(sides) if side == grid)
    window = windows[0] if windows else 14
    return ViTConfig(dim, depth, heads, global_blocks, patch, window, hidden / dim), grid * patch


def _tiny_vit(state: State) -> TinyViTConfig:
    layers = [f"{_ENCODER}layers.{i}.blocks." for i in range(4)]
    biases = [state[f"{layer}0.attn.attention_biases"] for layer in layers[1:]]
    first = state[f"{layers[0]}0.conv1.c.weight"]
    dims = [first.shape[1], *(state[f"{layer}0.attn.norm.weight"].shape[0] for layer in layers[1:])]
    hidden = state[f"{layers[1]}0.mlp.fc1.weight"].shape[0]
    # the first stage has neither heads nor window; its entries only follow the published pattern
    heads = [max(1, biases[0].shape[0] // 2), *(bias.shape[0] for bias in biases)]
    windows = [math.isqrt(biases[0].shape[1]), *(math.isqrt(bias.shape[1]) for bias in biases)]
    return TinyViTConfig(
        _four(dims),
        _four([_count(state, layer) for layer in layers]),
        _four(heads),
        _four(windows),
        mlp_ratio=hidden / dims[1],
        expand_ratio=first.shape[0] / first.shape[1],
    )


def _pyramid(state: State) -> PyramidConfig:
    stages = [f"{_ENCODER}stages.{i}." for i in range(4)]
    widths = [state[f"{stage}0.conv1.0.weight"].shape[0] for stage in stages]
    stem = state[f"{_ENCODER}stem.0.0.weight"].shape[0]
    return PyramidConfig(stem, _four(widths), _four([_count(state, stage) for stage in stages]))


def _four(values: list[int]) -> tuple[int, int, int, int]:
    first, second, third, fourth = values
    return first, second, third, fourth


def _prompt_dim(state: State) -> int:
    return state[f"{_PROMPT}no_mask_embed.weight"].shape[1]


def _prompt(state: State) -> PromptEncoderConfig:
    return PromptEncoderConfig(state[f"{_PROMPT}mask_downscaling.3.weight"].shape[0])


def _decoder(state: State) -> MaskDecoderConfig:
    first = f"{_DECODER}transformer.layers.0."
    inner = state[f"{first}cross_attn_token_to_image.q_proj.weight"].shape[0]
    return MaskDecoderConfig(
        depth=_count(state, f"{_DECODER}transformer.layers."),
        mlp_dim=state[f"{first}mlp.lin1.weight"].shape[0],
        attention_downsample=_prompt_dim(state) // inner,
        multimask_outputs=state[f"{_DECODER}mask_tokens.weight"].shape[0] - 1,
        iou_head_depth=_count(state, f"{_DECODER}iou_prediction_head.layers."),
        iou_head_dim=state[f"{_DECODER}iou_prediction_head.layers.0.weight"].shape[0],
    )
