"""The reference implementations behind one interface: weights out, prompts in, numbers out."""

import re
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
import torchvision_shim
from torch import Tensor, nn

Prompts = dict[str, Tensor | None]
"""points (B, N, 2), labels (B, N), boxes (B, 4), masks (B, 1, h, w); None where there is none."""

IGNORED = ("image_encoder.head.", "image_encoder.norm_head.")


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Draw every tensor, those that are zero or one when fresh too, so that nothing is compared trivially."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(_drawn(name, tensor, torch.randn(tensor.shape, generator=generator)))
    model.train().eval()  # TinyViT's package gathers its position biases on this step


def _drawn(name: str, fresh: Tensor, noise: Tensor) -> Tensor:
    if name.endswith("running_var"):
        return 0.5 + noise.abs()
    if fresh.ndim == 1:  # biases and the factors of normalisation
        return fresh + 0.2 * noise
    if any(part in name for part in ("rel_pos", "attention_biases", "pos_embed")):
        return 0.2 * noise
    if re.search(r"(_embed(dings)?(\.\d)?|_tokens?|_matrix|positional_embedding)(\.weight)?$", name):
        return noise
    return noise * fresh[0].numel() ** -0.5


class SegmentAnything:
    """`segment-anything` and MobileSAM's package, which share their interface."""

    def __init__(self, package: str, distribution: str, variant: str) -> None:
        self.package, self.distribution, self.variant = package, distribution, variant

    @property
    def title(self) -> str:
        return f"{self.distribution} {version(self.distribution)}"

    def build(self) -> None:
        torchvision_shim.install()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            registry = __import__(self.package).sam_model_registry
            torch.manual_seed(0)
            self.model = registry[self.variant]()
        randomise(self.model)

    def state(self) -> dict[str, Tensor]:
        return {k: v for k, v in self.model.state_dict().items() if not k.startswith(IGNORED)}

    def encode(self, image: Tensor) -> Tensor:
        return self.model.image_encoder(image)

    def embed_prompts(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        points = None if prompts["points"] is None else (prompts["points"], prompts["labels"])
        return self.model.prompt_encoder(points=points, boxes=prompts["boxes"], masks=prompts["masks"])

    def decode(
        self, embedding: Tensor, sparse: Tensor, dense: Tensor, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        pe = self.model.prompt_encoder.get_dense_pe()
        return self.model.mask_decoder(
            image_embeddings=embedding,
            image_pe=pe,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )


_TO_TRANSFORMERS = [
    (r"^image_encoder\.blocks\.", "vision_encoder.layers."),
    (r"^image_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
    (r"^image_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
    (r"^image_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
    (r"^image_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
    (r"^image_encoder\.patch_embed\.proj\.", "vision_encoder.patch_embed.projection."),
    (r"^image_encoder\.", "vision_encoder."),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.1\.", r"\1.layers.0."),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.2\.", r"\1.proj_out."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"pe_layer\.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
]


def to_transformers(key: str) -> str:
    """Name of a tensor in transformers' SamModel."""
    for pattern, replacement in _TO_TRANSFORMERS:
        key = re.sub(pattern, replacement, key)
    return key


@dataclass
class Transformers:
    """`SamModel` of transformers, with its names translated."""

    variant: str
    model: Any = None

    @property
    def title(self) -> str:
        return f"transformers {version('transformers')} SamModel"

    def build(self) -> None:
        torchvision_shim.install()
        from transformers import SamConfig, SamModel

        torch.manual_seed(0)
        self.model = SamModel(SamConfig())
        randomise(self.model)
        frequencies = self.model.prompt_encoder.shared_embedding.positional_embedding
        self.model.shared_image_embedding.positional_embedding.data.copy_(frequencies)

    def state(self) -> dict[str, Tensor]:
        from napari_sam.model.configs import CONFIGS
        from napari_sam.model.sam import build_sam

        with torch.device("meta"):
            names = list(build_sam(CONFIGS[self.variant]).state_dict())
        theirs = self.model.state_dict()
        left = set(theirs) - {to_transformers(name) for name in names}
        assert left <= {"shared_image_embedding.positional_embedding"}, f"without a counterpart: {left}"
        return {name: theirs[to_transformers(name)] for name in names}

    def encode(self, image: Tensor) -> Tensor:
        return self.model.vision_encoder(image)[0]

    def embed_prompts(self, prompts: Prompts) -> tuple[Tensor, Tensor]:
        def with_batch(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.unsqueeze(0)

        points, labels, boxes = (with_batch(prompts[key]) for key in ("points", "labels", "boxes"))
        sparse, dense = self.model.prompt_encoder(points, labels, boxes, prompts["masks"])
        if sparse is None:
            return dense.new_zeros(len(dense), 0, dense.shape[1]), dense
        count = sparse.shape[1]  # (image, prompt, token, C); dense is one an image
        return sparse[0], dense.expand(count, -1, -1, -1) if len(dense) == 1 else dense

    def decode(
        self, embedding: Tensor, sparse: Tensor, dense: Tensor, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        pe = self.model.get_image_wide_positional_embeddings()
        answers = [
            self.model.mask_decoder(
                image_embeddings=embedding,
                image_positional_embeddings=pe,
                sparse_prompt_embeddings=one[None, None],
                dense_prompt_embeddings=many[None],
                multimask_output=multimask,
            )
            for one, many in zip(sparse, dense, strict=True)
        ]
        logits, iou = (torch.cat([answer[i][0] for answer in answers]) for i in (0, 1))
        return logits, iou


def available() -> dict[str, Any]:
    """References whose packages are installed, by the name the command line uses."""
    known = {
        "segment-anything:vit_b": (
            "segment_anything",
            SegmentAnything("segment_anything", "segment-anything", "vit_b"),
        ),
        "mobile-sam:vit_t": ("mobile_sam", SegmentAnything("mobile_sam", "mobilesam-mirror", "vit_t")),
        "transformers:vit_b": ("transformers", Transformers("vit_b")),
        "segment-anything:vit_l": (
            "segment_anything",
            SegmentAnything("segment_anything", "segment-anything", "vit_l"),
        ),
        "segment-anything:vit_h": (
            "segment_anything",
            SegmentAnything("segment_anything", "segment-anything", "vit_h"),
        ),
    }
    return {name: reference for name, (package, reference) in known.items() if find_spec(package)}
