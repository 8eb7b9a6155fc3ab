"""Where objects meet: one rule for pixels that several objects of one plane claim.

1. A plane that the user prompted or corrected wins: what lies in another object's seed plane is not claimed.
2. Among objects answered in the same batch a pixel goes to the object with the highest logit there; at
   equal logits to the smaller id.

Objects that reach a plane at different times are kept apart by whoever writes them: labels that are there
are not touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from napari_sam.core.arrays import BoolArray, FloatArray
from napari_sam.core.planes import BoxYXYX, Region
from napari_sam.core.results import MaskCandidate


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """One object's answer in a plane."""

    object_id: int
    candidate: MaskCandidate

    @property
    def region(self) -> Region:
        """What is claimed."""
        return self.candidate.region


Asked = tuple[Claim, BoolArray, BoolArray]
"""A claim, the pixels of its crop that it asks for, and those that it is left with."""


def settle(claims: Sequence[Claim], seeds: Iterable[tuple[int, Region]] = ()) -> list[Region]:
    """What each claim is left with, in their order.

    Parameters
    ----------
    claims : sequence of Claim
        Answers of one batch in one plane; two claims of one object do not compete.
    seeds : iterable of (int, Region)
        Object ids and masks that the user gave in this plane.
    """
    taken = list(seeds)
    asked = [claim.region.crop & ~_lost_to_seeds(claim, taken) for claim in claims]
    left = [mask.copy() for mask in asked]
    boxes = np.array([claim.region.box_yxyx for claim in claims]).reshape(-1, 4)
    for i, one in enumerate(claims):
        near = (boxes[i + 1 :, :2] < boxes[i, 2:]).all(1) & (boxes[i + 1 :, 2:] > boxes[i, :2]).all(1)
        for j in (np.flatnonzero(near) + i + 1).tolist():
            if claims[j].object_id != one.object_id:
                _share((one, asked[i], left[i]), (claims[j], asked[j], left[j]))
    return [_with_mask(claim.region, mask) for claim, mask in zip(claims, left, strict=True)]


def _lost_to_seeds(claim: Claim, seeds: list[tuple[int, Region]]) -> BoolArray:
    lost = np.zeros(claim.region.crop.shape, bool)
    for object_id, region in seeds:
        box = _shared_box(claim.region, region) if object_id != claim.object_id else None
        if box is not None:
            lost[_inside(claim.region, box)] |= region.crop[_inside(region, box)]
    return lost


def _share(first: Asked, second: Asked) -> None:
    """Take the pixels that both ask for from one of them."""
    (one, one_asks, one_left), (other, other_asks, other_left) = first, second
    box = _shared_box(one.region, other.region)
    if box is None:
        return
    here, there = _inside(one.region, box), _inside(other.region, box)
    both = one_asks[here] & other_asks[there]
    if not both.any():
        return
    mine, theirs = (logits_in(claim.candidate, box) for claim in (one, other))
    wins = (mine > theirs) | ((mine == theirs) & (one.object_id < other.object_id))
    one_left[here] &= ~(both & ~wins)
    other_left[there] &= ~(both & wins)


def logits_in(candidate: MaskCandidate, box: BoxYXYX) -> FloatArray:
    """Logits of an answer at the pixels of a box: (h, w), the nearest cell of its map.

    The longer side of a map takes the longer side of the plane.
    """
    logits = candidate.low_res_logits
    cell = max(candidate.region.plane_shape) / max(logits.shape[-2:])
    rows, columns = (
        np.minimum(((np.arange(a, b) + 0.5) / cell).astype(np.intp), n - 1)
        for a, b, n in zip(box[:2], box[2:], logits.shape[-2:], strict=True)
    )
    return np.asarray(logits[..., rows[:, None], columns])


def _shared_box(a: Region, b: Region) -> BoxYXYX | None:
    y0, x0 = np.maximum(a.box_yxyx[:2], b.box_yxyx[:2]).tolist()
    y1, x1 = np.minimum(a.box_yxyx[2:], b.box_yxyx[2:]).tolist()
    return (y0, x0, y1, x1) if y1 > y0 and x1 > x0 else None


def _inside(region: Region, box: BoxYXYX) -> tuple[slice, slice]:
    """Where a box of the plane lies in a region's crop."""
    top, left = region.box_yxyx[:2]
    return slice(box[0] - top, box[2] - top), slice(box[1] - left, box[3] - left)


def _with_mask(region: Region, mask: BoolArray) -> Region:
    if np.array_equal(mask, region.crop):
        return region
    return Region.from_part(region.plane_shape, region.box_yxyx[:2], mask)
