"""The older, unrelated plugin whose import package has our name."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

from napari_sam.errors import DependencyError


def check_no_namesake() -> None:
    """Raise DependencyError if the older distribution with our package's name is installed."""
    try:
        version = distribution("napari-sam").version
    except PackageNotFoundError:
        return
    raise DependencyError(
        f"the older plugin napari-sam {version} is installed; its package has the same name as this one and "
        "replaces parts of it. Run: pip uninstall napari-sam && pip install --force-reinstall "
        "napari-sam-volumes, then start again"
    )
