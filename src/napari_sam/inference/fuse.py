"""Making a loaded model quick for inference: batch normalisation folded into convolutions, memory format.

Both leave the answers the same to rounding. A fused model cannot be trained or saved any more, so the
digest of its weights is taken before.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_sam.inference.device import Runtime
from napari_sam.model.configs import ViTConfig
from napari_sam.model.sam import Sam


def prepare(sam: Sam, runtime: Runtime) -> Sam:
    """Move a model to its device, fused, frozen and in the memory format that its encoder is fastest in.

    Parameters
    ----------
    sam : Sam
        In `eval` mode; changed in place.
    runtime : Runtime
        Device and precision. Weights stay float32; a lower precision is applied by autocast while encoding.

    Returns
    -------
    Sam
        The same object.
    """
    sam.eval().requires_grad_(False)
    fuse_batch_norm(sam.image_encoder)
    sam.to(runtime.device)
    if is_convolutional(sam):
        sam.image_encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return sam


def is_convolutional(sam: Sam) -> bool:
    """Whether the encoder is built of convolutions, which like channels last in memory; a plain ViT is not."""
    return not isinstance(sam.config.encoder, ViTConfig)


def fuse_batch_norm(module: nn.Module) -> int:
    """Fold every batch normalisation into the convolution right before it; returns how many there were.

    Two siblings are "right before" each other when they are neighbours among the children of one module,
    which is how all encoders here are written.
    """
    children = list(module.named_children())
    count = 0
    for (name, first), (next_name, second) in pairwise(children):
        if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(first, second))
            setattr(module, next_name, nn.Identity())
            count += 1
    return count + sum(fuse_batch_norm(child) for _, child in module.named_children())
