"""Changes of intensity that microscopes make: gain, contrast, polarity, noise, focus, colour."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_sam.core.arrays import Array

Rng = np.random.Generator
MILD = 0.15
"""Of the logarithm of gamma, where images change only mildly."""


def normalise(image: Array, low: float, high: float) -> Array:
    """Stretch the given percentiles of a float image to 0..1, clipped."""
    a, b = np.percentile(image[::3, ::3], (low, high))
    stretched: Array = np.clip((image - a) / max(float(b - a), 1e-3), 0, 1).astype(np.float32)
    return stretched


def three_channels(image: Array) -> Array:
    """(H, W) or (H, W, 3) to (H, W, 3): a grey image three times."""
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)


def stretch(image: Array, rng: Rng) -> Array:
    """To 0..1 by percentiles as inference does, or loosely, or clipping hard."""
    kind = rng.random()
    if kind < 0.3:
        return (image / 255).astype(np.float32)
    if kind < 0.75:
        return normalise(image, rng.uniform(0, 1), rng.uniform(99, 100))
    return normalise(image, rng.uniform(0, 8), rng.uniform(92, 100))


def gamma(image: Array, rng: Rng, spread: float) -> Array:
    """A power of the intensities, the logarithm of its exponent of this deviation."""
    exponent = np.exp(rng.normal(0, spread))
    return np.asarray(np.clip(image, 0, 1) ** np.float32(exponent), np.float32)


def curve(image: Array, rng: Rng) -> Array:
    """Gamma, and sometimes an S-curve."""
    result = gamma(image, rng, 0.4)
    if rng.random() < 0.15:
        result = 0.5 - 0.5 * np.cos(np.pi * result)
    return np.asarray(result, np.float32)


def shading(image: Array, rng: Rng) -> Array:
    """A brightness ramp across the crop."""
    height, width = image.shape[:2]
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.5)
    ramp = np.add.outer(np.linspace(-1, 1, height) * np.sin(angle), np.linspace(-1, 1, width) * np.cos(angle))
    gain = (1 + strength * ramp / 2).astype(np.float32)
    return np.asarray(np.clip(image * (gain if image.ndim == 2 else gain[..., None]), 0, 1), np.float32)


def noise(image: Array, rng: Rng) -> Array:
    """Gaussian noise with an optional share that grows with brightness, white or smooth."""
    sigma = np.exp(rng.uniform(np.log(0.01), np.log(0.15)))
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    if rng.random() < 0.3:
        width = rng.uniform(0.5, 1.2)
        grain = gaussian_filter(grain, (width, width, 0)[: image.ndim])
        grain /= grain.std() + 1e-6
    scale = np.sqrt(0.2 + image) if rng.random() < 0.5 else 1.0
    return np.asarray(np.clip(image + sigma * grain * scale, 0, 1), np.float32)


def blur(image: Array, rng: Rng) -> Array:
    """Out of focus."""
    width = rng.uniform(0.4, 1.8)
    return np.asarray(gaussian_filter(image, (width, width, 0)[: image.ndim]), np.float32)


def contrast(image: Array, rng: Rng) -> Array:
    """Less contrast around a random level."""
    keep, level = rng.uniform(0.35, 1.0), rng.uniform(0, 1)
    return np.asarray(image * keep + level * (1 - keep), np.float32)


def missing(image: Array, rng: Rng) -> Array:
    """A band without signal, as where a section is torn, folded or was not recorded."""
    angle, middle, half = rng.uniform(0, np.pi), rng.uniform(-0.6, 0.6), rng.uniform(0.02, 0.2)
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in image.shape[:2])
    band = np.abs(np.add.outer(y * np.sin(angle), x * np.cos(angle)) - middle) < half
    result = image.copy()
    result[band] = rng.choice([0.0, rng.random(), 1.0])
    return result


def colour(image: Array, rng: Rng) -> Array:
    """(H, W) or (H, W, 3) to (H, W, 3): grey for most, channels mixed, dropped or tinted for some."""
    if image.ndim == 3:
        kind = rng.random()
        if kind < 0.35:
            mix = rng.dirichlet(np.ones(3)).astype(np.float32)
            return three_channels(image @ mix)
        return image[..., rng.permutation(3)] if kind < 0.5 else image
    grey = three_channels(image)
    if rng.random() < 0.1:
        grey = (
            grey * rng.uniform(0.0, 1.0, 3).astype(np.float32) if rng.random() < 0.5 else grey * _one_hot(rng)
        )
    return np.asarray(grey, np.float32)


def _one_hot(rng: Rng) -> Array:
    mask = np.zeros(3, np.float32)
    mask[rng.integers(3)] = 1
    return mask


def augment(image: Array, rng: Rng, mild: bool = False) -> Array:
    """Change the intensities of a crop at random.

    Parameters
    ----------
    image : (H, W) or (H, W, 3) array
        Values 0..255.
    mild : bool
        As one microscope with the same settings varies: stretched as in inference, a little gamma.

    Returns
    -------
    (H, W, 3) float32 array, 0..255
    """
    if mild:
        return three_channels(gamma(normalise(np.asarray(image, np.float32), 0.1, 99.9), rng, MILD)) * 255
    result = stretch(np.asarray(image, np.float32), rng)
    if rng.random() < 0.3:
        result = 1 - result
    for change, share in (
        (curve, 0.5),
        (shading, 0.2),
        (blur, 0.2),
        (contrast, 0.3),
        (missing, 0.04),
        (noise, 0.4),
    ):
        if rng.random() < share:
            result = change(result, rng)
    return colour(result, rng) * 255
