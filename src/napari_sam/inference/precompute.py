"""Encoding many planes ahead, so that later clicks and propagations find them in the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from napari_sam.core.planes import PlaneRef
from napari_sam.core.results import EncodeEvent
from napari_sam.inference.encode import CachedEncoder


def precompute(encoder: CachedEncoder, planes: Iterable[PlaneRef]) -> Iterator[EncodeEvent]:
    """Put the embeddings of planes into the store, one event a plane; planes that are there cost a look.

    Closing the generator stops between planes; what was stored stays.

    Parameters
    ----------
    encoder : CachedEncoder
        Volume, model and store.
    planes : iterable of PlaneRef
        In this order.
    """
    todo = list(planes)
    remaining = iter(todo)
    done = 0
    while batch := list(islice(remaining, max(1, getattr(encoder.predictor, "batch_size", 1)))):
        cached = [encoder.is_cached(plane) for plane in batch]
        missing = [plane for plane, there in zip(batch, cached) if not there]
        if missing:
            encoder.embeddings(missing)
        for plane, there in zip(batch, cached):
            done += 1
            yield EncodeEvent(plane, there, done, len(todo))
