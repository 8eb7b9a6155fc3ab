"""Image files for tests, written by hand so that no reader is tested against its own writer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import zarr

from napari_sam.core.arrays import Array


def write_ome_zarr(
    path: str | Path,
    image: Array,
    *,
    spacing_zyx: Sequence[float] = (1.0, 1.0, 1.0),
    translate_zyx: Sequence[float] = (0.0, 0.0, 0.0),
    unit: str = "micrometer",
    n_levels: int = 2,
) -> Path:
    """Write an OME-Zarr 0.5 image whose levels take every second voxel of a plane, half as many each time.

    Parameters
    ----------
    path : path
        Folder to make.
    image : (Z, Y, X) array
        Pixels of level 0.
    spacing_zyx, translate_zyx : (float, float, float)
        Voxel size, and centre of the first voxel, which all levels have in common.
    unit : str
        Of both.
    n_levels : int
        How many levels.
    """
    datasets = []
    for level in range(n_levels):
        scale = [spacing_zyx[0], *(s * 2**level for s in spacing_zyx[1:])]
        transforms = [
            {"type": "scale", "scale": scale},
            {"type": "translation", "translation": list(translate_zyx)},
        ]
        datasets.append({"path": str(level), "coordinateTransformations": transforms})
    axes = [{"name": name, "type": "space", "unit": unit} for name in "zyx"]
    multiscale = {"name": Path(path).name, "axes": axes, "datasets": datasets}
    group = zarr.create_group(path, attributes={"ome": {"version": "0.5", "multiscales": [multiscale]}})
    for level in range(n_levels):
        data = image[:, :: 2**level, :: 2**level]
        group.create_array(str(level), data=data, chunks=(1, 128, 128))
    return Path(path)
