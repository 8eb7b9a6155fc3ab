"""Label arrays on disk: chunked for painting in planes, and for carrying objects through them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import DTypeLike
from zarr.codecs import BloscCodec

from napari_sam.errors import ExportError, VolumeError
from napari_sam.io.readers.ome_zarr import GEOMETRY_ATTRIBUTE
from napari_sam.io.units import parse_unit

CHUNK_SIDE, CHUNK_DEPTH = 256, 8
"""Sides of a chunk in Y and X, and its planes. A brush stroke rewrites each chunk it touches, so chunks stay small;
an object that is carried, or taken back, crosses many planes, so they are not flat."""

LABEL_CODEC = BloscCodec(cname="lz4", clevel=5, shuffle="noshuffle")
"""Labels are long runs of equal numbers: this takes a third of the time of zstd, and a few times the little space."""

QUICK = {"write_empty_chunks": True}
"""Looking whether a chunk has become empty takes longer than compressing and writing it."""


def smallest_label_dtype(max_id: int) -> np.dtype[Any]:
    """The smallest unsigned integer type that holds the labels 0 to `max_id`.

    Raises
    ------
    ExportError
        If `max_id` is negative.
    """
    if max_id < 0:
        raise ExportError(f"labels must not be negative, got {max_id}; 0 is background, objects count from 1")
    size = np.min_scalar_type(int(max_id)).itemsize
    return np.dtype(f"u{size}")  # by its size: NumPy has two types of 8 bytes, and zarr knows one


def label_chunks(shape: Sequence[int]) -> tuple[int, ...]:
    """Chunks of at most `CHUNK_DEPTH` planes of `CHUNK_SIDE` squared, for an array (..., Z, Y, X) or (Y, X)."""
    most = (1, CHUNK_DEPTH, CHUNK_SIDE, CHUNK_SIDE)[-len(shape) :]
    return tuple(min(side, max(1, int(n))) for side, n in zip(most, shape, strict=True))


def create_labels(
    path: str | Path,
    shape_zyx: Sequence[int],
    dtype: DTypeLike = "uint32",
    chunks: Sequence[int] | None = None,
    *,
    spacing_zyx: Sequence[float] = (1.0, 1.0, 1.0),
    translate_zyx: Sequence[float] = (0.0, 0.0, 0.0),
    unit: str = "",
) -> zarr.Array:
    """Make an empty label array on disk (zarr v3) and open it for reading and writing.

    Nothing but metadata is written: absent chunks read as background.

    Parameters
    ----------
    path : path
        Folder to make; its name usually ends in ``.zarr``. Must not exist.
    shape_zyx : sequence of int
        (Y, X), (Z, Y, X) or (T, Z, Y, X).
    dtype : dtype
        Unsigned integer.
    chunks : sequence of int, optional
        Eight planes of 256 by 256 by default.
    spacing_zyx, translate_zyx : (float, float, float)
        Physical voxel size and centre of the first voxel, kept as attributes.
    unit : str
        Unit of both, such as "micrometer".

    Raises
    ------
    ExportError
        If something is at `path`, the dtype is not an unsigned integer, the shape is not usable, or the
        folder cannot be made.
    """
    target, kind = Path(path), np.dtype(dtype)
    shape = tuple(int(n) for n in shape_zyx)
    if kind.kind != "u":
        raise ExportError(f"labels are unsigned integers, got dtype {kind}; use 'uint32'")
    if not 2 <= len(shape) <= 4 or min(shape) < 1:
        raise ExportError(f"labels need a shape (Y, X), (Z, Y, X) or (T, Z, Y, X) without zeros, got {shape}")
    if target.exists():
        raise ExportError(f"{target} exists; choose another name, or open it with open_labels")
    geometry = {
        "spacing_zyx": [float(v) for v in spacing_zyx],
        "translate_zyx": [float(v) for v in translate_zyx],
        "unit": parse_unit(unit),
    }
    try:
        return zarr.create_array(
            target,
            shape=shape,
            dtype=kind,
            chunks=tuple(chunks) if chunks is not None else label_chunks(shape),
            compressors=LABEL_CODEC,
            fill_value=0,
            config=QUICK,
            dimension_names=list("tzyx"[-len(shape) :]),
            attributes={GEOMETRY_ATTRIBUTE: geometry},
        )
    except OSError as error:
        raise ExportError(
            f"cannot make the label array {target}: {error}; choose a folder you can write to"
        ) from error


def open_labels(path: str | Path) -> zarr.Array:
    """Open a label array on disk for reading and writing.

    Raises
    ------
    VolumeError
        If there is no zarr array of unsigned integers at `path`.
    """
    target = Path(path)
    try:
        array = zarr.open_array(target, mode="r+")
    except (OSError, ValueError, KeyError) as error:
        raise VolumeError(f"no label array at {target}: {error}; make one with create_labels") from error
    if np.dtype(array.dtype).kind != "u":
        raise VolumeError(f"{target} holds {array.dtype}, not labels; labels are unsigned integers")
    return array.with_config(QUICK)
