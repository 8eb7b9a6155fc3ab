"""Taking changes of labels back from what the journal keeps of them, many planes at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Reversible
from dataclasses import dataclass
from itertools import islice

from napari_sam.core.planes import Region, hull_of
from napari_sam.session.codec import decode, unpack_region
from napari_sam.session.following import with_values
from napari_sam.session.history import NOWHERE, LabelWrite
from napari_sam.session.journal import Record
from napari_sam.session.labels import (
    Kept,
    LabelArray,
    LabelChange,
    LabelDelta,
    blocks_of,
    restore_many,
)
from napari_sam.session.objects import PlaneScore


@dataclass(frozen=True, slots=True, eq=False)
class Restored:
    """One change of labels was taken back or made again.

    Parameters
    ----------
    write : LabelWrite
        Which change.
    change : LabelChange
        What the box holds now.
    region : Region, optional
        The mask that the object has in the plane now.
    at : int
        Where in the journal that mask is kept.
    score : PlaneScore, optional
        What is known about it.
    asked : Region, optional
        The mask that was to be written there, if others have a part of it.
    over : tuple of int
        Other objects that lost or gained voxels.
    is_kept : bool
        Whether the mask is the one in the journal; something has been written over that otherwise.
    """

    write: LabelWrite
    change: LabelChange
    region: Region | None
    at: int
    score: PlaneScore | None = None
    asked: Region | None = None
    over: tuple[int, ...] = ()
    is_kept: bool = True


def restore_writes(
    labels: LabelArray, writes: Reversible[LabelWrite], forward: bool, job: int
) -> Iterator[Restored]:
    """Take changes of labels back, the last one first, or make them again."""
    ordered = iter(writes) if forward else reversed(writes)
    read = ((write, labels.journal.read(write.at)) for write in ordered)
    waiting: deque[tuple[LabelWrite, Record]] = deque()

    def deltas() -> Iterator[LabelDelta]:
        for write, record in read:
            waiting.append((write, record))
            yield LabelDelta.from_json(record)

    for run in blocks_of(deltas()):
        overs = [tuple(record.get("over", ())) for _, record in islice(waiting, len(run))]
        notes = [Kept(labels.journal, job, over=over) for over in overs]
        for change in restore_many(labels, run, notes, forward=forward):
            yield _restored(labels, *waiting.popleft(), change, forward)


def _restored(
    labels: LabelArray, write: LabelWrite, record: Record, change: LabelChange, forward: bool
) -> Restored:
    """Say which mask the object has now."""
    at, over = write.at if forward else write.before, tuple(record.get("over", ()))
    if write.object_id <= 0 or at == NOWHERE:
        return Restored(write, change, None, NOWHERE, over=over)
    kept = record if forward else labels.journal.read(at)
    region = unpack_region(kept["region"])
    box, values = change.box_yxyx, change.values
    if region.area and (whole := hull_of([box, region.box_yxyx])) != box:  # others may have a part beyond
        box, values = whole, labels.read(write.plane, whole)
    now = with_values(region, box, values == write.object_id)
    found = region if now is None else now
    asked = unpack_region(kept["asked"]) if "asked" in kept else None if now is None else region
    score = decode(kept.get("score"))
    return Restored(write, change, found if found.area else None, at, score, asked, over, now is None)
