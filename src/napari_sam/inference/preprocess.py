"""Pixels to the tensor that an image encoder takes.

Families of checkpoints were trained with different recipes (`InputRecipe`); feeding one with another's
costs accuracy. All begin with 8 bit RGB, which a `Contrast` makes of any image.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_sam.core import spaces
from napari_sam.core.arrays import Array
from napari_sam.core.contrast import Contrast
from napari_sam.core.models import InputRecipe
from napari_sam.core.planes import Shape2D
from napari_sam.core.results import as_image
from napari_sam.model.configs import SamConfig

_EPS = 1e-7


def looks_rgb(image: Array) -> bool:
    """Whether an image without metadata is taken for colour: 8 bit with three or four channels."""
    return image.ndim == 3 and image.shape[2] in (3, 4) and image.dtype == np.uint8


def to_rgb(image: Array) -> Array:
    """(H, W) or (H, W, C) of any dtype to (H, W, 3) uint8, for an image that stands alone."""
    image = as_image(np.asarray(image))
    contrast = Contrast.from_samples([image], is_rgb=looks_rgb(image))
    return contrast.apply(image)


def stretched(image: Array) -> Array:
    """Minimum to maximum of each channel to 0..255, truncated: what micro-sam's models were trained with.

    Grey is repeated three times, a third channel is added to two as zeros, channels after the third are
    left out.
    """
    channels = image[..., None] if image.ndim == 2 else image[..., :3]
    values = np.nan_to_num(channels.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = values.min((0, 1)), values.max((0, 1))
    scaled = ((values - low) / (high - low + _EPS) * 255).astype(np.uint8)
    if scaled.shape[2] == 1:
        return np.repeat(scaled, 3, axis=2)
    missing = 3 - scaled.shape[2]
    return np.pad(scaled, ((0, 0), (0, 0), (0, missing)))


def resized_shape(shape: Shape2D, image_size: int, recipe: InputRecipe) -> Shape2D:
    """Height and width in model space: the longest side fills it, or both where the recipe is MedSAM's."""
    if recipe is InputRecipe.MEDSAM:
        return image_size, image_size
    return spaces.resized_shape(shape, image_size)


def to_tensor(rgb: Array, config: SamConfig, recipe: InputRecipe) -> Tensor:
    """Resize, normalise and pad one tile.

    For micro-sam's models its grey values are stretched first, tile by tile as micro-sam does: on top of the contrast,
    not of the raw values, so that one hot pixel does not darken a tile and a chosen channel stays chosen. They are
    fine-tuned on the same.

    Parameters
    ----------
    rgb : (H, W, 3) uint8 array
        Red, green, blue; contrast is applied already.
    config : SamConfig
        Input size, mean and standard deviation.
    recipe : InputRecipe
        What the weights were trained with.

    Returns
    -------
    (1, 3, image_size, image_size) float32 tensor
        Padded right and below with zeros, which after normalisation are the mean colour (SAM paper,
        appendix A).
    """
    if recipe is InputRecipe.MICRO_SAM:
        rgb = stretched(rgb)
    shape = resized_shape(rgb.shape[:2], config.image_size, recipe)
    image = resize(torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None].float(), shape, recipe)
    height, width = shape
    normalised = normalise(image, config, recipe)
    return F.pad(normalised, (0, config.image_size - width, 0, config.image_size - height))


def resize(image: Tensor, shape: Shape2D, recipe: InputRecipe) -> Tensor:
    """(1, 3, H, W) floats 0..255 to another size, smoothed where it shrinks, rounded to whole grey values."""
    if image.shape[-2:] == shape:
        return image
    mode = "bicubic" if recipe is InputRecipe.MEDSAM else "bilinear"
    out = F.interpolate(image, shape, mode=mode, align_corners=False, antialias=True)
    return out.round().clamp(0, 255)


def normalise(image: Tensor, config: SamConfig, recipe: InputRecipe) -> Tensor:
    """Mean and standard deviation, or minimum and maximum to 0..1 for MedSAM."""
    if recipe is InputRecipe.MEDSAM:
        low, high = image.min(), image.max()
        return (image - low) / (high - low).clamp(min=1e-8)
    mean = torch.tensor(config.pixel_mean).view(3, 1, 1)
    return (image - mean) / torch.tensor(config.pixel_std).view(3, 1, 1)
