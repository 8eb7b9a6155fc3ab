"""What is known about each object: its marks, the answers of the model, and what was written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from napari_sam.core.planes import PackedRegion, PlaneRef, Region
from napari_sam.core.results import NO_DOUBT, Doubt, LabelEdit, MaskPrediction, PropagationStep, Stop
from napari_sam.session.made import MadeWith
from napari_sam.session.marks import Marks

Colour = tuple[float, float, float]
"""Red, green, blue from 0 to 1."""


class ObjectState(StrEnum):
    """How far the work on an object is."""

    DRAFT = "draft"
    PROPAGATED = "propagated"
    REVIEWED = "reviewed"


NOT_CARRIED: Mapping[str, Any] = MappingProxyType({"anchors": {}, "state": ObjectState.DRAFT})
"""What the record says of an object that has to be carried anew."""


@dataclass(frozen=True, slots=True)
class PlaneScore:
    """What is known about the mask that an object has in a plane.

    Parameters
    ----------
    predicted_iou, stability_score : float
        The model's estimates.
    iou_with_previous : float
        Overlap with the plane that it was carried from.
    doubt : Doubt
        How doubtful it is, and why.
    stops : tuple of Stop
        Directions of the propagation that ended here.
    is_seed : bool
        Whether the user prompted or corrected this plane.
    """

    predicted_iou: float = 1.0
    stability_score: float = 1.0
    iou_with_previous: float = 1.0
    doubt: Doubt = NO_DOUBT
    stops: tuple[Stop, ...] = ()
    is_seed: bool = False

    @classmethod
    def of_step(cls, step: PropagationStep) -> PlaneScore:
        """What a propagation found."""
        return cls(
            step.predicted_iou,
            step.stability_score,
            step.iou_with_previous,
            step.doubt,
            step.stops,
            step.is_seed,
        )

    @classmethod
    def of_prediction(cls, prediction: MaskPrediction) -> PlaneScore:
        """What the model answered to the user's prompts."""
        return cls(prediction.predicted_iou, prediction.stability_score, is_seed=True)


@dataclass(frozen=True, slots=True)
class ObjectSummary:
    """One object in a few numbers, for a table.

    Parameters
    ----------
    planes : (int, int), optional
        First and last plane with labels, along the axis that most of them are perpendicular to.
    axis : int
        That axis.
    n_prompts : int
        Points and shapes.
    predicted_iou : float, optional
        Mean over the planes.
    doubt : float, optional
        The largest of all planes.
    doubtful_plane : PlaneRef, optional
        Where that is.
    axes : tuple of int
        All axes that planes with labels are perpendicular to, `axis` first.
    """

    planes: tuple[int, int] | None = None
    axis: int = 0
    n_prompts: int = 0
    predicted_iou: float | None = None
    doubt: float | None = None
    doubtful_plane: PlaneRef | None = None
    axes: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class ObjectRecord:
    """One object.

    Parameters
    ----------
    object_id : int
        Its label.
    marks : Marks
        What the user drew for it, in all planes.
    predictions : dict of PlaneRef to MaskPrediction
        Answers to these marks.
    asked : dict of PlaneRef to Marks
        The marks of a plane that its prediction answers, or that were handed to the model last.
    starts : dict of PlaneRef to Region or None
        What was in a plane before its marks, if they are there to correct it.
    written : dict of PlaneRef to Region
        What is in the label array.
    kept : dict of PlaneRef to Region
        What was written there last, also where another object has a part of it: an answer that is this is not pending.
    answered : dict of PlaneRef to Marks
        Marks of a plane that were there when what is written was settled by hand; an answer to them is not pending.
    ends : tuple of PropagationStep
        Where the last propagation stopped, and why.
    scores : dict of PlaneRef to PlaneScore
        What is known about the masks written.
    name, class_name : str
        What the user calls it, and its kind.
    colour : (float, float, float), optional
        Its own colour; the label's when None.
    state : ObjectState
        How far the work on it is.
    anchors : dict of PlaneRef to str
        What the user's planes said when the object was last carried through: a digest each, of mask, model and
        settings.
    corrected : tuple of PlaneRef
        Planes that the user painted by hand.
    scale : float, optional
        Of the last answer of the model, see `MaskPrediction`; None if there was none.
    made_with : mapping of int to MadeWith
        By time point, what the model drew it with the last time.
    version : int
        Grows when masks or scores change.
    """

    object_id: int
    marks: Marks = field(default_factory=Marks)
    predictions: dict[PlaneRef, MaskPrediction] = field(default_factory=dict)
    asked: dict[PlaneRef, Marks] = field(default_factory=dict)
    starts: dict[PlaneRef, Region | None] = field(default_factory=dict)
    written: dict[PlaneRef, Region] = field(default_factory=dict)
    kept: dict[PlaneRef, Region] = field(default_factory=dict)
    answered: dict[PlaneRef, Marks] = field(default_factory=dict)
    ends: tuple[PropagationStep, ...] = ()
    scores: dict[PlaneRef, PlaneScore] = field(default_factory=dict)
    name: str = ""
    class_name: str = ""
    colour: Colour | None = None
    state: ObjectState = ObjectState.DRAFT
    anchors: dict[PlaneRef, str] = field(default_factory=dict)
    corrected: tuple[PlaneRef, ...] = ()
    scale: float | None = None
    made_with: Mapping[int, MadeWith] = field(default_factory=dict)
    version: int = 0
    _summary: tuple[Any, ObjectSummary] | None = None

    @property
    def summary(self) -> ObjectSummary:
        """The object in a few numbers; kept until something of it changes."""
        key = self.version, len(self.written), id(self.marks)
        if self._summary is None or self._summary[0] != key:
            self._summary = key, summarise(self)
        return self._summary[1]

    def set_score(self, plane: PlaneRef, score: PlaneScore | None) -> None:
        """Note what is known about the mask in a plane."""
        self.version += 1
        if score is None:
            self.scores.pop(plane, None)
        else:
            self.scores[plane] = score

    @property
    def pending(self) -> dict[PlaneRef, Region]:
        """Predicted masks that were not kept yet, and that nothing done by hand has made out of date."""
        found = ((plane, prediction.region) for plane, prediction in self.predictions.items())
        new = {p: region for p, region in found if region.area and self.kept.get(p) is not region}
        return {p: region for p, region in new.items() if not self.is_answered(p, self.asked.get(p))}

    def is_answered(self, plane: PlaneRef, marks: Marks | None) -> bool:
        """Whether what is written says more than an answer to these marks (None for those asked for last) would."""
        known = self.answered.get(plane) if plane in self.written or plane in self.corrected else None
        return known is not None and (marks is None or marks.same_as(known))

    def is_painted_over(self, plane: PlaneRef) -> bool:
        """Whether the answer in a plane was changed by hand."""
        return plane in self.corrected and self.is_answered(plane, self.asked.get(plane))

    @property
    def painted(self) -> tuple[PlaneRef, ...]:
        """Planes in which there is something that was painted by hand."""
        return tuple(plane for plane in self.corrected if plane in self.written)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to keep."""
        return self.marks.is_empty and not self.written

    def commits(self) -> tuple[LabelEdit, ...]:
        """What it takes to write the masks that are pending."""
        return tuple(LabelEdit(plane, region, self.object_id) for plane, region in self.pending.items())

    def seed(self, plane: PlaneRef, marks: Marks) -> Region | Marks:
        """What a propagation starts from: the mask that the user has seen, else the marks."""
        written = self.written.get(plane)
        if written is not None and self.is_answered(plane, marks):
            return written
        prediction = self.predictions.get(plane)
        return prediction.region if prediction is not None and prediction.region.area else marks

    def earlier(self, plane: PlaneRef, marks: Marks) -> MaskPrediction | None:
        """The answer that these marks go on from: that to all but the last of them, if it found anything."""
        goes_on = marks.extends(self.asked.get(plane)) and not self.is_painted_over(plane)
        answer = self.predictions.get(plane) if goes_on else None
        return answer if answer is not None and answer.region.area else None

    def start(self, plane: PlaneRef, marks: Marks) -> Region | None:
        """What the marks of a plane are there to correct: a mask that was carried, painted or taken over.

        It is the same as long as there are marks, or until it was denied and the object is shown elsewhere. A mask
        that answers the user's own prompts is asked for afresh, unless the marks say only what is not of it.
        """
        if marks.positive.any() and self._is_denied(plane):
            self.starts[plane] = None
        score, written = self.scores.get(plane), self.written.get(plane)
        is_own = score is not None and score.is_seed and plane not in self.corrected
        start = self.starts.setdefault(plane, None if is_own else written)
        return start if start is not None or marks.positive.any() else written

    def parallel_masks(self, plane: PlaneRef) -> dict[int, Region]:
        """Masks of the object in other planes that lie as this one does, by their index."""
        answers = {p: answer.region for p, answer in self.predictions.items()}
        known = {**self.written, **answers}
        return {p.index: r for p, r in known.items() if p != plane and p.at(plane.index) == plane}

    def _is_denied(self, plane: PlaneRef) -> bool:
        """Whether the last answer is that nothing is there."""
        answer = self.predictions.get(plane)
        return answer is not None and not answer.region.area

    def forget_question(self, plane: PlaneRef, marks: Marks) -> None:
        """Let the same marks be asked again: what was cancelled or failed has no answer."""
        if self.asked.get(plane) is marks:
            del self.asked[plane]

    def forget(self, plane: PlaneRef) -> None:
        """Drop the answer for a plane that has no marks any more."""
        self.asked.pop(plane, None)
        self.starts.pop(plane, None)
        self.predictions.pop(plane, None)

    def set_prediction(self, plane: PlaneRef, prediction: MaskPrediction) -> None:
        """Note the answer for a plane."""
        self.predictions[plane] = prediction
        self.version += 1
        self.set_kept(plane, self.kept.get(plane))

    def set_written(self, plane: PlaneRef, region: Region | None) -> None:
        """Note what the label array holds of this object in a plane."""
        self.version += 1
        if region is None:
            self.written.pop(plane, None)
        else:
            self.written[plane] = region if isinstance(region, PackedRegion) else PackedRegion.of(region)

    def set_kept(self, plane: PlaneRef, region: Region | None) -> None:
        """Note what was written in a plane; what the model answers becomes that very region, as `pending` sees."""
        prediction = self.predictions.get(plane)
        if region is None:
            self.kept.pop(plane, None)
        elif prediction is not None and prediction.region.same_as(region):
            self.kept[plane] = prediction.region
        else:
            self.kept[plane] = region if isinstance(region, PackedRegion) else PackedRegion.of(region)


def is_copied(label: int, copied: Iterable[tuple[int, int]]) -> bool:
    """Whether a label is in one of these ranges (both ends included) that were copied from elsewhere."""
    return any(first <= label <= last for first, last in copied)


def summarise(record: ObjectRecord) -> ObjectSummary:
    """Count and measure what a record holds."""
    n_prompts = len(record.marks.points) + len(record.marks.shapes)
    if not record.written:
        return ObjectSummary(n_prompts=n_prompts)
    axes = [0, 0, 0]
    for plane in record.written:
        axes[plane.axis] += 1
    axis = axes.index(max(axes))
    indices = [plane.index for plane in record.written if plane.axis == axis]
    scores = {p: record.scores[p] for p in record.written if p in record.scores}
    worst = max(scores, key=lambda p: scores[p].doubt.value, default=None)
    return ObjectSummary(
        (min(indices), max(indices)),
        axis,
        n_prompts,
        sum(s.predicted_iou for s in scores.values()) / len(scores) if scores else None,
        scores[worst].doubt.value if worst is not None else None,
        worst,
        tuple(sorted((i for i in range(3) if axes[i]), key=lambda i: -axes[i])),
    )


def saved_values(records: Iterable[ObjectRecord]) -> dict[str, dict[int, Any]]:
    """What labels on disk tell of their objects: `properties` and `colors` as `napari_sam.save_labels` takes them."""
    known = [record for record in records if record.written]
    return {
        "properties": {record.object_id: _values(record) for record in known},
        "colors": {record.object_id: record.colour for record in known if record.colour is not None},
    }


def _values(record: ObjectRecord) -> dict[str, Any]:
    summary = record.summary
    values = {
        "name": record.name or None,
        "class": record.class_name or None,
        "state": str(record.state),
        "prompts": summary.n_prompts,
        "predicted_iou": summary.predicted_iou,
        "doubt": summary.doubt,
    }
    return {name: value for name, value in values.items() if value is not None}
