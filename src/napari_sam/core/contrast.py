"""From the grey values of a microscope to the 8 bit RGB that an image encoder expects.

One `Contrast` serves a whole volume: its bounds come from planes sampled all over it, so that the same
voxel value looks the same in every plane and nothing flickers from one plane to the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_sam.core.arrays import Array, FloatArray
from napari_sam.core.results import as_image
from napari_sam.errors import VolumeError

Mix = tuple[tuple[float, float, float], ...]

PERCENTILES = (0.1, 99.9)
MAX_SAMPLES = 1 << 22
"""At most about so many pixels a channel are sorted to find percentiles."""
NEARLY_FULL = 13
"""8 bit bounds that are this close to 0 and 255 count as 0 and 255."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """How the planes of a volume become (H, W, 3) uint8. Hashable, picklable, comparable.

    Parameters
    ----------
    lower, upper : tuple of float
        For each channel the values that become 0 and 255. Where they are equal, everything above is 255.
    mix : tuple of (float, float, float), optional
        For each channel its weights in red, green and blue. None: one channel is grey, three are red, green
        and blue, any other number is averaged into grey.
    is_rgb : bool
        The channels are colours: 8 bit planes pass unchanged, alpha is dropped.
    """

    lower: tuple[float, ...] = (0.0,)
    upper: tuple[float, ...] = (255.0,)
    mix: Mix | None = None
    is_rgb: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "lower", _floats(self.lower))
        object.__setattr__(self, "upper", _floats(self.upper))
        object.__setattr__(self, "mix", None if self.mix is None else _checked_mix(self.mix, len(self.lower)))
        object.__setattr__(self, "is_rgb", bool(self.is_rgb))
        bounds = np.array([self.lower, self.upper]) if len(self.lower) == len(self.upper) else np.zeros(0)
        if not bounds.size or not np.isfinite(bounds).all() or (bounds[0] > bounds[1]).any():
            raise VolumeError(
                f"contrast needs a finite lower bound <= upper bound for each channel; "
                f"got {self.lower} and {self.upper}"
            )
        if self.is_rgb and len(self.lower) not in (3, 4):
            raise VolumeError(f"an RGB image has 3 or 4 channels, not {len(self.lower)}")

    @classmethod
    def from_samples(
        cls,
        samples: Array | Iterable[Array],
        is_rgb: bool = False,
        percentiles: tuple[float, float] = PERCENTILES,
        mix: Mix | None = None,
    ) -> Contrast:
        """Bounds by percentiles of the finite pixels of all samples together, channel by channel.

        One hot pixel among a thousand or more does not move the bounds. Where the percentiles coincide
        (objects in less than a thousandth of the pixels) the extremes are taken. 8 bit images that use
        nearly the whole range keep 0 to 255, and so their exact pixels. The channels of an RGB image of
        another type share their bounds, which keeps its hues; 0 to 1 is kept for floats within it.

        Parameters
        ----------
        samples : iterable of (H, W) or (H, W, C) array, or one (n, C) array
            Planes, or parts of planes, from all over the volume; or n pixels of it. Any type.
        is_rgb : bool
            Whether the channels are colours.
        percentiles : (float, float)
            Of all pixels, 0 to 100.
        mix : tuple of (float, float, float), optional
            See `Contrast`.

        Raises
        ------
        VolumeError
            No sample was given, or samples differ in their number of channels.
        """
        if isinstance(samples, np.ndarray) and samples.ndim == 2:
            samples = [samples[:, None, :]]
        planes = [_channels_last(as_image(np.asarray(sample))) for sample in samples]
        if not planes or len({plane.shape[2] for plane in planes}) > 1:
            raise VolumeError(
                f"contrast needs at least one plane, all with the same channels; got {len(planes)} planes"
            )
        bounds = [
            _bounds([plane[..., c] for plane in planes], percentiles) for c in range(planes[0].shape[2])
        ]
        if is_rgb:
            bounds = [_colour_bounds(bounds[:3], planes[0].dtype)] * len(bounds)
        return cls(tuple(low for low, _ in bounds), tuple(high for _, high in bounds), mix, is_rgb)

    @property
    def n_channels(self) -> int:
        """Channels of the planes it is for."""
        return len(self.lower)

    @property
    def digest(self) -> str:
        """32 hexadecimal digits; equal for equal contrasts."""
        text = repr(("contrast 1", self.lower, self.upper, self.mix, self.is_rgb))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def only(self, channel: int) -> Contrast:
        """The same bounds, one channel shown as grey and the others left out."""
        return replace(
            self, mix=tuple((1.0,) * 3 if c == channel else (0.0,) * 3 for c in range(self.n_channels))
        )

    def apply(self, plane: Array) -> Array:
        """Convert a plane.

        Parameters
        ----------
        plane : (H, W) or (H, W, C) array
            bool, any integer or any float. NaN becomes the lower bound, infinities the nearest bound.

        Returns
        -------
        (H, W, 3) uint8 array

        Raises
        ------
        VolumeError
            The number of channels is not the one this contrast is for.
        """
        channels = _channels_last(as_image(np.asarray(plane)))
        if channels.shape[2] != self.n_channels:
            raise VolumeError(
                f"contrast is for {self.n_channels} channels, the plane has {channels.shape[2]}; "
                "estimate the contrast of this volume"
            )
        if self.is_rgb and channels.dtype == np.uint8 and self.mix is None:
            return np.ascontiguousarray(channels[..., :3])
        if self.mix is None and (self.is_rgb or self.n_channels == 3):
            return np.stack([self._stretched(channels, c) for c in range(3)], axis=2)
        if self.mix is None and self.n_channels == 1:
            return _grey(self._stretched(channels, 0))
        return self._mixed(channels)

    def _stretched(self, channels: Array, c: int) -> Array:
        return _stretch(channels[..., c], self.lower[c], self.upper[c])

    def _mixed(self, channels: Array) -> Array:
        weights = np.array(self.mix or [(1 / self.n_channels,) * 3] * self.n_channels, np.float32)
        columns = weights[:, :1] if (weights == weights[:, :1]).all() else weights
        total = np.full((*channels.shape[:2], columns.shape[1]), 0.5, np.float32)
        for c in np.flatnonzero(columns.any(axis=1)):
            total += self._stretched(channels, int(c))[..., None] * columns[c]
        mixed = np.clip(total, 0, 255, out=total).astype(np.uint8)
        return mixed if mixed.shape[2] == 3 else _grey(mixed[..., 0])


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) + 0.0 for value in values)


def _checked_mix(mix: Any, n_channels: int) -> Mix:
    weights = np.asarray(mix, np.float64)
    if weights.shape != (n_channels, 3) or not np.isfinite(weights).all():
        raise VolumeError(
            f"mix needs finite weights in red, green and blue for each of {n_channels} channels; got {mix}"
        )
    return tuple((r + 0.0, g + 0.0, b + 0.0) for r, g, b in weights.tolist())


def _channels_last(plane: Array) -> Array:
    return plane[..., None] if plane.ndim == 2 else plane


def _grey(plane: Array) -> Array:
    return np.repeat(plane, 3, axis=1).reshape(*plane.shape, 3)


def _bounds(parts: Sequence[Array], percentiles: tuple[float, float]) -> tuple[float, float]:
    step = max(sum(part.size for part in parts) // MAX_SAMPLES, 1)
    values = np.concatenate([part.ravel()[::step] for part in parts])
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(_sortable(values), percentiles).tolist()
    if parts[0].dtype == np.uint8 and low <= NEARLY_FULL and high >= 255 - NEARLY_FULL:
        return 0.0, 255.0
    return (low, high) if low < high else (float(values.min()), float(values.max()))


def _sortable(values: Array) -> Array:
    """Type in which percentiles can be interpolated: not bool, not half precision."""
    return values.astype(np.float64) if values.dtype.kind == "b" or values.dtype == np.float16 else values


def _colour_bounds(bounds: Sequence[tuple[float, float]], dtype: Any) -> tuple[float, float]:
    low, high = min(low for low, _ in bounds), max(high for _, high in bounds)
    is_unit = np.dtype(dtype).kind == "f" and low >= 0 and high <= 1
    return (0.0, 1.0) if is_unit else (low, high)


def _stretch(values: Array, low: float, high: float) -> Array:
    """(H, W) uint8: low and below to 0, high and above to 255, rounded half up."""
    if values.dtype.kind == "b" or (values.dtype.kind in "iu" and values.dtype.itemsize <= 2):
        return _by_table(values, low, high)
    return _by_arithmetic(values, low, high)


def _by_table(values: Array, low: float, high: float) -> Array:
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    unsigned = np.uint8 if values.dtype.itemsize == 1 else np.uint16
    every = np.arange(2 if values.dtype.kind == "b" else np.iinfo(unsigned).max + 1, dtype=unsigned)
    table = _by_arithmetic(every.view(values.dtype).astype(np.float64), low, high)
    looked_up: Array = table[values.view(unsigned)]
    return looked_up


def _by_arithmetic(values: Array, low: float, high: float) -> Array:
    half_range = high / 2 - low / 2  # halves, because the difference of two large floats may overflow
    if half_range == 0:
        return (values > high).astype(np.uint8) * np.uint8(255)
    dtype = np.float32 if values.dtype in (np.float16, np.float32) else np.float64
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        scaled: FloatArray = np.multiply(values, 0.5, dtype=dtype)
        scaled -= dtype(low / 2)
        scaled *= dtype(255 / half_range)
        scaled += dtype(0.5)
    np.clip(scaled, 0, 255, out=scaled)
    np.copyto(scaled, 0, where=np.isnan(scaled))
    return scaled.astype(np.uint8)
