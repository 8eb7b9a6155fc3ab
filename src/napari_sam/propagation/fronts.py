"""One object going one way from one seed plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.results import MaskCandidate, MaskPrediction, PropagationStep, Stop, StopReason
from napari_sam.propagation.appearance import Change, Look, Reference
from napari_sam.propagation.doubt import Spacing, step_doubt
from napari_sam.propagation.fusion import Span, is_part
from napari_sam.propagation.motion import Outline, View
from napari_sam.propagation.settings import PropagationSettings

NEAR = 5
"""So many planes away an object is still much the same."""
BEYOND_DOUBT = 0.99
"""Presence from which on an object is there again behind weak planes: most that seem so have ended."""


@dataclass(slots=True)
class Front:
    """Where one direction of one object is.

    Parameters
    ----------
    object_id, direction : int
        Which object; +1 or -1.
    plane : PlaneRef
        The plane visited last.
    good : int
        Index of the last plane where the object was.
    region : Region
        Its mask there.
    limit : int
        Index of the plane that is not visited any more.
    limit_reason : StopReason
        What to say when it is reached.
    reference : Reference, optional
        What is known of the object from its seed planes; nothing is compared with None.
    span : Span, optional
        Where two directions meet.
    view : View, optional
        The image around the mask; the motion from there is not followed with None.
    outline : Outline, optional
        The mask to less than a pixel, where motion is followed.
    weight : float
        Of the outline that the motion gives, see `motion.outline_weight`.
    weak : list of PropagationStep
        Planes after the last good one, on which a stop rule holds.
    """

    object_id: int
    direction: int
    plane: PlaneRef
    good: int
    region: Region
    limit: int
    limit_reason: StopReason
    reference: Reference | None = None
    span: Span | None = None
    view: View | None = None
    outline: Outline | None = None
    weight: float = 0.0
    done: bool = False
    weak: list[PropagationStep] = field(default_factory=list)

    @property
    def next_index(self) -> int:
        """The plane it visits next."""
        return self.plane.index + self.direction

    @property
    def at_limit(self) -> bool:
        """Whether there is no next plane."""
        return self.next_index == self.limit

    def judge(
        self,
        plane: PlaneRef,
        answer: MaskCandidate,
        look: Look | None,
        change: Change,
        settings: PropagationSettings,
        spacing: Spacing,
    ) -> PropagationStep:
        """Make a step of an answer: whether the object goes on here, and how doubtful that is."""
        reason = settings.stop_rule(self.region, answer.region, answer.predicted_iou)
        likeness, presence = self._on_object(answer, look, change, settings)
        if reason is None and self._is_gone(likeness, presence, settings):
            reason = StopReason.UNLIKE
        if reason is None and self.weak and change.overlap < settings.bridge_iou:
            reason = StopReason.IOU_DROP
        if reason is None and plane.index + self.direction == self.limit:
            reason = self.limit_reason
        stops = () if reason is None else (Stop(self.direction, reason),)
        step = PropagationStep(
            self.object_id,
            plane,
            answer.region,
            answer.predicted_iou,
            change.overlap,
            stop_reason=reason,
            stability_score=answer.stability_score,
            stops=stops,
        )
        if not is_part(step):
            return replace(step, region=Region.empty(answer.region.plane_shape))
        doubt = step_doubt(
            self.region,
            answer.region,
            answer.predicted_iou,
            answer.stability_score,
            spacing,
            n_planes=abs(plane.index - self.good),
            presence=presence,
            seed_iou=1.0 if self.reference is None else self.reference.predicted_iou,
        )
        return replace(step, doubt=doubt)

    def _on_object(
        self, answer: MaskCandidate, look: Look | None, change: Change, settings: PropagationSettings
    ) -> tuple[float, float]:
        """Likeness and presence of a mask; 1 where nothing is known of the object, or presence is not asked for."""
        if self.reference is None:
            return 1.0, 1.0
        likeness = 1.0 if look is None else look.likeness(self.reference.look)
        if settings.min_presence is None:
            return likeness, 1.0
        return likeness, self.reference.presence(answer.predicted_iou, likeness, change)

    def _is_gone(self, likeness: float, presence: float, settings: PropagationSettings) -> bool:
        """Whether the mask is not on its object any more; behind a weak plane it has to be there beyond doubt."""
        if settings.min_likeness is not None and likeness < settings.min_likeness:
            return True
        least = settings.min_presence
        return least is not None and presence < (max(least, BEYOND_DOUBT) if self.weak else least)


def closest(prediction: MaskPrediction, previous: Region) -> MaskCandidate:
    """Of several answers the one most like the previous plane's, so that a part stays a part."""
    if len(prediction.candidates) == 1:
        return prediction.best
    return max(prediction.candidates, key=lambda c: (c.region.iou(previous), c.predicted_iou))


def fitting(prediction: MaskPrediction, index: int, known: Mapping[int, Region]) -> MaskPrediction:
    """Answers to one click on an object that other planes know: the one most like the nearest of them is chosen.

    Parameters
    ----------
    prediction : MaskPrediction
        Answers to a prompt that may mean several things.
    index : int
        Of their plane.
    known : mapping of int to Region
        Masks of the object by the index of parallel planes; empty ones, and those beyond `NEAR`, say nothing.
    """
    near = [i for i, region in known.items() if abs(i - index) <= NEAR and region.area]
    if not near:
        return prediction
    nearest = known[min(near, key=lambda i: abs(i - index))]
    best = closest(prediction, nearest)
    if not best.region.iou(nearest):
        return prediction
    return replace(prediction, chosen=prediction.candidates.index(best))
