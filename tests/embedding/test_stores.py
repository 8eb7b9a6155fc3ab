"""What every store promises, on each of them, and what the disk promises besides."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_sam.core.keys import EmbeddingKey
from napari_sam.embedding import MemoryStore, TieredStore, ZarrStore, cache_info, clear_cache, default_store
from napari_sam.embedding import disk as disk_module
from napari_sam.errors import (
    CacheWarning,
    EmbeddingCorruptError,
    EmbeddingNotFoundError,
    EmbeddingNotKeptError,
)


def key(number: int = 0) -> EmbeddingKey:
    return EmbeddingKey("weights", "micro", "float32", "c", 0, 0, (0, 0, 8, 8), f"pixels{number}", 1)


def array(number: int = 0) -> np.ndarray:
    return np.random.default_rng(number).normal(size=(16, 8, 8)).astype(np.float16)


@pytest.fixture(params=["memory", "disk", "tiered"])
def store(request, tmp_path):
    if request.param == "memory":
        return MemoryStore(10**6)
    if request.param == "disk":
        return ZarrStore(tmp_path / "store.zarr")
    return TieredStore(MemoryStore(10**6), ZarrStore(tmp_path / "store.zarr"))


def test_gives_back_what_was_put(store):
    store.put(key(), array())
    assert key() in store
    np.testing.assert_array_equal(store.get(key()), array())
    assert not store.get(key()).flags.writeable


def test_unknown_key(store):
    assert key() not in store
    with pytest.raises(EmbeddingNotFoundError, match="encode the plane again"):
        store.get(key())


def test_put_twice_and_discard(store):
    store.put(key(), array())
    store.put(key(), array())
    store.put(key(1), array(1))
    store.discard([key(), key(7)])
    assert key() not in store
    np.testing.assert_array_equal(store.get(key(1)), array(1))


def test_many_threads(store):
    def work(offset: int) -> None:
        for number in range(offset, offset + 8):
            store.put(key(number % 10), array(number % 10))
            np.testing.assert_array_equal(store.get(key(number % 10)), array(number % 10))

    failures: list[BaseException] = []
    old, threading.excepthook = threading.excepthook, lambda args: failures.append(args.exc_value)
    try:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = old
    missing = [f for f in failures if not isinstance(f, EmbeddingNotFoundError)]
    assert not missing
    np.testing.assert_array_equal(store.get(key(3)), array(3))


def test_memory_forgets_the_least_recently_used():
    store = MemoryStore(3 * array().nbytes)
    for number in range(3):
        store.put(key(number), array(number))
    store.get(key(0))
    store.put(key(3), array(3))
    assert [n for n in range(4) if key(n) in store] == [0, 2, 3]
    assert store.nbytes == 3 * array().nbytes
    store.put(key(4), np.zeros((64, 64, 64), np.float16))
    assert key(4) not in store
    assert store.nbytes == 0


def test_tiered_falls_through_and_remembers(tmp_path):
    disk = ZarrStore(tmp_path / "store.zarr")
    disk.put(key(), array())
    store = TieredStore(MemoryStore(10**6), disk)
    store.get(key())
    disk.discard([key()])
    np.testing.assert_array_equal(store.get(key()), array())


def test_disk_takes_at_most_half_of_float32(tmp_path):
    store = ZarrStore(tmp_path / "store.zarr")
    single = np.random.default_rng(0).normal(size=(256, 64, 64)).astype(np.float32)
    store.put(key(), single)
    assert store.get(key()).dtype == np.float16
    (record,) = store.records()
    assert disk_module.record_bytes(record) <= 0.5 * single.nbytes + 2048


def test_values_beyond_half_precision_are_kept_exactly(tmp_path):
    store = ZarrStore(tmp_path / "store.zarr")
    big = np.full((1, 2, 2), 1e6, np.float32)
    store.put(key(), big)
    np.testing.assert_array_equal(store.get(key()), big)


def test_is_a_zarr_hierarchy_that_others_can_walk(tmp_path):
    ZarrStore(tmp_path / "store.zarr").put(key(), array())
    group = zarr.open_group(tmp_path / "store.zarr", mode="r")
    inner = group[key().hex[:2]]
    record = inner[key().hex]
    np.testing.assert_array_equal(record[...], array())
    assert record.attrs["key"]["pixels"] == "pixels0"
    assert record.metadata.zarr_format == 3


def chunk_of(store: ZarrStore) -> Path:
    (record,) = store.records()
    return record / "c" / "0" / "0" / "0"


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "metadata", "attributes", "empty"])
def test_damaged_record_is_an_error(tmp_path, damage):
    store = ZarrStore(tmp_path / "store.zarr")
    store.put(key(), array())
    chunk = chunk_of(store)
    meta = chunk.parents[3] / "zarr.json"
    if damage == "truncated":
        chunk.write_bytes(chunk.read_bytes()[:100])
    elif damage == "flipped":
        content = bytearray(chunk.read_bytes())
        content[77] ^= 0x10
        chunk.write_bytes(content)
    elif damage == "missing":
        chunk.unlink()
    elif damage == "metadata":
        meta.write_text(meta.read_text()[:-30])
    elif damage == "empty":
        meta.write_text("")
    else:
        content = json.loads(meta.read_text())
        content["attributes"] = {}
        meta.write_text(json.dumps(content))
    with pytest.raises(EmbeddingCorruptError, match="damaged"):
        store.get(key())
    store.put(key(), array())
    np.testing.assert_array_equal(store.get(key()), array())


@pytest.mark.parametrize("size", [0, 100, None])
def test_a_record_that_is_cut_off_is_not_there(tmp_path, size):
    store = ZarrStore(tmp_path / "store.zarr")
    store.put(key(), np.zeros((16, 8, 8), np.float16))  # zarr leaves out chunks of zeros unless told
    assert key() in store
    chunk = chunk_of(store)
    chunk.unlink() if size is None else chunk.write_bytes(chunk.read_bytes()[:size])
    assert key() not in store
    store.put(key(), array())
    assert key() in store


def test_size_cap_evicts_the_least_recently_used(tmp_path):
    store = ZarrStore(tmp_path / "store.zarr")
    for number in range(6):
        store.put(key(number), array(number))
        os.utime(store.path / key(number).hex[:2] / key(number).hex / "zarr.json", (number, number))
    store.get(key(0))
    size = sum(map(disk_module.record_bytes, store.records()))
    capped = ZarrStore(store.path, max_bytes=int(size * 0.9))
    capped.put(key(9), array(9))
    assert key(0) in capped
    assert key(9) in capped
    assert key(1) not in capped
    assert sum(map(disk_module.record_bytes, store.records())) <= 0.9 * size


def test_size_cap_counts_what_others_write(tmp_path):
    cap = 60 * array().nbytes
    stores = [ZarrStore(tmp_path / "store.zarr", max_bytes=cap) for _ in range(3)]
    for number in range(90):
        stores[number % 3].put(key(number), array(number))
        assert sum(map(disk_module.record_bytes, stores[0].records())) <= 1.15 * cap


def test_full_disk_warns_once_and_goes_on_from_memory(tmp_path, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    store = TieredStore(MemoryStore(10**6), ZarrStore(tmp_path / "store.zarr"))
    store.put(key(), array())
    monkeypatch.setattr(disk_module, "_write_record", full)
    with pytest.warns(CacheWarning, match="No space left"):
        store.put(key(1), array(1))
    store.put(key(2), array(2))
    for number in range(3):
        np.testing.assert_array_equal(store.get(key(number)), array(number))
    assert [key(n) in store.disk for n in range(3)] == [True, False, False]
    assert [p.name for p in store.disk.path.iterdir() if p.name.startswith(".writing")] == []


def test_folder_that_cannot_be_made_warns_once(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    store = TieredStore(MemoryStore(10**6), ZarrStore(tmp_path / "file" / "store.zarr"))
    with pytest.warns(CacheWarning, match="another cache folder"):
        store.put(key(), array())
    store.put(key(1), array(1))
    np.testing.assert_array_equal(store.get(key(1)), array(1))


def test_what_must_be_kept_and_cannot_be_is_an_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    store = TieredStore(MemoryStore(10**6), ZarrStore(tmp_path / "file" / "store.zarr", must_keep=True))
    for _ in range(2):
        with pytest.raises(EmbeddingNotKeptError, match="choose another cache folder"):
            store.put(key(), array())
        assert key() not in store


WRITER = """
import sys, numpy as np
from napari_sam.core.keys import EmbeddingKey
from napari_sam.embedding import ZarrStore
store = ZarrStore(sys.argv[1])
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    key = EmbeddingKey("weights", "micro", "float32", "c", 0, 0, (0, 0, 8, 8), f"pixels{number}", 1)
    value = np.random.default_rng(number).normal(size=(16, 8, 8)).astype(np.float16)
    store.put(key, value)
    print(number, flush=True)
"""


def writer(path: Path, first: int, last: int) -> subprocess.Popen:
    command = [sys.executable, "-c", WRITER, str(path), str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_killed_while_writing_leaves_only_whole_records(tmp_path):
    path = tmp_path / "store.zarr"
    with writer(path, 0, 100000) as process:
        for _ in range(15):
            process.stdout.readline()
        time.sleep(0.013)
        process.send_signal(signal.SIGKILL)
    store = ZarrStore(path)
    found = [number for number in range(3000) if key(number) in store]
    assert len(found) >= 15
    for number in found:
        np.testing.assert_array_equal(store.get(key(number)), array(number))
    store.put(key(len(found)), array(len(found)))
    np.testing.assert_array_equal(store.get(key(len(found))), array(len(found)))


def test_two_processes_write_the_same_records_at_once(tmp_path):
    path = tmp_path / "store.zarr"
    with writer(path, 0, 40) as one, writer(path, 0, 40) as two:
        assert (one.wait(), two.wait()) == (0, 0)
    store = ZarrStore(path)
    for number in range(40):
        np.testing.assert_array_equal(store.get(key(number)), array(number))
    assert len(list(store.records())) == 40
    assert not [p for p in path.iterdir() if p.name.startswith(".writing")]


def test_cache_info_and_clear_touch_only_what_is_ours(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "image.tif").write_bytes(b"mine")
    store = default_store(cache_dir=folder)
    for number in range(3):
        store.put(key(number), array(number))
    (folder / "embeddings.zarr" / "notes").mkdir()
    info = cache_info(folder)
    assert info.n_records == 3
    assert info.n_bytes > 3 * array().nbytes
    assert list(info.bytes_by_model) == ["micro weights"]
    assert clear_cache(folder) == info.n_bytes
    assert cache_info(folder).n_records == 0
    assert (folder / "image.tif").read_bytes() == b"mine"
    assert (folder / "embeddings.zarr" / "notes").is_dir()


def test_default_store_is_in_the_named_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("NAPARI_SAM_CACHE", str(tmp_path / "elsewhere"))
    store = default_store()
    assert store.disk.path == tmp_path / "elsewhere" / "embeddings.zarr"
    assert cache_info().n_records == 0
    assert not store.disk.path.exists()
