"""Whole objects from three sides, for volumes whose voxels are about as deep as they are wide.

An object that was carried along one axis is cut across each of the two others where its section is largest, and
carried from there along these. A voxel belongs to it if more than half of the directions that reach the voxel say
so. A direction reaches from the first to the last plane on which it found the object: one that ended too soon does
not speak about what lies behind.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import numpy as np

from napari_sam.core.arrays import BoolArray
from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.prompts import PromptSet
from napari_sam.core.protocols import Predictor
from napari_sam.core.results import PropagationStep
from napari_sam.inference.sight import ScalingEncoder
from napari_sam.propagation.carry import prompts_to_draw_anew
from napari_sam.propagation.doubt import filled_doubt
from napari_sam.propagation.engine import Seeds, Steps, propagate_objects
from napari_sam.propagation.settings import Direction, PropagationSettings

Masks = Mapping[int, Region]
"""Masks of one object by plane index, none of them empty."""


def propagate_three_axes(
    encoder: ScalingEncoder,
    predictor: Predictor,
    seeds: Seeds,
    *,
    axis: int = 0,
    level: int = 0,
    time: int = 0,
    settings: PropagationSettings | None = None,
) -> Steps:
    """Carry objects along an axis, then along the two others, and yield what the three agree on.

    Parameters and errors are those of `propagate_objects`. Nothing is yielded before all three are done. Seed
    planes stay as they are.
    """
    steps = propagate_objects(encoder, predictor, seeds, axis=axis, level=level, time=time, settings=settings)
    return _agreed_steps(encoder, predictor, seeds, steps, PlaneRef(axis, 0, level, time), settings)


def _agreed_steps(
    encoder: ScalingEncoder,
    predictor: Predictor,
    seeds: Seeds,
    along_first: Steps,
    first: PlaneRef,
    settings: PropagationSettings | None,
) -> Steps:
    steps = list(along_first)
    masks: dict[int, dict[int, Region]] = {object_id: {} for object_id in seeds}
    for step in steps:
        if step.region.area:
            masks[step.object_id][step.plane_index] = step.region
    agreed = {
        (step.object_id, step.plane_index): step
        for step in agree(encoder, predictor, masks, first, settings, fixed=seeds)
        if step is not None
    }
    for step in steps:  # those that say where a direction ended are kept
        better = agreed.pop((step.object_id, step.plane_index), None)
        yield step if better is None else replace(step, region=better.region)
    yield from agreed.values()


def agree(
    encoder: ScalingEncoder,
    predictor: Predictor,
    masks: Mapping[int, Masks],
    first: PlaneRef,
    settings: PropagationSettings | None = None,
    fixed: Mapping[int, Collection[int]] | None = None,
) -> Iterator[PropagationStep | None]:
    """Carry objects along the two other axes, and let all three directions vote.

    Parameters
    ----------
    encoder, predictor
        As for `propagate_objects`.
    masks : mapping of int to mapping of int to Region
        Object id -> plane index -> mask, none of them empty.
    first : PlaneRef
        A plane parallel to those of `masks`.
    settings : PropagationSettings, optional
        As for `propagate_objects`; `plane_range` holds for the planes along the axis of `first`.
    fixed : mapping of int to collection of int, optional
        Object id -> planes that are left as they are.

    Yields
    ------
    PropagationStep or None
        None after every plane on the way, so that a caller can stop there; at the end a step for each plane that the
        vote changes. Its region is empty where nothing is left.
    """
    settings = settings or PropagationSettings()
    shape = encoder.volume.shape_zyx(first.level)
    objects = {object_id: _Object(first, shape, found) for object_id, found in masks.items() if found}
    across = replace(settings, plane_range=None, direction=Direction.BOTH)
    for axis in range(3):
        if axis == first.axis or not objects:
            continue
        seeds = {object_id: one.seed(axis) for object_id, one in objects.items()}
        for step in propagate_objects(
            encoder, predictor, seeds, axis=axis, level=first.level, time=first.time, settings=across
        ):
            objects[step.object_id].take(axis, step)
            yield None
    low, high = settings.plane_range or (0, shape[first.axis])
    for object_id, one in objects.items():
        kept = set(fixed.get(object_id, ())) if fixed else set()
        for index in one.planes():
            if index not in kept and low <= index < high:
                yield from one.step(object_id, index)
            yield None


class _Object:
    """What each direction found of one object."""

    def __init__(self, first: PlaneRef, shape_zyx: tuple[int, int, int], masks: Masks) -> None:
        self.first, self.shape = first, shape_zyx
        self.runs: dict[int, dict[int, Region]] = {first.axis: dict(masks)}
        self.sureness: list[float] = []

    def seed(self, axis: int) -> dict[int, PromptSet]:
        """The largest section across another axis, as a seed plane: the model draws it again, it may be cut short."""
        rows_cols = [other for other in range(3) if other != self.first.axis]
        areas = np.zeros(self.shape[axis], np.int64)
        for region in self.runs[self.first.axis].values():
            along = rows_cols.index(axis)
            low, high = region.box_yxyx[along], region.box_yxyx[along + 2]
            areas[low:high] += region.crop.sum(axis=1 - along)
        index = int(areas.argmax())
        section = Region.from_mask(self.section(self.first.axis, axis, index))
        return {index: prompts_to_draw_anew(section)}

    def take(self, axis: int, step: PropagationStep) -> None:
        """Note what a direction found."""
        if step.region.area:
            self.runs.setdefault(axis, {})[step.plane_index] = step.region
            self.sureness.append(step.predicted_iou)

    def planes(self) -> range:
        """Planes along the first axis on which any direction found the object."""
        low, high = _reach(self.runs[self.first.axis])
        for axis, run in self.runs.items():
            if axis != self.first.axis:
                k = [other for other in range(3) if other != axis].index(self.first.axis)
                low = min(low, *(region.box_yxyx[k] for region in run.values()))
                high = max(high, *(region.box_yxyx[k + 2] for region in run.values()))
        return range(low, high)

    def step(self, object_id: int, index: int) -> Iterator[PropagationStep]:
        """What the directions agree on in a plane, where it is not what was there."""
        before = self.runs[self.first.axis].get(index)
        region = Region.from_mask(self.vote(index))
        overlap = region.iou(before) if before is not None else float(not region.area)
        if overlap < 1:
            sure = float(np.mean(self.sureness)) if self.sureness else 0.0
            step = PropagationStep(object_id, self.first.at(index), region, sure, overlap)
            yield step if before is not None else replace(step, doubt=filled_doubt(snapped=False))

    def vote(self, index: int) -> BoolArray:
        """More than half of the directions that reach a voxel, over a plane along the first axis: (H, W)."""
        main = self.first.axis
        shape = tuple(n for axis, n in enumerate(self.shape) if axis != main)
        balance = np.zeros(shape, np.int8)  # those for it less those against it
        rows = next(other for other in range(3) if other != main)
        for axis, run in self.runs.items():
            low, high = _reach(run)
            reached = np.zeros(shape, bool)
            if axis == main:
                reached[:] = low <= index < high
            else:
                lines = reached if axis == rows else reached.T
                lines[low:high] = True
            balance += np.where(self.section(axis, main, index), 1, -1).astype(np.int8) * reached
        return balance > 0

    def section(self, axis: int, across: int, index: int) -> BoolArray:
        """What was found along one axis, as it shows in a plane along another."""
        rows_cols = [other for other in range(3) if other != across]
        found = np.zeros([self.shape[other] for other in rows_cols], bool)
        run = self.runs[axis]
        if axis == across:
            if index in run:
                found[run[index].slices] = run[index].crop
            return found
        k = [other for other in range(3) if other != axis].index(across)
        for position, region in run.items():
            box = region.box_yxyx
            if box[k] <= index < box[k + 2]:
                line = region.crop.take(index - box[k], axis=k)
                ends = slice(box[1 - k], box[3 - k])
                found[(position, ends) if rows_cols[0] == axis else (ends, position)] = line
        return found


def _reach(run: Masks) -> tuple[int, int]:
    """First plane and last plane + 1 on which the object was found."""
    return min(run), max(run) + 1
