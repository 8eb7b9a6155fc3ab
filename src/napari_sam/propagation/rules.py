"""When an object ends: stop rules as values.

A rule looks at the mask of two neighbouring planes and at the model's own estimate, and says why the
object ended between them, or None. Rules obey `core.protocols.StopRule`, are frozen and picklable, and
combine with `AnyOf`; write another one by giving a dataclass the same ``__call__``.
"""

from __future__ import annotations

from dataclasses import dataclass

from napari_sam.core.planes import Region
from napari_sam.core.protocols import StopRule
from napari_sam.core.results import StopReason


@dataclass(frozen=True, slots=True)
class Empty:
    """Stop when nothing was found. Always in force: there is nothing to carry on from an empty mask."""

    def __call__(self, previous: Region, current: Region, predicted_iou: float) -> StopReason | None:
        """EMPTY when `current` holds no pixel."""
        return None if current.area else StopReason.EMPTY


@dataclass(frozen=True, slots=True)
class OverlapBelow:
    """Stop when the IoU with the previous plane is under `threshold` (0..1)."""

    threshold: float

    def __call__(self, previous: Region, current: Region, predicted_iou: float) -> StopReason | None:
        """IOU_DROP when the two masks share too little."""
        return StopReason.IOU_DROP if previous.iou(current) < self.threshold else None


@dataclass(frozen=True, slots=True)
class AreaChangeAbove:
    """Stop when the area grows or shrinks by more than `factor` (at least 1) between two planes."""

    factor: float

    def __call__(self, previous: Region, current: Region, predicted_iou: float) -> StopReason | None:
        """AREA_JUMP when the larger area is more than `factor` times the smaller."""
        small, large = sorted((previous.area, current.area))
        return StopReason.AREA_JUMP if large > self.factor * small else None


@dataclass(frozen=True, slots=True)
class PredictedIouBelow:
    """Stop when the model's own estimate is under `threshold` (0..1)."""

    threshold: float

    def __call__(self, previous: Region, current: Region, predicted_iou: float) -> StopReason | None:
        """LOW_PREDICTED_IOU when the model doubts its answer."""
        return StopReason.LOW_PREDICTED_IOU if predicted_iou < self.threshold else None


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Stop when one of `rules` says so; the first in order gives the reason."""

    rules: tuple[StopRule, ...]

    def __call__(self, previous: Region, current: Region, predicted_iou: float) -> StopReason | None:
        """Reason of the first rule that has one."""
        reasons = (rule(previous, current, predicted_iou) for rule in self.rules)
        return next((reason for reason in reasons if reason is not None), None)
