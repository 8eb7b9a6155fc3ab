"""Where a mask goes from one plane to the next: as the image around it moves, and as the model sees it.

What lies in a plane lies in the next one a little further on. The optical flow between the two images around an
object (TV-L1: Zach, Pock and Bischof 2007) takes its mask along, and the model is asked with the mask where the object is
now. Its answer counts where it is sure; where its logits are low the outline stays where the flow has put it. How
much a distance to that outline weighs depends on how well the model knows such objects, which it shows on the seed plane.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.registration import optical_flow_tvl1

from napari_sam.core.arrays import Array, BoolArray, FloatArray
from napari_sam.core.planes import BoxYXYX, Region, Shape2D, hull_of, widened
from napari_sam.core.results import MaskCandidate
from napari_sam.inference.averaging import averaged, evenly
from napari_sam.inference.resample import bilinear, positions
from napari_sam.propagation.shapes import signed_distance

MARGIN = 24
"""Pixels around an object in which the motion is looked for."""
MOST_PIXELS = 320 * 320
"""A larger window is looked at from further away."""
_ATTACHMENT, _WARPS = 5.0, 3
"""Of the flow: how closely it follows the image, whose deviation is 1, and how often it is refined at each scale."""
_WEIGHT, _STEEPNESS, _SURE = 1.0, 5.0, 0.9
_SAMPLES = 256
"""So many rows and columns of a plane say how bright it is."""
_REACH, _LOUDEST = 6.0, 10.0
"""Distances and logits count up to these."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The part of a plane around an object.

    Parameters
    ----------
    box_yxyx : (int, int, int, int)
        Where it lies in the plane.
    pixels : (h, w) or (h, w, C) array
        As they are in the volume: thousands of objects have one each.
    level : float
        Median grey of the whole plane. One plane may be brighter than the next, which is no motion.
    """

    box_yxyx: BoxYXYX
    pixels: Array
    level: float

    @classmethod
    def of(cls, image: Array, region: Region) -> View:
        """Cut it out around a mask.

        Parameters
        ----------
        image : (H, W) or (H, W, C) array
            The plane.
        region : Region
            The mask, with at least one pixel.
        """
        return cls.at(image, widened(region.box_yxyx, MARGIN, region.plane_shape))

    @classmethod
    def at(cls, image: Array, box: BoxYXYX) -> View:
        """Cut out a box; the plane itself need not be kept for it."""
        sparse = image[tuple(slice(None, None, -(-side // _SAMPLES)) for side in image.shape[:2])]
        return cls(box, image[box[0] : box[2], box[1] : box[3]].copy(), float(np.median(_grey(sparse))))

    @property
    def grey(self) -> FloatArray:
        """(h, w) float32: how much brighter than the plane; the mean of all channels, of which what is no number counts as 0."""
        return _grey(self.pixels) - np.float32(self.level)


def _grey(pixels: Array) -> FloatArray:
    grey = np.nan_to_num(pixels.astype(np.float32), posinf=0.0, neginf=0.0)
    return grey if grey.ndim == 2 else grey.mean(2)


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """A mask whose border is known to less than a pixel.

    An image often moves by less than half a pixel from plane to plane. A mask of whole pixels would stay where it is,
    in every plane anew.

    Parameters
    ----------
    region : Region
        The pixels inside.
    box_yxyx : (int, int, int, int)
        A part of the plane that holds the mask.
    depth : (h, w) float32 array
        Pixels to the border there, positive inside, at most `_REACH`.
    """

    region: Region
    box_yxyx: BoxYXYX
    depth: FloatArray

    @classmethod
    def of(cls, region: Region) -> Outline:
        """Of a mask of whole pixels."""
        box = widened(region.box_yxyx, int(_REACH), region.plane_shape)
        return cls(region, box, _depth(region.over(box)))

    @classmethod
    def where(cls, levels: FloatArray, box: BoxYXYX, plane_shape: Shape2D) -> Outline:
        """Where a smooth (h, w) map of a part of a plane is above 0."""
        region = Region.from_part(plane_shape, box[:2], levels > 0)
        slope = np.hypot(*np.gradient(levels)) if min(levels.shape) > 1 else np.ones(levels.shape)
        depth = _depth(levels > 0)
        between = np.clip(levels / np.maximum(slope, 1e-3), -1.5, 1.5)
        return cls(region, box, np.where(np.abs(depth) <= 1, between, depth).astype(np.float32))

    def within(self, box: BoxYXYX) -> FloatArray:
        """The depth in another part of the plane."""
        y0, x0, y1, x1 = box
        own_y, own_x, end_y, end_x = self.box_yxyx
        low, high = (max(y0, own_y), max(x0, own_x)), (min(y1, end_y), min(x1, end_x))
        depth = np.full((y1 - y0, x1 - x0), -_REACH, np.float32)
        if low[0] < high[0] and low[1] < high[1]:
            part = self.depth[low[0] - own_y : high[0] - own_y, low[1] - own_x : high[1] - own_x]
            depth[low[0] - y0 : high[0] - y0, low[1] - x0 : high[1] - x0] = part
        return depth


@dataclass(frozen=True, slots=True, eq=False)
class Moved:
    """A mask taken to another plane.

    Parameters
    ----------
    region : Region
        Where it is there.
    growth : float
        Logarithm of the factor by which the motion changed its area.
    outline : Outline, optional
        The same to less than a pixel, where motion is followed.
    """

    region: Region
    growth: float = 0.0
    outline: Outline | None = None


def moved(outline: Outline, before: View, image: Array) -> Moved:
    """Where the mask of one plane is in another one, by the optical flow between them.

    Parameters
    ----------
    outline : Outline
        The mask in the plane that it comes from.
    before : View
        The image around it there.
    image : (H, W) or (H, W, C) array
        The other plane.

    Returns
    -------
    Moved
        The mask stays in its place where the flow leaves nothing of it.
    """
    box, region = before.box_yxyx, outline.region
    now = View.at(image, box).grey
    spread = float(now.std())
    if spread == 0:
        return Moved(region, outline=outline)
    flow = _flow(now / spread, before.grey / spread)
    depth = outline.within(box)
    source = np.indices(depth.shape, np.float32) + flow
    there = Outline.where(
        ndimage.map_coordinates(depth, source, order=1, mode="nearest"), box, region.plane_shape
    )
    if not there.region.area:
        return Moved(region, outline=outline)
    return Moved(there.region, float(np.log(there.region.area / region.area)), there)


def _flow(image: FloatArray, other: FloatArray) -> FloatArray:
    """(2, h, w): from each pixel of an image to where it is in the other one."""
    shrink = int(np.ceil(np.sqrt(image.size / MOST_PIXELS)))
    small = [one if shrink == 1 else averaged(one, *evenly(image.shape, shrink)) for one in (image, other)]
    flow: FloatArray = optical_flow_tvl1(*small, attachment=_ATTACHMENT, num_warp=_WARPS)
    if shrink == 1:
        return flow
    rows, cols = (positions(0, n, m / n) for n, m in zip(image.shape, small[0].shape, strict=True))
    return np.stack([shrink * bilinear(part, rows, cols) for part in flow])


def shade_change(region: Region, before: View, now: Region, image: Array) -> float:
    """By how much the mean grey inside, beside that of the plane, changed, in deviations of the image around the first mask.

    Parameters
    ----------
    region, now : Region
        The masks, none empty.
    before : View
        The image around the first.
    image : (H, W) or (H, W, C) array
        The plane of the second.
    """
    spread = float(View.at(image, before.box_yxyx).grey.std())
    if spread == 0:
        return 0.0
    inside = View.at(image, now.box_yxyx).grey[now.crop].mean()
    return float(inside - before.grey[region.over(before.box_yxyx)].mean()) / spread


def outline_weight(predicted_iou: float) -> float:
    """What a pixel of distance to the outline that the flow gives is worth, in logits of the model.

    Parameters
    ----------
    predicted_iou : float
        The model's estimate where the object is beyond doubt: for the seed mask carried onto its own plane.
    """
    return float(_WEIGHT * np.exp(_STEEPNESS * (_SURE - predicted_iou)))


def followed(answer: MaskCandidate, outline: Outline, weight: float) -> Outline:
    """The model's answer, held to the outline that the flow gives: both as logits, added up.

    Parameters
    ----------
    answer : MaskCandidate
        What the model says, told of `outline`; nothing where it is empty.
    outline : Outline
        The mask as the flow moved it.
    weight : float
        See `outline_weight`.
    """
    shape = outline.region.plane_shape
    if not answer.region.area:
        return Outline.where(np.full_like(outline.depth, -_REACH), outline.box_yxyx, shape)
    held = hull_of([answer.region.box_yxyx, outline.region.box_yxyx])
    y0, x0, y1, x1 = box = widened(held, int(_REACH), shape)
    scale = max(answer.low_res_logits.shape) / max(shape)
    logits = bilinear(answer.low_res_logits, positions(y0, y1, scale), positions(x0, x1, scale))
    return Outline.where(logits.clip(-_LOUDEST, _LOUDEST) + weight * outline.within(box), box, shape)


def _depth(mask: BoolArray) -> FloatArray:
    """Pixels to the outline, positive inside, at most `_REACH`."""
    if mask.all() or not mask.any():
        return np.where(mask, _REACH, -_REACH).astype(np.float32)
    return signed_distance(mask).clip(-_REACH, _REACH).astype(np.float32)
