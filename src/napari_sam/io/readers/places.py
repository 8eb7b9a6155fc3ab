"""Where the voxels of multiscale levels lie among those of level 0, by what a file says of their size and place."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from napari_sam.core.spaces import Level
from napari_sam.errors import InputWarning
from napari_sam.io.readers.pixels import Triple

_LEFT_OUT = 1 / 3
"""A level may end, or begin, by this part of the volume inside of level 0; one of another voxel size ends elsewhere."""


def level_places(
    spacings: Sequence[Triple],
    starts: Sequence[Triple] | None,
    shapes: Sequence[tuple[int, int, int]],
) -> tuple[Level, ...] | None:
    """Place the levels of a file.

    Parameters
    ----------
    spacings : sequence of (float, float, float)
        Voxel size of each level.
    starts : sequence of (float, float, float), optional
        Position of the first voxel's centre. None where the file gives no level one: most such files hold means,
        each in the middle of what it is the mean of.
    shapes : sequence of (int, int, int)
        Voxels of each level.

    Returns
    -------
    tuple of Level or None
        None, with an InputWarning, where levels that lie so would not show the same volume.
    """
    if np.isfinite(spacings).all() and np.min(spacings) > 0 and (starts is None or np.isfinite(starts).all()):
        origins = starts or [(0.0, 0.0, 0.0)] * len(spacings)
        places = [
            Level.from_physical(spacings[0], origins[0], *one) for one in zip(spacings, origins, strict=True)
        ]
        places = places if starts else [Level.averaged(place.factor_zyx) for place in places]
        if all(_covers(place, shapes[0], shape) for place, shape in zip(places, shapes, strict=True)):
            return tuple(places)
    if len(shapes) > 1:
        warnings.warn(
            f"levels with voxels of {list(spacings)} and shapes {list(shapes)} (Z, Y, X) do not show one volume; "
            "where they lie is taken from their shapes alone",
            InputWarning,
            stacklevel=4,
        )
    return None


def _covers(place: Level, fine: Sequence[int], coarse: Sequence[int]) -> bool:
    """Whether a level begins and ends about where level 0 does; a voxel more or less is none of our business."""
    factor, offset = np.array(place.factor_zyx), np.array(place.offset_zyx)
    first = offset - factor / 2 + 0.5
    last = first + factor * coarse - fine
    slack = np.maximum(factor, np.multiply(fine, _LEFT_OUT))
    return bool((abs(first) <= slack).all() and (abs(last) <= slack).all())
