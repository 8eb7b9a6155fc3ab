"""Which parts of the planes of a zarr are stored, so that the rest, which reads as 0, need not be read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.core.sync import sync

from napari_sam.core.planes import BoxYXYX
from napari_sam.io.axes import SPATIAL
from napari_sam.io.readers.ome_zarr import local_path

_CHUNK = re.compile(r"(?:c[/.])?(\d+(?:[/.]\d+)*)")
"""Name of a chunk in any of zarr's encodings: "c/0/1/2", "c.0.1.2", "0/1/2", "0.1.2"."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredParts:
    """Around what is stored in the planes along Z of an array: outside, all is 0, at every time point.

    Parameters
    ----------
    boxes : mapping of int to (y0, x0, y1, x1)
        By index of the chunk along Z; none for those of which nothing is stored.
    depth : int
        Planes of a chunk.
    """

    boxes: Mapping[int, BoxYXYX]
    depth: int

    def box(self, z: int) -> BoxYXYX | None:
        """The smallest box of chunks in a plane outside of which all is 0; None if the whole plane is."""
        return self.boxes.get(z // self.depth)


def stored_parts(array: Any, axes: str) -> StoredParts | None:
    """Look which chunks of an array are stored.

    Parameters
    ----------
    array : array_like
        A zarr array in a folder; of others nothing is known.
    axes : str
        Its axes, one letter a dimension.

    Returns
    -------
    StoredParts or None
        None where anything may be anywhere: no zarr, absent chunks that are not 0, names of chunks that say nothing.
    """
    if not isinstance(array, zarr.Array) or array.fill_value != 0:
        return None
    if local_path(array) is None:  # other stores, such as the pages of a TIFF, need not list their chunks
        return None
    names = sync(_names(array))
    matches = [
        _CHUNK.fullmatch(name) for name in names if not name.rpartition("/")[2].startswith((".z", "zarr."))
    ]
    chunks = [tuple(map(int, re.split(r"[/.]", match[1]))) for match in matches if match]
    if len(chunks) < len(matches) or any(len(chunk) != array.ndim for chunk in chunks):
        return None
    size = _by_letter(axes, array.shards or array.chunks, 1)
    shape = _by_letter(axes, array.shape, 1)
    places = np.array([_by_letter(axes, chunk, 0) for chunk in chunks], np.intp).reshape(-1, 3)
    return StoredParts(
        {int(z): _box(places[places[:, 0] == z], size, shape) for z in set(places[:, 0])}, size[0]
    )


async def _names(array: zarr.Array) -> list[str]:
    """Keys below the array, without its path."""
    prefix = f"{array.path}/" if array.path else ""
    return [key.removeprefix(prefix) async for key in array.store.list_prefix(prefix)]


def _by_letter(axes: str, values: Any, absent: int) -> tuple[int, int, int]:
    """The values along Z, Y, X."""
    found = dict(zip(axes, values, strict=True))
    z, y, x = (int(found.get(letter, absent)) for letter in SPATIAL)
    return z, y, x


def _box(places: Any, size: tuple[int, int, int], shape: tuple[int, int, int]) -> BoxYXYX:
    """In voxels, around chunks of one index along Z."""
    low, high = places[:, 1:].min(0) * size[1:], (places[:, 1:].max(0) + 1) * size[1:]
    (y0, x0), (y1, x1) = low.tolist(), np.minimum(high, shape[1:]).tolist()
    return (y0, x0, y1, x1)
