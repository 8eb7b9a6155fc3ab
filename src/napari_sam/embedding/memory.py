"""Embeddings kept in memory, bounded in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

from napari_sam.core.arrays import FloatArray, frozen_array
from napari_sam.core.keys import EmbeddingKey
from napari_sam.errors import EmbeddingNotFoundError

GIB = 1024**3


class MemoryStore:
    """Least recently used embeddings, at most `max_bytes` of them. Safe to use from several threads.

    Parameters
    ----------
    max_bytes : int
        Bytes that the arrays may hold together. An array larger than that is not kept at all.
    """

    def __init__(self, max_bytes: int = GIB) -> None:
        self.max_bytes = max_bytes
        self._arrays: OrderedDict[EmbeddingKey, FloatArray] = OrderedDict()
        self._nbytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return self._nbytes

    def get(self, key: EmbeddingKey) -> FloatArray:
        """(C, h, w) array, read-only. Raises EmbeddingNotFoundError."""
        with self._lock:
            if key not in self._arrays:
                raise EmbeddingNotFoundError(f"no embedding {key.hex} in memory; encode the plane again")
            self._arrays.move_to_end(key)
            return self._arrays[key]

    def put(self, key: EmbeddingKey, array: FloatArray) -> None:
        """Keep an array and forget the least recently used ones that no longer fit."""
        kept = frozen_array(array)
        with self._lock:
            self._drop(key)
            self._arrays[key] = kept
            self._nbytes += kept.nbytes
            while self._nbytes > self.max_bytes:
                self._drop(next(iter(self._arrays)))

    def __contains__(self, key: EmbeddingKey) -> bool:
        with self._lock:
            return key in self._arrays

    def __len__(self) -> int:
        return len(self._arrays)

    def discard(self, keys: Iterable[EmbeddingKey]) -> None:
        """Forget these records."""
        with self._lock:
            for key in keys:
                self._drop(key)

    def _drop(self, key: EmbeddingKey) -> None:
        array = self._arrays.pop(key, None)
        if array is not None:
            self._nbytes -= array.nbytes
