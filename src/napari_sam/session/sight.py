"""How finely the model looks at a plane: as it is shown, as the object's size asks, or as the user says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

from napari_sam.core.planes import BoxYXYX, PlaneRef, Region, Shape2D
from napari_sam.core.prompts import PromptSet
from napari_sam.core.protocols import PlaneEncoder, Predictor, VolumeLike
from napari_sam.core.results import MaskPrediction
from napari_sam.inference.levels import scale_of
from napari_sam.inference.predict import predict_plane
from napari_sam.inference.tiles import ANY_SIZE, Size, fitting_scale, meeting, plan_tiles, size_of
from napari_sam.session.state import SessionState

CLOSER = 2
"""Objects of ten pixels on the screen are clicked at; models want twenty and more, see `inference.tiles`."""
UNTILED = 1 << 30
"""Side of the tiles of a model that takes planes of any size."""


class ScalingEncoder(PlaneEncoder, Protocol):
    """A plane encoder that can look from afar, as `CachedEncoder` does."""

    scale: int

    @property
    def predictor(self) -> Predictor:
        """The model."""

    def at(self, scale: int) -> Self:
        """The same encoder at another scale."""


Encoder = TypeVar("Encoder", bound=ScalingEncoder)


@dataclass(frozen=True, slots=True)
class Sight:
    """How finely the model looks at a plane.

    Parameters
    ----------
    scale : int
        Pixels of the plane, along a side, that go into one pixel of what is encoded.
    is_fixed : bool
        Whether this is so whatever the sizes of plane and object are; else it is where the choice begins.
    """

    scale: int = 1
    is_fixed: bool = True

    def fitted(self, plane_shape: Shape2D, tile_size: int, sizes: Iterable[Size] = ()) -> int:
        """The scale that suits the smallest of some objects."""
        if self.is_fixed:
            return self.scale
        known = list(sizes) or [ANY_SIZE]
        return min(fitting_scale(self.scale, plane_shape, tile_size, size) for size in known)

    def through(self, encoder: Encoder, plane: PlaneRef, sizes: Iterable[Size] = ()) -> Encoder:
        """An encoder, set to look at planes parallel to this one so."""
        shape = encoder.volume.plane_shape(plane.axis, plane.level)
        return encoder.at(self.fitted(shape, tile_size_of(encoder.predictor), sizes))

    def over(self, encoder: Encoder, masks: Mapping[PlaneRef, Region]) -> Encoder:
        """An encoder, set to look at an object as the plane asks for where it is largest."""
        if not masks:
            return encoder
        return self.through(encoder, min(masks), [max(map(region_size, masks.values()))])


FULL = Sight()
"""At full resolution, as before there was a choice."""


@dataclass(frozen=True, slots=True)
class Shown:
    """How much of the plane on screen is seen, and how large.

    Parameters
    ----------
    scale : int
        Pixels of the plane, along a side, in a pixel of the screen.
    part : (y0, x0, y1, x1), optional
        What is seen, in pixels of the plane; it may reach beyond it. All of it when None.
    """

    scale: int = 1
    part: BoxYXYX | None = None

    @property
    def sight(self) -> Sight:
        """How finely the model looks, as long as nothing more is known: more finely than the user."""
        return Sight(max(1, self.scale // CLOSER), is_fixed=False)

    def tiles(self, plane_shape: Shape2D, tile_size: int, scale: int) -> tuple[BoxYXYX, ...]:
        """Tiles at a scale that are seen."""
        boxes = plan_tiles(plane_shape, tile_size, scale=scale)
        return boxes if self.part is None else meeting(boxes, self.part)


WHOLE = Shown()


def tile_size_of(predictor: Predictor) -> int:
    """Side of a tile in pixels of what is encoded."""
    return int(getattr(predictor, "tile_size", UNTILED))


def wished(state: SessionState, volume: VolumeLike, plane: PlaneRef, shown: Shown) -> Sight:
    """How the user wants a plane to be looked at.

    Parameters
    ----------
    state : SessionState
        Says a level, or the size of objects, which the model then reckons with at full resolution.
    volume : VolumeLike
        The image.
    plane : PlaneRef
        The plane on screen.
    shown : Shown
        How large it is there.
    """
    if state.seen_level is not None:
        return Sight(scale_of(volume, plane, min(state.seen_level, volume.n_levels - 1)))
    if state.model.object_diameter is not None:
        return FULL
    return shown.sight


def region_size(region: Region) -> Size:
    """Size of a mask; anything if it is empty."""
    y0, x0, y1, x1 = region.box_yxyx
    diameter = float(((y1 - y0) * (x1 - x0)) ** 0.5)
    return (diameter, diameter) if diameter else ANY_SIZE


def answered(encoder: ScalingEncoder, plane: PlaneRef, prompts: PromptSet, sight: Sight) -> MaskPrediction:
    """What the model says about an object; one that a single click finds to be small is looked at more closely."""
    seen = sight.through(encoder, plane, [size_of(prompts)])
    answer = _ask(seen, plane, prompts)
    if sight.is_fixed or not prompts.is_ambiguous:
        return answer
    size = 0.0, region_size(answer.region)[1]
    closer = Sight(seen.scale, is_fixed=False).through(encoder, plane, [size])
    return answer if closer.scale == seen.scale else _ask(closer, plane, prompts)


def _ask(encoder: ScalingEncoder, plane: PlaneRef, prompts: PromptSet) -> MaskPrediction:
    (answer,) = predict_plane(encoder, plane, [prompts])
    return replace(answer, scale=encoder.scale)
