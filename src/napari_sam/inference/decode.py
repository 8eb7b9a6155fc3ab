"""Prompts of many objects on one tile, decoded in batches.

Objects whose prompts are of the same kind (as many points, box or none, mask or none) share one call of the
decoder. Nothing is padded for that, so an answer does not depend on what else is asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_sam.core.arrays import Array, FloatArray
from napari_sam.core.geometry import mask_to_box
from napari_sam.core.planes import BoxYXYX
from napari_sam.core.prompts import PromptSet
from napari_sam.core.results import TileEmbedding
from napari_sam.core.sides import Side
from napari_sam.core.spaces import ModelSpace
from napari_sam.inference.joining import TileLogits
from napari_sam.inference.resample import bilinear
from napari_sam.inference.sides import box_from, map_from, map_to_front, points_from
from napari_sam.model.configs import SamConfig
from napari_sam.model.sam import Sam

MASK_LOGIT = 10.0
"""What a pixel of a mask prompt is worth, positive inside and negative outside."""

MAX_BATCH = 8
"""More objects in one call gain nothing on a CPU and cost memory: 17 MB each in the last layers of a SAM."""


@dataclass(frozen=True, slots=True, eq=False)
class TilePrompt:
    """Prompts of one object in the coordinates of one tile.

    Parameters
    ----------
    points_xy : (n, 2) array
        In model space.
    labels : (n,) array
        1 positive, 0 negative.
    box_xyxy : (4,) array, optional
        In model space.
    mask_logits : (m, m) float32 array, optional
        A mask prompt as the prompt encoder takes it.
    """

    points_xy: FloatArray
    labels: Array
    box_xyxy: FloatArray | None = None
    mask_logits: FloatArray | None = None

    @property
    def kind(self) -> tuple[int, bool, bool]:
        """Objects of equal kind may share a batch."""
        return len(self.points_xy), self.box_xyxy is not None, self.mask_logits is not None


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """All answers of the decoder for one object on one tile.

    Parameters
    ----------
    low_res_logits : (K, m, m) float32 array
        With the padded part of model space, as the prompt encoder wants it back.
    predicted_iou : (K,) float array
        One a mask.
    tile : TileEmbedding
        Where.
    cells_yx : (float, float)
        Rows and columns that are not padding.
    """

    low_res_logits: FloatArray
    predicted_iou: FloatArray
    tile: TileEmbedding
    cells_yx: tuple[float, float]

    def logits(self, output: int) -> TileLogits:
        """One answer without padding."""
        rows, cols = (int(np.ceil(side)) for side in self.cells_yx)
        return TileLogits(self.low_res_logits[output, :rows, :cols], self.tile.box_yxyx, self.cells_yx)


def tile_space(tile: TileEmbedding) -> ModelSpace:
    """The way from plane to model space for one tile."""
    return ModelSpace(tile.box_yxyx, tile.input_shape)


def valid_cells(tile: TileEmbedding, config: SamConfig) -> tuple[float, float]:
    """Rows and columns of a logit map that are not padding; fractions where the edge cuts a cell."""
    scale = config.mask_size / config.image_size
    return tile.input_shape[0] * scale, tile.input_shape[1] * scale


def mask_to_logits(mask: Array, tile: TileEmbedding, config: SamConfig) -> FloatArray:
    """(H, W) mask of a tile, bool or float 0..1, to (m, m) logits between plus and minus `MASK_LOGIT`."""
    exact = valid_cells(tile, config)
    rows, cols = (int(np.ceil(side)) for side in exact)
    padding = [
        (0, round(side * (whole / part - 1))) for side, whole, part in zip(mask.shape, (rows, cols), exact)
    ]
    source = torch.from_numpy(np.pad(np.asarray(mask, np.float32), padding))[None, None]
    small = F.interpolate(source, (rows, cols), mode="bilinear", antialias=True)[0, 0].numpy()
    full = np.full((config.mask_size, config.mask_size), -MASK_LOGIT, np.float32)
    full[:rows, :cols] = (2 * small - 1) * MASK_LOGIT
    return full


def map_to_logits(plane_map: FloatArray, cell: float, tile: TileEmbedding, config: SamConfig) -> FloatArray:
    """The part of a logit map of the whole plane (`cell` pixels a cell) that one tile covers, as (m, m) logits."""
    exact = valid_cells(tile, config)
    y0, x0, y1, x1 = tile.box_yxyx
    rows = _centres(y0, (y1 - y0) / exact[0], exact[0], cell)
    cols = _centres(x0, (x1 - x0) / exact[1], exact[1], cell)
    full = np.full((config.mask_size, config.mask_size), -MASK_LOGIT, np.float32)
    full[: len(rows), : len(cols)] = bilinear(plane_map, rows, cols)
    return full


def _centres(start: float, pixels: float, count: float, cell: float) -> FloatArray:
    """Where the centres of cells of `pixels` plane pixels lie in a map with `cell` pixels a cell."""
    return (start + (np.arange(int(np.ceil(count))) + 0.5) * pixels) / cell - 0.5


def localise(prompts: PromptSet, tile: TileEmbedding) -> tuple[FloatArray, Array, FloatArray | None]:
    """Points that lie in a tile, their labels, and the box cut at the tile (None if it misses it)."""
    y0, x0, y1, x1 = tile.box_yxyx
    low, high = np.array([y0, x0]) - 0.5, np.array([y1, x1]) - 0.5
    inside = ((prompts.points_yx >= low) & (prompts.points_yx < high)).all(axis=1)
    space = tile_space(tile)
    points_xy = space.to_model(prompts.points_yx[inside])
    box = prompts.box_yxyx
    if box is None and prompts.mask is not None and prompts.low_res_logits is None:
        box = mask_to_box(prompts.mask)
    if box is not None:
        box = np.concatenate([np.maximum(box[:2], low), np.minimum(box[2:], high)])
        box = space.to_model(box.reshape(2, 2)).ravel() if (box[2:] > box[:2]).all() else None
    return points_xy, prompts.polarity[inside].astype(np.int64), box


def crop_of(mask: Array, box: BoxYXYX) -> Array:
    """The part of a plane's mask inside a tile."""
    y0, x0, y1, x1 = box
    return mask[y0:y1, x0:x1]


def decode(
    sam: Sam, tile: TileEmbedding, prompts: Sequence[TilePrompt], max_batch: int = MAX_BATCH
) -> list[Decoded]:
    """Answer the prompts of several objects on one tile; the mean of what is answered from all its sides.

    Parameters
    ----------
    sam : Sam
        In `eval` mode.
    tile : TileEmbedding
        Made by the same model.
    prompts : sequence of TilePrompt
        One an object.
    max_batch : int
        Most objects in one call of the decoder.
    """
    answers = _decode_side(sam, tile, prompts, max_batch)
    if not tile.others:
        return answers
    cells = valid_cells(tile, sam.config)
    looks = [
        _decode_side(sam, other, [_seen_from(other.side, one, tile, cells) for one in prompts], max_batch)
        for other in tile.others
    ]
    return [_mean(one, others) for one, *others in zip(answers, *looks, strict=True)]


def _seen_from(side: Side, prompt: TilePrompt, tile: TileEmbedding, cells: tuple[float, float]) -> TilePrompt:
    """Prompts on a tile, in the coordinates of the same tile looked at from a side."""
    points = points_from(side, prompt.points_xy, tile.input_shape)
    box = None if prompt.box_xyxy is None else box_from(side, prompt.box_xyxy, tile.input_shape)
    logits = prompt.mask_logits
    if logits is not None:
        seen = map_from(side, logits, cells)
        logits = np.full(logits.shape, -MASK_LOGIT, np.float32)
        logits[: len(seen), : seen.shape[1]] = seen
    return TilePrompt(points, prompt.labels, box, logits)


def _mean(front: Decoded, others: Sequence[Decoded]) -> Decoded:
    """The mean of what is answered from several sides, where the image is."""
    logits = front.low_res_logits.copy()
    rows, cols = (int(np.ceil(side)) for side in front.cells_yx)
    for output, own in enumerate(logits[:, :rows, :cols]):
        seen = [map_to_front(one.tile.side, one.low_res_logits[output], front.cells_yx) for one in others]
        own[:] = np.mean([own, *seen], axis=0)
    estimates = np.mean([one.predicted_iou for one in (front, *others)], axis=0)
    return replace(front, low_res_logits=logits, predicted_iou=estimates)


def _decode_side(
    sam: Sam, tile: TileEmbedding, prompts: Sequence[TilePrompt], max_batch: int
) -> list[Decoded]:
    groups = defaultdict(list)
    for index, prompt in enumerate(prompts):
        groups[prompt.kind].append(index)
    answers: dict[int, Decoded] = {}
    embedding = _to_device(sam, tile.array)[None]
    for members in groups.values():
        for start in range(0, len(members), max_batch):
            batch = members[start : start + max_batch]
            found = _decode_batch(sam, embedding, tile, [prompts[i] for i in batch])
            answers.update(zip(batch, found))
    return [answers[index] for index in range(len(prompts))]


def _decode_batch(
    sam: Sam, embedding: Tensor, tile: TileEmbedding, prompts: Sequence[TilePrompt]
) -> list[Decoded]:
    n_points, has_box, has_mask = prompts[0].kind
    with torch.inference_mode():
        logits, iou = sam.decode(
            embedding,
            _stack(sam, [p.points_xy for p in prompts]) if n_points else None,
            _stack(sam, [p.labels for p in prompts]) if n_points else None,
            _stack(sam, [p.box_xyxy for p in prompts]) if has_box else None,
            _stack(sam, [p.mask_logits[None] for p in prompts if p.mask_logits is not None])
            if has_mask
            else None,
        )
    cells = valid_cells(tile, sam.config)
    pairs = zip(logits.float().cpu().numpy(), iou.float().cpu().numpy())
    return [Decoded(masks, estimates, tile, cells) for masks, estimates in pairs]


def _stack(sam: Sam, arrays: Sequence[Array | None]) -> Tensor:
    return _to_device(sam, np.stack([np.asarray(a, np.float32) for a in arrays]))


def _to_device(sam: Sam, array: Array) -> Tensor:
    device = sam.prompt_encoder.no_mask_embed.weight.device
    return torch.from_numpy(np.array(array, np.float32)).to(device)
