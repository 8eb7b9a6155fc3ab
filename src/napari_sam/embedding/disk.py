"""Embeddings kept on disk: one zarr group, one array a record.

::

    embeddings.zarr/
        zarr.json                      the group
        3f/zarr.json                   a group of the records whose names begin with 3f
        3f/3f0a...e1/zarr.json         one record: (C, h, w) float16, its key and its checksum as attributes
        3f/3f0a...e1/c/0/0/0           its only chunk, uncompressed

A record is written under a temporary name and then renamed, so it is there whole or not at all, also
after ``kill -9`` and with several processes writing at once. The modification time of a record's
``zarr.json`` is the time of its last use; the size cap evicts the oldest ones.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
import time
import uuid
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
import zarr

from napari_sam.core.arrays import FloatArray, frozen_array
from napari_sam.core.keys import EmbeddingKey
from napari_sam.errors import (
    CacheWarning,
    EmbeddingCorruptError,
    EmbeddingNotFoundError,
    EmbeddingNotKeptError,
)

_HEX = set("0123456789abcdef")
_TEMPORARY = ".writing-"
_ABANDONED_AFTER_S = 3600.0
_CLEAR_AFTER_S = 60.0
_KEEP_FRACTION = 0.9
_MEASURE_FRACTION = 0.05
"""Of the size cap: after so much was written the folder is measured again, because others write into it as well."""


class ZarrStore:
    """Embeddings in one zarr v3 group. Safe to use from several threads and processes.

    Parameters
    ----------
    path : path-like
        Folder of the group; made when the first record is written.
    max_bytes : int, optional
        Size cap. When it is passed, the least recently used records go until a tenth of it is free. Several
        processes at once may pass it by a twentieth each.
    must_keep : bool
        Whether a record that cannot be written is an error instead of a warning.

    Warns
    -----
    CacheWarning
        Once, when records cannot be written (full disk, read-only folder); reading goes on.
    """

    def __init__(
        self, path: str | os.PathLike[str], max_bytes: int | None = None, must_keep: bool = False
    ) -> None:
        self.path = Path(path)
        self.max_bytes = max_bytes
        self.must_keep = must_keep
        self._lock = threading.Lock()
        self._nbytes: int | None = None
        self._since_measured = 0
        self._writable = True

    def get(self, key: EmbeddingKey) -> FloatArray:
        """(C, h, w) float16 array, read-only.

        Raises
        ------
        EmbeddingNotFoundError
            There is no such record.
        EmbeddingCorruptError
            The record is damaged; `discard` it and encode the plane again.
        """
        folder = self._folder(key)
        if not folder.is_dir():
            raise EmbeddingNotFoundError(f"no embedding {key.hex} in {self.path}; encode the plane again")
        try:
            array = _read_record(folder)
        except EmbeddingCorruptError:  # perhaps it was replaced between metadata and pixels: look again
            array = _read_record(folder)
        _touch(folder)
        return array

    def put(self, key: EmbeddingKey, array: FloatArray) -> None:
        """Keep an array at half precision; warns once when the disk refuses.

        Raises
        ------
        EmbeddingNotKeptError
            The disk refuses, and `must_keep`.
        """
        if not self._writable:
            return
        try:
            self._write(key, array)
        except OSError as error:
            if self.must_keep:
                raise EmbeddingNotKeptError(
                    f"embeddings cannot be kept in {self.path}: {error}; "
                    "free some space or choose another cache folder, then start again"
                ) from error
            self._writable = False
            warnings.warn(
                f"embeddings are no longer kept in {self.path}: {error}; work goes on from memory. "
                "Free some space or choose another cache folder, then start again",
                CacheWarning,
                stacklevel=2,
            )

    def __contains__(self, key: EmbeddingKey) -> bool:
        return _is_whole(self._folder(key))

    def discard(self, keys: Iterable[EmbeddingKey]) -> None:
        """Forget these records."""
        for key in keys:
            self._remove(self._folder(key))

    def records(self) -> Iterator[Path]:
        """Folders of all records."""
        for group in _children(self.path, 2):
            yield from _children(group, 40)

    def clear(self) -> int:
        """Forget all records and return how many bytes they held."""
        freed = 0
        for folder in list(self.records()):
            freed += record_bytes(folder)
            self._remove(folder)
        self._sweep(_CLEAR_AFTER_S)
        self._nbytes = 0
        return freed

    def _folder(self, key: EmbeddingKey) -> Path:
        return self.path / key.hex[:2] / key.hex

    def _write(self, key: EmbeddingKey, array: FloatArray) -> None:
        folder = self._folder(key)
        if _is_intact(folder):
            _touch(folder)
            return
        self._make_groups(folder.parent)
        temporary = self.path / f"{_TEMPORARY}{uuid.uuid4().hex}"
        try:
            _write_record(temporary, key, array)
            size = record_bytes(temporary)
            self._place(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self._account(size)

    def _place(self, temporary: Path, folder: Path) -> None:
        """Rename into place; what another writer has put there meanwhile stays, if it is whole."""
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            if not _is_intact(folder):
                self._remove(folder)
                temporary.rename(folder)

    def _make_groups(self, inner: Path) -> None:
        for group in (self.path, inner):
            if not (group / "zarr.json").is_file():
                group.mkdir(parents=True, exist_ok=True)
                _write_whole(group / "zarr.json", '{"zarr_format": 3, "node_type": "group"}')

    def _remove(self, folder: Path) -> None:
        """Take a record away in one step, then delete it."""
        if folder.exists():
            doomed = self.path / f"{_TEMPORARY}{uuid.uuid4().hex}"
            try:
                folder.rename(doomed)
            except FileNotFoundError:
                return
            shutil.rmtree(doomed, ignore_errors=True)

    def _account(self, added: int) -> None:
        if self.max_bytes is None:
            return
        with self._lock:
            self._since_measured += added
            if self._nbytes is None:
                self._sweep(_ABANDONED_AFTER_S)
            if self._nbytes is None or self._since_measured > _MEASURE_FRACTION * self.max_bytes:
                self._nbytes, self._since_measured = sum(map(record_bytes, self.records())), 0
            else:
                self._nbytes += added
            if self._nbytes > self.max_bytes:
                self._nbytes = self._evict(int(self.max_bytes * _KEEP_FRACTION))

    def _evict(self, limit: int) -> int:
        """Remove the least recently used records until at most `limit` bytes are left; returns these."""
        used = sorted((_last_use(folder), folder, record_bytes(folder)) for folder in self.records())
        total = sum(size for _, _, size in used)
        for _, folder, size in used[:-1]:
            if total <= limit:
                break
            self._remove(folder)
            total -= size
        return total

    def _sweep(self, older_than_s: float) -> None:
        """Delete what killed processes left half written."""
        if not self.path.is_dir():
            return
        for entry in self.path.iterdir():
            if entry.name.startswith(_TEMPORARY) and time.time() - _last_use(entry) >= older_than_s:
                shutil.rmtree(entry, ignore_errors=True)


def record_bytes(folder: Path) -> int:
    """Bytes of the files of one record; 0 if it is gone."""
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(base, name)).st_size
            except FileNotFoundError:
                continue
    return total


def record_key(folder: Path) -> dict[str, Any]:
    """The key a record was stored under, as plain data; empty if it cannot be read."""
    try:
        attributes = json.loads((folder / "zarr.json").read_bytes())["attributes"]
        return dict(attributes["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write_record(folder: Path, key: EmbeddingKey, array: FloatArray) -> None:
    values = _half(array)
    record = zarr.create_array(
        store=folder,
        shape=values.shape,
        chunks=values.shape,
        dtype=values.dtype,
        compressors=None,
        filters=None,
        zarr_format=3,
        attributes={"key": asdict(key), "xxh3_64": _checksum(values)},
        config={"write_empty_chunks": True},  # a record is told to be whole by its size
    )
    record[...] = values


def _read_record(folder: Path) -> FloatArray:
    try:
        record = zarr.open_array(store=folder, mode="r", zarr_format=3)
        values = np.asarray(record[...])
        wanted = record.attrs["xxh3_64"]
    except Exception as error:  # zarr raises many kinds on damaged metadata and chunks
        raise _not_readable(folder, error) from error
    if _checksum(values) != wanted:
        raise EmbeddingCorruptError(f"the embedding in {folder} does not match its checksum; it is damaged")
    return frozen_array(values)


def _is_whole(folder: Path) -> bool:
    """Whether a record's pixels are as long as they should be: a look, where `_is_intact` reads them all."""
    try:
        about = json.loads((folder / "zarr.json").read_bytes())
        wanted = math.prod(about["shape"]) * np.dtype(about["data_type"]).itemsize
        return bool(folder.joinpath("c", *["0"] * len(about["shape"])).stat().st_size == wanted)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_intact(folder: Path) -> bool:
    """Whether the same record is there already: then it stays, and nobody who reads it is disturbed."""
    if not _is_whole(folder):
        return False
    try:
        _read_record(folder)
    except (EmbeddingNotFoundError, EmbeddingCorruptError):
        return False
    return True


def _not_readable(folder: Path, error: Exception) -> Exception:
    if not folder.is_dir():
        return EmbeddingNotFoundError(f"the embedding in {folder} was removed while it was read")
    return EmbeddingCorruptError(f"the embedding in {folder} cannot be read: {error!r}; it is damaged")


def _half(array: FloatArray) -> FloatArray:
    """Half precision, or single where the values do not fit it."""
    values = np.ascontiguousarray(array)
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.isfinite(half).all() else values.astype(np.float32)


def _checksum(values: FloatArray) -> str:
    return str(xxhash.xxh3_64_hexdigest(np.ascontiguousarray(values).data))


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    temporary.write_text(text)
    temporary.replace(path)


def _children(folder: Path, length: int) -> list[Path]:
    """Sub-folders whose names are that many hexadecimal digits: only ours, never somebody's data."""
    if not folder.is_dir():
        return []
    return [child for child in folder.iterdir() if len(child.name) == length and set(child.name) <= _HEX]


def _last_use(folder: Path) -> float:
    for path in (folder / "zarr.json", folder):
        try:
            return path.stat().st_mtime
        except OSError:
            continue
    return 0.0


def _touch(folder: Path) -> None:
    """Note the use; in a read-only cache nobody evicts, so failing is harmless."""
    try:
        os.utime(folder / "zarr.json")
    except OSError:
        return
