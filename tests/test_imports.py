"""Importing the package stays cheap, and the rooms keep to their libraries."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "napari", "qtpy", "zarr", "dask", "scipy", "skimage", "matplotlib")


def modules_after(statement: str) -> set[str]:
    """Names of the top-level modules that a fresh interpreter has loaded after `statement`."""
    code = f"import sys; {statement}; print(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "statement", ["import napari_sam", "import napari_sam.core.protocols, napari_sam.errors"]
)
def test_importing_the_package_loads_nothing_heavy(statement: str) -> None:
    assert not modules_after(statement) & set(HEAVY)


@pytest.mark.parametrize("room", ["core", "embedding", "io", "propagation.engine"])
def test_rooms_without_torch_do_not_load_it(room: str) -> None:
    assert "torch" not in modules_after(f"import napari_sam.{room}")


@pytest.mark.parametrize(
    "room", ["inference.predictor", "propagation.api", "session", "cli", "training", "io.save"]
)
def test_rooms_below_the_plugin_load_neither_napari_nor_qt(room: str) -> None:
    assert not modules_after(f"import napari_sam.{room}") & {"napari", "qtpy", "PyQt6", "superqt", "magicgui"}
