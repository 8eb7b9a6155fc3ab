"""From which sides an image can be looked at: as it is, mirrored, or turned.

A network that learned from mirrored and turned images still answers a little differently to each. Where it is in doubt,
the mean of several looks is better than one.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from napari_sam.core.arrays import Array
from napari_sam.core.planes import Shape2D


class Side(IntEnum):
    """How the pixels of an image lie before it is encoded."""

    FRONT = 0
    """As they are in the plane."""
    MIRRORED = 1
    """The last column first."""
    TURNED = 2
    """By a quarter turn: mirrored, then rows and columns exchanged."""

    def of(self, image: Array) -> Array:
        """An image seen from here, (H, W) or (H, W, C), to (W, H) or (W, H, C) where it is turned."""
        if self is Side.FRONT:
            return image
        mirrored = image[:, ::-1]
        return np.ascontiguousarray(np.swapaxes(mirrored, 0, 1) if self is Side.TURNED else mirrored)

    def shape_of(self, shape: Shape2D) -> Shape2D:
        """Height and width of an image seen from here."""
        return (shape[1], shape[0]) if self is Side.TURNED else shape


FRONT = (Side.FRONT,)
AROUND = tuple(Side)
"""All sides, the front first."""
