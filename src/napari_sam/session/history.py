"""Undo and redo: what changed, not copies of everything.

A step holds the marks and settings of objects before and after, which are small, and for labels only *where* in
the journal each change is kept, packed. So memory does not grow with the size of objects, and little with their number.
"""

from __future__ import annotations

import zlib
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from napari_sam.core.arrays import Array
from napari_sam.core.planes import PlaneRef
from napari_sam.session.codec import encode
from napari_sam.session.marks import Marks

NOWHERE = -1
"""Place in the journal of what was never written."""
COPIED = -1
"""Stands for an object where labels from elsewhere were written."""
RUN = 1024
"""Changes of labels that are packed together."""


@dataclass(frozen=True, slots=True, eq=False)
class MarksChange:
    """The marks of an object changed."""

    object_id: int
    before: Marks
    after: Marks

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return sum(
            m.points.nbytes + sum(s.vertices.nbytes for s in m.shapes) for m in (self.before, self.after)
        )

    def reversed(self) -> MarksChange:
        """The change back."""
        return MarksChange(self.object_id, self.after, self.before)


@dataclass(frozen=True, slots=True, eq=False)
class RecordChange:
    """Fields of an object's record changed, such as its name.

    Parameters
    ----------
    object_id : int
        Which object.
    before, after : mapping of str to value
        The same fields of `ObjectRecord`; values as `session.codec` takes them.
    """

    object_id: int
    before: Mapping[str, Any]
    after: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        """Memory held, about."""
        return 200 * (len(self.before) + len(self.after))

    def reversed(self) -> RecordChange:
        """The change back."""
        return RecordChange(self.object_id, self.after, self.before)


Change = MarksChange | RecordChange


@dataclass(frozen=True, slots=True)
class LabelWrite:
    """One change of labels in one plane.

    Parameters
    ----------
    at : int
        Where in the journal it is kept.
    plane : PlaneRef
        Which plane.
    object_id : int
        Whose mask was written; 0 for an edit by hand, COPIED for labels from elsewhere, which change no object.
    before : int
        Where in the journal the mask is kept that the object had there before; NOWHERE if it had none.
    """

    at: int
    plane: PlaneRef
    object_id: int = 0
    before: int = NOWHERE


class Writes:
    """Changes of labels in the order in which they were made, in a few bytes each.

    Runs of them are packed: the seven numbers of a `LabelWrite` hardly differ from those of the one before.

    Parameters
    ----------
    writes : iterable of LabelWrite
        To begin with.

    Attributes
    ----------
    object_ids : set of int
        Whose masks were written.
    """

    def __init__(self, writes: Iterable[LabelWrite] = ()) -> None:
        self.object_ids: set[int] = set()
        self._packed: list[bytes] = []
        self._last = array("q")
        self._count = 0
        self.extend(writes)

    def append(self, write: LabelWrite) -> None:
        """Add one."""
        plane = write.plane
        self._last.extend(
            (write.at, write.before, write.object_id, plane.axis, plane.index, plane.level, plane.time)
        )
        self._count += 1
        if write.object_id > 0:
            self.object_ids.add(write.object_id)
        if len(self._last) >= 7 * RUN:
            self.pack()

    def extend(self, writes: Iterable[LabelWrite]) -> None:
        """Add several."""
        for write in writes:
            self.append(write)

    def pack(self) -> None:
        """Use as little memory as possible: nothing is added for now."""
        if self._last:
            rows = np.array(self._last).reshape(-1, 7)
            self._packed.append(zlib.compress(np.diff(rows, axis=0, prepend=0).T.tobytes(), 1))
            self._last = array("q")

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return sum(map(len, self._packed)) + 8 * len(self._last)

    def __len__(self) -> int:
        """How many there are."""
        return self._count

    def __iter__(self) -> Iterator[LabelWrite]:
        """From the first to the last."""
        for packed in self._packed:
            yield from _unpacked(packed)
        yield from _rows(np.array(self._last))

    def __reversed__(self) -> Iterator[LabelWrite]:
        """From the last to the first."""
        yield from _rows(np.array(self._last))[::-1]
        for packed in reversed(self._packed):
            yield from _unpacked(packed)[::-1]


def _unpacked(packed: bytes) -> list[LabelWrite]:
    columns = np.frombuffer(zlib.decompress(packed), np.int64).reshape(7, -1)
    return _rows(columns.cumsum(1).T)


def _rows(numbers: Array) -> list[LabelWrite]:
    rows = numbers.reshape(-1, 7).tolist()
    return [LabelWrite(at, PlaneRef(*plane), object_id, before) for at, before, object_id, *plane in rows]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What one undo takes back.

    Parameters
    ----------
    title : str
        For the undo button: "prompt", "keep", "propagation", "delete".
    object_id : int
        The object that becomes active again.
    changes : tuple of Change
        Of marks and records, in order.
    writes : Writes
        Of labels, in the order in which they were made.
    is_whole : bool
        Whether it can be made again once it is taken back: not what was cut short and counts only when complete.
    number : int
        Of the order; steps stand in the order of their numbers. 0 for what stands where it ended, as it did once.
    """

    title: str
    object_id: int
    changes: tuple[Change, ...] = ()
    writes: Writes = field(default_factory=Writes)
    is_whole: bool = True
    number: int = 0

    @property
    def nbytes(self) -> int:
        """Memory held, about."""
        return sum(change.nbytes for change in self.changes) + self.writes.nbytes

    def ordered(self, forward: bool) -> tuple[Change, ...]:
        """The changes that make the step again, or take it back."""
        return self.changes if forward else tuple(change.reversed() for change in reversed(self.changes))


@dataclass(slots=True, eq=False)
class Writing:
    """A job that changes labels, from its order to its end; becomes one step.

    Parameters
    ----------
    title, object_id, changes, writes, is_whole, number
        As in `Step`.
    model : int
        Number in the journal of the model that was used when it was ordered.
    drawn : set of (int, int)
        Objects that the model drew, and at which time points.
    """

    title: str
    object_id: int
    changes: tuple[Change, ...] = ()
    writes: Writes = field(default_factory=Writes)
    is_whole: bool = True
    number: int = 0
    model: int = 0
    drawn: set[tuple[int, int]] = field(default_factory=set)

    def cut_short(
        self, records: Mapping[int, Any], fields: Mapping[str, Any], *, is_whole: bool = True
    ) -> None:
        """Know that the job did not come to its end: objects that it carried have to be carried again.

        Parameters
        ----------
        records : mapping of int to ObjectRecord
            Objects by number.
        fields : mapping of str to value
            What the record of such an object says.
        is_whole : bool
            Whether what it did counts nevertheless.
        """
        self.is_whole = is_whole
        for change in self.changes:
            if isinstance(change, RecordChange) and "anchors" in change.after:
                record, after = records[change.object_id], cast("dict[str, Any]", change.after)
                for name in fields:
                    if getattr(record, name) == after.get(name):  # nobody said otherwise meanwhile
                        setattr(record, name, fields[name])
                after.update(fields)

    def step(self) -> Step | None:
        """All changes as one step; None if there are none."""
        if not self.writes and not self.changes:
            return None
        self.writes.pack()
        return Step(self.title, self.object_id, self.changes, self.writes, self.is_whole, self.number)


ObjectIds = frozenset[int] | None
"""Objects by number; None for all that there are."""
ALL_OBJECTS: ObjectIds = None


def have_common(one: ObjectIds, other: ObjectIds) -> bool:
    """Whether an object may be among both."""
    return one is None or other is None or not one.isdisjoint(other)


@dataclass(frozen=True, slots=True, eq=False)
class _Later:
    """An action that waits, the objects that it is about, and what ends the jobs that it waits for sooner."""

    action: Callable[[], None]
    object_ids: ObjectIds
    hurry: Callable[[], None]


class Ledger:
    """Jobs that change labels and have not ended, and what waits for their end.

    What is about the same objects is done one after the other, in the order in which it was asked for.
    """

    def __init__(self) -> None:
        self._open: dict[int, Writing | None] = {}
        self._objects: dict[int, ObjectIds] = {}
        self._later: list[_Later] = []

    def begin(
        self, generation: int, writing: Writing | None = None, object_ids: ObjectIds = ALL_OBJECTS
    ) -> None:
        """Note a job and whose masks it changes; one without a `Writing` only restores what was."""
        self._open[generation] = writing
        self._objects[generation] = object_ids

    def writing(self, generation: int) -> Writing | None:
        """What a job has written so far."""
        return self._open.get(generation)

    def has(self, generation: int) -> bool:
        """Whether a job is open."""
        return generation in self._open

    def end(self, generation: int) -> Writing | None:
        """Note the end of a job and return what it wrote."""
        self._objects.pop(generation, None)
        return self._open.pop(generation, None)

    def changes(self, object_id: int) -> bool:
        """Whether a job is open that changes this object."""
        return any(have_common(frozenset({object_id}), one) for one in self._objects.values())

    def after(
        self,
        action: Callable[[], None],
        object_ids: ObjectIds = ALL_OBJECTS,
        hurry: Callable[[], None] = lambda: None,
    ) -> None:
        """Do something once no job is open that changes these objects; `settle` does it, and hurries what is open."""
        self._later.append(_Later(action, object_ids, hurry))

    def settle(self) -> None:
        """Do what waited and need not wait any more."""
        while (ready := self._ready()) is not None:
            self._later.remove(ready)
            ready.action()
        for waiting in self._later:
            waiting.hurry()

    def _ready(self) -> _Later | None:
        before = list(self._objects.values())
        for waiting in self._later:
            if not any(have_common(waiting.object_ids, one) for one in before):
                return waiting
            before.append(waiting.object_ids)
        return None

    def clear(self) -> None:
        """Forget all jobs and what waits for them."""
        self._open.clear()
        self._objects.clear()
        self._later.clear()

    def __bool__(self) -> bool:
        """Whether any job is open."""
        return bool(self._open)


class History:
    """Steps that can be undone and redone.

    Parameters
    ----------
    max_steps : int
        The oldest beyond this many are forgotten.
    max_bytes : int
        The oldest are forgotten as well when the steps hold more memory.
    min_steps : int
        So many of the last are kept whatever they hold.
    """

    def __init__(self, max_steps: int = 1000, max_bytes: int = 64 << 20, min_steps: int = 100) -> None:
        self.max_steps, self.max_bytes, self.min_steps = max_steps, max_bytes, min_steps
        self._done: deque[Step] = deque()
        self._undone: list[Step] = []
        self._held = 0

    def push(self, step: Step) -> None:
        """Remember a step that was just made; what was undone before can no longer be redone.

        What was asked for after it and has ended already stays after it, so that it is taken back first. A step that
        is not whole comes last: it is taken back at once.
        """
        self._undone.clear()
        at = len(self._done)
        while step.is_whole and at and self._done[at - 1].number > step.number > 0:
            at -= 1
        self._done.insert(at, step)
        self._held += step.nbytes
        while len(self) > self.max_steps or (len(self) > self.min_steps and self._held > self.max_bytes):
            self._held -= self._done.popleft().nbytes

    @property
    def next_undo(self) -> Step | None:
        """The step that `undo` gives."""
        return self._done[-1] if self._done else None

    @property
    def next_redo(self) -> Step | None:
        """The step that `redo` gives."""
        return self._undone[-1] if self._undone else None

    def undo(self) -> Step | None:
        """Move back over one step and return it; None at the beginning."""
        if not self._done:
            return None
        step = self._done.pop()
        self._held -= step.nbytes
        if step.is_whole:
            self._undone.append(step)
        return step

    def redo(self) -> Step | None:
        """Move forward over one step and return it; None at the end."""
        if not self._undone:
            return None
        step = self._undone.pop()
        self._held += step.nbytes
        self._done.append(step)
        return step

    def clear(self) -> None:
        """Forget everything."""
        self._done.clear()
        self._undone.clear()
        self._held = 0

    def __len__(self) -> int:
        """Steps that can be undone."""
        return len(self._done)


def encode_changes(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Changes for the journal; what was before is known from there."""
    return [
        {"object": c.object_id, "marks": c.after.to_json()}
        if isinstance(c, MarksChange)
        else {"object": c.object_id, "fields": {k: encode(v) for k, v in c.after.items()}}
        for c in changes
    ]
