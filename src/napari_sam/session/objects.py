"""What is known about each object: its marks, the answers of the model, and what was written."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.results import LabelEdit, MaskPrediction, PropagationStep
from napari_sam.session.marks import Marks


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
    written : dict of PlaneRef to Region
        What is in the label array.
    ends : tuple of PropagationStep
        Where the last propagation stopped, and why.
    """

    object_id: int
    marks: Marks = field(default_factory=Marks)
    predictions: dict[PlaneRef, MaskPrediction] = field(default_factory=dict)
    asked: dict[PlaneRef, Marks] = field(default_factory=dict)
    written: dict[PlaneRef, Region] = field(default_factory=dict)
    ends: tuple[PropagationStep, ...] = ()

    @property
    def pending(self) -> dict[PlaneRef, Region]:
        """Predicted masks that are not in the label array."""
        found = ((plane, prediction.region) for plane, prediction in self.predictions.items())
        return {p: region for p, region in found if region.area and self.written.get(p) is not region}

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to keep."""
        return self.marks.is_empty and not self.written

    def commits(self) -> tuple[LabelEdit, ...]:
        """What it takes to write the masks that are pending."""
        return tuple(LabelEdit(plane, region, self.object_id) for plane, region in self.pending.items())

    def erasures(self) -> tuple[LabelEdit, ...]:
        """What it takes to clear everything written: empty regions that replace what is there."""
        empty = ((p, Region(r.plane_shape, (0, 0, 0, 0), r.crop[:0, :0])) for p, r in self.written.items())
        return tuple(LabelEdit(plane, region, self.object_id) for plane, region in empty)

    def seed(self, plane: PlaneRef, marks: Marks) -> Region | Marks:
        """What a propagation starts from: the mask that the user has seen, else the marks."""
        prediction = self.predictions.get(plane)
        return prediction.region if prediction is not None and prediction.region.area else marks

    def forget_question(self, plane: PlaneRef, marks: Marks) -> None:
        """Let the same marks be asked again: what was cancelled or failed has no answer."""
        if self.asked.get(plane) is marks:
            del self.asked[plane]

    def forget(self, plane: PlaneRef) -> None:
        """Drop the answer for a plane that has no marks any more."""
        self.asked.pop(plane, None)
        self.predictions.pop(plane, None)

    def set_prediction(self, plane: PlaneRef, prediction: MaskPrediction) -> None:
        """Note the answer for a plane."""
        self.predictions[plane] = prediction
        self.set_written(plane, self.written.get(plane))

    def set_written(self, plane: PlaneRef, region: Region | None) -> None:
        """Note what the label array holds of this object in a plane.

        If it is what the model answers, it becomes that very region, which `pending` recognises.
        """
        prediction = self.predictions.get(plane)
        if region is None:
            self.written.pop(plane, None)
        elif prediction is not None and _same(prediction.region, region):
            self.written[plane] = prediction.region
        else:
            self.written[plane] = region


def _same(a: Region, b: Region) -> bool:
    return a is b or (a.box_yxyx == b.box_yxyx and np.array_equal(a.crop, b.crop))
