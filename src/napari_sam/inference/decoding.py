"""Answering the prompts of many objects on one plane, of one tile or of several.

On a plane of one tile `low_res_logits` are the decoder's own, (m, m). On a tiled plane they are one joined
map of the whole plane, (rows, cols), with as many pixels a cell as the decoder's output has on a tile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import numpy as np

from napari_sam.core.arrays import FloatArray, frozen_array
from napari_sam.core.planes import BoxYXYX, Region, Shape2D
from napari_sam.core.prompts import PromptSet
from napari_sam.core.results import ImageEmbedding, MaskCandidate, MaskPrediction, TileEmbedding
from napari_sam.errors import PromptError
from napari_sam.inference.answers import (
    SINGLE,
    SMALL_STEPS_FROM,
    against_mask,
    choose,
    heed_clicks,
    outputs_for,
    prompted_parts,
    small_step,
    stability_score,
)
from napari_sam.inference.averaging import averaged, evenly
from napari_sam.inference.decode import (
    MASK_LOGIT,
    Decoded,
    TilePrompt,
    crop_of,
    decode,
    localise,
    map_to_logits,
    mask_to_logits,
    tile_space,
    valid_cells,
)
from napari_sam.inference.joining import UNKNOWN, Blend, Grid, TileLogits, follow
from napari_sam.inference.resample import region_of
from napari_sam.inference.tiles import (
    LARGE,
    OVERLAP,
    best_tile,
    extent,
    has_useful_overview,
    holds,
    overview,
    plan_tiles,
    tile_around,
)
from napari_sam.model.sam import Sam


def answer_plane(sam: Sam, embedding: ImageEmbedding, prompts: Sequence[PromptSet]) -> list[MaskPrediction]:
    """Answer prompts that were checked to fit the plane; objects in the same tile share batches.

    Parameters
    ----------
    sam : Sam
        In `eval` mode.
    embedding : ImageEmbedding
        Made by it.
    prompts : sequence of PromptSet
        One an object.
    """
    plane = DecodingPlane(sam, embedding)
    by_tile = defaultdict(list)
    for index, one in enumerate(prompts):
        plane.check_logits(one)
        by_tile[plane.first_tile(one)].append(index)
    whole = overview(plane.shape)
    answers: dict[int, MaskPrediction] = {}
    for box, members in by_tile.items():
        if box != whole and plane.has_overview:
            clicks = [i for i in members if prompts[i].is_ambiguous]
            seen = plane.answers(whole, prompts, clicks)
            answers.update((i, one) for i, one in seen.items() if plane.is_large(one))
        rest = [i for i in members if i not in answers]
        answers.update(plane.answers(box, prompts, rest))
    return [answers[index] for index in range(len(prompts))]


class DecodingPlane:
    """One plane with its embedding and the network that answers for it.

    Parameters
    ----------
    sam : Sam
        In `eval` mode.
    embedding : ImageEmbedding
        Made by it.
    """

    def __init__(self, sam: Sam, embedding: ImageEmbedding) -> None:
        self.sam = sam
        self.config = sam.config
        self.scale = embedding.scale
        self.shape: Shape2D = embedding.plane_shape
        self.tiles: dict[BoxYXYX, TileEmbedding] = {tile.box_yxyx: tile for tile in embedding.tiles}
        self.tile_size = embedding.tile_size or self.config.image_size
        plan = plan_tiles(self.shape, round(self.tile_size / embedding.scale), scale=embedding.scale)
        self.is_tiled = len(plan) > 1
        self.plan = plan
        self.boxes = tuple(box for box in plan if box in self.tiles)
        self.grid = Grid(self.shape, max(1, self.tile_size // self.config.mask_size))

    @property
    def logits_shape(self) -> Shape2D:
        """Shape of `low_res_logits` on this plane."""
        size = self.config.mask_size
        return self.grid.shape if self.is_tiled else (size, size)

    @property
    def has_overview(self) -> bool:
        """Whether there is one at hand that large objects are seen well in."""
        return overview(self.shape) in self.tiles and has_useful_overview(self.plan, self.shape)

    def is_large(self, answer: MaskPrediction) -> bool:
        """Whether an object is better seen in the overview than in a grid tile."""
        return bool(answer.region.area**0.5 > LARGE * self.tile_size)

    def answers(
        self, box: BoxYXYX, prompts: Sequence[PromptSet], members: Sequence[int]
    ) -> dict[int, MaskPrediction]:
        """Answers to some of the prompts, by their index, that begin in one tile."""
        tile = self.tiles[box]
        decoded = decode(self.sam, tile, [self.localised(prompts[i], tile) for i in members])
        return {i: self.answer(found, prompts[i]) for i, found in zip(members, decoded, strict=True)}

    def check_logits(self, prompts: PromptSet) -> None:
        """Raise PromptError if earlier logits are not of this plane and model."""
        given = prompts.low_res_logits
        if given is not None and given.shape != self.logits_shape:
            raise PromptError(
                f"low_res_logits of shape {given.shape} do not belong to this plane and model, which give "
                f"{self.logits_shape}; feed back what the last prediction on the same plane gave"
            )

    def first_tile(self, prompts: PromptSet) -> BoxYXYX:
        """Where an object is looked for first, among the tiles at hand."""
        wanted = self._wanted_tile(prompts)
        if wanted in self.tiles:
            return wanted
        if not self.tiles:
            raise PromptError("the embedding has no tiles; encode the plane again")
        present = tuple(self.tiles)
        return present[best_tile(present, np.array(wanted, np.float64))]

    def _wanted_tile(self, prompts: PromptSet) -> BoxYXYX:
        logits, around = prompts.low_res_logits, extent(prompts)
        if logits is None or not self.is_tiled:
            return tile_around(around, self.plan, self.shape)
        earlier = self.grid.region(logits)
        box = np.array(earlier.box_yxyx, np.float64) if earlier.crop.any() else None
        by_answer = tile_around(box, self.plan, self.shape)
        if around is None or (box is not None and by_answer == overview(self.shape)):
            return by_answer
        return tile_around(around, self.plan, self.shape)

    def localised(self, prompts: PromptSet, tile: TileEmbedding) -> TilePrompt:
        """Prompts of one object in the coordinates of one tile."""
        points_xy, labels, box_xyxy = localise(prompts, tile)
        return TilePrompt(points_xy, labels, box_xyxy, self._mask_prompt(prompts, tile))

    def _mask_prompt(self, prompts: PromptSet, tile: TileEmbedding) -> FloatArray | None:
        logits = prompts.low_res_logits
        if logits is not None:
            return (
                map_to_logits(_known(logits), self.grid.cell, tile, self.config) if self.is_tiled else logits
            )
        if prompts.mask is not None:
            crop = crop_of(prompts.mask, tile.box_yxyx)
            if self.scale > 1:  # a mask of a whole plane would take four times its size as logits
                crop = averaged(crop, *evenly(crop.shape, self.scale))
            return mask_to_logits(crop, tile, self.config)
        return None

    def answer(self, decoded: Decoded, prompts: PromptSet) -> MaskPrediction:
        """Candidates of one object, from its first tile onwards, and the choice among them."""
        outputs = outputs_for(prompts, self.config.multimask)
        candidates = [self._candidate(decoded, output, prompts) for output in outputs]
        return choose(candidates, prompts, self._earlier(prompts))

    def _candidate(self, decoded: Decoded, output: int, prompts: PromptSet) -> MaskCandidate:
        iou = float(decoded.predicted_iou[output])
        if not self.is_tiled:
            logits = self._corrected(decoded.low_res_logits[output], prompts)
            return self._untiled(decoded.tile, logits, prompts, iou)
        joined = self._corrected(self._joined(decoded.logits(output), prompts), prompts)
        region = self._meant(self.grid.region(joined), prompts)
        return MaskCandidate(region, iou, stability_score(joined), joined)

    def _corrected(self, logits: FloatArray, prompts: PromptSet) -> FloatArray:
        """An answer after the rules for corrections of earlier ones."""
        earlier, at = prompts.low_res_logits, self._cells(prompts.points_yx)
        if earlier is None:
            return heed_clicks(logits, at, prompts.polarity, against_mask(prompts))
        if len(at) >= SMALL_STEPS_FROM:
            logits = small_step(logits, earlier, UNKNOWN)
        return heed_clicks(logits, at, prompts.polarity, np.ones(len(at), bool))

    def _cells(self, points_yx: FloatArray) -> FloatArray:
        """Points of the plane in cells of the logits, whose centres are whole numbers: (n, 2)."""
        if self.is_tiled:
            return np.asarray((points_yx + 0.5) / self.grid.cell - 0.5)
        (tile,) = self.tiles.values()
        centres = tile_space(tile).to_model(points_yx)[:, ::-1] + 0.5
        return np.asarray(centres * self.config.mask_size / self.config.image_size - 0.5)

    def _untiled(
        self, tile: TileEmbedding, logits: FloatArray, prompts: PromptSet, iou: float | None = None
    ) -> MaskCandidate:
        """An answer on a plane of one tile; its stability stands in for an estimate that is not known."""
        logits = frozen_array(logits, np.float32)
        cells = valid_cells(tile, self.config)
        valid = logits[: int(np.ceil(cells[0])), : int(np.ceil(cells[1]))]
        stability = stability_score(valid)
        meant = prompts if self.config.connected else None
        region = partial(_drawn, TileLogits(valid, tile.box_yxyx, cells), self.shape, meant)
        return MaskCandidate(region, stability if iou is None else iou, stability, logits)

    def _meant(self, region: Region, prompts: PromptSet) -> Region:
        return prompted_parts(region, prompts) if self.config.connected else region

    def _joined(self, first: TileLogits, prompts: PromptSet) -> FloatArray:
        boxes = (first.box_yxyx,) if first.box_yxyx == overview(self.shape) else self.boxes
        blend = Blend(self.grid, boxes, OVERLAP * self.tile_size)
        points = prompts.points_yx[prompts.polarity] if len(boxes) > 1 else prompts.points_yx[:0]
        extra = [best_tile(boxes, np.tile(p, 2)) for p in points if not holds(first.box_yxyx, p)]
        return follow(blend, first, extra, lambda *known: self._ask(boxes, prompts, *known))

    def _ask(
        self,
        boxes: Sequence[BoxYXYX],
        prompts: PromptSet,
        index: int,
        joined: FloatArray,
        cell: tuple[int, int],
    ) -> TileLogits:
        """Prompt one more tile with what is known of the object."""
        tile = self.tiles[boxes[index]]
        points_xy, labels, box_xyxy = localise(prompts, tile)
        if joined[cell] > 0:
            inside = (np.array([cell]) + 0.5) * self.grid.cell - 0.5
            points_xy = np.concatenate([points_xy, tile_space(tile).to_model(inside)])
            labels = np.append(labels, 1)
        known = map_to_logits(_known(joined), self.grid.cell, tile, self.config)
        (decoded,) = decode(self.sam, tile, [TilePrompt(points_xy, labels, box_xyxy, known)])
        return decoded.logits(SINGLE)

    def _earlier(self, prompts: PromptSet) -> MaskCandidate | None:
        """The answer that the given logits stand for."""
        logits = prompts.low_res_logits
        if logits is None or not len(prompts.points_yx):
            return None
        if self.is_tiled:
            region, stability = self._meant(self.grid.region(logits), prompts), stability_score(logits)
            return MaskCandidate(region, stability, stability, logits)
        (tile,) = self.tiles.values()
        return self._untiled(tile, logits, prompts)


def _drawn(answer: TileLogits, shape: Shape2D, prompts: PromptSet | None) -> Region:
    """Cut an answer at the plane's resolution; of its parts those that prompts point at, if any are given."""
    region = region_of(answer.logits, answer.box_yxyx, shape, answer.cells_yx)
    return region if prompts is None else prompted_parts(region, prompts)


def _known(logits: FloatArray) -> FloatArray:
    """A joined map as a mask prompt: undecided where no tile has answered, within the usual range elsewhere."""
    return np.where(logits <= UNKNOWN, 0.0, np.clip(logits, -MASK_LOGIT, MASK_LOGIT)).astype(np.float32)
