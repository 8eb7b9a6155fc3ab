"""Fixtures that every folder of tests uses."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real labelled images; skips where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("NAPARI_SAM_DATA", default))
    if not path.is_dir():
        pytest.skip(f"real data not found at {path}; set NAPARI_SAM_DATA")
    return path


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test's embeddings, sessions, downloads and models out of the user's own folders."""
    monkeypatch.setenv("NAPARI_SAM_MODELS", str(tmp_path / "napari-sam-models"))
    monkeypatch.setenv("NAPARI_SAM_CACHE", str(tmp_path / "napari-sam-cache"))
