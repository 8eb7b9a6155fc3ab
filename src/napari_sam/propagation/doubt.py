"""How doubtful one plane of an object is, from what is known when it is found.

Sizes are physical: an outline may move as far sideways as the planes are apart (a surface at 45 degrees)
before that is doubtful, so thick planes, thin planes and planes with unequal pixels are judged alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from napari_sam.core.arrays import FloatArray
from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.protocols import VolumeLike
from napari_sam.core.results import Doubt, DoubtReason, PropagationStep
from napari_sam.core.spaces import level_geometry

GOOD_ESTIMATE, BAD_ESTIMATE = 0.65, 0.3
"""Predicted IoU without doubt, and with full doubt; measured, see ``docs/propagation.md``."""

GOOD_SEED, BAD_SEED = 0.95, 0.5
"""Likewise of the estimate for the mask of a seed plane carried onto that plane itself."""

SOFTENED = 0.25
"""Power of the odds of presence. These are made to decide, so they are large either way; doubt needs what lies between."""

GOOD_STABILITY, BAD_STABILITY = 0.2, 0.0
GOOD_AGREEMENT, BAD_AGREEMENT = 0.85, 0.3
FILLED_SNAPPED, FILLED_SHAPE = 0.4, 0.7
"""Doubt of a plane that was filled in, where the model agrees with the shape, and where it does not."""

_MOST = 0.95
"""No single number makes a plane certainly wrong."""


@dataclass(frozen=True, slots=True)
class Spacing:
    """Distance between planes, between rows and between columns, in one unit."""

    plane: float = 1.0
    row: float = 1.0
    column: float = 1.0

    @classmethod
    def of(cls, volume: VolumeLike, plane: PlaneRef) -> Spacing:
        """Of the planes parallel to `plane`, at its level. A step in time counts as one pixel."""
        sizes = list(level_geometry(volume, plane.level)["spacing_zyx"])
        if getattr(volume, "is_tracked", False):
            sizes[0] = sizes[1]
        between = sizes.pop(plane.axis)
        return cls(between, *sizes)

    @property
    def yx(self) -> tuple[float, float]:
        """In the plane."""
        return self.row, self.column

    def radius(self, area: float) -> float:
        """Of the disc of so many pixels."""
        return math.sqrt(max(area, 1.0) * self.row * self.column / math.pi)


def step_doubt(
    previous: Region,
    region: Region,
    predicted_iou: float,
    stability: float,
    spacing: Spacing,
    n_planes: int = 1,
    presence: float = 1.0,
    seed_iou: float = 1.0,
) -> Doubt:
    """Doubt in a mask that was carried from another plane.

    Parameters
    ----------
    previous, region : Region
        Masks of the plane it came from and of this one; none is empty.
    predicted_iou, stability : float
        Of this one.
    spacing : Spacing
        Of the planes.
    n_planes : int
        How many planes apart they are.
    presence, seed_iou : float
        How surely the object is there, and how sure the model is of it on its seed planes, see
        `appearance.Reference`; 1 where that is not asked for.
    """
    reach = spacing.plane * n_planes
    return Doubt.of(
        {
            DoubtReason.OVERLAP: _overlap(previous, region, spacing, reach),
            DoubtReason.AREA: _area(previous, region, spacing, reach),
            DoubtReason.CENTROID: _centroid(previous, region, spacing, reach),
            DoubtReason.PREDICTED_IOU: _between(predicted_iou, GOOD_ESTIMATE, BAD_ESTIMATE),
            DoubtReason.STABILITY: _between(stability, GOOD_STABILITY, BAD_STABILITY),
            DoubtReason.PRESENCE: _between(_softened(presence), 1.0, 0.0),
            DoubtReason.SEED: _between(seed_iou, GOOD_SEED, BAD_SEED),
        }
    )


def fused_doubt(forward: PropagationStep, backward: PropagationStep) -> Doubt:
    """Doubt in a plane that both directions reached: what both find doubtful, and where they disagree."""
    first, second = dict(forward.doubt.parts), dict(backward.doubt.parts)
    parts = {reason: min(first[reason], second[reason]) for reason in first if reason in second}
    agreement = forward.region.iou(backward.region)
    return Doubt.of(parts | {DoubtReason.DISAGREEMENT: _between(agreement, GOOD_AGREEMENT, BAD_AGREEMENT)})


def filled_doubt(snapped: bool) -> Doubt:
    """Doubt in a plane that was filled in between its neighbours."""
    return Doubt.of({DoubtReason.FILLED: FILLED_SNAPPED if snapped else FILLED_SHAPE})


def _between(value: float, good: float, bad: float) -> float:
    """0 from `good` upwards, rising evenly to nearly 1 at `bad`."""
    return min(_MOST, max(0.0, (good - value) / (good - bad)))


def _softened(presence: float) -> float:
    """A presence nearer to 0.5."""
    return 1 / (1 + math.pow(1 / max(presence, 1e-9) - 1, SOFTENED))


def _overlap(previous: Region, region: Region, spacing: Spacing, reach: float) -> float:
    """Below the IoU of two discs whose outlines are `reach` apart."""
    radius = spacing.radius(max(previous.area, region.area))
    expected = min(0.9, max(0.2, (1 - reach / radius) if reach < radius else 0.0) ** 2)
    return _between(previous.iou(region), max(expected, 0.2), 0.0)


def _area(previous: Region, region: Region, spacing: Spacing, reach: float) -> float:
    """Beyond the growth of a disc whose outline moves by `reach`; doubt is full at three times that factor."""
    small, large = sorted((previous.area, region.area))
    allowed = 2 * math.log1p(min(reach / spacing.radius(small), 1.0))
    change = math.log(max(large, 1) / max(small, 1))
    return _between(-change, -allowed, -allowed - math.log(3.0))


def _centroid(previous: Region, region: Region, spacing: Spacing, reach: float) -> float:
    """Beyond `reach` and a pixel; doubt is full one radius further."""
    moved = float(np.hypot(*((centroid(region) - centroid(previous)) * spacing.yx)))
    allowed = reach + max(spacing.yx)
    return _between(-moved, -allowed, -allowed - spacing.radius(previous.area))


def centroid(region: Region) -> FloatArray:
    """Mean (row, column) of a mask that is not empty, in its plane."""
    rows, columns = np.nonzero(region.crop)
    return np.add([rows.mean(), columns.mean()], region.box_yxyx[:2])
