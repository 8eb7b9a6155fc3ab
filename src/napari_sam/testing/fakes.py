"""Stand-ins for every seam of `napari_sam.core.protocols`: small, exact and counted.

With a `FakePredictor` the mask of a prompt is known to the pixel, so engines and widgets can be checked
exactly, without weights and within milliseconds::

    predictor = FakePredictor()
    encoder = FakeEncoder(ArrayVolume(ball_volume().image), predictor)
    embedding = encoder.embedding(PlaneRef(axis=0, index=12))
    mask = predictor.predict(embedding, PromptSet([(32, 40)])).mask
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Self
from weakref import WeakValueDictionary

import numpy as np
from scipy import ndimage

from napari_sam.core.arrays import Array, BoolArray, FloatArray, frozen_array
from napari_sam.core.keys import EmbeddingKey
from napari_sam.core.models import ModelSpec
from napari_sam.core.planes import BoxYXYX, PlaneRef, Region, Shape2D
from napari_sam.core.prompts import PromptSet
from napari_sam.core.protocols import EmbeddingStore, PlaneEncoder, Predictor, VolumeLike
from napari_sam.core.results import ImageEmbedding, MaskCandidate, MaskPrediction, TileEmbedding, as_image
from napari_sam.core.sides import FRONT, Side
from napari_sam.core.spaces import Level, nearest_index
from napari_sam.errors import EmbeddingNotFoundError, VolumeError

LOGIT = 10.0
"""Logit of every pixel of a fake mask; outside it is -LOGIT."""


class FakePredictor:
    """A predictor that segments by threshold: its "embedding" is the image.

    The pixels not below `threshold` form connected components (4-neighbours). The mask is the components
    under the positive points; failing that, the one that overlaps the mask prompt most, then the positive
    earlier logits, then the box; components under negative points are taken away. Components are never
    cut at the box. Where nothing is hit the mask is empty and its predicted IoU is 0.

    An ambiguous prompt (one positive point) gets three candidates: the component, the component shrunk
    by two pixels and grown by two; the first is chosen. Anything else gets one.

    Parameters
    ----------
    threshold : float
        In grey values of the encoded image (mean over its channels). The default suits the phantoms, before
        and after a Contrast.
    delay_s : float
        Every encode, predict and predict_many sleeps so long; see also `encode_delay_s`, `predict_delay_s`.
    predicted_iou : float
        Given for every mask that is not empty. May be changed at any time.
    digest : str
        Stamped on embeddings; those of another digest are refused.
    tile_size : int
        What a caller that tiles large planes should use. The fake itself takes any size.

    Attributes
    ----------
    n_encodes, n_predictions, n_batches : int
        Images encoded, objects decoded, calls of `predict_many`. Counted under a lock.
    error : Exception or None
        Raised by the next encode or predict, once.
    """

    def __init__(
        self,
        threshold: float = 100.0,
        *,
        delay_s: float = 0.0,
        predicted_iou: float = 0.95,
        digest: str = "fake",
        tile_size: int = 1 << 16,
    ) -> None:
        self.threshold = threshold
        self.encode_delay_s = self.predict_delay_s = delay_s
        self.predicted_iou = predicted_iou
        self.tile_size = tile_size
        self.spec = ModelSpec("fake", "cpu", "float32")
        self.device = "cpu"
        self.error: Exception | None = None
        self.n_encodes = self.n_predictions = self.n_batches = 0
        self._digest = digest
        self._lock = Lock()

    @property
    def digest(self) -> str:
        """Digest stamped on the embeddings."""
        return self._digest

    @property
    def delay_s(self) -> float:
        """Seconds that the slowest call sleeps; setting it sets both delays."""
        return max(self.encode_delay_s, self.predict_delay_s)

    @delay_s.setter
    def delay_s(self, seconds: float) -> None:
        self.encode_delay_s = self.predict_delay_s = seconds

    def encode(self, image: Array) -> ImageEmbedding:
        """Keep the image, mean over channels, as a (1, H, W) float32 array in a single tile."""
        image = as_image(np.asarray(image))
        self._count(n_encodes=1)
        self._work(self.encode_delay_s)
        grey = image.astype(np.float32) if image.ndim == 2 else image.mean(axis=2, dtype=np.float32)
        shape = (image.shape[0], image.shape[1])
        tile = TileEmbedding(grey[None], (0, 0, *shape), shape)
        return ImageEmbedding(shape, (tile,), self.digest)

    def predict(self, embedding: ImageEmbedding, prompts: PromptSet) -> MaskPrediction:
        """Answer the prompts for one object."""
        self._count(n_predictions=1)
        self._work(self.predict_delay_s)
        return self._answer(embedding, prompts)

    def predict_many(self, embedding: ImageEmbedding, prompts: Sequence[PromptSet]) -> list[MaskPrediction]:
        """Answer the prompts of several objects; sleeps once for the whole batch."""
        self._count(n_predictions=len(prompts), n_batches=1)
        self._work(self.predict_delay_s)
        return [self._answer(embedding, one) for one in prompts]

    def reset_counts(self) -> None:
        """Set all counters to zero."""
        with self._lock:
            self.n_encodes = self.n_predictions = self.n_batches = 0

    def _count(self, **by: int) -> None:
        with self._lock:
            for name, step in by.items():
                setattr(self, name, getattr(self, name) + step)

    def _work(self, seconds: float) -> None:
        with self._lock:
            error, self.error = self.error, None
        if error is not None:
            raise error
        if seconds > 0:
            time.sleep(seconds)

    def _answer(self, embedding: ImageEmbedding, prompts: PromptSet) -> MaskPrediction:
        if embedding.model_digest != self.digest:
            raise ValueError(
                f"embedding was made by the model {embedding.model_digest!r}, not by {self.digest!r}; encode again"
            )
        prompts.check_inside(embedding.plane_shape)
        components, _ = ndimage.label(_remembered_image(embedding) >= self.threshold)
        mask = _prompted_component(components, prompts)
        if not prompts.is_ambiguous or not mask.any():
            return MaskPrediction((self._candidate(mask, 1.0),))
        part, group = ndimage.binary_erosion(mask, iterations=2), ndimage.binary_dilation(mask, iterations=2)
        weighted = ((mask, 1.0), (part, 0.8), (group, 0.7))
        return MaskPrediction(tuple(self._candidate(one, weight) for one, weight in weighted))

    def _candidate(self, mask: BoolArray, weight: float) -> MaskCandidate:
        quality = self.predicted_iou * weight if mask.any() else 0.0
        logits = np.where(mask, np.float32(LOGIT), np.float32(-LOGIT))
        return MaskCandidate(Region.from_mask(mask), quality, 1.0 if mask.any() else 0.0, logits)


def _remembered_image(embedding: ImageEmbedding) -> FloatArray:
    """Lay the tiles back into the plane, enlarged; what no tile covers is darker than any threshold."""
    plane = np.full(embedding.plane_shape, -np.inf, np.float32)
    for tile in embedding.tiles:
        y0, x0, y1, x1 = tile.box_yxyx
        rows, cols = (
            np.arange(n) * m // n for n, m in zip((y1 - y0, x1 - x0), tile.array.shape[1:], strict=True)
        )
        plane[y0:y1, x0:x1] = tile.array[0][np.ix_(rows, cols)]
    return plane


def _prompted_component(components: Array, prompts: PromptSet) -> BoolArray:
    at_points = _labels_at(components, prompts.points_yx)
    chosen = set(at_points[prompts.polarity].tolist()) - {0}
    for hint in _hints(components, prompts):
        if chosen:
            break
        chosen = {_most_frequent(components[hint])} - {0}
    chosen -= set(at_points[~prompts.polarity].tolist())
    return np.isin(components, sorted(chosen))


def _labels_at(components: Array, points_yx: FloatArray) -> Array:
    rows, cols = nearest_index(points_yx).T
    labels: Array = components[rows, cols]
    return labels


def _hints(components: Array, prompts: PromptSet) -> Iterable[BoolArray]:
    shape = components.shape
    if prompts.mask is not None:
        yield prompts.mask
    if prompts.low_res_logits is not None and prompts.low_res_logits.shape == shape:
        yield prompts.low_res_logits > 0
    if prompts.box_yxyx is not None:
        y0, x0, y1, x1 = prompts.box_yxyx
        rows, cols = np.ogrid[: shape[0], : shape[1]]
        yield (rows >= y0) & (rows <= y1) & (cols >= x0) & (cols <= x1)


def _most_frequent(labels: Array) -> int:
    """The commonest component, background left out; 0 if there is none."""
    counts = np.bincount(labels.ravel(), minlength=1)
    counts[0] = 0
    return int(counts.argmax()) if counts.any() else 0


class FakeStore:
    """An embedding store in a dictionary, with counted calls."""

    def __init__(self) -> None:
        self.records: dict[EmbeddingKey, FloatArray] = {}
        self.n_gets = self.n_puts = 0
        self._lock = Lock()

    def get(self, key: EmbeddingKey) -> FloatArray:
        """(C, h, w) read-only array; EmbeddingNotFoundError if there is none."""
        with self._lock:
            self.n_gets += 1
            if key not in self.records:
                raise EmbeddingNotFoundError(f"no embedding is stored for {key}; encode the plane")
            return self.records[key]

    def put(self, key: EmbeddingKey, array: FloatArray) -> None:
        """Keep a copy."""
        with self._lock:
            self.n_puts += 1
            self.records[key] = frozen_array(array)

    def __contains__(self, key: EmbeddingKey) -> bool:
        """Whether a record is kept."""
        with self._lock:
            return key in self.records

    def discard(self, keys: Iterable[EmbeddingKey]) -> None:
        """Forget these records."""
        with self._lock:
            for key in keys:
                self.records.pop(key, None)


class ArrayVolume:
    """The smallest VolumeLike: a numpy array that is there already.

    Parameters
    ----------
    array : array
        Level 0, with the axes named in `axes`.
    axes : str
        One letter of TZYXC an axis, in any order; Y and X are needed. By default the last letters of ZYX.
    levels : sequence of array
        Smaller copies with the same axes: levels 1, 2, ...
    spacing_zyx, translate_zyx : (float, float, float)
        Physical size and position of the first level-0 voxel.
    unit : str
        UDUNITS-2 name.
    is_rgb : bool
        Whether the channels are colours.
    """

    source: str | None = None

    def __init__(
        self,
        array: Array,
        axes: str | None = None,
        *,
        levels: Sequence[Array] = (),
        spacing_zyx: tuple[float, float, float] = (1.0, 1.0, 1.0),
        translate_zyx: tuple[float, float, float] = (0.0, 0.0, 0.0),
        unit: str = "",
        is_rgb: bool = False,
    ) -> None:
        letters = axes or "ZYX"[-np.ndim(array) :]
        self._levels = [_as_tzyxc(np.asarray(one), letters) for one in (array, *levels)]
        self.spacing_zyx = spacing_zyx
        self.translate_zyx = translate_zyx
        self.unit = unit
        self.is_rgb = is_rgb

    @property
    def n_levels(self) -> int:
        """Number of multiscale levels."""
        return len(self._levels)

    @property
    def n_time(self) -> int:
        """Number of time points."""
        return int(self._levels[0].shape[0])

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return int(self._levels[0].shape[4])

    def shape_zyx(self, level: int = 0) -> tuple[int, int, int]:
        """Voxels along Z, Y, X."""
        z, y, x = self._levels[level].shape[1:4]
        return z, y, x

    def plane_shape(self, axis: int, level: int = 0) -> Shape2D:
        """Height and width of the planes along `axis`."""
        height, width = (side for i, side in enumerate(self.shape_zyx(level)) if i != axis)
        return height, width

    def read_plane(self, plane: PlaneRef) -> Array:
        """Read one plane, (H, W) or (H, W, C); VolumeError outside the volume."""
        outside = plane.level >= self.n_levels or plane.time >= self.n_time
        if outside or plane.index >= self.shape_zyx(plane.level)[plane.axis]:
            raise VolumeError(f"{plane} lies outside the volume of {self.shape_zyx()} voxels")
        section: Array = self._levels[plane.level][plane.time].take(plane.index, axis=plane.axis)
        return section[..., 0] if self.n_channels == 1 else section


def _as_tzyxc(array: Array, axes: str) -> Array:
    if len(axes) != array.ndim or not set("YX") <= set(axes) <= set("TZYXC") or len(set(axes)) < len(axes):
        raise VolumeError(f"axes {axes!r} do not name the {array.ndim} axes of an array by letters of TZYXC")
    present = array.transpose([axes.index(letter) for letter in "TZYXC" if letter in axes])
    return np.expand_dims(present, [i for i, letter in enumerate("TZYXC") if letter not in axes])


class CountingVolume:
    """Wraps any volume and remembers which planes were read: laziness that can be tested.

    Attributes
    ----------
    reads : list of PlaneRef
        Every plane read, in order, repeats included.
    """

    def __init__(self, volume: VolumeLike) -> None:
        self.volume = volume
        self.reads: list[PlaneRef] = []
        self._lock = Lock()

    @property
    def source(self) -> str | None:
        """As the wrapped volume says."""
        return self.volume.source

    @property
    def n_levels(self) -> int:
        """As the wrapped volume says."""
        return self.volume.n_levels

    @property
    def n_time(self) -> int:
        """As the wrapped volume says."""
        return self.volume.n_time

    @property
    def n_channels(self) -> int:
        """As the wrapped volume says."""
        return self.volume.n_channels

    @property
    def is_rgb(self) -> bool:
        """As the wrapped volume says."""
        return self.volume.is_rgb

    @property
    def spacing_zyx(self) -> tuple[float, float, float]:
        """As the wrapped volume says."""
        return self.volume.spacing_zyx

    @property
    def translate_zyx(self) -> tuple[float, float, float]:
        """As the wrapped volume says."""
        return self.volume.translate_zyx

    @property
    def unit(self) -> str:
        """As the wrapped volume says."""
        return self.volume.unit

    @property
    def level_places(self) -> tuple[Level, ...]:
        """As the wrapped volume says."""
        return getattr(self.volume, "level_places", ())

    def shape_zyx(self, level: int = 0) -> tuple[int, int, int]:
        """As the wrapped volume says."""
        return self.volume.shape_zyx(level)

    def plane_shape(self, axis: int, level: int = 0) -> Shape2D:
        """As the wrapped volume says."""
        return self.volume.plane_shape(axis, level)

    def read_plane(self, plane: PlaneRef) -> Array:
        """Note the plane and read it from the wrapped volume."""
        with self._lock:
            self.reads.append(plane)
        return self.volume.read_plane(plane)

    @property
    def n_reads(self) -> int:
        """How many planes were read, repeats included."""
        return len(self.reads)

    def reset(self) -> None:
        """Forget the reads."""
        with self._lock:
            self.reads.clear()


class FakeEncoder:
    """A PlaneEncoder without contrast, tiles and store: encodes a plane at first use and keeps it."""

    def __init__(self, volume: VolumeLike, predictor: Predictor) -> None:
        self.volume = volume
        self.predictor = predictor
        self.scale: float = 1
        self._kept: dict[PlaneRef, ImageEmbedding] = {}
        self._held: WeakValueDictionary[PlaneRef, Array] = WeakValueDictionary()

    def pixels(self, plane: PlaneRef) -> Array:
        """The plane, not read again while somebody holds it."""
        held = self._held.get(plane)
        if held is None:
            held = self._held[plane] = self.volume.read_plane(plane)
        return held

    def embedding(self, plane: PlaneRef, prompts: Sequence[PromptSet] | None = None) -> ImageEmbedding:
        """Embedding of the whole plane, whatever the prompts."""
        if plane not in self._kept:
            self._kept[plane] = self.predictor.encode(self.pixels(plane))
        return self._kept[plane]

    def at(self, scale: float, sides: tuple[Side, ...] = FRONT) -> Self:
        """Itself: it sees every plane whole, from the front."""
        return self

    def encode_steps(self, plane: PlaneRef, part: BoxYXYX | None = None) -> Iterator[None]:
        """Encode the whole plane in one step."""
        self.embedding(plane)
        yield

    def is_cached(self, plane: PlaneRef, part: BoxYXYX | None = None) -> bool:
        """Whether the plane was encoded already."""
        return plane in self._kept


if TYPE_CHECKING:  # the type checker compares every fake with its protocol here
    _predictor: Predictor = FakePredictor()
    _store: EmbeddingStore = FakeStore()
    _volume: VolumeLike = CountingVolume(ArrayVolume(np.zeros((1, 1, 1))))
    _encoder: PlaneEncoder = FakeEncoder(_volume, _predictor)
