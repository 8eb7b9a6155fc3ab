"""Where embeddings are kept when nobody says otherwise, and what is there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import psutil

from napari_sam.embedding.disk import ZarrStore, record_bytes, record_key
from napari_sam.embedding.memory import GIB, MemoryStore
from napari_sam.embedding.tiered import TieredStore

FOLDER_NAME = "embeddings.zarr"
MAX_DISK_BYTES = 50 * GIB
MAX_MEMORY_BYTES = 2 * GIB


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """What a cache folder holds.

    Parameters
    ----------
    path : Path
        The zarr group.
    n_records : int
        Embeddings, one a plane or tile.
    n_bytes : int
        Size on disk.
    max_bytes : int
        Size cap of the default store.
    bytes_by_model : mapping of str to int
        Size on disk of each "architecture digest".
    """

    path: Path
    n_records: int
    n_bytes: int
    max_bytes: int
    bytes_by_model: Mapping[str, int]


def cache_dir() -> Path:
    """Folder of everything this program caches: $NAPARI_SAM_CACHE, else the user's cache folder."""
    named = os.environ.get("NAPARI_SAM_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("napari-sam-volumes", appauthor=False))


def default_store(
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    max_bytes: int = MAX_DISK_BYTES,
    must_keep: bool = False,
) -> TieredStore:
    """Memory over disk.

    Parameters
    ----------
    cache_dir : path-like, optional
        Cache folder, for example one next to the data; the function `cache_dir` says which when left out.
    max_bytes : int
        Size cap on disk.
    must_keep : bool
        Whether an embedding that the disk does not take is an error; else work goes on from memory with a warning.

    Returns
    -------
    TieredStore
        A tenth of the machine's memory, at most 2 GiB, over ``folder/embeddings.zarr``.
    """
    memory = min(MAX_MEMORY_BYTES, psutil.virtual_memory().total // 10)
    return TieredStore(MemoryStore(memory), ZarrStore(_group(cache_dir), max_bytes, must_keep))


def cache_info(cache_dir: str | os.PathLike[str] | None = None) -> CacheInfo:
    """Count and measure the records of a cache folder."""
    store = ZarrStore(_group(cache_dir))
    sizes: Counter[str] = Counter()
    n_records = 0
    for record in store.records():
        key = record_key(record)
        name = f"{key.get('architecture', 'unreadable')} {str(key.get('model_digest', ''))[:12]}".strip()
        sizes[name] += record_bytes(record)
        n_records += 1
    return CacheInfo(store.path, n_records, sum(sizes.values()), MAX_DISK_BYTES, dict(sizes))


def clear_cache(cache_dir: str | os.PathLike[str] | None = None) -> int:
    """Delete all embeddings of a cache folder, nothing else in it; returns the bytes that were freed."""
    return ZarrStore(_group(cache_dir)).clear()


def _group(folder: str | os.PathLike[str] | None) -> Path:
    return (cache_dir() if folder is None else Path(folder)) / FOLDER_NAME
