"""From the decoder's outputs to the answer a user gets. All rules of choice are here.

* **One positive point and nothing else** may mean a part, the whole or a group (SAM paper, section 3). The
  three outputs for ambiguous prompts are offered, from small to large; the one whose predicted IoU, times the
  root of its stability, is best is chosen: between a part and the whole, what is neither has a blurred edge.
* **Anything more** is specific: the single output is chosen, the other three follow, so that a user can
  still cycle through them.
* **A box** says where its object ends, unless a positive point lies outside it or there is a mask: of all four outputs the
  one is chosen whose predicted IoU, times the IoU of its own bounding box with the given one, is best.
* **Every correction counts**: where a click that corrects earlier logits or a mask prompt would be lost, the
  logits around it are raised (or lowered) until it holds, as far as the mask's edge and the nearest click of
  the other kind allow.
* **A mask can be denied**: a negative click in the middle of a mask prompt, and no positive one, says that the object is
  not there. The answer is empty; the model's own follow, so that a user who wants a hole can cycle to them.
* **A later correction is a small step**: from the third point on, the answer is the mean of the new logits and
  the earlier ones. Before, the object is still being found.
* **More clicks never make it worse**: the earlier answer stays where the new one loses clicks that it had
  right, or where the new one's own estimate has collapsed and it obeys no more clicks than before.
* **Objects hang together** (models whose configuration says so): of a mask in several parts, those are kept
  that hold a positive click, overlap the mask prompt, or lie in the box. Without any the mask stays whole.
  The answer to a box, as above, ends a little outside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from napari_sam.core.arrays import Array, BoolArray, FloatArray
from napari_sam.core.planes import Region
from napari_sam.core.prompts import PromptSet
from napari_sam.core.results import MaskCandidate, MaskPrediction
from napari_sam.core.spaces import nearest_index
from napari_sam.inference.resample import bilinear

SINGLE = 0
MULTIMASK = (1, 2, 3)
STABILITY_OFFSET = 1.0
COLLAPSED = 0.25
"""A predicted IoU below this is no answer at all."""
SMALL_STEPS_FROM = 3
"""Points from which on a correction is a small step."""
HEEDED = 1.5
"""Logit, up or down, that a correction at least gets where it was made."""
HEEDED_FAR = 20
"""Cells that a lost correction looks around itself."""
HEEDED_LEAST = 1.5
"""Least standard deviation, in cells, of what it changes."""
TO_OTHER, TO_EDGE = 0.7, 2.0
"""Largest one, as shares of the way to the next click of the other kind and to the mask's edge."""
MIDDLE = 0.7
"""So deep inside a mask, as a share of its deepest pixel, lies its middle."""
BOX_MARGIN = 0.05
"""So far outside a box, as a share of its sides, its object may reach: users draw boxes by hand."""


def outputs_for(prompts: PromptSet, multimask: bool = True) -> tuple[int, ...]:
    """Which outputs of the decoder are offered, in the order in which a user cycles through them.

    Parameters
    ----------
    prompts : PromptSet
        What was asked.
    multimask : bool
        Whether the model was trained to give more than the single output (`SamConfig.multimask`).
    """
    if not multimask:
        return (SINGLE,)
    return MULTIMASK if prompts.is_ambiguous else (SINGLE, *MULTIMASK)


def stability_score(logits: FloatArray, offset: float = STABILITY_OFFSET) -> float:
    """IoU of the masks cut at plus and minus `offset`; 0 where both are empty (SAM paper, appendix B)."""
    larger = np.count_nonzero(logits > -offset)
    return np.count_nonzero(logits > offset) / larger if larger else 0.0


def choose(
    candidates: Sequence[MaskCandidate], prompts: PromptSet, earlier: MaskCandidate | None = None
) -> MaskPrediction:
    """Order the candidates and choose one, by the rules on top of this file.

    Parameters
    ----------
    candidates : sequence of MaskCandidate
        In the order of `outputs_for`.
    prompts : PromptSet
        What was asked.
    earlier : MaskCandidate, optional
        The answer that the given logits stand for.
    """
    if prompts.is_ambiguous:
        ordered = sorted(candidates, key=lambda one: one.cells)
        worth = [one.predicted_iou * one.stability_score**0.5 for one in ordered]
        return MaskPrediction(tuple(ordered), int(np.argmax(worth)))
    if denies_mask(prompts):
        nothing = Region.from_mask(np.zeros_like(prompts.mask))
        denied = replace(candidates[0], drawing=nothing, predicted_iou=1.0, stability_score=1.0)
        return MaskPrediction((denied, *candidates))
    if earlier is None and (box := _own_box(prompts)) is not None:
        fits = [one.predicted_iou * _box_iou(one.region, box) for one in candidates]
        return MaskPrediction(tuple(candidates), int(np.argmax(fits)))
    if earlier is None or not len(prompts.points_yx):
        return MaskPrediction(tuple(candidates))
    return never_worse(candidates, earlier, prompts)


def _own_box(prompts: PromptSet) -> FloatArray | None:
    """The box, if nothing else says that the object reaches beyond it."""
    box = prompts.box_yxyx
    if box is None or prompts.mask is not None:
        return None
    positive = prompts.points_yx[prompts.polarity]
    return None if ((positive < box[:2]) | (positive > box[2:])).any() else box


def _box_iou(region: Region, box_yxyx: FloatArray) -> float:
    """IoU of the box that bounds a mask with another; both from pixel edge to pixel edge."""
    own = np.array(region.box_yxyx) - 0.5
    sides = np.minimum(own[2:], box_yxyx[2:]) - np.maximum(own[:2], box_yxyx[:2])
    shared = np.prod(sides.clip(0))
    return float(shared / (np.prod(own[2:] - own[:2]) + np.prod(box_yxyx[2:] - box_yxyx[:2]) - shared))


def never_worse(
    candidates: Sequence[MaskCandidate], earlier: MaskCandidate, prompts: PromptSet
) -> MaskPrediction:
    """Choose between the new answer and the earlier one, which is offered last.

    Parameters
    ----------
    candidates : sequence of MaskCandidate
        New answers, the one for clear prompts first.
    earlier : MaskCandidate
        The answer before.
    prompts : PromptSet
        All clicks, old and new.
    """
    new = candidates[0]
    lost = violations(new.region, prompts) - violations(earlier.region, prompts)
    collapsed = new.predicted_iou < min(COLLAPSED, earlier.predicted_iou)
    stays = lost > 0 or (collapsed and lost == 0)
    return MaskPrediction((*candidates, earlier), len(candidates) if stays else 0)


def small_step(logits: FloatArray, earlier: FloatArray, unknown: float) -> FloatArray:
    """The mean of two answers; where one is not above `unknown`, the other."""
    mean = np.where(earlier > unknown, (logits + earlier) / 2, logits)
    return np.where(logits > unknown, mean, earlier)


def heed_clicks(logits: FloatArray, at_yx: FloatArray, positive: BoolArray, heeded: BoolArray) -> FloatArray:
    """Bend an answer at the clicks that it goes against.

    Parameters
    ----------
    logits : (h, w) float array
        The answer.
    at_yx : (n, 2) float array
        The clicks, in cells of the logits, whose centres are whole numbers.
    positive : (n,) bool array
        Their polarity.
    heeded : (n,) bool array
        Which of them must hold; the last of two that are in each other's way does.
    """
    for click, sign in zip(at_yx[heeded], np.where(positive[heeded], 1, -1)):
        (value,) = bilinear(logits, click[:1], click[1:]).ravel()
        if sign * value > 0:
            continue
        others = at_yx[positive != (sign > 0)]
        away, edge = _way(others - click), _way(_cells_above(sign * logits, click) - click)
        sigma = max(HEEDED_LEAST, min(TO_OTHER * away, TO_EDGE * edge))
        rows, cols = (
            np.exp(-(((np.arange(length) - at) / sigma) ** 2) / 2) for length, at in zip(logits.shape, click)
        )
        bump = np.outer(rows, cols)
        logits = logits + (sign * HEEDED - value) / bilinear(bump, click[:1], click[1:]) * bump
    return logits


def _way(steps_yx: FloatArray) -> float:
    """Length of the shortest of (n, 2) steps, at most `HEEDED_FAR`."""
    return float(np.linalg.norm(steps_yx, axis=1).min(initial=HEEDED_FAR))


def _cells_above(logits: FloatArray, around_yx: FloatArray) -> Array:
    """Cells above 0 near a place, (n, 2) int."""
    low = np.maximum(nearest_index(around_yx) - HEEDED_FAR, 0)
    high = low + 2 * HEEDED_FAR + 1
    return np.asarray(np.argwhere(logits[low[0] : high[0], low[1] : high[1]] > 0) + low)


def prompted_parts(region: Region, prompts: PromptSet) -> Region:
    """The connected parts of a mask that its prompts point at; sides touch, corners do not."""
    kept = _pointed_at(region, prompts)
    box = _own_box(prompts)
    return kept if box is None else _clipped(kept, box)


def _pointed_at(region: Region, prompts: PromptSet) -> Region:
    parts, count = ndimage.label(region.crop)
    if count < 2:
        return region
    wanted = _parts_at(parts, region, prompts.points_yx[prompts.polarity])
    if prompts.mask is not None:
        wanted[np.unique(parts[prompts.mask[region.slices]])] = True
    if prompts.box_yxyx is not None:
        wanted |= _mostly_inside(parts, region, prompts.box_yxyx)
    wanted[0] = False
    if not wanted.any() or wanted[1:].all():
        return region
    return Region.from_part(region.plane_shape, region.box_yxyx[:2], wanted[parts])


def _clipped(region: Region, box_yxyx: FloatArray) -> Region:
    """What lies in a box, or close to it."""
    margin = BOX_MARGIN * (box_yxyx[2:] - box_yxyx[:2])
    corner = region.box_yxyx[:2]
    (y0, x0), (y1, x1) = (
        np.maximum(nearest_index(edge + 0.5) - corner, 0)
        for edge in (box_yxyx[:2] - margin, box_yxyx[2:] + margin)
    )
    return Region.from_part(
        region.plane_shape, (corner[0] + int(y0), corner[1] + int(x0)), region.crop[y0:y1, x0:x1]
    )


def _parts_at(parts: Array, region: Region, points_yx: FloatArray) -> BoolArray:
    """Which parts points lie on, (parts + 1,) bool."""
    wanted = np.zeros(int(parts.max()) + 1, bool)
    at = nearest_index(points_yx) - region.box_yxyx[:2]
    inside = ((at >= 0) & (at < parts.shape)).all(axis=1)
    wanted[parts[tuple(at[inside].T)]] = True
    return wanted


def _mostly_inside(parts: Array, region: Region, box_yxyx: FloatArray) -> BoolArray:
    """Which parts have more than half of their pixels in a box, (parts + 1,) bool."""
    rows, cols = (np.arange(start, stop) for start, stop in zip(region.box_yxyx[:2], region.box_yxyx[2:]))
    y0, x0, y1, x1 = box_yxyx
    inside = ((rows > y0) & (rows < y1))[:, None] & ((cols > x0) & (cols < x1))[None]
    areas = np.bincount(parts.ravel())
    return np.asarray(2 * np.bincount(parts[inside], minlength=len(areas)) > areas)


def violations(region: Region, prompts: PromptSet) -> int:
    """How many clicks a mask goes against: positive ones outside it, negative ones inside."""
    return int(np.count_nonzero(_hits(region, prompts.points_yx) != prompts.polarity))


def against_mask(prompts: PromptSet) -> BoolArray:
    """Which clicks correct the mask prompt, (n,) bool; none without one."""
    if prompts.mask is None:
        return np.zeros(len(prompts.points_yx), bool)
    return np.asarray(prompts.mask[tuple(nearest_index(prompts.points_yx).T)] != prompts.polarity)


def denies_mask(prompts: PromptSet) -> bool:
    """Whether clicks say that a mask prompt is not the object: a negative one in its middle, no positive one."""
    corrects = prompts.mask is not None and prompts.box_yxyx is None and prompts.low_res_logits is None
    if not corrects or not len(prompts.points_yx) or prompts.polarity.any():
        return False
    region = Region.from_mask(prompts.mask)
    depth = ndimage.distance_transform_edt(np.pad(region.crop, 1))
    at = nearest_index(prompts.points_yx)[_hits(region, prompts.points_yx)] - region.box_yxyx[:2] + 1
    return bool((depth[tuple(at.T)] >= MIDDLE * depth.max()).any())


def _hits(region: Region, points_yx: FloatArray) -> BoolArray:
    """Which points lie on the mask, (n,) bool."""
    y0, x0, y1, x1 = region.box_yxyx
    at = nearest_index(points_yx) - (y0, x0)
    inside = ((at >= 0) & (at < (y1 - y0, x1 - x0))).all(axis=1)
    hits = np.zeros(len(at), bool)
    hits[inside] = region.crop[tuple(at[inside].T)]
    return hits
