"""Label arrays as a napari layer wants them: in the image layer's own dimensions, still lazy."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_sam.core.arrays import Array


class AxisView:
    """A lazy array with other axes over the same data.

    Axes that the underlying array lacks are repeated (every channel shows the same labels); axes that the
    view lacks are read at index 0. Reading and writing take integers and slices; index arrays work where
    the underlying array takes them.

    Parameters
    ----------
    array : array_like
        With basic slicing.
    array_axes, axes : str
        One letter a dimension, of the array and of the view.
    shape : tuple of int
        Of the view.
    """

    def __init__(self, array: Any, array_axes: str, axes: str, shape: tuple[int, ...]) -> None:
        self.array = array
        self.shape = shape
        self._array_axes, self._axes = array_axes, axes

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        own: np.dtype[Any] = np.dtype(self.array.dtype)
        return own

    @property
    def ndim(self) -> int:
        """Number of dimensions of the view."""
        return len(self.shape)

    def __getitem__(self, index: Any) -> Array:
        """Read a part."""
        wanted = self._split(index)
        block = np.asarray(self.array[self._inner(wanted)])
        if block.ndim == 0 or not self._is_basic(wanted):
            return self._repeated(block, wanted) if self._is_basic(wanted) else block
        inner = [a for a in self._array_axes if isinstance(wanted.get(a), slice)]
        outer = [a for a in self._axes if isinstance(wanted[a], slice)]
        block = block.transpose([inner.index(a) for a in outer if a in inner])
        return self._repeated(block, wanted)

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write a part; what an axis repeats is written once."""
        wanted = self._split(index)
        value = np.asarray(value)
        outer = [a for a in self._axes if isinstance(wanted[a], slice)]
        if self._is_basic(wanted) and value.ndim:
            value = np.broadcast_to(value, [self._length(a, wanted[a]) for a in outer])
            kept = [a for a in outer if a in self._array_axes]
            value = value[tuple(slice(None) if a in kept else 0 for a in outer)]
            value = value.transpose([kept.index(a) for a in self._array_axes if a in kept])
        self.array[self._inner(wanted)] = value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The whole, dense: only for small arrays and for libraries that insist."""
        return np.asarray(self[:], dtype)

    def _split(self, index: Any) -> dict[str, Any]:
        parts = list(index) if isinstance(index, tuple) else [index]
        if Ellipsis in [p for p in parts if p is Ellipsis]:
            at = next(i for i, p in enumerate(parts) if p is Ellipsis)
            parts[at : at + 1] = [slice(None)] * (self.ndim - len(parts) + 1)
        parts += [slice(None)] * (self.ndim - len(parts))
        return dict(zip(self._axes, parts, strict=True))

    def _inner(self, wanted: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(wanted.get(a, 0) for a in self._array_axes)

    @staticmethod
    def _is_basic(wanted: dict[str, Any]) -> bool:
        return all(isinstance(p, slice) or np.ndim(p) == 0 for p in wanted.values())

    def _length(self, axis: str, part: slice) -> int:
        return len(range(*part.indices(self.shape[self._axes.index(axis)])))

    def _repeated(self, block: Array, wanted: dict[str, Any]) -> Array:
        """Insert the axes that the array lacks."""
        outer = [a for a in self._axes if isinstance(wanted[a], slice)]
        new = [i for i, a in enumerate(outer) if a not in self._array_axes]
        if not new:
            return block
        shape = [self._length(a, wanted[a]) for a in outer]
        return np.broadcast_to(np.expand_dims(block, new), shape).copy()
