"""npe2 writers: napari's own Save dialog for Labels layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_sam.io.save import save_labels


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write one Labels layer as OME-Zarr or OME-TIFF, by the ending of the file name.

    Parameters
    ----------
    path : str
        Where to; what napari's dialog let pass is replaced.
    data : array
        The layer's data, with 2 to 4 dimensions.
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
    scale, translate = (_last_three(attributes.get(k), v) for k, v in (("scale", 1.0), ("translate", 0.0)))
    units = attributes.get("units")
    unit = str(units[-1]) if units is not None and len(units) else ""
    target = Path(path)
    written = save_labels(
        data,
        target,
        spacing_zyx=[abs(s) for s in scale],
        translate_zyx=translate,
        unit="" if unit in ("pixel", "px") else unit,
        overwrite=target.exists(),
    )
    return [str(written)]


def _last_three(values: Any, default: float) -> list[float]:
    given = [] if values is None else [float(v) for v in np.asarray(values).ravel()][-3:]
    return [default] * (3 - len(given)) + given
