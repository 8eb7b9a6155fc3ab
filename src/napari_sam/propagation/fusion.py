"""Planes between two seed planes: propagated from both sides, and made one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from napari_sam.core.arrays import FloatArray
from napari_sam.core.planes import Region, hull_of, widened
from napari_sam.core.results import PropagationStep, Stop, StopReason
from napari_sam.propagation.doubt import fused_doubt
from napari_sam.propagation.settings import Fusion
from napari_sam.propagation.shapes import signed_distance

SURENESS = 4
"""Power of the predicted IoU in the weight of a direction: one whose seed plane shows a bad or half mask should
not spoil what the other found."""

_GOES_ON = (None, StopReason.SEED_REACHED, StopReason.RANGE_END)


def is_part(step: PropagationStep) -> bool:
    """Whether the object goes through this plane, rather than having ended before it."""
    return step.stop_reason in _GOES_ON


class Span:
    """The planes between two neighbouring seed planes of one object.

    Both directions report here, each with at most one step a plane. A plane is settled, and yielded once,
    when both have reached it or ended before it:

    * both have the object there: the masks are fused;
    * one has it: that one is taken, so one seed can bridge what the other could not;
    * none has it: the plane is `free`, which the engine deals with when the span is complete.

    Parameters
    ----------
    object_id : int
        Which object.
    below, above : (int, Region)
        The two seed planes and their masks.
    fusion : Fusion
        Rule for planes that both directions reached.

    Attributes
    ----------
    free : dict of int to tuple of PropagationStep
        Planes that no direction reached, and the steps that ended a direction there.
    reached : dict of int to (int, Region)
        Direction -> the last plane where it had the object, and the mask.
    """

    def __init__(
        self, object_id: int, below: tuple[int, Region], above: tuple[int, Region], fusion: Fusion
    ) -> None:
        self.object_id, self.fusion = object_id, fusion
        self.first, self.last = below[0], above[0]
        self.free: dict[int, tuple[PropagationStep, ...]] = {}
        self.reached = {1: below, -1: above}
        self._found: dict[int, dict[int, PropagationStep | None]] = {
            i: {} for i in range(self.first + 1, self.last)
        }

    @property
    def is_complete(self) -> bool:
        """Whether every plane is settled or free."""
        return not self._found

    def give_up(self) -> None:
        """Make all planes free."""
        self.free = dict.fromkeys(self._found, ())
        self._found.clear()

    def add(self, direction: int, step: PropagationStep) -> Iterator[PropagationStep]:
        """Take one direction's (+1 or -1) step and yield the planes that are settled by it."""
        self._found[step.plane_index][direction] = step
        if is_part(step):
            self.reached[direction] = (step.plane_index, step.region)
        else:
            self._leave_rest(direction, step.plane_index)
        for index in [i for i, found in self._found.items() if len(found) == 2]:
            found = self._found.pop(index)
            settled = self._settle([one for one in (found[1], found[-1]) if one is not None], index)
            if settled is not None:
                yield settled

    def _leave_rest(self, direction: int, index: int) -> None:
        """Planes beyond `index` will not be reached from this side."""
        for other, found in self._found.items():
            if (other - index) * direction > 0:
                found[direction] = None

    def _settle(self, steps: list[PropagationStep], index: int) -> PropagationStep | None:
        parts = [step for step in steps if is_part(step)]
        if not parts:
            self.free[index] = tuple(steps)
            return None
        settled = self._fuse(*parts) if len(parts) == 2 else parts[0]
        return replace(settled, stops=all_stops(steps))

    def _fuse(self, forward: PropagationStep, backward: PropagationStep) -> PropagationStep:
        """Fuse two steps of one plane."""
        nearness = np.array(
            [1 / (forward.plane_index - self.first), 1 / (self.last - backward.plane_index)], np.float64
        )
        quality = np.array([forward.predicted_iou, backward.predicted_iou])
        order = [nearness, quality] if self.fusion is Fusion.NEARER else [quality, nearness]
        better = (forward, backward)[int(tuple(o[1] for o in order) > tuple(o[0] for o in order))]
        reason = forward.stop_reason or backward.stop_reason
        region = better.region
        if self.fusion not in (Fusion.NEARER, Fusion.BEST):
            weights = nearness * np.maximum(quality, 1e-6) ** SURENESS
            joined = _join(forward.region, backward.region, weights, self.fusion)
            region = joined if joined.area else region
        return replace(better, region=region, stop_reason=reason, doubt=fused_doubt(forward, backward))


def all_stops(steps: Sequence[PropagationStep]) -> tuple[Stop, ...]:
    """The directions that ended in one plane."""
    return tuple(stop for step in steps for stop in step.stops)


def _join(a: Region, b: Region, weights: FloatArray, fusion: Fusion) -> Region:
    """Made around both masks only: a pixel outside of both belongs to neither rule's answer."""
    box = widened(hull_of([a.box_yxyx, b.box_yxyx]), 1, a.plane_shape)
    one, other = a.over(box), b.over(box)
    if fusion is Fusion.UNION:
        mask = one | other
    elif fusion is Fusion.INTERSECTION:
        mask = one & other
    else:
        mask = weights[0] * signed_distance(one) + weights[1] * signed_distance(other) > 0
    return Region.from_part(a.plane_shape, box[:2], mask)
