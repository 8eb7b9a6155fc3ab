"""Sample data for the File menu: two real volumes that come with the package."""

from __future__ import annotations

from typing import Any

LayerData = tuple[Any, dict[str, Any], str]


def chloroplasts() -> list[LayerData]:
    """Chloroplasts in electron microscopy, as an image layer."""
    return _sample("chloroplasts")


def ovule_nuclei() -> list[LayerData]:
    """Cell nuclei of an ovule in fluorescence, as an image layer."""
    return _sample("ovule_nuclei")
