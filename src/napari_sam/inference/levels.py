"""Where the pixels of a plane come from that is looked at from afar: from the pyramid level nearest to the scale.

A *scale* is how many pixels of a plane, along a side, go into one pixel of what is encoded. The plane stays the
one that is meant, with all coordinates in its own pixels; only what the model is shown is read elsewhere::

    plane at level 0   | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 |    prompts, masks, tiles
    read at level 1    |   0   |   1   |   2   |   3   |    nearest to the scale
    encoded, scale 4   |       0       |       1       |    means of what was read

"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_sam.core.arrays import Array, FloatArray
from napari_sam.core.contrast import Contrast
from napari_sam.core.planes import BoxYXYX, PlaneRef, Shape2D
from napari_sam.core.protocols import VolumeLike
from napari_sam.core.spaces import VolumeSpace, nearest_index
from napari_sam.inference.averaging import averaged

Pair = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Source:
    """The plane that is read for another one, and how its pixels lie.

    Parameters
    ----------
    plane : PlaneRef
        What is read.
    shape : (int, int)
        Its height and width.
    factor_yx, offset_yx : (float, float)
        Pixel i of it has its centre at factor * i + offset in the plane that is meant.
    step_yx : (float, float)
        Pixels of the plane that is meant in one pixel of what is encoded, along rows and columns.
    """

    plane: PlaneRef
    shape: Shape2D
    factor_yx: Pair = (1.0, 1.0)
    offset_yx: Pair = (0.0, 0.0)
    step_yx: Pair = (1.0, 1.0)

    def edges(self, box: BoxYXYX) -> tuple[FloatArray, FloatArray]:
        """Edges of what a tile is encoded from, in pixels from the border of the plane that is read.

        Parameters
        ----------
        box : (y0, x0, y1, x1)
            In pixels of the plane that is meant.
        """
        rows, cols = (
            ((np.linspace(low, high, max(1, round((high - low) / step)) + 1) - 0.5) - offset) / factor + 0.5
            for low, high, step, offset, factor in zip(
                box[:2], box[2:], self.step_yx, self.offset_yx, self.factor_yx, strict=True
            )
        )
        return rows, cols

    def encoded_shape(self, box: BoxYXYX) -> Shape2D:
        """Height and width of what a tile is encoded from."""
        rows, cols = self.edges(box)
        return len(rows) - 1, len(cols) - 1

    def window(self, box: BoxYXYX) -> BoxYXYX:
        """The pixels, of the plane that is read, that a tile is encoded from."""
        edges = self.edges(box)
        y0, x0 = (min(max(int(np.floor(one[0])), 0), n - 1) for one, n in zip(edges, self.shape, strict=True))
        y1, x1 = (min(max(int(np.ceil(one[-1])), 1), n) for one, n in zip(edges, self.shape, strict=True))
        return y0, x0, y1, x1

    def rgb(self, pixels: Array, box: BoxYXYX, contrast: Contrast) -> Array:
        """(h, w, 3) uint8 image of a tile, from the pixels in its `window`."""
        if self.step_yx == (1.0, 1.0):
            return contrast.apply(pixels)
        rows, cols = (edges - start for edges, start in zip(self.edges(box), self.window(box), strict=False))
        return np.asarray(np.rint(averaged(pixels, rows, cols, contrast.apply)), np.uint8)


def source_of(volume: VolumeLike, plane: PlaneRef, scale: float) -> Source:
    """What is read for a plane that is looked at at a scale: the plane itself at scale 1 and below.

    A coarser level may have fewer planes; several planes are then shown by the one that lies nearest.
    """
    if scale <= 1:
        return Source(plane, volume.plane_shape(plane.axis, plane.level))
    levels = VolumeSpace.of(volume).levels
    own = levels[plane.level]
    factors = {
        k: np.divide(levels[k].factor_zyx, own.factor_zyx) for k in range(plane.level, volume.n_levels)
    }
    across = {k: np.delete(factor, plane.axis) for k, factor in factors.items()}
    nearest = min(across, key=lambda k: (abs(np.log2(across[k].max() / scale)), k))
    at = np.zeros((1, 3))
    at[0, plane.axis] = plane.index
    read = levels[nearest]
    index = int(nearest_index(read.from_level0(own.to_level0(at)))[0, plane.axis])
    index = min(max(index, 0), volume.shape_zyx(nearest)[plane.axis] - 1)
    offset = np.delete(np.subtract(read.offset_zyx, own.offset_zyx) / own.factor_zyx, plane.axis)
    factor = across[nearest]
    step = factor * max(1.0, scale / factor.max())
    return Source(
        PlaneRef(plane.axis, index, nearest, plane.time),
        volume.plane_shape(plane.axis, nearest),
        _pair(factor),
        _pair(offset),
        _pair(step),
    )


def scale_of(volume: VolumeLike, plane: PlaneRef, level: int) -> int:
    """The scale at which a plane is read from a level, 1 for its own and finer ones."""
    levels = VolumeSpace.of(volume).levels
    factors = np.divide(levels[level].factor_zyx, levels[plane.level].factor_zyx)
    return max(1, round(float(np.delete(factors, plane.axis).max())))


def _pair(values: FloatArray) -> Pair:
    return float(values[0]), float(values[1])
