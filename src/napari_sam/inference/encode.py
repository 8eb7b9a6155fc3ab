"""The embedding of any plane of a volume: from the store, or encoded and stored.

Needs no torch: what encodes is handed in.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from threading import RLock
from typing import Protocol, Self, runtime_checkable
from weakref import WeakValueDictionary

import numpy as np

from napari_sam.core.arrays import Array, FloatArray
from napari_sam.core.contrast import Contrast
from napari_sam.core.keys import EmbeddingKey, digest_array
from napari_sam.core.planes import BoxYXYX, PlaneRef, Shape2D
from napari_sam.core.prompts import PromptSet
from napari_sam.core.protocols import EmbeddingStore, Predictor, VolumeLike
from napari_sam.core.results import ImageEmbedding, TileEmbedding
from napari_sam.core.sides import FRONT, Side
from napari_sam.embedding import MemoryStore
from napari_sam.errors import CacheWarning, EmbeddingCorruptError, EmbeddingNotFoundError
from napari_sam.inference.contrast import estimate_contrast
from napari_sam.inference.levels import Source, source_of
from napari_sam.inference.tiles import has_useful_overview, meeting, overview, plan_tiles, tiles_for

Part = tuple[BoxYXYX, Side]
"""A tile, and the side from which it is looked at."""
PREPROCESSING_VERSION = 2
"""Raised whenever the embedding of the same pixels changes, so that old records are not taken for new."""


@runtime_checkable
class TileEncoder(Protocol):
    """What a predictor has besides, when it encodes tiles in batches (`SamPredictor` does)."""

    def encode_tiles(self, images: Sequence[Array]) -> list[FloatArray]:
        """Encode (h, w, 3) uint8 tiles."""

    def tile(self, array: FloatArray, box: BoxYXYX) -> TileEmbedding:
        """Say where in a plane an output of the encoder belongs."""


class CachedEncoder:
    """Embeddings of the planes of one volume. Safe to use from several threads.

    Pixels are digested when a plane is first seen, and taken to stay the same until `forget_pixels`.
    Embeddings are rounded to half precision before they are kept and before they are given out, so that a
    first run and a resumed one give the same masks.

    Parameters
    ----------
    volume : VolumeLike
        Read one plane at a time.
    predictor : Predictor
        The model.
    store : EmbeddingStore, optional
        Where embeddings are kept; in memory only when left out.
    contrast : Contrast, optional
        Estimated from a few planes at first use when left out.

    Attributes
    ----------
    scale : float
        Pixels of a plane, along a side, that go into one pixel of what is encoded; see `at`.
    sides : tuple of Side
        From where tiles are looked at, the front first.
    """

    def __init__(
        self,
        volume: VolumeLike,
        predictor: Predictor,
        store: EmbeddingStore | None = None,
        contrast: Contrast | None = None,
    ) -> None:
        self.volume = volume
        self.predictor = predictor
        self.store: EmbeddingStore = store if store is not None else MemoryStore()
        self.digests: dict[tuple[PlaneRef, BoxYXYX], str] = {}
        self._contrasts: dict[int, Contrast] = {}
        self.scale: float = 1
        self.sides: tuple[Side, ...] = FRONT
        self._fixed = contrast
        self._lock = RLock()
        self._held: WeakValueDictionary[PlaneRef, Array] = WeakValueDictionary()

    def at(self, scale: float, sides: tuple[Side, ...] = FRONT) -> Self:
        """The same encoder, over the same store, that looks at planes from afar, see `inference.levels`, or closely.

        Its tiles cover `scale` times as many pixels of a plane along each side, and are encoded from each of the sides.
        """
        if (scale, sides) == (self.scale, self.sides):
            return self
        other = copy(self)
        other.scale, other.sides = scale, sides
        return other

    @property
    def contrast(self) -> Contrast:
        """What grey values become 8 bit by, at the first time point."""
        return self.contrast_at(0)

    def contrast_at(self, time: int) -> Contrast:
        """The given contrast, or one estimated for each time point."""
        with self._lock:
            if self._fixed is not None:
                return self._fixed
            if time not in self._contrasts:
                self._contrasts[time] = estimate_contrast(self.volume, time)
            return self._contrasts[time]

    def pixels(self, plane: PlaneRef) -> Array:
        """A plane as it is in the volume. Nothing is kept, but while somebody holds it, it is not read again."""
        held = self._held.get(plane)
        if held is None:
            held = self._held[plane] = self.volume.read_plane(plane)
        return held

    def embedding(self, plane: PlaneRef, prompts: Sequence[PromptSet] | None = None) -> ImageEmbedding:
        """Embedding of a plane.

        Parameters
        ----------
        plane : PlaneRef
            Which one.
        prompts : sequence of PromptSet, optional
            Of a tiled plane only the tiles that these need are encoded; all grid tiles when left out.

        Warns
        -----
        CacheWarning
            A damaged record was found and computed again.
        """
        return self.embeddings([plane], prompts)[0]

    def embeddings(
        self, planes: Sequence[PlaneRef], prompts: Sequence[PromptSet] | None = None
    ) -> list[ImageEmbedding]:
        """Embeddings of several planes; whatever is missing is encoded in one batch."""
        work = [_PlaneWork(self, plane, self._boxes(plane, prompts)) for plane in planes]
        with self._lock:
            missing = [(one, part) for one in work for part in one.find()]
            arrays = self._encode([one.rgb(*part) for one, part in missing])
            for (one, part), array in zip(missing, arrays):
                one.found[part] = self._keep(one.key(*part), array)
        return [one.assembled() for one in work]

    def is_cached(self, plane: PlaneRef, part: BoxYXYX | None = None) -> bool:
        """Whether all grid tiles of a plane, or of a part of it, are in the store.

        Reads the plane if it is seen for the first time.
        """
        work = _PlaneWork(self, plane, self._boxes_of(plane, part))
        return all(work.key(*part) in self.store for part in work.parts)

    def encode_steps(self, plane: PlaneRef, part: BoxYXYX | None = None) -> Iterator[None]:
        """Bring all grid tiles of a plane, or those that a part of it meets, into the store.

        A batch a step: between two steps others may have a turn.
        """
        work = _PlaneWork(self, plane, self._boxes_of(plane, part))
        size = max(1, getattr(self.predictor, "batch_size", 1))
        for start in range(0, len(work.parts), size):
            with self._lock:
                batch = [one for one in work.parts[start : start + size] if work.key(*one) not in self.store]
                for one, array in zip(batch, self._encode([work.rgb(*one) for one in batch])):
                    self._keep(work.key(*one), array)
            if batch:
                yield

    def forget_pixels(self) -> None:
        """Digest planes anew: the volume was written to."""
        self.digests.clear()
        self._held.clear()

    def key(self, read: PlaneRef, box: BoxYXYX, side: Side, pixels: str) -> EmbeddingKey:
        """What the embedding of a tile is kept under, whose pixels were read in a plane."""
        return EmbeddingKey(
            model_digest=self.predictor.digest,
            architecture=str(getattr(self.predictor, "architecture", "unknown")),
            compute_dtype=str(getattr(self.predictor, "dtype", "float32")),
            contrast=self.contrast_at(read.time).digest,
            axis=read.axis,
            level=read.level,
            tile_yxyx=box,
            pixels=pixels,
            preprocessing=PREPROCESSING_VERSION,
            scale=max(1, round(self.scale)),  # a small tile is the same at any scale that enlarges it
            side=side,
        )

    def look_up(self, key: EmbeddingKey) -> FloatArray | None:
        """The stored array, None if there is none that can be trusted."""
        try:
            return self.store.get(key)
        except EmbeddingNotFoundError:
            return None
        except EmbeddingCorruptError as error:
            self.store.discard([key])
            warnings.warn(f"{error}; it is computed again", CacheWarning, stacklevel=2)
            return None

    def tile(self, array: FloatArray, box: BoxYXYX, side: Side, shape: Shape2D) -> TileEmbedding:
        """Say where in a plane the output of the encoder belongs that was made of an image of this shape."""
        if isinstance(self.predictor, TileEncoder):
            return replace(self.predictor.tile(array, (0, 0, *shape)), box_yxyx=box, side=side)
        return TileEmbedding(array, box, shape, side)

    def tile_size(self, plane_shape: Shape2D) -> int:
        """Pixels along the side of a tile of what is encoded; the whole plane for a model that does not tile."""
        return int(getattr(self.predictor, "tile_size", max(plane_shape)))

    def _boxes(self, plane: PlaneRef, prompts: Sequence[PromptSet] | None) -> tuple[BoxYXYX, ...]:
        shape = self.volume.plane_shape(plane.axis, plane.level)
        boxes = plan_tiles(shape, self.tile_size(shape), scale=self.scale)
        if prompts is not None and len(boxes) > 1:
            return tiles_for(prompts, boxes, shape)
        return (overview(shape), *boxes) if has_useful_overview(boxes, shape) else boxes

    def _boxes_of(self, plane: PlaneRef, part: BoxYXYX | None) -> tuple[BoxYXYX, ...]:
        boxes = self._boxes(plane, None)
        return boxes if part is None else meeting(boxes, part)

    def _encode(self, images: Sequence[Array]) -> list[FloatArray]:
        if isinstance(self.predictor, TileEncoder):
            return self.predictor.encode_tiles(images) if images else []
        return [self.predictor.encode(image).tiles[0].array for image in images]

    def _keep(self, key: EmbeddingKey, array: FloatArray) -> FloatArray:
        half: FloatArray = array.astype(np.float16)
        kept = half if np.isfinite(half).all() else array
        self.store.put(key, kept)
        return kept


class _PlaneWork:
    """What is known of one plane while its embedding is put together; its pixels are read at most once."""

    def __init__(self, encoder: CachedEncoder, plane: PlaneRef, boxes: tuple[BoxYXYX, ...]) -> None:
        self.encoder, self.plane, self.boxes = encoder, plane, boxes
        self.parts: list[Part] = [(box, side) for box in boxes for side in encoder.sides]
        self.source: Source = source_of(encoder.volume, plane, encoder.scale)
        self.found: dict[Part, FloatArray] = {}
        self._pixels: Array | None = None

    def find(self) -> list[Part]:
        """Take from the store what is there; the tiles that are not."""
        for part in self.parts:
            array = self.encoder.look_up(self.key(*part))
            if array is not None:
                self.found[part] = array
        return [part for part in self.parts if part not in self.found]

    def key(self, box: BoxYXYX, side: Side) -> EmbeddingKey:
        """Key of one tile from one side."""
        digests, read = self.encoder.digests, self.source.plane
        window = self.source.window(box)
        if (read, window) not in digests:
            digests[read, window] = digest_array(self.pixels(box))
        return self.encoder.key(read, box, side, digests[read, window])

    def pixels(self, box: BoxYXYX) -> Array:
        """Pixels of one tile as they are in the volume."""
        if self._pixels is None:
            self._pixels = self.encoder.pixels(self.source.plane)
        y0, x0, y1, x1 = self.source.window(box)
        return self._pixels[y0:y1, x0:x1]

    def rgb(self, box: BoxYXYX, side: Side) -> Array:
        """Pixels of one tile from one side, 8 bit."""
        contrast, pixels = self.encoder.contrast_at(self.plane.time), self.pixels(box)
        # kept under what is encoded now: the image may have changed since it was first seen
        self.encoder.digests[self.source.plane, self.source.window(box)] = digest_array(pixels)
        return side.of(self.source.rgb(pixels, box, contrast))

    def assembled(self) -> ImageEmbedding:
        """The embedding, once all tiles are found."""
        encoder = self.encoder
        shape = encoder.volume.plane_shape(self.plane.axis, self.plane.level)
        tiles = tuple(map(self._tile, self.boxes))
        tile_size = round(encoder.scale * encoder.tile_size(shape))
        return ImageEmbedding(shape, tiles, encoder.predictor.digest, tile_size, encoder.scale)

    def _tile(self, box: BoxYXYX) -> TileEmbedding:
        """A tile, with what is seen of it from other sides."""
        shape = self.source.encoded_shape(box)
        first, *others = (
            self.encoder.tile(self.found[box, side], box, side, side.shape_of(shape))
            for side in self.encoder.sides
        )
        return replace(first, others=tuple(others))
