"""What the network and the engines give back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np

from napari_sam.core.arrays import Array, ArrayValue, BoolArray, FloatArray, frozen_array
from napari_sam.core.planes import BoxYXYX, PlaneRef, Region, Shape2D
from napari_sam.core.sides import Side
from napari_sam.errors import VolumeError


@dataclass(frozen=True, slots=True, eq=False)
class TileEmbedding(ArrayValue):
    """Output of the image encoder for one tile.

    Parameters
    ----------
    array : (C, h, w) float16 or float32 array
        Read-only.
    box_yxyx : (int, int, int, int)
        The part of the plane that was encoded, in plane pixels.
    input_shape : (int, int)
        Height and width of that part in model space: after resizing, before padding.
    side : Side
        From where it was looked at.
    others : tuple of TileEmbedding
        The same part, looked at from other sides.
    """

    array: FloatArray
    box_yxyx: BoxYXYX
    input_shape: Shape2D
    side: Side = Side.FRONT
    others: tuple[TileEmbedding, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "array", frozen_array(self.array))

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays."""
        return self.array.nbytes + sum(other.nbytes for other in self.others)


@dataclass(frozen=True, slots=True, eq=False)
class ImageEmbedding:
    """Output of the image encoder for one plane, one tile or several that overlap.

    Parameters
    ----------
    plane_shape : (int, int)
        Height and width of the plane.
    tiles : tuple of TileEmbedding
        In row-major order of their boxes. A plane that is larger than the model's input has several; only
        those that the prompts need may be present.
    model_digest : str
        Which weights made it; a model refuses embeddings that are not its own.
    tile_size : int, optional
        Pixels along the side of a grid tile; as many as the model's input has when left out.
    scale : float
        Pixels of the plane, along a side, that went into one pixel of what was encoded.
    """

    plane_shape: Shape2D
    tiles: tuple[TileEmbedding, ...]
    model_digest: str
    tile_size: int | None = None
    scale: float = 1

    @property
    def array(self) -> FloatArray:
        """(C, h, w) for a plane of one tile, (T, C, h, w) for several."""
        if len(self.tiles) == 1:
            return self.tiles[0].array
        return np.stack([tile.array for tile in self.tiles])

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays."""
        return sum(tile.nbytes for tile in self.tiles)


@dataclass(frozen=True, slots=True, eq=False)
class MaskCandidate(ArrayValue):
    """One answer of the mask decoder.

    Parameters
    ----------
    drawing : Region or callable
        The mask in plane space. A callable is asked when the mask is first wanted: of several answers most are
        never looked at.
    predicted_iou : float
        The model's own estimate of its IoU.
    stability_score : float
        IoU between the masks cut at plus and minus an offset of the logits.
    low_res_logits : (h, w) or (T, h, w) float32 array
        Decoder output; feed it back with the next prompt.
    """

    drawing: Region | Callable[[], Region]
    predicted_iou: float
    stability_score: float
    low_res_logits: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "low_res_logits", frozen_array(self.low_res_logits, np.float32))

    @property
    def region(self) -> Region:
        """The mask in plane space."""
        if not isinstance(self.drawing, Region):
            object.__setattr__(self, "drawing", self.drawing())
        assert isinstance(self.drawing, Region)
        return self.drawing

    @property
    def is_drawn(self) -> bool:
        """Whether the mask has been wanted yet."""
        return isinstance(self.drawing, Region)

    @property
    def cells(self) -> int:
        """Size of the mask in cells of `low_res_logits`, known without drawing it."""
        return int(np.count_nonzero(self.low_res_logits > 0))

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), (self.region, self.predicted_iou, self.stability_score, self.low_res_logits)


@dataclass(frozen=True, slots=True, eq=False)
class MaskPrediction:
    """The answers for one object in one plane.

    Parameters
    ----------
    candidates : tuple of MaskCandidate
        At least one.
    chosen : int
        The one a user gets by default.
    scale : float
        Of the embedding that was asked.
    """

    candidates: tuple[MaskCandidate, ...]
    chosen: int = 0
    scale: float = 1

    def __post_init__(self) -> None:
        if not 0 <= self.chosen < len(self.candidates):
            raise ValueError(f"answer {self.chosen} was chosen of {len(self.candidates)}")

    @property
    def best(self) -> MaskCandidate:
        """The default answer."""
        return self.candidates[self.chosen]

    @property
    def region(self) -> Region:
        """The default mask, bounded by its box."""
        return self.best.region

    @property
    def mask(self) -> BoolArray:
        """The default mask over the whole plane, (H, W) bool."""
        return self.best.region.mask

    @property
    def predicted_iou(self) -> float:
        """The model's estimate for the default mask."""
        return self.best.predicted_iou

    @property
    def stability_score(self) -> float:
        """Stability of the default mask."""
        return self.best.stability_score

    @property
    def low_res_logits(self) -> FloatArray:
        """Decoder output of the default mask."""
        return self.best.low_res_logits

    def cycled(self, step: int = 1) -> MaskPrediction:
        """The same answers with the next one chosen."""
        return replace(self, chosen=(self.chosen + step) % len(self.candidates))


@dataclass(frozen=True, slots=True, eq=False)
class LabelEdit:
    """Write `label` where `region` is, in one plane. Label 0 erases."""

    plane: PlaneRef
    region: Region
    label: int


class StopReason(StrEnum):
    """Why a propagation ended in one direction."""

    RANGE_END = "end of the plane range"
    EMPTY = "the mask became empty"
    IOU_DROP = "the overlap with the plane before fell too low"
    AREA_JUMP = "the area changed too much"
    LOW_PREDICTED_IOU = "the model's own estimate fell too low"
    UNLIKE = "it does not look like the object any more"
    SEED_REACHED = "the next plane with user prompts was reached"


@dataclass(frozen=True, slots=True)
class Stop:
    """A propagation ended in one direction: +1 towards higher plane indices, -1 towards lower ones."""

    direction: int
    reason: StopReason


class DoubtReason(StrEnum):
    """What makes a plane of a propagated object worth a look."""

    OVERLAP = "it shares little with the plane beside it"
    PREDICTED_IOU = "the model's own estimate is low"
    PRESENCE = "the object may have ended"
    SEED = "the model is not sure of the object where you drew it"
    STABILITY = "the outline depends on where the answer is cut"
    AREA = "its area jumps"
    CENTROID = "it jumps to the side"
    DISAGREEMENT = "both directions disagree"
    FILLED = "it was filled in between its neighbours"


DOUBTFUL = 0.35
"""Planes with at least so much doubt are worth a look; measured, see ``docs/propagation.md``."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """How doubtful one plane of an object is.

    Parameters
    ----------
    parts : tuple of (DoubtReason, float)
        What each reason contributes, in (0, 1]; the largest first. Reasons without doubt are left out.
    """

    parts: tuple[tuple[DoubtReason, float], ...] = ()

    @property
    def value(self) -> float:
        """0 is no doubt, 1 is certainly wrong; each reason alone would give its part (a noisy or)."""
        trust = 1.0
        for _, part in self.parts:
            trust *= 1.0 - part
        return 1.0 - trust

    @property
    def reasons(self) -> tuple[DoubtReason, ...]:
        """The reasons that matter, the largest first."""
        return tuple(reason for reason, part in self.parts if part >= 0.2)

    @classmethod
    def of(cls, parts: Mapping[DoubtReason, float]) -> Doubt:
        """From parts in any order, zeros left out."""
        found = [(reason, min(1.0, float(part))) for reason, part in parts.items() if part > 0]
        return cls(tuple(sorted(found, key=lambda one: (-one[1], one[0]))))


NO_DOUBT = Doubt()


@dataclass(frozen=True, slots=True, eq=False)
class PropagationStep:
    """One object in one plane, as propagation found it.

    Parameters
    ----------
    object_id : int
        Which object.
    plane : PlaneRef
        Where.
    region : Region
        The mask; empty when `stop_reason` says that the object ended before this plane.
    predicted_iou : float
        The model's estimate; 1.0 on a seed plane whose mask the user gave.
    iou_with_previous : float
        Overlap with the plane it came from; 1.0 on seed planes.
    is_seed : bool
        Whether the user prompted this plane.
    stop_reason : StopReason, optional
        Set on the last step of a direction: this plane is not part of the object.
    stability_score : float
        Of the mask; 1.0 where the model was not asked.
    doubt : Doubt
        How doubtful the mask is, and why.
    stops : tuple of Stop
        Directions that ended here, also where another direction or filling in gave a mask all the same.
    """

    object_id: int
    plane: PlaneRef
    region: Region
    predicted_iou: float
    iou_with_previous: float
    is_seed: bool = False
    stop_reason: StopReason | None = None
    stability_score: float = 1.0
    doubt: Doubt = NO_DOUBT
    stops: tuple[Stop, ...] = ()

    @property
    def plane_index(self) -> int:
        """Position along the propagation axis."""
        return self.plane.index

    @property
    def mask(self) -> BoolArray:
        """(H, W) bool over the whole plane."""
        return self.region.mask


@dataclass(frozen=True, slots=True, eq=False)
class EncodeEvent:
    """One plane has its embedding in the store."""

    plane: PlaneRef
    from_cache: bool
    done: int
    total: int
    scale: float = 1


def as_image(array: Array) -> Array:
    """Return `array` if it is (H, W) or (H, W, C) with at least one pixel; raise VolumeError if not."""
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise VolumeError(
            f"an image must be (H, W) or (H, W, C) with at least one pixel; got shape {array.shape}"
        )
    return array
