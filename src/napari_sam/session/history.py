"""Undo and redo: what changed, not copies of everything."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.session.labels import LabelDelta
from napari_sam.session.marks import Marks

Regions = Mapping[PlaneRef, Region | None]


@dataclass(frozen=True, slots=True, eq=False)
class MarksStep:
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

    @property
    def title(self) -> str:
        """For the undo button."""
        return "prompt"


@dataclass(frozen=True, slots=True, eq=False)
class LabelsStep:
    """Labels of an object changed in one or many planes.

    Parameters
    ----------
    title : str
        For the undo button: "commit", "propagation".
    object_id : int
        Whose labels.
    deltas : tuple of LabelDelta
        In the order in which they were made.
    regions_before, regions_after : mapping of PlaneRef to Region or None
        What the object was known to be in the planes concerned.
    """

    title: str
    object_id: int
    deltas: tuple[LabelDelta, ...]
    regions_before: Regions
    regions_after: Regions

    @property
    def nbytes(self) -> int:
        """Memory held by the deltas."""
        return sum(delta.nbytes for delta in self.deltas)


Step = MarksStep | LabelsStep


@dataclass(slots=True, eq=False)
class Writing:
    """A job that changes labels, from its order to its end; becomes one step."""

    title: str
    object_id: int
    deltas: list[LabelDelta] = field(default_factory=list)
    before: dict[PlaneRef, Region | None] = field(default_factory=dict)
    after: dict[PlaneRef, Region | None] = field(default_factory=dict)

    def note(self, delta: LabelDelta, before: Region | None, after: Region | None) -> None:
        """Add one change, and what the object was and is in its plane."""
        self.deltas.append(delta)
        self.before.setdefault(delta.plane, before)
        self.after[delta.plane] = after

    def step(self) -> LabelsStep:
        """All changes as one step."""
        return LabelsStep(self.title, self.object_id, tuple(self.deltas), self.before, self.after)


class Ledger:
    """Jobs that change labels and have not ended, and what waits for their end."""

    def __init__(self) -> None:
        self._open: dict[int, Writing | None] = {}
        self._later: list[Callable[[], None]] = []

    def begin(self, generation: int, writing: Writing | None = None) -> None:
        """Note a job; one without a `Writing` only restores what was."""
        self._open[generation] = writing

    def writing(self, generation: int) -> Writing | None:
        """What a job has written so far."""
        return self._open.get(generation)

    def end(self, generation: int) -> Writing | None:
        """Note the end of a job and return what it wrote."""
        return self._open.pop(generation, None)

    def after(self, action: Callable[[], None]) -> None:
        """Do something once no job is open; `settle` does it."""
        self._later.append(action)

    def settle(self) -> None:
        """Do what waited, as long as no job is open."""
        while self._later and not self._open:
            self._later.pop(0)()

    def clear(self) -> None:
        """Forget all jobs and what waits for them."""
        self._open.clear()
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
        The oldest are forgotten as well when the steps hold more memory; the last one is always kept.
    """

    def __init__(self, max_steps: int = 500, max_bytes: int = 256 << 20) -> None:
        self.max_steps, self.max_bytes = max_steps, max_bytes
        self._done: deque[Step] = deque()
        self._undone: list[Step] = []

    def push(self, step: Step) -> None:
        """Remember a step that was just made; what was undone before can no longer be redone."""
        self._undone.clear()
        self._done.append(step)
        held = sum(s.nbytes for s in self._done)
        while len(self._done) > 1 and (len(self._done) > self.max_steps or held > self.max_bytes):
            held -= self._done.popleft().nbytes

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
        self._undone.append(self._done.pop())
        return self._undone[-1]

    def redo(self) -> Step | None:
        """Move forward over one step and return it; None at the end."""
        if not self._undone:
            return None
        self._done.append(self._undone.pop())
        return self._done[-1]

    def clear(self) -> None:
        """Forget everything."""
        self._done.clear()
        self._undone.clear()

    def __len__(self) -> int:
        """Steps that can be undone."""
        return len(self._done)
