"""The seams between rooms. Each has a fake in `napari_sam.testing`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from napari_sam.core.arrays import Array, FloatArray
from napari_sam.core.keys import EmbeddingKey
from napari_sam.core.planes import PlaneRef, Region, Shape2D
from napari_sam.core.prompts import PromptSet
from napari_sam.core.results import ImageEmbedding, MaskPrediction, StopReason


@runtime_checkable
class VolumeLike(Protocol):
    """A lazy image seen as (T, Z, Y, X, C), whatever its own axes are. `io.Volume` implements it."""

    @property
    def source(self) -> str | None:
        """Path it can be reopened from in another process, None for an array in memory."""

    @property
    def n_levels(self) -> int:
        """Number of multiscale levels."""

    @property
    def n_time(self) -> int:
        """Number of time points."""

    @property
    def n_channels(self) -> int:
        """Number of channels of a plane."""

    @property
    def is_rgb(self) -> bool:
        """Whether the channels are red, green, blue (and alpha) of an 8 bit colour image."""

    @property
    def spacing_zyx(self) -> tuple[float, float, float]:
        """Physical size of a level-0 voxel, in `unit`."""

    @property
    def translate_zyx(self) -> tuple[float, float, float]:
        """Physical position of the centre of the first voxel, in `unit`."""

    @property
    def unit(self) -> str:
        """UDUNITS-2 name such as "micrometer", or "" when unknown."""

    def shape_zyx(self, level: int = 0) -> tuple[int, int, int]:
        """Voxels along Z, Y, X at a level."""

    def plane_shape(self, axis: int, level: int = 0) -> Shape2D:
        """Height and width of the planes along `axis`."""

    def read_plane(self, plane: PlaneRef) -> Array:
        """Read one plane: (H, W), or (H, W, C) when there is more than one channel. Own dtype."""


class Predictor(Protocol):
    """A loaded model. Prediction is a function of embedding and prompts: nothing is remembered."""

    @property
    def digest(self) -> str:
        """Digest of the image encoder's weights; stamped on embeddings."""

    def encode(self, image: Array) -> ImageEmbedding:
        """Encode an (H, W) or (H, W, C) image of any dtype."""

    def predict(self, embedding: ImageEmbedding, prompts: PromptSet) -> MaskPrediction:
        """Answer the prompts for one object."""

    def predict_many(self, embedding: ImageEmbedding, prompts: Sequence[PromptSet]) -> list[MaskPrediction]:
        """Answer the prompts of several objects on the same plane in one batch."""


class PlaneEncoder(Protocol):
    """Gives the embedding of any plane of one volume, from a store or by encoding it."""

    @property
    def volume(self) -> VolumeLike:
        """The volume whose planes these are."""

    def pixels(self, plane: PlaneRef) -> Array:
        """As `VolumeLike.read_plane`; what is held in memory already is not read again."""

    def embedding(self, plane: PlaneRef, prompts: Sequence[PromptSet] | None = None) -> ImageEmbedding:
        """Embedding of a plane; of a tiled plane only the tiles these prompts need, all when None."""


class EmbeddingStore(Protocol):
    """Keeps embeddings by key. Safe to use from several threads and processes."""

    def get(self, key: EmbeddingKey) -> FloatArray:
        """(C, h, w) array. Raises EmbeddingNotFoundError, or EmbeddingCorruptError for a bad record."""

    def put(self, key: EmbeddingKey, array: FloatArray) -> None:
        """Keep an array. Storing the same key again is harmless."""

    def __contains__(self, key: EmbeddingKey) -> bool:
        """Whether `get` would find a record."""

    def discard(self, keys: Iterable[EmbeddingKey]) -> None:
        """Forget these records; keys that are not there are ignored."""


class StopRule(Protocol):
    """Decides whether an object ended between two planes."""

    def __call__(self, previous: Region, current: Region, predicted_iou: float) -> StopReason | None:
        """The reason to stop before `current`, or None to go on."""
