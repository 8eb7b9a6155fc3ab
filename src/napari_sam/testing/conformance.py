"""Suites that every implementation of a seam must pass.

Derive a test class, give the fixture, and pytest collects the inherited tests::

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def store(self, tmp_path):
            return MyStore(tmp_path)
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from napari_sam.core.arrays import FloatArray
from napari_sam.core.keys import EmbeddingKey
from napari_sam.core.protocols import EmbeddingStore
from napari_sam.errors import EmbeddingNotFoundError


def example_key(**changes: Any) -> EmbeddingKey:
    """A plausible key; every argument replaces a field."""
    key = EmbeddingKey("0" * 32, "tiny", "float32", "c" * 32, 0, 0, (0, 0, 8, 8), "p" * 32, 1)
    return replace(key, **changes)


def example_record(seed: int = 0, shape: tuple[int, int, int] = (4, 8, 8)) -> FloatArray:
    """(C, h, w) float16 values that half precision keeps exactly."""
    record: FloatArray = np.random.default_rng(seed).normal(size=shape).astype(np.float16)
    return record


class StoreConformance:
    """What `napari_sam.core.protocols.EmbeddingStore` promises. Room for 40 kB is assumed."""

    @pytest.fixture
    def store(self) -> EmbeddingStore:
        """The store under test, empty."""
        raise NotImplementedError("a conformance suite needs a `store` fixture")

    def test_an_empty_store_has_nothing(self, store: EmbeddingStore) -> None:
        """A key that was never put is absent, by `in` and by `get`."""
        assert example_key() not in store
        with pytest.raises(EmbeddingNotFoundError):
            store.get(example_key())

    def test_what_was_put_comes_back(self, store: EmbeddingStore) -> None:
        """Half-precision values return exactly, in the same shape."""
        store.put(example_key(), example_record())
        assert example_key() in store
        np.testing.assert_array_equal(store.get(example_key()), example_record())

    def test_single_precision_comes_back_to_half_precision(self, store: EmbeddingStore) -> None:
        """A store may round to half precision, not more."""
        record = np.random.default_rng(1).normal(size=(4, 8, 8)).astype(np.float32)
        store.put(example_key(), record)
        np.testing.assert_allclose(store.get(example_key()), record, rtol=1e-3, atol=1e-3)

    def test_a_changed_source_does_not_change_the_record(self, store: EmbeddingStore) -> None:
        """Writing to the array after `put` is not seen by `get`."""
        record = example_record()
        store.put(example_key(), record)
        record[:] = 7
        np.testing.assert_array_equal(store.get(example_key()), example_record())

    def test_a_returned_record_cannot_spoil_the_store(self, store: EmbeddingStore) -> None:
        """What `get` returns is read-only or a copy."""
        store.put(example_key(), example_record())
        returned = store.get(example_key())
        if returned.flags.writeable:
            returned[:] = 7
        np.testing.assert_array_equal(store.get(example_key()), example_record())

    def test_putting_twice_is_harmless(self, store: EmbeddingStore) -> None:
        """The same key may be stored again."""
        for _ in range(2):
            store.put(example_key(), example_record())
        np.testing.assert_array_equal(store.get(example_key()), example_record())

    @pytest.mark.parametrize(
        "changes",
        [
            {"model_digest": "1" * 32},
            {"architecture": "other"},
            {"compute_dtype": "bfloat16"},
            {"contrast": "d" * 32},
            {"axis": 1},
            {"level": 1},
            {"tile_yxyx": (0, 8, 8, 16)},
            {"pixels": "q" * 32},
            {"preprocessing": 2},
            {"scale": 2},
            {"side": 1},
        ],
        ids=lambda changes: str(next(iter(changes))),
    )
    def test_every_field_of_the_key_counts(self, store: EmbeddingStore, changes: dict[str, Any]) -> None:
        """A key that differs in one field names another record."""
        other = example_key(**changes)
        store.put(example_key(), example_record(0))
        assert other not in store
        store.put(other, example_record(1))
        np.testing.assert_array_equal(store.get(example_key()), example_record(0))
        np.testing.assert_array_equal(store.get(other), example_record(1))

    def test_records_of_different_shapes_live_side_by_side(self, store: EmbeddingStore) -> None:
        """Models of different width share one store."""
        shapes = [(4, 8, 8), (1, 5, 9), (16, 4, 4)]
        for i, shape in enumerate(shapes):
            store.put(example_key(preprocessing=i), example_record(i, shape))
        for i, shape in enumerate(shapes):
            np.testing.assert_array_equal(store.get(example_key(preprocessing=i)), example_record(i, shape))

    def test_discarded_records_are_gone_and_unknown_keys_are_ignored(self, store: EmbeddingStore) -> None:
        """`discard` takes any iterable, also of keys that are not there."""
        first, second = example_key(), example_key(level=1)
        store.put(first, example_record())
        store.put(second, example_record())
        store.discard(key for key in (first, example_key(level=5)))
        assert first not in store
        assert second in store

    def test_many_threads_may_use_it_at_once(self, store: EmbeddingStore) -> None:
        """Concurrent writers and readers of the same records never see a wrong or partial one."""

        def use(i: int) -> bool:
            key, record = example_key(preprocessing=i % 5), example_record(i % 5)
            store.put(key, record)
            return bool(np.array_equal(store.get(key), record))

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(use, range(40)))
