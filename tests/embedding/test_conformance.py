"""The suite that every store must pass, on the three that ship."""

import pytest

from napari_sam.embedding import MemoryStore, TieredStore, ZarrStore
from napari_sam.testing.conformance import StoreConformance


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def store(self):
        return MemoryStore(10**6)


class TestZarrStore(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path):
        return ZarrStore(tmp_path / "store.zarr")


class TestTieredStore(StoreConformance):
    @pytest.fixture
    def store(self, tmp_path):
        return TieredStore(MemoryStore(10**6), ZarrStore(tmp_path / "store.zarr"))
