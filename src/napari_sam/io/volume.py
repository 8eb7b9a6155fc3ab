"""`Volume`: any image, read lazily, one plane at a time.

A volume is seen as ``(T, Z, Y, X, C)`` whatever the order of its own axes is, and absent axes have
length 1. Opening reads metadata; `read_plane` reads the chunks that the plane crosses and no others.

>>> import numpy as np
>>> from napari_sam.core.planes import PlaneRef
>>> volume = open_volume(np.zeros((2, 30, 40, 50), "uint16"), axes="CZYX")
>>> volume.shape_zyx(), volume.n_channels
((30, 40, 50), 2)
>>> volume.read_plane(PlaneRef(axis=1, index=7)).shape
(30, 50, 2)
"""

from __future__ import annotations

import re
import warnings
import weakref
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import zarr

from napari_sam.core.arrays import Array
from napari_sam.core.planes import PlaneRef, Shape2D
from napari_sam.core.spaces import Level
from napari_sam.errors import InputWarning, VolumeError
from napari_sam.io.axes import (
    CHANNELS,
    DROPPED,
    SPATIAL,
    TRACKING,
    exchange_time,
    guess_axes,
    parse_axes,
    settle_axes,
    shape_zyx,
    size_of,
)
from napari_sam.io.readers.ome_zarr import read_zarr, read_zarr_path
from napari_sam.io.readers.pixels import Pixels, Triple, do_nothing
from napari_sam.io.readers.tiff import SUFFIXES, read_tiff
from napari_sam.io.units import parse_unit

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First voxel and last voxel + 1 along Z, Y, X."""

MissingChunks = Literal["warn", "error", "fill"]

_READ_ERRORS = (OSError, ValueError, RuntimeError, LookupError, TypeError, EOFError, zlib.error)
"""What codecs and file readers raise on damaged data."""


class Volume:
    """A lazy image. Made by `open_volume`; immutable; safe to read from several threads.

    A volume that was opened from a path can be pickled: the path is sent, and opened again. One in memory
    cannot, because its pixels would have to be sent.
    """

    def __init__(
        self, pixels: Pixels, axes: str, *, missing_chunks: MissingChunks = "warn", is_tracked: bool = False
    ) -> None:
        self._pixels = pixels
        self._axes = axes
        self.is_tracked = is_tracked
        """Whether T and Z are exchanged: "planes" along axis 0 are time points, "time points" planes along Z."""
        self.missing_chunks = missing_chunks
        self._warned = False
        self._recipe: tuple[str, dict[str, Any]] | None = None
        self._time: tuple[int, ...] | None = None
        self._channels: tuple[int, ...] | None = None
        self._parent: Volume | None = None
        _check_levels(pixels, axes)
        self._finalizer = weakref.finalize(self, pixels.close)

    # What is known about it

    @property
    def source(self) -> str | None:
        """Path it can be reopened from in another process, None for an array in memory."""
        return self._pixels.source

    @property
    def axes(self) -> str:
        """The source's own axes, one letter a dimension; ``_`` for one of length 1 that means nothing.

        With ":T" behind them where time points take the place of planes.
        """
        return exchange_time(self._axes) + TRACKING if self.is_tracked else self._axes

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels, in this machine's byte order."""
        own: np.dtype[Any] = np.dtype(self._pixels.levels[0].dtype)
        return own.newbyteorder("=")

    @property
    def n_levels(self) -> int:
        """Number of multiscale levels."""
        return len(self._pixels.levels)

    @property
    def levels(self) -> tuple[Any, ...]:
        """The source's own arrays with its own axes, full resolution first, whatever `subset` chose; lazy."""
        return self._pixels.levels

    @property
    def n_time(self) -> int:
        """Number of time points."""
        return len(self._time) if self._time is not None else self._size("T")

    @property
    def n_channels(self) -> int:
        """Number of channels of a plane."""
        return len(self._channels) if self._channels is not None else self._size(CHANNELS)

    @property
    def is_rgb(self) -> bool:
        """Whether the channels are red, green, blue (and alpha) of an 8 bit colour image."""
        if self.dtype != np.uint8 or self.n_channels not in (3, 4):
            return False
        if self._channels is not None and self._channels != tuple(range(self.n_channels)):
            return False
        return self._axes[-1] in CHANNELS if self._pixels.rgb is None else self._pixels.rgb

    @property
    def spacing_zyx(self) -> Triple:
        """Physical size of a level-0 voxel, in `unit`; 1.0 where unknown."""
        return self._pixels.spacing_zyx or (1.0, 1.0, 1.0)

    @property
    def translate_zyx(self) -> Triple:
        """Physical position of the centre of the first voxel, in `unit`."""
        return self._pixels.translate_zyx or (0.0, 0.0, 0.0)

    @property
    def unit(self) -> str:
        """UDUNITS-2 name such as "micrometer", or "" when unknown."""
        return self._pixels.unit

    @property
    def time_step(self) -> float:
        """Interval between time points, in `time_unit`; 1.0 where unknown."""
        return self._pixels.time_step

    @property
    def time_unit(self) -> str:
        """UDUNITS-2 name such as "second", or "" when unknown."""
        return self._pixels.time_unit

    def shape_zyx(self, level: int = 0) -> tuple[int, int, int]:
        """Voxels along Z, Y, X at a level."""
        self._check_level(level)
        return shape_zyx(self._axes, self._pixels.levels[level].shape)

    @property
    def level_places(self) -> tuple[Level, ...]:
        """How the voxels of each level lie among those of level 0: as the source says, else from the shapes."""
        shapes = [self.shape_zyx(level) for level in range(self.n_levels)]
        return self._pixels.places or tuple(Level.from_shapes(shapes[0], shape) for shape in shapes)

    def level_factors(self, level: int) -> Triple:
        """How many level-0 voxels one voxel of `level` spans along Z, Y, X."""
        self._check_level(level)
        return self.level_places[level].factor_zyx

    def plane_shape(self, axis: int, level: int = 0) -> Shape2D:
        """Height and width of the planes along `axis`."""
        height, width = (n for i, n in enumerate(self.shape_zyx(level)) if i != axis)
        return height, width

    # Reading

    def read_plane(self, plane: PlaneRef) -> Array:
        """Read one plane.

        Returns
        -------
        (H, W) or (H, W, C) array
            In the source's type; with a last axis where there is more than one channel.

        Raises
        ------
        VolumeError
            If the plane is not in the volume, or its data are damaged.
        """
        self._check_plane(plane)
        try:
            image = self._read(plane)
        except _READ_ERRORS as error:
            raise VolumeError(
                f"cannot read {plane} of {self._name}: {error}; the data may be damaged"
            ) from error
        self._report_missing(plane)
        return image

    def _read(self, plane: PlaneRef) -> Array:
        time = plane.time if self._time is None else self._time[plane.time]
        letter = SPATIAL[plane.axis]
        wanted: dict[str, int | slice] = {"T": time, letter: plane.index, DROPPED: 0}
        rows_cols = SPATIAL.replace(letter, "")
        block = read_section(self._pixels.levels[plane.level], self._axes, wanted, rows_cols + CHANNELS)
        height, width = self.plane_shape(plane.axis, plane.level)
        image = block.reshape(height, width, -1)
        if self._channels is not None:
            image = image[..., list(self._channels)]
        return image[..., 0] if image.shape[-1] == 1 else image

    def _report_missing(self, plane: PlaneRef) -> None:
        absent = self._pixels.missing()
        if not absent or self.missing_chunks == "fill" or (self._warned and self.missing_chunks == "warn"):
            return
        if not self._pixels.has_data():
            raise VolumeError(
                f"{self._name} has metadata but no data: not one chunk is stored; copy it again"
            )
        message = (
            f"{len(absent)} chunk(s) of {plane} are not stored in {self._name} (the first is {absent[0]!r})"
        )
        if self.missing_chunks == "error":
            raise VolumeError(
                f"{message}; copy the file again, or pass missing_chunks='fill' if it is sparse"
            )
        self._warned = True
        warnings.warn(
            f"{message} and read as the fill value; if the file is not sparse on purpose, copy it again",
            InputWarning,
            stacklevel=3,
        )

    def read_box(self, box_zyx: Box, *, time: int = 0, level: int = 0) -> Array:
        """Read a box of voxels: (z, y, x), with a last axis where there is more than one channel.

        Parameters
        ----------
        box_zyx : ((int, int), (int, int), (int, int))
            First voxel and last voxel + 1 along Z, Y, X; cut at the borders of the volume.
        time, level : int
            Time point and multiscale level.

        Raises
        ------
        VolumeError
            If the data are damaged.
        """
        self._check_level(level)
        wanted: dict[str, int | slice] = {a: slice(*b) for a, b in zip(SPATIAL, box_zyx, strict=True)}
        shape = [len(range(*slice(*b).indices(n))) for b, n in zip(box_zyx, self.shape_zyx(level))]
        wanted |= {"T": time if self._time is None else self._time[time], DROPPED: 0}
        try:
            block = read_section(self._pixels.levels[level], self._axes, wanted, SPATIAL + CHANNELS)
        except _READ_ERRORS as error:
            raise VolumeError(
                f"cannot read {box_zyx} of {self._name}: {error}; the data may be damaged"
            ) from error
        block = block.reshape(*shape, -1)
        block = block if self._channels is None else block[..., list(self._channels)]
        return block[..., 0] if block.shape[-1] == 1 else block

    # Making others of it

    def subset(
        self, *, time: int | Sequence[int] | None = None, channels: int | Sequence[int] | None = None
    ) -> Volume:
        """The same volume with some of its time points or channels, in the order given.

        Raises
        ------
        VolumeError
            If one of them does not exist, or none is left.
        """
        other = Volume(
            replace(self._pixels, close=do_nothing),
            self._axes,
            missing_chunks=self.missing_chunks,
            is_tracked=self.is_tracked,
        )
        other._recipe, other._parent = self._recipe, self
        other._time = _chosen("time point", time, self.n_time, self._time)
        other._channels = _chosen("channel", channels, self.n_channels, self._channels)
        return other

    def close(self) -> None:
        """Close the file, where there is one. Reading afterwards fails."""
        self._finalizer()

    def __enter__(self) -> Volume:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._recipe is None:
            raise VolumeError(
                "a volume in memory is not sent to other processes; save it as OME-Zarr and open it from its path"
            )
        return _reopen, (*self._recipe, self._time, self._channels)

    def __repr__(self) -> str:
        z, y, x = self.shape_zyx()
        return (
            f"<Volume {self._name}: T{self.n_time} Z{z} Y{y} X{x} C{self.n_channels} {self.dtype}, "
            f"{self.n_levels} level(s)>"
        )

    @property
    def _name(self) -> str:
        return self.source or "an array in memory"

    def _size(self, letters: str, level: int = 0) -> int:
        self._check_level(level)
        return size_of(letters, self._axes, self._pixels.levels[level].shape)

    def _check_level(self, level: int) -> None:
        if not 0 <= level < self.n_levels:
            raise VolumeError(f"level {level} is not there; {self._name} has levels 0 to {self.n_levels - 1}")

    def _check_plane(self, plane: PlaneRef) -> None:
        length = self.shape_zyx(plane.level)[plane.axis]
        if plane.index >= length:
            raise VolumeError(
                f"plane {plane.index} along {SPATIAL[plane.axis]} is not there; "
                f"at level {plane.level} of {self._name} they count from 0 to {length - 1}"
            )
        if plane.time >= self.n_time:
            raise VolumeError(
                f"time point {plane.time} is not there; {self._name} has 0 to {self.n_time - 1}"
            )


def open_volume(
    source: Any,
    axes: str | Sequence[str] | None = None,
    *,
    spacing: Sequence[float] | None = None,
    translate: Sequence[float] | None = None,
    unit: str | None = None,
    time_step: float | None = None,
    rgb: bool | None = None,
    missing_chunks: MissingChunks = "warn",
) -> Volume:
    """Open an image lazily.

    Parameters
    ----------
    source : path, array, sequence of arrays, zarr.Array or zarr.Group
        A path of a zarr, OME-Zarr (0.1 to 0.5) or TIFF; a numpy, dask or zarr array; or a list of such
        arrays, full resolution first, as napari keeps multiscale layers.
    axes : str, optional
        One letter a dimension: T time, C channel, Z, Y, X, S colour samples, in any order and case.
        Wins over what the file says. Needed for four and more dimensions of a source that does not say.
        ":T" behind them ("TYX:T"), or alone, makes time points the planes along axis 0, to track objects
        through time; `PlaneRef.time` then counts planes along Z, and `spacing_zyx` begins with the time step.
    spacing, translate : (float, float, float), optional
        Voxel size and centre of the first voxel along Z, Y, X. Win over what the file says.
    unit : str, optional
        Of both. Wins over what the file says.
    time_step : float, optional
        Interval between time points. Wins over what the file says.
    rgb : bool, optional
        Whether channels are colours. By default so if there are 3 or 4 of uint8 on the last axis.
    missing_chunks : {"warn", "error", "fill"}
        What to do about chunks of a zarr that are not stored: read as the fill value with an InputWarning
        once a volume, raise VolumeError, or read as the fill value.

    Returns
    -------
    Volume

    Raises
    ------
    AxesError
        If axes are needed, or do not fit the array.
    VolumeError
        If there is nothing at the path, it cannot be read, or holds no numbers.
    """
    pixels = _plausible(_read_source(source))
    given: dict[str, Any] = {"unit": parse_unit(unit)} if unit is not None else {}
    for name, value in (("spacing_zyx", spacing), ("translate_zyx", translate)):
        if value is not None:
            given[name] = _triple(name, value)
    given |= {k: v for k, v in (("rgb", rgb), ("time_step", time_step)) if v is not None}
    is_tracked = isinstance(axes, str) and axes.upper().endswith(TRACKING)
    try:
        pixels = replace(pixels, **given)
        letters = _settle(pixels, str(axes)[: -len(TRACKING)] or None if is_tracked else axes)
        if is_tracked:
            pixels, letters = _exchanged(pixels, letters), exchange_time(letters)
        volume = Volume(pixels, letters, missing_chunks=missing_chunks, is_tracked=is_tracked)
    except VolumeError:
        pixels.close()
        raise
    if pixels.source is not None:
        places = {"spacing": spacing, "translate": translate, "unit": unit, "time_step": time_step}
        volume._recipe = (
            pixels.source,
            {"axes": axes, **places, "rgb": rgb, "missing_chunks": missing_chunks},
        )
    return volume


def read_section(array: Any, axes: str, wanted: Mapping[str, int | slice], order: str) -> Array:
    """Read part of an array and bring its axes into an order.

    Parameters
    ----------
    array : array_like
        Anything with basic slicing; a dask array is computed.
    axes : str
        Its axes.
    wanted : mapping of str to int or slice
        What to take of each axis; all of one that is not named. Axes taken by an int disappear.
    order : str
        Order of the remaining axes; those that the array lacks are left out.

    Returns
    -------
    numpy.ndarray
        In this machine's byte order.
    """
    index = tuple(wanted.get(letter, slice(None)) for letter in axes)
    block = np.asarray(array[index])
    left = [letter for letter, part in zip(axes, index, strict=True) if isinstance(part, slice)]
    block = block.transpose([left.index(letter) for letter in order if letter in left])
    return block.astype(block.dtype.newbyteorder("="), copy=False)


def _read_source(source: Any) -> Pixels:
    if isinstance(source, (str, Path)):
        return _read_path(Path(source).expanduser())
    if isinstance(source, (zarr.Array, zarr.Group)):
        return read_zarr(source)
    if isinstance(source, (list, tuple)) or _is_multiscale(source):
        return _read_levels(list(source))
    if hasattr(source, "shape") and hasattr(source, "dtype"):
        return Pixels((source,))
    raise VolumeError(f"cannot open {type(source).__name__} as a volume; pass a path or an array")


def _is_multiscale(source: Any) -> bool:
    """Whether `source` is napari's own sequence of levels, which also has a shape."""
    return type(source).__name__ == "MultiScaleData"


def _read_path(path: Path) -> Pixels:
    name = path.name.lower()
    if not path.exists():
        if any(re.fullmatch(r"[a-z][a-z0-9+.-]+:", part) for part in path.parts):
            raise VolumeError(
                f"{path} is a URL, which is not read; download it, or pass a zarr that you opened"
            )
        raise VolumeError(f"there is no file or folder {path}; check the path")
    if path.is_dir() or name.endswith((".zip", ".ozx")):
        return read_zarr_path(path.absolute())
    if name.endswith(SUFFIXES):
        return read_tiff(path.absolute())
    raise VolumeError(f"{path} is neither a zarr nor a TIFF; convert it to OME-Zarr or OME-TIFF first")


def _read_levels(levels: list[Any]) -> Pixels:
    if not levels or not all(hasattr(level, "shape") and hasattr(level, "dtype") for level in levels):
        raise VolumeError("a list is opened as the levels of one multiscale image; all items must be arrays")
    return Pixels(tuple(levels))


def _settle(pixels: Pixels, axes: str | Sequence[str] | None) -> str:
    first = pixels.levels[0]
    if axes is not None:
        return parse_axes(axes, first.shape)
    return settle_axes(pixels.axes, first.shape) if pixels.axes else guess_axes(first.shape, first.dtype)


def _exchanged(pixels: Pixels, axes: str) -> Pixels:
    """Time in the place of Z. Only levels that keep every plane can be used."""
    if "T" not in axes:
        raise VolumeError(
            f"{pixels.source or 'the array'} has no time to track objects through: axes {axes!r}"
        )
    full = [size_of("Z", axes, level.shape) for level in pixels.levels]
    kept = tuple(level for level, n in zip(pixels.levels, full, strict=True) if n == full[0])
    z, y, x = pixels.spacing_zyx or (1.0, 1.0, 1.0)
    places = pixels.places and tuple(
        Level((1.0, *p.factor_zyx[1:]), (0.0, *p.offset_zyx[1:])) for p in pixels.places[: len(kept)]
    )
    return replace(
        pixels,
        levels=kept,
        places=places,
        spacing_zyx=(pixels.time_step, y, x),
        time_step=z,
        time_unit=pixels.unit,
    )


def _check_levels(pixels: Pixels, axes: str) -> None:
    name = pixels.source or "the array"
    for level, array in enumerate(pixels.levels):
        if np.dtype(array.dtype).kind not in "buif":
            raise VolumeError(f"{name} holds {array.dtype}; images are boolean, integer or real numbers")
        if 0 in array.shape:
            raise VolumeError(f"{name} is empty: level {level} has shape {tuple(array.shape)}")
        if len(array.shape) != len(axes):
            raise VolumeError(f"level {level} of {name} has {len(array.shape)} dimensions, axes are {axes!r}")
        for letter in "TCS":
            sizes = [size_of(letter, axes, a.shape) for a in (array, pixels.levels[0])]
            if sizes[0] != sizes[1]:
                raise VolumeError(
                    f"level {level} of {name} has {sizes[0]} along {letter}, level 0 has {sizes[1]}"
                )


def _plausible(pixels: Pixels) -> Pixels:
    """Forget a voxel size that cannot be one; programs write 0 where they know none."""
    size = pixels.spacing_zyx
    if size is None or (np.isfinite(size).all() and min(size) > 0):
        return pixels
    warnings.warn(
        f"voxel size {size} of {pixels.source} cannot be; 1 is used instead", InputWarning, stacklevel=3
    )
    return replace(pixels, spacing_zyx=None, unit="")


def _triple(name: str, values: Sequence[float]) -> Triple:
    numbers = [float(v) for v in values]
    good = len(numbers) == 3 and np.isfinite(numbers).all()
    if not good or (name == "spacing_zyx" and min(numbers) <= 0):
        raise VolumeError(
            f"{name} must be three finite numbers for Z, Y, X (sizes above 0), got {list(values)}"
        )
    z, y, x = numbers
    return z, y, x


def _chosen(
    what: str, wanted: int | Sequence[int] | None, count: int, before: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    """Indices into the source for a choice made among those that were chosen before."""
    if wanted is None:
        return before
    indices = [int(i) for i in (wanted if isinstance(wanted, Sequence) else [wanted])]
    bad = [i for i in indices if not 0 <= i < count]
    if bad or not indices:
        raise VolumeError(f"{what} {bad or 'none'} cannot be chosen; there are 0 to {count - 1}")
    return tuple(indices if before is None else (before[i] for i in indices))


def _reopen(
    source: str, options: dict[str, Any], time: Sequence[int] | None, channels: Sequence[int] | None
) -> Volume:
    volume = open_volume(source, **options)
    return volume if time is None and channels is None else volume.subset(time=time, channels=channels)
