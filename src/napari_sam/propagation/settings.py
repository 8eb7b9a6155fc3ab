"""How an object is carried through planes, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar

from napari_sam.core.protocols import StopRule
from napari_sam.errors import PromptError
from napari_sam.propagation.rules import AnyOf, AreaChangeAbove, Empty, OverlapBelow, PredictedIouBelow


class Carry(StrEnum):
    """What the mask of one plane becomes as a prompt on the next; several may be mixed."""

    MASK = "mask"
    """The mask itself, as a mask prompt."""
    BOX = "box"
    """Its bounding box, widened by `box_margin`."""
    POINT = "point"
    """One positive point, the pixel deepest inside."""
    POINTS = "points"
    """Three positive points, each as deep inside and as far from the others as it can be."""


class Direction(StrEnum):
    """Which way to go from the seed planes."""

    BOTH = "both"
    FORWARD = "forward"
    """Towards higher plane indices."""
    BACKWARD = "backward"

    @property
    def steps(self) -> tuple[int, ...]:
        """Index steps to take: +1, -1 or both."""
        return {"both": (1, -1), "forward": (1,), "backward": (-1,)}[self.value]


class Fusion(StrEnum):
    """How the two masks of a plane between two seed planes become one."""

    NEARER = "nearer"
    """The one whose seed plane is nearer; at equal distance the one with the higher predicted IoU."""
    BEST = "best"
    """The one with the higher predicted IoU."""
    UNION = "union"
    INTERSECTION = "intersection"
    BLEND = "blend"
    """Mean of the signed distances to the two outlines, weighted by nearness and, steeply, by predicted IoU."""


class Between(StrEnum):
    """How the planes between two seed planes are found."""

    PROPAGATE = "propagate"
    """Carried from both sides and fused; what both directions fail to reach is interpolated."""
    INTERPOLATE = "interpolate"
    """The shape between both shapes, snapped to the model's answer where that agrees with it."""


@dataclass(frozen=True, slots=True)
class PropagationSettings:
    """Everything propagation can be told. ``docs/propagation.md`` says which defaults were measured.

    Parameters
    ----------
    carry : tuple of Carry
        What the mask of one plane becomes on the next.
    box_margin : float
        By how much of its height and width the carried box is widened on each side.
    min_iou, max_area_change, min_predicted_iou, min_likeness, min_presence : float or None
        Thresholds of the stop rules; None turns a rule off.
    extra_rules : tuple of StopRule
        Further rules, asked after these.
    plane_range : (int, int), optional
        First plane and last plane + 1 to visit; the whole axis when None.
    direction : Direction
        Both ways, or one.
    fusion : Fusion
        What is done where two seed planes of one object meet.
    between : Between
        How the planes between two seed planes are found.
    bridge : int
        How many planes in a row, on which a stop rule holds, are stepped over if the object is there again
        behind them; they are filled in. 0 stops at the first.
    bridge_iou : float
        Least IoU with the last good plane for being there again.
    fill_gaps : bool
        Whether planes between two seed planes that neither direction reaches are filled in.
    snap_iou : float
        Least IoU of the model's answer with an interpolated shape for taking the answer.
    part_by_logit : bool
        Whether objects that meet in a plane share it out (`propagation.meeting`); else each is on its own.
    follow_motion : bool
        Whether the mask is moved as the image around it moves before it is carried (`propagation.motion`).

    Raises
    ------
    PromptError
        Nothing is carried, or a number makes no sense.
    """

    carry: tuple[Carry, ...] = (Carry.MASK,)
    box_margin: float = 0.1
    min_iou: float | None = 0.3
    max_area_change: float | None = 4.0
    min_predicted_iou: float | None = None
    min_likeness: float | None = 0.1
    min_presence: float | None = 0.5
    extra_rules: tuple[StopRule, ...] = ()
    plane_range: tuple[int, int] | None = None
    direction: Direction = Direction.BOTH
    fusion: Fusion = Fusion.BLEND
    between: Between = Between.PROPAGATE
    bridge: int = 1
    bridge_iou: float = 0.5
    fill_gaps: bool = True
    snap_iou: float = 0.6
    part_by_logit: bool = True
    follow_motion: bool = True

    BEFORE: ClassVar[Mapping[str, Any]] = MappingProxyType({"min_presence": None, "follow_motion": False})
    """What settings meant that were written down before there was a field."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "carry", tuple(Carry(kind) for kind in self.carry))
        object.__setattr__(self, "direction", Direction(self.direction))
        object.__setattr__(self, "fusion", Fusion(self.fusion))
        object.__setattr__(self, "between", Between(self.between))
        if self.bridge < 0:
            raise PromptError(f"bridge is a number of planes from 0, got {self.bridge}")
        if not self.carry:
            raise PromptError("carry is empty; name at least one of " + ", ".join(Carry))
        if self.box_margin < 0:
            raise PromptError(f"box_margin must not be negative, got {self.box_margin}")
        if self.max_area_change is not None and self.max_area_change < 1:
            raise PromptError(f"max_area_change is a factor of at least 1, got {self.max_area_change}")
        if self.min_likeness is not None and self.min_likeness >= 1:
            raise PromptError(f"min_likeness is less than 1, the object itself, got {self.min_likeness}")
        if self.min_presence is not None and not 0 <= self.min_presence < 1:
            raise PromptError(f"min_presence lies between 0 and less than 1, got {self.min_presence}")
        if self.plane_range is not None and self.plane_range[0] >= self.plane_range[1]:
            raise PromptError(f"plane_range {self.plane_range} is empty; give (first, last + 1)")

    @property
    def compares_looks(self) -> bool:
        """Whether a rule asks what the object looks like."""
        return self.min_likeness is not None or self.min_presence is not None

    @property
    def stop_rule(self) -> AnyOf:
        """All rules as one, in the order: empty, area, IoU, predicted IoU, extra."""
        rules: list[StopRule] = [Empty()]
        if self.max_area_change is not None:
            rules.append(AreaChangeAbove(self.max_area_change))
        if self.min_iou is not None:
            rules.append(OverlapBelow(self.min_iou))
        if self.min_predicted_iou is not None:
            rules.append(PredictedIouBelow(self.min_predicted_iou))
        return AnyOf((*rules, *self.extra_rules))
