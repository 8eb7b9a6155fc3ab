"""Planes between two seed planes: propagated from both sides, and made one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy import ndimage

from napari_sam.core.arrays import BoolArray, FloatArray
from napari_sam.core.planes import Region
from napari_sam.core.results import PropagationStep, StopReason
from napari_sam.propagation.settings import Fusion

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
    * none has it: the plane stays free, and the steps that ended a direction are yielded, empty.

    Parameters
    ----------
    first, last : int
        The two seed planes; the span lies between them.
    fusion : Fusion
        Rule for planes that both directions reached.
    """

    def __init__(self, first: int, last: int, fusion: Fusion) -> None:
        self.first, self.last, self.fusion = first, last, fusion
        self._found: dict[int, dict[int, PropagationStep | None]] = {i: {} for i in range(first + 1, last)}

    def add(self, direction: int, step: PropagationStep) -> Iterator[PropagationStep]:
        """Take one direction's (+1 or -1) step and yield the planes that are settled by it."""
        self._found[step.plane_index][direction] = step
        if not is_part(step):
            self._give_up(direction, step.plane_index)
        for index in [i for i, found in self._found.items() if len(found) == 2]:
            found = self._found.pop(index)
            settled = self._settle(found[1], found[-1])
            if settled is not None:
                yield settled

    def _give_up(self, direction: int, index: int) -> None:
        """Planes beyond `index` will not be reached from this side."""
        for other, found in self._found.items():
            if (other - index) * direction > 0:
                found[direction] = None

    def _settle(
        self, forward: PropagationStep | None, backward: PropagationStep | None
    ) -> PropagationStep | None:
        steps = [step for step in (forward, backward) if step is not None]
        parts = [step for step in steps if is_part(step)]
        if len(parts) == 2:
            return self._fuse(*parts)
        return next(iter(parts or steps), None)

    def _fuse(self, forward: PropagationStep, backward: PropagationStep) -> PropagationStep:
        """Fuse two steps of one plane."""
        nearness = np.array(
            [1 / (forward.plane_index - self.first), 1 / (self.last - backward.plane_index)], np.float64
        )
        quality = np.array([forward.predicted_iou, backward.predicted_iou])
        order = [nearness, quality] if self.fusion is Fusion.NEARER else [quality, nearness]
        better = (forward, backward)[int(tuple(o[1] for o in order) > tuple(o[0] for o in order))]
        reason = forward.stop_reason or backward.stop_reason
        if self.fusion in (Fusion.NEARER, Fusion.BEST):
            return replace(better, stop_reason=reason)
        mask = _join(forward.region, backward.region, nearness * np.maximum(quality, 1e-6), self.fusion)
        region = Region.from_mask(mask)
        return replace(better, region=region if region.area else better.region, stop_reason=reason)


def _join(a: Region, b: Region, weights: FloatArray, fusion: Fusion) -> BoolArray:
    if fusion is Fusion.UNION:
        return a.mask | b.mask
    if fusion is Fusion.INTERSECTION:
        return a.mask & b.mask
    blended = weights[0] * signed_distance(a.mask) + weights[1] * signed_distance(b.mask)
    return np.asarray(blended > 0)


def signed_distance(mask: BoolArray) -> FloatArray:
    """Distance to the outline, positive inside, (H, W) float64; half a pixel on either side of it."""
    inside = ndimage.distance_transform_edt(mask)
    outside = ndimage.distance_transform_edt(~mask)
    return np.asarray(np.where(mask, inside - 0.5, 0.5 - outside))
