"""How finely the model looks at a plane: as it is shown, as the object's size asks, or as the user says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

from napari_sam.core.planes import PlaneRef, Region, Shape2D
from napari_sam.core.prompts import PromptSet
from napari_sam.core.protocols import PlaneEncoder, Predictor
from napari_sam.core.results import MaskPrediction
from napari_sam.core.sides import AROUND, FRONT, Side
from napari_sam.inference.predict import predict_plane
from napari_sam.inference.tiles import ANY_SIZE, Size, closest_scale, fitting_scale, size_of

UNTILED = 1 << 30
"""Side of the tiles of a model that takes planes of any size."""


class ScalingEncoder(PlaneEncoder, Protocol):
    """A plane encoder that can look from afar, as `CachedEncoder` does."""

    scale: float

    @property
    def predictor(self) -> Predictor:
        """The model."""

    def at(self, scale: float, sides: tuple[Side, ...] = FRONT) -> Self:
        """The same encoder at another scale, looking from these sides."""


Encoder = TypeVar("Encoder", bound=ScalingEncoder)


@dataclass(frozen=True, slots=True)
class Sight:
    """How finely the model looks at a plane.

    Parameters
    ----------
    scale : float
        Pixels of the plane, along a side, that go into one pixel of what is encoded.
    is_fixed : bool
        Whether this is so whatever the sizes of plane and object are; else it is where the choice begins.
    """

    scale: float = 1
    is_fixed: bool = True

    def fitted(
        self, plane_shape: Shape2D, tile_size: int, sizes: Iterable[Size] = (), closest: float = 1
    ) -> float:
        """The scale that suits the smallest of some objects; see `fitting_scale`."""
        if self.is_fixed:
            return self.scale
        known = list(sizes) or [ANY_SIZE]
        return min(fitting_scale(self.scale, plane_shape, tile_size, size, closest) for size in known)

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


def tile_size_of(predictor: Predictor) -> int:
    """Side of a tile in pixels of what is encoded."""
    return int(getattr(predictor, "tile_size", UNTILED))


def region_size(region: Region) -> Size:
    """Size of a mask; anything if it is empty."""
    y0, x0, y1, x1 = region.box_yxyx
    diameter = float(((y1 - y0) * (x1 - x0)) ** 0.5)
    return (diameter, diameter) if diameter else ANY_SIZE


def answered(encoder: ScalingEncoder, plane: PlaneRef, prompts: PromptSet, sight: Sight) -> MaskPrediction:
    """What the model says about one object, see `answers`."""
    return answers(encoder, plane, [prompts], [sight])[0]


def answers(
    encoder: ScalingEncoder,
    plane: PlaneRef,
    prompts: Sequence[PromptSet],
    sights: Sequence[Sight] | None = None,
) -> list[MaskPrediction]:
    """What the model says about objects in a plane, each looked at as its size asks for.

    An object that points alone find to be small is asked for again more closely. Where small objects are looked at
    enlarged (`SamConfig.looks_closer`), one that is below `SMALL` at full resolution is. An answer in which the model has
    little trust (`SamConfig.doubt`) is asked for again from several sides, see `core.sides`.

    Parameters
    ----------
    encoder : ScalingEncoder
        Of the plane's volume.
    plane : PlaneRef
        Which plane.
    prompts : sequence of PromptSet
        One an object.
    sights : sequence of Sight, optional
        How finely each may be looked at; left out, as its size asks. Prompts with logits need the scale of the answer
        that gave them, fixed; left out, that of the encoder.

    Returns
    -------
    list of MaskPrediction
        In the order of `prompts`, each with its scale.
    """
    if sights is None:
        sights = [Sight(encoder.scale, is_fixed=one.low_res_logits is not None) for one in prompts]
    shape = encoder.volume.plane_shape(plane.axis, plane.level)
    tile_size = tile_size_of(encoder.predictor)
    closest = closest_scale(shape, tile_size) if getattr(encoder.predictor, "looks_closer", False) else 1

    def fitted(sight: Sight, size: Size) -> float:
        return sight.fitted(shape, tile_size, [size], closest)

    scales = [fitted(sight, size_of(one)) for one, sight in zip(prompts, sights, strict=True)]
    found = _at_scales(encoder, plane, prompts, dict(enumerate(scales)))
    again = {
        i: fitted(Sight(scales[i], is_fixed=False), (0.0, region_size(found[i].region)[1]))
        for i, sight in enumerate(sights)
        if _says_no_size(prompts[i]) and not sight.is_fixed
    }
    again = {i: scale for i, scale in again.items() if scale != scales[i]}
    found |= _at_scales(encoder, plane, prompts, again)
    doubt = getattr(encoder.predictor, "doubt", 0)
    doubtful = {
        i: one.scale for i, one in found.items() if one.predicted_iou < doubt and prompts[i].mask is None
    }
    found |= _at_scales(encoder, plane, prompts, doubtful, AROUND)
    return [found[i] for i in range(len(prompts))]


def _says_no_size(prompts: PromptSet) -> bool:
    """Points alone: only what they find says how large the object is."""
    others = (prompts.box_yxyx, prompts.mask, prompts.low_res_logits)
    return bool(prompts.polarity.any()) and all(value is None for value in others)


def _at_scales(
    encoder: ScalingEncoder,
    plane: PlaneRef,
    prompts: Sequence[PromptSet],
    scales: Mapping[int, float],
    sides: tuple[Side, ...] = FRONT,
) -> dict[int, MaskPrediction]:
    """Answers by the number of the prompt; those at the same scale in one batch."""
    found: dict[int, MaskPrediction] = {}
    for scale in sorted(set(scales.values())):
        members = [i for i, own in scales.items() if own == scale]
        batch = predict_plane(encoder.at(scale, sides), plane, [prompts[i] for i in members])
        found.update((i, replace(one, scale=scale)) for i, one in zip(members, batch, strict=True))
    return found
