"""Masks in one plane of a volume, with only the tiles encoded that the objects reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from napari_sam.core.planes import PlaneRef
from napari_sam.core.prompts import PromptSet
from napari_sam.core.protocols import Predictor
from napari_sam.core.results import ImageEmbedding, MaskPrediction
from napari_sam.inference.joining import open_ends


class PredictingEncoder(Protocol):
    """Gives embeddings of planes and knows its model, as `CachedEncoder` does."""

    @property
    def predictor(self) -> Predictor:
        """The model."""

    def embedding(self, plane: PlaneRef, prompts: Sequence[PromptSet] | None = None) -> ImageEmbedding:
        """See `PlaneEncoder.embedding`."""


def predict_plane(
    encoder: PredictingEncoder, plane: PlaneRef, prompts: Sequence[PromptSet]
) -> list[MaskPrediction]:
    """Answer the prompts of several objects in one plane; on a large plane, tile by tile as they need.

    Parameters
    ----------
    encoder : PredictingEncoder
        Usually a `CachedEncoder`.
    plane : PlaneRef
        Which plane.
    prompts : sequence of PromptSet
        One an object.

    Returns
    -------
    list of MaskPrediction
        In the order of `prompts`.
    """
    if not prompts:
        return []
    embedding = encoder.embedding(plane, prompts)
    while True:
        answers = encoder.predictor.predict_many(embedding, prompts)
        grown = _with_missing_tiles(encoder, plane, embedding, answers)
        if len(grown.tiles) == len(embedding.tiles):
            return answers
        embedding = grown


def _with_missing_tiles(
    encoder: PredictingEncoder, plane: PlaneRef, embedding: ImageEmbedding, answers: Sequence[MaskPrediction]
) -> ImageEmbedding:
    """The embedding with the tiles that masks run on into."""
    boxes = [tile.box_yxyx for tile in embedding.tiles]
    ends = [open_ends(one.region, boxes) for one in answers]
    points = np.concatenate(ends) if ends else np.zeros((0, 2))
    if not len(points):
        return embedding
    more = encoder.embedding(plane, [PromptSet(point[None]) for point in points])
    tiles = {tile.box_yxyx: tile for tile in (*embedding.tiles, *more.tiles)}
    ordered = tuple(tiles[box] for box in sorted(tiles))
    return replace(embedding, tiles=ordered)
