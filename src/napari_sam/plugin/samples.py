"""Sample data for the File menu: two real volumes that come with the package."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_sam.core.planes import PlaneRef
from napari_sam.io.samples import sample_path
from napari_sam.io.volume import open_volume

LayerData = tuple[Any, dict[str, Any], str]


def chloroplasts() -> list[LayerData]:
    """Chloroplasts in electron microscopy, as an image layer."""
    return _sample("chloroplasts")


def ovule_nuclei() -> list[LayerData]:
    """Cell nuclei of an ovule in fluorescence, as an image layer."""
    return _sample("ovule_nuclei")


def _sample(name: str) -> list[LayerData]:
    """A sample as napari wants it; it is small, so it is read whole."""
    with open_volume(sample_path(name)) as volume:
        planes = [volume.read_plane(PlaneRef(0, z)) for z in range(volume.shape_zyx()[0])]
        attributes: dict[str, Any] = {"name": name.replace("_", " "), "scale": volume.spacing_zyx}
        if volume.unit:
            attributes["units"] = (volume.unit,) * 3
    return [(np.stack(planes), attributes, "image")]
