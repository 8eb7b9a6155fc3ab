"""What a user says about an object in one plane.

All coordinates here are in *plane* space: (row, column) of the plane that is encoded, pixel centres at
integers, so the pixel (0, 0) covers [-0.5, 0.5) in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from napari_sam.core.arrays import Array, ArrayValue, BoolArray, FloatArray, frozen_array
from napari_sam.core.planes import Shape2D
from napari_sam.errors import PromptError


def _numbers(value: Any, name: str) -> FloatArray:
    try:
        return np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise PromptError(f"{name} must be numbers in equal rows; got {value!r}") from error


def _points(points_yx: Any) -> FloatArray:
    points = _numbers(points_yx, "points_yx")
    if points.size == 0:
        points = points.reshape(0, 2)
    if points.ndim != 2 or points.shape[1] != 2:
        raise PromptError(f"points_yx must have shape (n, 2), rows then columns; got {points.shape}")
    if not np.isfinite(points).all():
        raise PromptError(f"points_yx holds NaN or infinity: {points.tolist()}; remove these points")
    return frozen_array(points)


def _box(box_yxyx: Any) -> FloatArray:
    box = _numbers(box_yxyx, "box_yxyx")
    if box.shape != (4,) or not np.isfinite(box).all():
        raise PromptError(f"box_yxyx must be four finite numbers (y0, x0, y1, x1); got {box.tolist()}")
    if box[2] <= box[0] or box[3] <= box[1]:
        raise PromptError(
            f"box_yxyx {box.tolist()} has no area; give (y0, x0, y1, x1) with y1 > y0 and x1 > x0"
        )
    return frozen_array(box)


def _polarity(positive: Any, n_points: int) -> BoolArray:
    given = np.ones(n_points, bool) if positive is None else np.asarray(positive)
    if given.shape != (n_points,):
        raise PromptError(
            f"positive has shape {given.shape}, but there are {n_points} points; give one a point"
        )
    if not np.isin(given, (0, 1)).all():
        raise PromptError(f"positive must be True or False for each point; got {given.tolist()}")
    return frozen_array(given, bool)


def _mask(mask: Any) -> BoolArray:
    array = np.asarray(mask)
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise PromptError(
            f"mask must be an (H, W) array of bool; got shape {array.shape}, dtype {array.dtype}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise PromptError("mask holds NaN or infinity; give True inside the object and False outside")
    if not array.any():
        raise PromptError("mask holds no pixel of the object; leave it out or mark at least one pixel")
    return frozen_array(mask, bool)


def _logits(low_res_logits: Any) -> FloatArray:
    logits = frozen_array(low_res_logits, np.float32)
    if logits.ndim not in (2, 3) or not logits.size or not np.isfinite(logits).all():
        raise PromptError(
            f"low_res_logits must be finite, (h, w) or (T, h, w); got shape {logits.shape}; "
            "pass on what a prediction gave as low_res_logits"
        )
    return logits


@dataclass(frozen=True, slots=True, eq=False)
class PromptSet(ArrayValue):
    """All prompts for one object in one plane.

    Parameters
    ----------
    points_yx : (n, 2) array_like
        Points in plane space.
    positive : (n,) array_like of bool
        Polarity of each point; all positive when left out.
    box_yxyx : (4,) array_like, optional
        (y0, x0, y1, x1) in plane space, with area.
    mask : (H, W) array_like of bool, optional
        A rough mask over the whole plane: a polygon, an ellipse, a region of a Labels layer, the mask of
        a neighbouring plane.
    low_res_logits : (h, w) or (T, h, w) float array, optional
        The decoder's previous answer for the same plane and model, fed back for a correction; one layer
        a tile where the plane is tiled, as `MaskPrediction.low_res_logits` gives it.

    Raises
    ------
    PromptError
        Shapes do not fit, a number is not finite, a mask is empty, or nothing was given at all.
    """

    points_yx: FloatArray = field(default_factory=lambda: np.zeros((0, 2)))
    positive: BoolArray | None = None
    box_yxyx: FloatArray | None = None
    mask: BoolArray | None = None
    low_res_logits: FloatArray | None = None

    def __post_init__(self) -> None:
        points = _points(self.points_yx)
        object.__setattr__(self, "points_yx", points)
        object.__setattr__(self, "positive", _polarity(self.positive, len(points)))
        if self.box_yxyx is not None:
            object.__setattr__(self, "box_yxyx", _box(self.box_yxyx))
        if self.mask is not None:
            object.__setattr__(self, "mask", _mask(self.mask))
        if self.low_res_logits is not None:
            object.__setattr__(self, "low_res_logits", _logits(self.low_res_logits))
        if self.is_empty:
            raise PromptError("no prompt was given; add at least one point, a box or a mask")

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a point nor a box nor a mask nor earlier logits."""
        rest = (self.box_yxyx, self.mask, self.low_res_logits)
        return len(self.points_yx) == 0 and all(value is None for value in rest)

    @property
    def polarity(self) -> BoolArray:
        """`positive`, never None: (n,) bool."""
        assert self.positive is not None
        return self.positive

    @property
    def is_ambiguous(self) -> bool:
        """Whether the decoder should offer several answers.

        One positive point and nothing else may mean a part, the whole or a group; anything more is
        specific (SAM paper, section 3, "Resolving ambiguity").
        """
        return (
            len(self.points_yx) == 1
            and bool(self.polarity.all())
            and self.box_yxyx is None
            and self.mask is None
            and self.low_res_logits is None
        )

    def check_inside(self, plane_shape: Shape2D) -> None:
        """Raise PromptError if a point lies outside the plane, a box misses it, or the mask does not fit."""
        height, width = plane_shape
        limit = np.array([height, width]) - 0.5
        outside = ((self.points_yx < -0.5) | (self.points_yx >= limit)).any(axis=1)
        if outside.any():
            bad = self.points_yx[outside][0].tolist()
            raise PromptError(
                f"point (y, x) = {bad} is outside the plane of {height} x {width} pixels; move or remove it"
            )
        if self.box_yxyx is not None:
            y0, x0, y1, x1 = self.box_yxyx
            if y1 <= -0.5 or x1 <= -0.5 or y0 >= limit[0] or x0 >= limit[1]:
                raise PromptError(
                    f"box {self.box_yxyx.tolist()} is outside the plane of {height} x {width} pixels"
                )
        if self.mask is not None and self.mask.shape != (height, width):
            raise PromptError(
                f"mask of shape {self.mask.shape} does not fit the plane of {height} x {width} pixels"
            )

    def with_logits(self, low_res_logits: Array | None) -> PromptSet:
        """The same prompts with the decoder's previous answer attached (or taken off)."""
        return replace(self, low_res_logits=low_res_logits)


def merge_prompts(sets: Sequence[PromptSet]) -> PromptSet:
    """Join prompts of one object in one plane: all points, the hull of the boxes, the union of the masks."""
    if not sets:
        raise PromptError("no prompt was given; add at least one point, a box or a mask")
    boxes = [s.box_yxyx for s in sets if s.box_yxyx is not None]
    masks = [s.mask for s in sets if s.mask is not None]
    logits = [s.low_res_logits for s in sets if s.low_res_logits is not None]
    box = None
    if boxes:
        stacked = np.stack(boxes)
        box = np.concatenate([stacked[:, :2].min(0), stacked[:, 2:].max(0)])
    return PromptSet(
        np.concatenate([s.points_yx for s in sets]),
        np.concatenate([s.polarity for s in sets]),
        box,
        np.logical_or.reduce(masks) if masks else None,
        logits[-1] if logits else None,
    )
