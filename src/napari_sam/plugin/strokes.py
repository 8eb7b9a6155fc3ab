"""What a user painted in a Labels layer of his own, from the history that napari keeps."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_sam.core.arrays import Array


def stroke(layer: Any, atoms: Any, axes: str) -> tuple[Array, Array, tuple[int, ...]] | None:
    """The block that a stroke changed.

    Parameters
    ----------
    layer : napari.layers.Labels
        After the stroke.
    atoms : sequence
        The value of its paint event, in order.
    axes : str
        One letter of TCZYX for each of the layer's dimensions.

    Returns
    -------
    (before, after, corner) or None
        (T, Z, Y, X) blocks and their first voxel; None if nothing was painted.
    """
    keys = [_key(atom) for atom in atoms]
    if not keys:
        return None
    low = [min(int(np.min(_bounds(key[i])[0])) for key in keys) for i in range(layer.ndim)]
    high = [max(int(np.max(_bounds(key[i])[1])) for key in keys) for i in range(layer.ndim)]
    after = np.asarray(layer.data[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
    before = after.copy()
    for atom, key in zip(reversed(atoms), reversed(keys), strict=True):
        _put_back(before[...], atom, key, low)
    return _as_tzyx(before, axes), _as_tzyx(after, axes), _corner(low, axes)


def _key(atom: Any) -> tuple[Any, ...]:
    return tuple(getattr(atom, "slice_key", None) or atom[0])


def _bounds(part: Any) -> tuple[Any, Any]:
    if isinstance(part, slice):
        return part.start, part.stop
    return part, np.asarray(part) + 1


def _put_back(block: Array, atom: Any, key: tuple[Any, ...], low: list[int]) -> None:
    inside = tuple(
        slice(p.start - a, p.stop - a) if isinstance(p, slice) else np.asarray(p) - a
        for p, a in zip(key, low, strict=True)
    )
    if not hasattr(atom, "slice_key"):
        block[inside] = atom[1]
    elif atom.mask is None:
        block[inside] = atom.old_values
    else:
        block[inside][atom.mask] = atom.old_values


def _as_tzyx(block: Array, axes: str) -> Array:
    """Axes in our order; of channels, which show the same labels, the first."""
    kept = [a for a in "TZYX" if a in axes]
    index = tuple(slice(None) if a in kept else 0 for a in axes)
    own = [a for a in axes if a in kept]
    part = block[index].transpose([own.index(a) for a in kept])
    return part.reshape(tuple(part.shape[kept.index(a)] if a in kept else 1 for a in "TZYX"))


def _corner(low: list[int], axes: str) -> tuple[int, ...]:
    return tuple(low[axes.index(a)] if a in axes else 0 for a in "TZYX")
