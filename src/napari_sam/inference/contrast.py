"""The contrast of a whole volume, from a few of its planes."""

from __future__ import annotations

from napari_sam.core.arrays import Array
from napari_sam.core.contrast import Contrast
from napari_sam.core.planes import PlaneRef
from napari_sam.core.protocols import VolumeLike

SAMPLED_PLANES = 7
SAMPLES_A_SIDE = 256


def estimate_contrast(volume: VolumeLike, time: int = 0) -> Contrast:
    """Percentiles of a volume from at most seven planes, whatever its size.

    Parameters
    ----------
    volume : VolumeLike
        Planes are taken evenly along Z, at the coarsest level, and thinned to about 256 x 256 pixels each.
    time : int
        Time point.
    """
    level = volume.n_levels - 1
    depth = volume.shape_zyx(level)[0]
    samples = [_thinned(volume.read_plane(PlaneRef(0, i, level, time))) for i in sampled_planes(depth)]
    return Contrast.from_samples(samples, is_rgb=volume.is_rgb)


def sampled_planes(depth: int) -> list[int]:
    """Middles of as many equal parts of the volume as planes are sampled."""
    count = min(depth, SAMPLED_PLANES)
    return [int((i + 0.5) * depth / count) for i in range(count)]


def _thinned(plane: Array) -> Array:
    rows, cols = (max(1, side // SAMPLES_A_SIDE) for side in plane.shape[:2])
    return plane[::rows, ::cols]
