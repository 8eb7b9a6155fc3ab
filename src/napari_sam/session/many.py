"""Many objects at once: their masks are looked up, changed and told of in runs, on the inference thread.

An order names the places in the journal where masks are kept, so that the thread of the window packs none of them, and
answers come in batches, so that it is not flooded with events.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from napari_sam.core.arrays import Array
from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.results import LabelEdit, PropagationStep
from napari_sam.session.codec import unpack_region
from napari_sam.session.journal import Journal
from napari_sam.session.labels import (
    Kept,
    LabelArray,
    LabelChange,
    Replacement,
    apply_many,
    blocks_of,
    box_of,
)
from napari_sam.session.object_jobs import united
from napari_sam.session.objects import PlaneScore
from napari_sam.session.restoring import Restored

BATCH_S = 0.01
"""Seconds of work whose answers travel together."""


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """One edit was written.

    Parameters
    ----------
    edit : LabelEdit
        What was asked for.
    kept : Kept
        What the journal was told: the mask that the object has now, and where that stands.
    change : LabelChange, optional
        None where nothing changed.
    step : PropagationStep, optional
        How it was carried here, if it was.
    score : PlaneScore, optional
        What is known about the mask.
    scale : float
        At which the model looked.
    """

    edit: LabelEdit
    kept: Kept
    change: LabelChange | None
    step: PropagationStep | None = None
    score: PlaneScore | None = None
    scale: float = 1

    @property
    def at(self) -> int:
        """Where it stands in the journal."""
        return self.kept.at


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Answers that came one after the other, and what the labels hold now where they changed."""

    answers: tuple[Written | Restored, ...]
    changes: tuple[LabelChange, ...]


def batched(labels: LabelArray, answers: Iterable[Written | Restored]) -> Iterator[Batch]:
    """Put answers together that come within `BATCH_S`."""
    waiting: list[Written | Restored] = []
    begun = time.monotonic()
    for answer in answers:
        waiting.append(answer)
        if time.monotonic() - begun > BATCH_S:
            yield Batch(tuple(waiting), _joined(labels, waiting))
            waiting, begun = [], time.monotonic()
    if waiting:
        yield Batch(tuple(waiting), _joined(labels, waiting))


def write_many(labels: LabelArray, replacements: Iterable[Replacement], job: int) -> Iterator[Written]:
    """Write masks under the policy that leaves other objects alone: a run of them at a time, the journal first."""
    for run in blocks_of(replacements):
        notes = [Kept(labels.journal, job, one.edit.label, one.edit.region) for one in run]
        changes = apply_many(labels, run, notes)
        for one, note, change in zip(run, notes, changes, strict=True):
            yield Written(one.edit, note, change)


def removals(
    journal: Journal, places: Array, painted: Mapping[int, Mapping[PlaneRef, Region]], into: int = 0
) -> Iterator[Replacement]:
    """What it takes to clear objects, plane by plane, and to give what they were to one of them.

    Parameters
    ----------
    journal : Journal
        Where the masks are kept.
    places : (n, 6) int64 array
        Of each mask its place there, the object, and axis, index, level and time of the plane.
    painted : mapping of int to mapping of PlaneRef to Region
        By object, the masks that the journal does not have.
    into : int
        The object that becomes all of them; 0 for none.
    """
    rows: list[tuple[PlaneRef, int, Any]] = [
        (PlaneRef(*plane), object_id, at) for at, object_id, *plane in places.tolist()
    ]
    rows += [(plane, i, region) for i, masks in painted.items() for plane, region in masks.items()]
    for plane, group in groupby(sorted(rows, key=lambda row: row[:2]), key=lambda row: row[0]):
        masks = {
            object_id: unpack_region(journal.read(held)["region"]) if isinstance(held, int) else held
            for _, object_id, held in group
        }
        others = [object_id for object_id in masks if object_id != into]
        for object_id in others:
            nothing = Region.empty(masks[object_id].plane_shape)
            yield Replacement(LabelEdit(plane, nothing, object_id), masks[object_id])
        if into and others:
            yield Replacement(LabelEdit(plane, united(masks.values()), into), masks.get(into))


def _joined(labels: LabelArray, answers: Iterable[Written | Restored]) -> tuple[LabelChange, ...]:
    """What to show of several changes: one box a plane."""
    changes: dict[PlaneRef, list[LabelChange]] = {}
    for answer in answers:
        if answer.change is not None:
            changes.setdefault(answer.change.plane, []).append(answer.change)
    return tuple(found[0] if len(found) == 1 else _read(labels, found) for found in changes.values())


def _read(labels: LabelArray, changes: list[LabelChange]) -> LabelChange:
    plane, box = changes[0].plane, box_of(changes)
    return LabelChange(plane, box, labels.read(plane, box))
