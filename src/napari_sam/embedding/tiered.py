"""A quick store in front of a lasting one."""

from __future__ import annotations

from collections.abc import Iterable

from napari_sam.core.arrays import FloatArray
from napari_sam.core.keys import EmbeddingKey
from napari_sam.core.protocols import EmbeddingStore
from napari_sam.errors import EmbeddingNotFoundError


class TieredStore:
    """Reads from `memory` and falls through to `disk`; writes to both.

    Parameters
    ----------
    memory, disk : EmbeddingStore
        The quick store and the lasting one.
    """

    def __init__(self, memory: EmbeddingStore, disk: EmbeddingStore) -> None:
        self.memory = memory
        self.disk = disk

    def get(self, key: EmbeddingKey) -> FloatArray:
        """(C, h, w) array. Raises EmbeddingNotFoundError or EmbeddingCorruptError."""
        try:
            return self.memory.get(key)
        except EmbeddingNotFoundError:
            array = self.disk.get(key)
        self.memory.put(key, array)
        return array

    def put(self, key: EmbeddingKey, array: FloatArray) -> None:
        """Keep an array in both tiers; in none if the lasting one fails."""
        self.disk.put(key, array)
        self.memory.put(key, array)

    def __contains__(self, key: EmbeddingKey) -> bool:
        return key in self.memory or key in self.disk

    def discard(self, keys: Iterable[EmbeddingKey]) -> None:
        """Forget these records in both tiers."""
        listed = list(keys)
        self.memory.discard(listed)
        self.disk.discard(listed)
