"""Writing objects into the label array: under a policy, only inside boxes, and so that it can be taken back."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import RLock
from typing import Any, TypeVar

import numpy as np

from napari_sam.core.arrays import Array, BoolArray
from napari_sam.core.planes import BoxYXYX, PlaneRef, Region, hull_of
from napari_sam.core.results import LabelEdit
from napari_sam.errors import SessionError
from napari_sam.session.codec import pack_region
from napari_sam.session.journal import Journal
from napari_sam.session.state import OverlapPolicy

RUN_PLANES, MOST_VOXELS, RUN_CHANGES = 32, 1 << 23, 256
"""Planes, voxels and changes that are made at once: enough to be quick, few enough to stay small. A run ends at a
multiple of its planes, so that no chunk belongs to two of them."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelArray:
    """A label array on disk and how to find a plane in it.

    Parameters
    ----------
    array : array
        Readable and writable by slices: (Y, X), (Z, Y, X) or (T, Z, Y, X).
    level : int
        The multiscale level of the image that it is as large as.
    journal : Journal
        Told of every change before it is made; forgets everything by default.
    lock : RLock
        Held from reading what is there until the change is made.
    painted : dict of (int, PlaneRef) to int
        By label and plane, the number of the last stroke by hand that gave or took voxels of it; 0 for any label.
    """

    array: Any
    level: int = 0
    journal: Journal = field(default_factory=lambda: Journal(None))
    lock: Any = field(default_factory=RLock)
    painted: dict[tuple[int, PlaneRef], int] = field(default_factory=dict)

    def note_painted(self, delta: LabelDelta, job: int) -> None:
        """Know that a change was made by hand: no work that was ordered before writes there any more."""
        _, before, after = delta.unpacked()
        for label in {0, *before.tolist(), *after.tolist()}:
            self.painted[label, delta.plane] = job

    def is_painted(self, label: int, plane: PlaneRef, since: int) -> bool:
        """Whether somebody painted an object, or anything for 0, in a plane since a job was ordered."""
        return self.painted.get((label, plane), 0) > since

    def index(self, plane: PlaneRef, box_yxyx: BoxYXYX) -> tuple[slice | int, ...]:
        """Index of a box in a plane."""
        y0, x0, y1, x1 = box_yxyx
        spatial: list[slice | int] = [slice(y0, y1), slice(x0, x1)]
        spatial.insert(plane.axis, plane.index)
        return (plane.time, *spatial)[-self.array.ndim :]

    def read(self, plane: PlaneRef, box_yxyx: BoxYXYX) -> Array:
        """A new (h, w) array."""
        return np.array(self.array[self.index(plane, box_yxyx)])

    def read_block(self, first: PlaneRef, end: int, box_yxyx: BoxYXYX) -> Array:
        """A new (n, h, w) array: a box in the planes from `first` to before index `end`."""
        block = np.asarray(self.array[self._block_index(first, end, box_yxyx)])
        block = block if block.flags.owndata else block.copy()
        return block[None] if block.ndim == 2 else np.moveaxis(block, first.axis, 0)

    def write_block(self, first: PlaneRef, end: int, box_yxyx: BoxYXYX, values: Array) -> None:
        """Write what `read_block` reads."""
        index = self._block_index(first, end, box_yxyx)
        self.array[index] = values[0] if self.array.ndim == 2 else np.moveaxis(values, 0, first.axis)

    def whole_chunks(self, first: PlaneRef, end: int, box_yxyx: BoxYXYX) -> tuple[PlaneRef, int, BoxYXYX]:
        """The smallest block of whole chunks around a block: written without being read again."""
        if self.array.ndim < 3 or not hasattr(self.array, "chunks"):
            return first, end, box_yxyx
        (deep, high, wide), shape = self._along(first.axis, "chunks"), self._along(first.axis, "shape")
        y0, x0, y1, x1 = box_yxyx
        start = first.index - first.index % deep
        box = (
            y0 - y0 % high,
            x0 - x0 % wide,
            min(-(-y1 // high) * high, shape[1]),
            min(-(-x1 // wide) * wide, shape[2]),
        )
        return first.at(start), min(-(-end // deep) * deep, shape[0]), box

    def _along(self, axis: int, name: str) -> list[int]:
        """Shape or chunks of the array: across planes, then the planes' rows and columns."""
        spatial = list(getattr(self.array, name)[-3:])
        return [spatial.pop(axis), *spatial]

    def _block_index(self, first: PlaneRef, end: int, box_yxyx: BoxYXYX) -> tuple[slice | int, ...]:
        y0, x0, y1, x1 = box_yxyx
        spatial: list[slice | int] = [slice(y0, y1), slice(x0, x1)]
        spatial.insert(first.axis, slice(first.index, end))
        return (first.time, *spatial)[-self.array.ndim :]

    def write(self, plane: PlaneRef, box_yxyx: BoxYXYX, values: Array) -> None:
        """Write an (h, w) array."""
        self.array[self.index(plane, box_yxyx)] = values


@dataclass(frozen=True, slots=True, eq=False)
class LabelChange:
    """What a part of a plane holds now: enough to show it without reading it again."""

    plane: PlaneRef
    box_yxyx: BoxYXYX
    values: Array


@dataclass(frozen=True, slots=True, eq=False)
class LabelDelta:
    """One change of a box in a plane, packed: which voxels, what they were, what they became.

    Only voxels that still hold what this change left are taken back, so that what was painted over it in the
    meantime stays.
    """

    plane: PlaneRef
    box_yxyx: BoxYXYX
    dtype: str
    packed: bytes

    @classmethod
    def between(cls, plane: PlaneRef, box_yxyx: BoxYXYX, before: Array, after: Array) -> LabelDelta:
        """The change from `before` to `after`, both (h, w)."""
        changed = before != after
        parts = np.packbits(changed).tobytes(), before[changed].tobytes(), after[changed].tobytes()
        return cls(plane, box_yxyx, before.dtype.str, zlib.compress(b"".join(parts), 1))

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return len(self.packed)

    def unpacked(self) -> tuple[BoolArray, Array, Array]:
        """(h, w) bool of changed voxels, their values before, and after."""
        y0, x0, y1, x1 = self.box_yxyx
        shape, dtype = (y1 - y0, x1 - x0), np.dtype(self.dtype)
        size = shape[0] * shape[1]
        data = zlib.decompress(self.packed)
        n_mask = (size + 7) // 8
        changed = np.unpackbits(np.frombuffer(data[:n_mask], np.uint8), count=size).astype(bool)
        before, after = np.frombuffer(data[n_mask:], dtype).reshape(2, -1)
        return changed.reshape(shape), before, after

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the journal."""
        plane = self.plane
        return {
            "plane": [plane.axis, plane.index, plane.level, plane.time],
            "box": list(self.box_yxyx),
            "dtype": self.dtype,
            "data": base64.b64encode(self.packed).decode("ascii"),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LabelDelta:
        """The change that `to_json` wrote."""
        y0, x0, y1, x1 = value["box"]
        data = base64.b64decode(value["data"])
        return cls(PlaneRef(*value["plane"]), (y0, x0, y1, x1), value["dtype"], data)


def deltas_between(
    before: Array, after: Array, corner: tuple[int, ...], level: int = 0
) -> Iterator[LabelDelta]:
    """The change of each plane along Z that is different in two blocks of labels, whose first voxel is `corner`."""
    starts = [0] * (4 - len(corner)) + list(corner)
    old, new = (block.reshape((1,) * (4 - block.ndim) + block.shape) for block in (before, after))
    changed = old != new
    for t, z in np.argwhere(changed.any((2, 3))).tolist():
        rows, cols = (np.flatnonzero(changed[t, z].any(axis)) for axis in (1, 0))
        y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(cols[0]), int(cols[-1]) + 1
        plane = PlaneRef(0, starts[1] + z, level, starts[0] + t)
        box = (starts[2] + y0, starts[3] + x0, starts[2] + y1, starts[3] + x1)
        yield LabelDelta.between(plane, box, old[t, z, y0:y1, x0:x1], new[t, z, y0:y1, x0:x1])


Note = Callable[[LabelDelta], object]
"""Is told of a change before it is made."""


def apply_edit(
    labels: LabelArray,
    edit: LabelEdit,
    policy: OverlapPolicy,
    replaces: Region | None = None,
    note: Kept | None = None,
) -> tuple[LabelDelta, LabelChange]:
    """Write an object into one plane.

    Parameters
    ----------
    labels : LabelArray
        Where to.
    edit : LabelEdit
        What; label 0 erases.
    policy : OverlapPolicy
        Whether other objects may be written over.
    replaces : Region, optional
        What this object was in this plane before: those voxels are cleared where they still hold its label.
    note : Kept, optional
        Told of the change, and of what the object is then, before it is made.

    Returns
    -------
    (LabelDelta, LabelChange)
        How to take it back, and what the box holds now.

    Raises
    ------
    SessionError
        The array's type cannot hold the label.
    """
    if edit.label > np.iinfo(labels.array.dtype).max:
        raise SessionError(
            f"label {edit.label} does not fit into labels of type {labels.array.dtype}; convert them to uint32"
        )
    box = hull(edit.region, replaces)
    with labels.lock:
        before = labels.read(edit.plane, box)
        after = _edited(before, box, edit, policy, replaces)
        delta = LabelDelta.between(edit.plane, box, before, after)
        if note is not None:
            note.tell(delta, before, after)
        if (after != before).any():
            labels.write(edit.plane, box, after)
    return delta, LabelChange(edit.plane, box, after)


def restore_many(
    labels: LabelArray, deltas: Sequence[LabelDelta], notes: Sequence[Note], *, forward: bool = False
) -> list[LabelChange]:
    """Take changes of parallel planes back, or make them again, in order: reads and writes them as one block.

    Voxels changed since by others are left alone.

    Parameters
    ----------
    labels : LabelArray
        Where.
    deltas : sequence of LabelDelta
        Of planes that differ in their index at most; see `blocks_of`.
    notes : sequence of callable
        One a delta, told of what is changed before it is.
    forward : bool
        Make the changes again.
    """
    changes, is_changed = [], False
    with labels.lock:
        block = _Block(labels, deltas)
        for delta, note in zip(deltas, notes, strict=True):
            part = block.part(delta)
            values = part.copy()
            changed, before, after = delta.unpacked()
            old, new = (before, after) if forward else (after, before)
            current = values[changed]
            part[changed] = np.where(current == old, new, current)
            note(LabelDelta.between(delta.plane, delta.box_yxyx, values, part))
            changes.append(LabelChange(delta.plane, delta.box_yxyx, part.copy()))
            is_changed |= bool((part != values).any())
        if is_changed:
            block.write()
    return changes


@dataclass(frozen=True, slots=True, eq=False)
class Replacement:
    """An edit, and what its object was in the plane before: those voxels are cleared where they hold its label."""

    edit: LabelEdit
    replaced: Region | None = None

    @property
    def plane(self) -> PlaneRef:
        """Where it is."""
        return self.edit.plane

    @property
    def box_yxyx(self) -> BoxYXYX:
        """What it may change."""
        return hull(self.edit.region, self.replaced)


def apply_many(
    labels: LabelArray, replacements: Sequence[Replacement], notes: Sequence[Kept]
) -> list[LabelChange | None]:
    """`apply_edit` for parallel planes, in order, where others are protected: reads and writes them as one block.

    Parameters
    ----------
    labels : LabelArray
        Where.
    replacements : sequence of Replacement
        In planes that differ in their index at most; see `blocks_of`.
    notes : sequence of Kept
        One each, told of what is changed, and of what the object is then, before it is.

    Returns
    -------
    list of LabelChange or None
        None where nothing changed.
    """
    changes: list[LabelChange | None] = []
    with labels.lock:
        block = _Block(labels, replacements)
        for one, note in zip(replacements, notes, strict=True):
            part = block.part(one)
            before = part.copy()
            after = _edited(before, one.box_yxyx, one.edit, OverlapPolicy.BACKGROUND_ONLY, one.replaced)
            part[:] = after
            note.tell(LabelDelta.between(one.plane, one.box_yxyx, before, after), before, after)
            is_changed = bool((after != before).any())
            changes.append(LabelChange(one.plane, one.box_yxyx, after) if is_changed else None)
        if any(change is not None for change in changes):
            block.write()
    return changes


Change = TypeVar("Change", LabelDelta, Replacement)


class _Block:
    """Whole chunks around changes of parallel planes, read once."""

    def __init__(self, labels: LabelArray, changes: Sequence[LabelDelta] | Sequence[Replacement]) -> None:
        indices = [change.plane.index for change in changes]
        self._labels = labels
        self._where = labels.whole_chunks(
            changes[0].plane.at(min(indices)), max(indices) + 1, box_of(changes)
        )
        self._values = labels.read_block(*self._where)

    def part(self, change: LabelDelta | Replacement) -> Array:
        """A view (h, w) of what a change may change."""
        first, _, box = self._where
        y0, x0, y1, x1 = change.box_yxyx
        rows, columns = slice(y0 - box[0], y1 - box[0]), slice(x0 - box[1], x1 - box[1])
        return self._values[change.plane.index - first.index, rows, columns]

    def write(self) -> None:
        """Put everything back."""
        self._labels.write_block(*self._where, self._values)


def blocks_of(deltas: Iterable[Change]) -> Iterator[list[Change]]:
    """Cut changes, in their order, into runs that `restore_many` and `apply_many` take and that are not too large."""
    run: list[Change] = []
    for delta in deltas:
        if run and not _fits_block([*run, delta]):
            yield run
            run = []
        run.append(delta)
    if run:
        yield run


def impose(labels: LabelArray, delta: LabelDelta) -> None:
    """Make the changed voxels what they became, whatever they are: for redoing a journal."""
    changed, _, after = delta.unpacked()
    with labels.lock:
        values = labels.read(delta.plane, delta.box_yxyx)
        wanted = values.copy()
        wanted[changed] = after
        if (wanted != values).any():
            labels.write(delta.plane, delta.box_yxyx, wanted)


@dataclass(slots=True, eq=False)
class Kept:
    """A `Note` that writes to a journal: the change, and the mask that the object has then.

    Parameters
    ----------
    journal : Journal
    job : int
        Number of the job there.
    label : int
        The object that is written; 0 for an edit by hand.
    asked : Region, optional
        The mask that was to be written.
    score : Any
        What is known about it, as `codec.encode` gives it.
    over : tuple of int
        Other objects that lose or gain voxels.
    region : Region, optional
        Afterwards: the mask that the object has in the plane; that asked for, but for what belongs to others.
    at : int
        Afterwards: the place in the journal.
    """

    journal: Journal
    job: int
    label: int = 0
    asked: Region | None = None
    score: Any = None
    over: tuple[int, ...] = ()
    region: Region | None = None
    at: int = -1

    def tell(self, delta: LabelDelta, before: Array, after: Array) -> None:
        """Write a change of the mask asked for, which makes a box of labels `after` of `before`."""
        assert self.asked is not None
        found = Region.from_part(self.asked.plane_shape, delta.box_yxyx[:2], after == self.label)
        self.region = self.asked if found.same_as(self.asked) else found
        lost = before[(before != after) & (before != 0) & (before != self.label)]
        self.over = tuple(np.unique(lost).tolist())
        self(delta)

    def __call__(self, delta: LabelDelta) -> None:
        """Write the change to the journal."""
        mask = pack_region(self.region) if self.region is not None else None
        more: dict[str, Any] = {"score": self.score} if self.score is not None else {}
        if self.asked is not self.region and self.asked is not None:
            more["asked"] = pack_region(self.asked)
        if self.over:
            more["over"] = list(self.over)
        self.at = self.journal.append(
            "delta", job=self.job, object=self.label, **delta.to_json(), region=mask, **more
        )


def hull(region: Region | None, other: Region | None) -> BoxYXYX:
    """The box that holds both regions, empty if there is nothing to hold."""
    boxes = [r.box_yxyx for r in (region, other) if r is not None and r.area]
    return hull_of(boxes) if boxes else (0, 0, 0, 0)


def _edited(
    before: Array, box: BoxYXYX, edit: LabelEdit, policy: OverlapPolicy, replaces: Region | None
) -> Array:
    """What a box becomes."""
    own = before == edit.label
    after = before.copy()
    if replaces is not None:
        after[own & replaces.over(box)] = 0
    wanted = edit.region.over(box)
    if policy is OverlapPolicy.BACKGROUND_ONLY and edit.label:
        wanted &= own | (before == 0)
    after[wanted] = edit.label
    return after


def box_of(changes: Sequence[LabelDelta | LabelChange | Replacement]) -> BoxYXYX:
    """The box that holds all of these."""
    return hull_of(change.box_yxyx for change in changes)


def _fits_block(deltas: Sequence[LabelDelta | Replacement]) -> bool:
    indices = [delta.plane.index for delta in deltas]
    first, last = min(indices), max(indices)
    y0, x0, y1, x1 = box_of(deltas)
    return (
        len(deltas) <= RUN_CHANGES
        and deltas[-1].plane.at(0) == deltas[0].plane.at(0)
        and first // RUN_PLANES == last // RUN_PLANES
        and (last - first + 1) * (y1 - y0) * (x1 - x0) <= MOST_VOXELS
    )
