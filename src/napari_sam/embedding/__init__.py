"""Keeping what was computed: embeddings in memory, on disk, and one in front of the other."""

from napari_sam.embedding.default import CacheInfo, cache_dir, cache_info, clear_cache, default_store
from napari_sam.embedding.disk import ZarrStore
from napari_sam.embedding.memory import MemoryStore
from napari_sam.embedding.tiered import TieredStore

__all__ = [
    "CacheInfo",
    "MemoryStore",
    "TieredStore",
    "ZarrStore",
    "cache_dir",
    "cache_info",
    "clear_cache",
    "default_store",
]
