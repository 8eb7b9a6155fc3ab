"""Measure propagation: labelled objects carried through their volume from one click, and from a correction.

The click is at the pixel deepest inside the object in its middle plane, that of its largest area. The
correction is a click on the largest error of the plane with the most wrong pixels. Then, as in a session,
the planes that it affects are carried again and the others stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.prompts import PromptSet
from napari_sam.core.protocols import Predictor
from napari_sam.inference.encode import CachedEncoder
from napari_sam.inference.sight import Sight, answered
from napari_sam.propagation import PropagationSettings, propagate_objects
from napari_sam.propagation.anchors import Gap, affected_gaps
from napari_sam.propagation.consensus import agree
from napari_sam.propagation.fronts import fitting
from napari_sam.training.evaluate import Pair, spread, volume_name
from napari_sam.training.protocol import first_click, next_click

MIN_PLANES, MIN_AREA = 3, 30

Masks = dict[int, Region]
"""Masks of one object by plane index."""

Seeds = Mapping[int, Mapping[int, PromptSet]]
"""Prompts of each object by plane index."""


@dataclass(frozen=True, slots=True)
class VolumeResult:
    """3D IoU of each measured object, by its label: from one click, and after one correction."""

    name: str
    one_click: Mapping[int, float]
    corrected: Mapping[int, float]

    @property
    def means(self) -> tuple[float, float]:
        """Mean over objects of both."""
        return float(np.mean(list(self.one_click.values()))), float(np.mean(list(self.corrected.values())))

    def row(self) -> str:
        """One line for people."""
        first, second = self.means
        return f"{self.name}  3D IoU from one click {first:.3f}  corrected once {second:.3f}  ({len(self.one_click)} objects)"


def measured_labels(labels: Any, most: int = 0) -> list[int]:
    """Labels of a (Z, Y, X) array that are measured: over enough planes, large enough; at most so many, evenly spread."""
    found: list[int] = []
    for label in np.unique(labels)[1:].tolist():
        areas = np.count_nonzero(labels == label, axis=(1, 2))
        if np.count_nonzero(areas) >= MIN_PLANES and areas.max() >= MIN_AREA:
            found.append(label)
    return spread(found, most)


@dataclass(frozen=True, slots=True)
class VolumeTrial:
    """One labelled volume, its encoder, and the settings on trial."""

    encoder: CachedEncoder
    predictor: Predictor
    labels: Any
    settings: PropagationSettings
    three_axes: bool = False

    def run(self, name: str, most: int = 0) -> VolumeResult:
        """Measure the objects of the volume."""
        chosen = measured_labels(self.labels, most)
        seeds = {label: self.first_seed(label) for label in chosen}
        masks = self.carry(seeds)
        shown = self.agreed(masks, seeds)
        before = {label: self.volume_iou(label, shown[label]) for label in chosen}
        again = {label: self.with_correction(label, seeds[label], shown[label]) for label in chosen}
        shown = self.agreed(self.carry_again(seeds, again, masks), again)
        return VolumeResult(name, before, {label: self.volume_iou(label, shown[label]) for label in chosen})

    def agreed(self, masks: Mapping[int, Masks], seeds: Seeds) -> dict[int, Masks]:
        """What three axes agree on, where that is asked for."""
        found = {label: dict(planes) for label, planes in masks.items()}
        if self.three_axes:
            parts = {label: {i: r for i, r in one.items() if r.area} for label, one in found.items()}
            first = PlaneRef(0, 0)
            for step in agree(self.encoder, self.predictor, parts, first, self.settings, seeds):
                if step is not None:
                    found[step.object_id][step.plane_index] = step.region
        return found

    def truth(self, label: int, index: int) -> Any:
        """(H, W) bool."""
        return self.labels[index] == label

    def first_seed(self, label: int) -> dict[int, PromptSet]:
        """One click in the middle plane."""
        middle = int(np.count_nonzero(self.labels == label, axis=(1, 2)).argmax())
        return {middle: PromptSet(np.array([first_click(self.truth(label, middle)).yx], float))}

    def carry(
        self,
        seeds: Seeds,
        gaps: Mapping[int, Sequence[Gap]] | None = None,
        before: Mapping[int, Masks] | None = None,
    ) -> dict[int, Masks]:
        """Masks of every object by plane; each is carried alone, so that none is helped by another's edge."""
        masks: dict[int, Masks] = {label: {} for label in seeds}
        for label, own in seeds.items():
            span = None if gaps is None else {label: gaps[label]}
            known = {} if before is None else before[label]
            shown = {label: {index: self.shown(index, prompts, known) for index, prompts in own.items()}}
            steps = propagate_objects(self.encoder, self.predictor, shown, settings=self.settings, gaps=span)
            masks[label] = {step.plane_index: step.region for step in steps}
        return masks

    def shown(self, index: int, prompts: PromptSet, known: Masks) -> PromptSet:
        """The mask that a user sees in a plane, which is what a session carries; the prompts where it is empty."""
        answer = answered(self.encoder, PlaneRef(0, index), prompts, Sight(is_fixed=False))
        if prompts.is_ambiguous:
            answer = fitting(answer, index, known)
        return PromptSet(mask=answer.mask) if answer.region.area else prompts

    def carry_again(self, before: Seeds, seeds: Seeds, masks: Mapping[int, Masks]) -> dict[int, Masks]:
        """Masks after the seeds changed: planes that no change affects keep theirs."""
        gaps = {label: affected_gaps(before[label], new) for label, new in seeds.items()}
        carried = self.carry(seeds, gaps, masks)
        count = len(self.labels)
        for label, old in masks.items():
            affected = {index for gap in gaps[label] for index in gap.planes(0, count)}
            kept = {index: region for index, region in old.items() if index not in affected}
            carried[label] = kept | carried[label]
        return carried

    def volume_iou(self, label: int, masks: Masks) -> float:
        """Over all voxels of the object and of its masks."""
        shared = found = 0
        for index, region in masks.items():
            found += region.area
            shared += int(np.count_nonzero(self.truth(label, index)[region.slices] & region.crop))
        return shared / (int(np.count_nonzero(self.labels == label)) + found - shared)

    def with_correction(
        self, label: int, seeds: Mapping[int, PromptSet], masks: Masks
    ) -> Mapping[int, PromptSet]:
        """The seeds with a click on the largest error of the plane with the most wrong pixels."""
        planes = sorted({*np.flatnonzero((self.labels == label).any(axis=(1, 2))).tolist(), *masks})
        shape = self.labels.shape[1:]
        answers = {i: masks[i].mask if i in masks else np.zeros(shape, bool) for i in planes}
        worst = max(planes, key=lambda i: int(np.count_nonzero(answers[i] != self.truth(label, i))))
        click = next_click(self.truth(label, worst), answers[worst])
        if click is None:
            return seeds
        return {**seeds, worst: _corrected(seeds.get(worst), answers[worst], click.yx, click.positive)}


def _corrected(before: PromptSet | None, answer: Any, yx: tuple[int, int], positive: bool) -> PromptSet:
    """What a user gives by one more click: earlier clicks stay, the mask on screen is fed back."""
    points, polarity = np.array([yx], float), np.array([positive])
    if before is not None:
        points = np.concatenate([before.points_yx, points])
        polarity = np.concatenate([before.polarity, polarity])
    return PromptSet(points, polarity, mask=answer if answer.any() else None)


def evaluate_volumes(
    pairs: Sequence[Pair],
    predictor: Predictor,
    settings: PropagationSettings | None = None,
    most: int = 0,
) -> list[VolumeResult]:
    """Measure labelled ZYX volumes.

    Parameters
    ----------
    pairs : sequence of (Path, Path)
        Image and labels.
    predictor : Predictor
        The model.
    settings : PropagationSettings, optional
        The defaults when left out.
    most : int
        At most so many objects of a volume, evenly spread over their labels; 0 for all.
    """
    return [
        VolumeTrial(*open_pair(pair, predictor), settings or PropagationSettings()).run(
            volume_name(pair), most
        )
        for pair in pairs
    ]


def open_pair(pair: Pair, predictor: Predictor) -> tuple[CachedEncoder, Predictor, Any]:
    """Encoder, predictor and labels of one volume; embeddings stay in memory."""
    from napari_sam.io.volume import open_volume

    image, labels = (open_volume(path, axes="ZYX") for path in pair)
    truth = np.stack([labels.read_plane(PlaneRef(0, i)) for i in range(labels.shape_zyx()[0])])
    return CachedEncoder(image, predictor), predictor, truth
