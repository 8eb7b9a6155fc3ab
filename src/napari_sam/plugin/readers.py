"""npe2 reader: OME-Zarr and OME-TIFF as layers that keep voxel size, place, unit and the names of the axes."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from npe2 import PluginManager

from napari_sam.errors import InputWarning
from napari_sam.io.axes import CHANNELS
from napari_sam.io.properties import Properties, read_properties
from napari_sam.io.readers.ome_zarr import is_label_image, is_zarr
from napari_sam.io.readers.tiff import SUFFIXES
from napari_sam.io.units import METERS, SECONDS
from napari_sam.io.volume import Volume, open_volume

LayerData = tuple[Any, dict[str, Any], str]

PLUGIN = "napari-sam-volumes"


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """The reader for a path; None if it is neither a zarr nor a TIFF, or if there are several."""
    if isinstance(path, list) and len(path) != 1:
        return None
    place = _only(path)
    return read_layers if is_zarr(place) or place.name.lower().endswith(SUFFIXES) else None


def read_layers(path: str | list[str]) -> list[LayerData]:
    """Open an image, or labels that stand alone, lazily as one layer with all its levels.

    Labels bring what is known about their objects, as features of the layer. A TIFF that knows objects holds labels.

    Raises
    ------
    VolumeError
        It cannot be read as one image.

    Warns
    -----
    InputWarning
        Its unit is none that napari knows; the layer has pixels.
    """
    place = _only(path)
    volume = open_volume(place)
    levels = list(volume.levels)
    weakref.finalize(levels[0], volume.close)  # the file stays open as long as the layer has its pixels
    data = levels if len(levels) > 1 else levels[0]
    known = read_properties(place)
    kind = "labels" if known or is_label_image(place) else "image"
    attributes = {"name": _name(place), "multiscale": len(levels) > 1, **_geometry(volume)}
    more = {"rgb": volume.is_rgb} if kind == "image" else {"features": _features(known)}
    return [(data, attributes | more, kind)]


def reader_for(path: str | Path) -> str:
    """Name of the plugin that should open a path, for ``viewer.open``: this one where it can, else napari."""
    manager = PluginManager.instance()
    found = {reader.plugin_name for reader in manager.iter_compatible_readers([str(path)])}
    return PLUGIN if PLUGIN in found else "napari"


def _features(known: Properties) -> dict[str, list[Any]]:
    """A column for the labels, as napari names it, and one for each property that any of them has."""
    names = dict.fromkeys(name for values in known.values() for name in values if name != "index")
    columns = {name: [values.get(name) for values in known.values()] for name in names}
    return {"index": list(known), **columns}


def _geometry(volume: Volume) -> dict[str, Any]:
    """Where a layer lies, one number for each of its dimensions."""
    axes = volume.axes
    if volume.is_rgb and axes[-1] in CHANNELS:
        axes = axes[:-1]
    scale = dict(zip("ZYX", volume.spacing_zyx)) | {"T": volume.time_step}
    translate = dict(zip("ZYX", volume.translate_zyx))
    units = dict.fromkeys("ZYX", _known(volume.unit, volume)) | {"T": _known(volume.time_unit, volume)}
    found: dict[str, Any] = {
        "scale": [scale.get(a, 1.0) for a in axes],
        "translate": [translate.get(a, 0.0) for a in axes],
        "units": [units.get(a) or "pixel" for a in axes],
    }
    return found | ({"axis_labels": tuple(axes.lower())} if axes.isalpha() else {})


def _known(unit: str, volume: Volume) -> str:
    """A unit that napari takes; none for one that a file made up, over which it would fail to make the layer."""
    if not unit or unit in METERS or unit in SECONDS:
        return unit
    warnings.warn(
        f"{volume.source} gives sizes in {unit!r}, which is no unit that is known; the layer has pixels of the same sizes",
        InputWarning,
        stacklevel=2,
    )
    return ""


def _only(path: str | list[str]) -> Path:
    return Path(path if isinstance(path, str) else path[0])


def _name(path: Path) -> str:
    """A file's name without its ending, the one before ``.ome`` where it has two."""
    return path.name.split(".ome.")[0] if ".ome." in path.name else path.stem
