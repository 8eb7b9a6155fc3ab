"""npe2 writers: napari's own Save dialog for Labels layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_sam.io.label_source import label_source
from napari_sam.io.save import save_labels
from napari_sam.io.units import SECONDS, parse_time_unit, parse_unit, unit_ratio


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write one Labels layer as OME-Zarr or OME-TIFF, by the ending of the file name.

    Parameters
    ----------
    path : str
        Where to; what napari's dialog let pass is replaced.
    data : array
        The layer's data, with 2 to 4 dimensions: time first where there are 4, or where the unit is one of time.
    attributes : dict
        The layer's attributes; scale, translate and units are kept, rotations cannot be.

    Returns
    -------
    list of str
        The path.

    Raises
    ------
    ExportError
        The labels could not be written.
    """
    data = data[0] if attributes.get("multiscale") else data
    count = np.ndim(data)
    units = [str(unit) for unit in _values(attributes, "units", count, "")]
    has_time = count > 3 or (count == 3 and parse_time_unit(units[0]) in SECONDS)
    scale = [abs(float(size)) for size in _values(attributes, "scale", count, 1.0)]
    translate = [float(shift) for shift in _values(attributes, "translate", count, 0.0)]
    own = [parse_unit(unit) for unit in units[has_time:]]
    ratios = [unit_ratio(unit, own[-1]) for unit in own]
    source = label_source(
        data,
        axes="T" + "ZYX"[1 - count :] if has_time else None,
        spacing_zyx=_in_zyx(scale[has_time:], ratios, 1.0),
        translate_zyx=_in_zyx(translate[has_time:], ratios, 0.0),
        unit=own[-1],
        time_step=scale[0] if has_time else None,
    )
    if has_time:
        source = replace(source, time_unit=parse_time_unit(units[0]))
    target = Path(path)
    return [str(save_labels(source, target, overwrite=target.exists()))]


def _values(attributes: dict[str, Any], name: str, count: int, default: Any) -> list[Any]:
    """One value a dimension; a layer that says less says it of the last ones."""
    given = attributes.get(name)
    values = [] if given is None else list(given)[-count:]
    return [default] * (count - len(values)) + values


def _in_zyx(values: Sequence[float], ratios: Sequence[float], absent: float) -> list[float]:
    """Values along Z, Y, X in one unit."""
    converted = [value * ratio for value, ratio in zip(values, ratios, strict=True)]
    return [absent] * (3 - len(converted)) + converted
