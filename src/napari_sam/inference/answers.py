"""From the decoder's outputs to the answer a user gets. All rules of choice are here.

* **One positive point and nothing else** may mean a part, the whole or a group (SAM paper, section 3). The
  three outputs for ambiguous prompts are offered, from small to large; the one with the best predicted IoU
  is chosen.
* **Anything more** is specific: the single output is chosen, the other three follow, so that a user can
  still cycle through them.
* **More clicks never make it worse**: when earlier logits are given with points, the answer that goes against
  the fewest clicks is chosen, in the order single output, earlier answer, other outputs where they are
  equal. So an answer that loses clicks which the earlier one had right is not taken. Where the single
  output is no better and its own estimate has collapsed, the earlier answer stays too.
* **A later correction is local**: from the third point on, an answer to earlier logits changes the mask only where the
  change reaches the newest click or one that the earlier mask had wrong. What lies elsewhere was right enough
  for the user to click somewhere else, so it stays.
* **Objects hang together** (models whose configuration says so): of a mask in several parts, those are kept
  that hold a positive click, overlap the mask prompt, or lie in the box. Without any the mask stays whole.
  The answer to a box alone ends a little outside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from napari_sam.core.arrays import Array, BoolArray, FloatArray
from napari_sam.core.planes import Region
from napari_sam.core.prompts import PromptSet
from napari_sam.core.results import MaskCandidate, MaskPrediction
from napari_sam.core.spaces import nearest_index

SINGLE = 0
MULTIMASK = (1, 2, 3)
STABILITY_OFFSET = 1.0
COLLAPSED = 0.25
"""A predicted IoU below this is no answer at all."""
LOCAL_FROM = 3
"""Points from which on a correction is local; before, the object is still being found."""
REACH = 2
"""Cells of the logits from a click to a change that reaches it."""
BOX_MARGIN = 0.05
"""So far outside a box, as a share of its sides, its object may reach: users draw boxes by hand."""


def outputs_for(prompts: PromptSet) -> tuple[int, ...]:
    """Which outputs of the decoder are offered, in the order in which a user cycles through them."""
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
        best = max(range(len(ordered)), key=lambda i: ordered[i].predicted_iou)
        return MaskPrediction(tuple(ordered), best)
    if earlier is None or not len(prompts.points_yx):
        return MaskPrediction(tuple(candidates))
    return never_worse(candidates, earlier, prompts)


def never_worse(
    candidates: Sequence[MaskCandidate], earlier: MaskCandidate, prompts: PromptSet
) -> MaskPrediction:
    """Choose among new answers and the earlier one, which is offered last.

    Parameters
    ----------
    candidates : sequence of MaskCandidate
        New answers, the one for clear prompts first.
    earlier : MaskCandidate
        The answer before.
    prompts : PromptSet
        All clicks, old and new.
    """
    everything = (*candidates, earlier)
    last = len(everything) - 1
    wrong = [violations(one.region, prompts) for one in everything]
    collapsed = candidates[0].predicted_iou < min(COLLAPSED, earlier.predicted_iou)
    order = [last, 0] if collapsed else [0, last]
    chosen = min([*order, *range(1, last)], key=wrong.__getitem__)
    return MaskPrediction(everything, chosen)


def local_correction(logits: FloatArray, earlier: FloatArray, cells_yx: Array) -> FloatArray:
    """Of the change from an earlier answer to a new one, the connected parts that reach some clicks.

    Parameters
    ----------
    logits, earlier : (h, w) float array
        The new answer, and the one that was fed back for it.
    cells_yx : (n, 2) int array
        Rows and columns of the clicks.
    """
    changed = (logits > 0) != (earlier > 0)
    parts, _ = ndimage.label(changed)
    windows = [tuple(slice(max(0, at - REACH), at + REACH + 1) for at in cell) for cell in cells_yx.tolist()]
    reached = np.unique(np.concatenate([parts[window].ravel() for window in windows]))
    return np.where(changed & ~np.isin(parts, reached), earlier, logits)


def prompted_parts(region: Region, prompts: PromptSet) -> Region:
    """The connected parts of a mask that its prompts point at; sides touch, corners do not."""
    kept = _pointed_at(region, prompts)
    if prompts.box_yxyx is None or len(prompts.points_yx) or prompts.mask is not None:
        return kept
    return _clipped(kept, prompts.box_yxyx)


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
    mask = np.zeros(region.plane_shape, bool)
    mask[region.slices] = wanted[parts]
    return Region.from_mask(mask)


def _clipped(region: Region, box_yxyx: FloatArray) -> Region:
    """What lies in a box, or close to it."""
    margin = BOX_MARGIN * (box_yxyx[2:] - box_yxyx[:2])
    low = np.maximum(nearest_index(box_yxyx[:2] - margin + 0.5), 0)
    high = np.maximum(nearest_index(box_yxyx[2:] + margin + 0.5), low)
    mask = np.zeros(region.plane_shape, bool)
    inside = slice(low[0], high[0]), slice(low[1], high[1])
    mask[inside] = region.mask[inside]
    return Region.from_mask(mask)


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


def _hits(region: Region, points_yx: FloatArray) -> BoolArray:
    """Which points lie on the mask, (n,) bool."""
    y0, x0, y1, x1 = region.box_yxyx
    at = nearest_index(points_yx) - (y0, x0)
    inside = ((at >= 0) & (at < (y1 - y0, x1 - x0))).all(axis=1)
    hits = np.zeros(len(at), bool)
    hits[inside] = region.crop[tuple(at[inside].T)]
    return hits
