"""Names of tensors against the published checkpoints, written out by pattern."""

import itertools

import pytest
import torch

from napari_sam.model.configs import CONFIGS
from napari_sam.model.sam import build_sam


def expand(*patterns):
    """'a.{0,1}.{x,y}' to all its combinations, like a shell."""
    names = set()
    for pattern in patterns:
        pieces = [piece.split("}") for piece in pattern.split("{")]
        head, rest = pieces[0][0], pieces[1:]
        choices = [[option + piece[1] for option in piece[0].split(",")] for piece in rest]
        names |= {head + "".join(chosen) for chosen in itertools.product(*choices)}
    return names


def span(count):
    return "{" + ",".join(map(str, range(count))) + "}"


WB = ".{weight,bias}"

PROMPT_ENCODER = expand(
    "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    "prompt_encoder.point_embeddings.{0,1,2,3}.weight",
    "prompt_encoder.{not_a_point_embed,no_mask_embed}.weight",
    "prompt_encoder.mask_downscaling.{0,1,3,4,6}" + WB,
)

MASK_DECODER = expand(
    "mask_decoder.{iou_token,mask_tokens}.weight",
    "mask_decoder.transformer.layers.{0,1}."
    "{self_attn,cross_attn_token_to_image,cross_attn_image_to_token}.{q,k,v,out}_proj" + WB,
    "mask_decoder.transformer.layers.{0,1}.{norm1,norm2,norm3,norm4,mlp.lin1,mlp.lin2}" + WB,
    "mask_decoder.transformer.final_attn_token_to_image.{q,k,v,out}_proj" + WB,
    "mask_decoder.transformer.norm_final_attn" + WB,
    "mask_decoder.output_upscaling.{0,1,3}" + WB,
    "mask_decoder.output_hypernetworks_mlps.{0,1,2,3}.layers.{0,1,2}" + WB,
    "mask_decoder.iou_prediction_head.layers.{0,1,2}" + WB,
)

NECK = expand("image_encoder.neck.{0,2}.weight", "image_encoder.neck.{1,3}" + WB)


def vit(depth):
    block = f"image_encoder.blocks.{span(depth)}."
    return NECK | expand(
        "image_encoder.pos_embed",
        "image_encoder.patch_embed.proj" + WB,
        block + "{norm1,norm2,attn.qkv,attn.proj,mlp.lin1,mlp.lin2}" + WB,
        block + "attn.{rel_pos_h,rel_pos_w}",
    )


def conv_norm(prefix):
    return expand(
        prefix + ".c.weight", prefix + ".bn.{weight,bias,running_mean,running_var,num_batches_tracked}"
    )


def tiny_vit():
    names = conv_norm("image_encoder.patch_embed.seq.{0,2}")
    names |= conv_norm("image_encoder.layers.0.blocks.{0,1}.conv{1,2,3}")
    names |= conv_norm("image_encoder.layers.{0,1,2}.downsample.conv{1,2,3}")
    for stage, depth in ((1, 2), (2, 6), (3, 2)):
        block = f"image_encoder.layers.{stage}.blocks.{span(depth)}."
        names |= conv_norm(block + "local_conv")
        names |= expand(
            block + "{attn.norm,attn.qkv,attn.proj,mlp.norm,mlp.fc1,mlp.fc2}" + WB,
            block + "attn.attention_biases",
        )
    return names | NECK


PUBLISHED = {"vit_b": vit(12), "vit_l": vit(24), "vit_h": vit(32), "vit_t": tiny_vit()}


def state_of(name):
    with torch.device("meta"):
        return build_sam(CONFIGS[name]).state_dict()


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_names_equal_the_published_checkpoints(name):
    expected = PUBLISHED[name] | PROMPT_ENCODER | MASK_DECODER
    assert set(state_of(name)) == expected


def test_number_of_tensors_in_vit_b():
    assert len(state_of("vit_b")) == 314


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        ("vit_b", "image_encoder.pos_embed", (1, 64, 64, 768)),
        ("vit_b", "image_encoder.blocks.0.attn.rel_pos_h", (27, 64)),
        ("vit_b", "image_encoder.blocks.2.attn.rel_pos_w", (127, 64)),
        ("vit_l", "image_encoder.blocks.5.attn.qkv.weight", (3072, 1024)),
        ("vit_h", "image_encoder.blocks.31.attn.rel_pos_h", (127, 80)),
        ("vit_t", "image_encoder.layers.2.blocks.5.attn.attention_biases", (5, 196)),
        ("vit_t", "image_encoder.layers.2.downsample.conv2.c.weight", (320, 1, 3, 3)),
        ("vit_t", "image_encoder.neck.0.weight", (256, 320, 1, 1)),
        ("vit_b", "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", (2, 128)),
        ("vit_b", "prompt_encoder.mask_downscaling.6.weight", (256, 16, 1, 1)),
        ("vit_b", "mask_decoder.transformer.layers.0.cross_attn_token_to_image.q_proj.weight", (128, 256)),
        ("vit_b", "mask_decoder.transformer.layers.1.mlp.lin1.weight", (2048, 256)),
        ("vit_b", "mask_decoder.output_upscaling.0.weight", (256, 64, 2, 2)),
        ("vit_b", "mask_decoder.output_upscaling.3.weight", (64, 32, 2, 2)),
        ("vit_b", "mask_decoder.output_hypernetworks_mlps.3.layers.2.weight", (32, 256)),
        ("vit_b", "mask_decoder.iou_prediction_head.layers.2.weight", (4, 256)),
    ],
)
def test_shapes_equal_the_published_checkpoints(name, key, shape):
    assert tuple(state_of(name)[key].shape) == shape
