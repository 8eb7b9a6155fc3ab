"""Edits by hand: what a user paints in a Labels layer is journalled before it is written, and can be undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from napari_sam.core.arrays import Array
from napari_sam.core.planes import PlaneRef
from napari_sam.session.following import follow_values
from napari_sam.session.history import LabelWrite, RecordChange, Writing, encode_changes
from napari_sam.session.labels import Kept, LabelArray, LabelDelta, deltas_between

if TYPE_CHECKING:
    from napari_sam.session.session import Session

TITLE = "edit by hand"


class LazyPart(NDArrayOperatorsMixin):
    """What a number along the first axis of an array gives, as an array that is read once somebody looks into it.

    napari asks a Labels layer for ``data[0].dtype`` at every move of the brush, which must not read a plane.

    Parameters
    ----------
    array : array
        With a shape and a dtype, readable by a number.
    index : int
        Which part.
    """

    def __init__(self, array: Any, index: int) -> None:
        self._array, self._index = array, index
        self.dtype, self.ndim = np.dtype(array.dtype), array.ndim - 1
        self.shape: tuple[int, ...] = tuple(array.shape[1:])
        if not -array.shape[0] <= index < array.shape[0]:
            raise IndexError(f"index {index} is not there; there are {array.shape[0]}")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Read it."""
        return np.asarray(self._array[self._index], dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Calculate with it."""
        values = [np.asarray(one) if isinstance(one, LazyPart) else one for one in inputs]
        return getattr(ufunc, method)(*values, **options)

    def __getitem__(self, index: Any) -> Any:
        """Look into it."""
        return np.asarray(self)[index]

    def __len__(self) -> int:
        """Along its first axis."""
        return self.shape[0]

    def __getattr__(self, name: str) -> Any:
        """Whatever else an array has."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)


class EditableLabels:
    """A label array as a Labels layer takes it: whatever is assigned to it is told first.

    Parameters
    ----------
    labels : LabelArray
        What is shown and edited.
    note : callable
        Told of every change of a plane before it is made.
    """

    def __init__(self, labels: LabelArray, note: Callable[[LabelDelta], object]) -> None:
        self.labels, self._note = labels, note
        self.array = labels.array
        self.shape: tuple[int, ...] = tuple(labels.array.shape)
        self.dtype = np.dtype(labels.array.dtype)
        self.ndim = len(self.shape)

    def __getitem__(self, index: Any) -> Any:
        """Read a part; with one number alone, when it is looked at."""
        is_number = isinstance(index, int | np.integer) and self.ndim > 1
        return LazyPart(self.array, int(index)) if is_number else self.array[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write a part, plane by plane in the journal, at once in the array."""
        hull, inside = _hull(index, self.shape)
        if any(part.stop <= part.start for part in hull):
            return
        with self.labels.lock:
            before = np.asarray(self.array[hull])
            after = before.copy()
            after[inside] = value
            corner = tuple(part.start for part in hull)
            for delta in deltas_between(before, after, corner, self.labels.level):
                self._note(delta)
            if (after != before).any():
                self.array[hull] = after

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The whole, dense: only for small arrays and for libraries that insist."""
        return np.asarray(self.array[:], dtype)


class HandEdits:
    """Gathers edits by hand into steps of the history: one a stroke.

    Parameters
    ----------
    session : Session
        Whose labels are edited.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._open: tuple[int, Writing] | None = None
        self._touched: dict[int, set[PlaneRef]] = {}
        self._pending: set[tuple[int, PlaneRef]] = set()

    def editable(self) -> EditableLabels:
        """The session's labels, for a Labels layer; edits count until the session leaves its image."""
        session = self._session
        labels = session.labels
        assert labels is not None
        return EditableLabels(labels, lambda delta: self.note(labels, delta))

    def note(self, labels: LabelArray, delta: LabelDelta) -> None:
        """Note that labels are about to change, or did, by hand."""
        session = self._session
        if session.labels is None or session.labels.array is not labels.array:
            return
        job, writing = self._open or self._begin()
        kept = Kept(labels.journal, job)
        kept(delta)
        labels.note_painted(delta, job)
        writing.writes.append(LabelWrite(kept.at, delta.plane))
        self._follow(delta)

    def finish(self) -> None:
        """End a stroke: it is one step from here on."""
        if self._open is None:
            return
        (job, writing), self._open = self._open, None
        session = self._session
        writing.changes = tuple(self._corrections(writing))
        self._touched.clear()
        step = writing.step()
        if step is not None:
            session.history.push(step)
        session.note("end", job=job, how="finished", changes=encode_changes(writing.changes))
        session.changed.emit()

    def forget(self) -> None:
        """Leave an open stroke as it is."""
        self._open = None
        self._touched.clear()

    def _follow(self, delta: LabelDelta) -> None:
        """Know what objects are in the plane once the change is made."""
        session = self._session
        assert session.labels is not None
        values = session.labels.read(delta.plane, delta.box_yxyx)
        changed, before, after = delta.unpacked()
        values[changed] = after
        for label in np.unique(before).tolist():  # what is being written may be there before it is known
            if label in session.objects and session.ledger.changes(label):
                self._touched.setdefault(label, set()).add(delta.plane)
        for record, plane in follow_values(session, delta.plane, delta.box_yxyx, values):
            self._touched.setdefault(record.object_id, set()).add(plane)
            if record is session.record:
                session.predictions.show([plane])

    def _corrections(self, writing: Writing) -> Iterator[RecordChange]:
        """The planes painted are the user's own from here on."""
        for object_id, planes in sorted(self._touched.items()):
            record = self._session.object(object_id)
            self._session.editing.settle(record, [p for p in planes if (object_id, p) not in self._pending])
            new = {"corrected": tuple(sorted({*record.corrected, *planes}))}
            if record.corrected != new["corrected"]:
                yield RecordChange(object_id, {"corrected": record.corrected}, new)
                record.corrected = new["corrected"]

    def _begin(self) -> tuple[int, Writing]:
        session = self._session
        job = session.orders.reserve()
        writing = Writing(TITLE, session.state.object_id, number=job)
        session.journal.append("step", title=TITLE, object=writing.object_id, job=job, number=job)
        self._pending = {(i, plane) for i, record in session.objects.items() for plane in record.pending}
        self._open = job, writing
        return self._open


def _hull(index: Any, shape: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[Any, ...]]:
    """The smallest box that holds what an index names, and the index inside of it."""
    parts = _whole_index(index, shape)
    hull: list[slice] = []
    inside: list[Any] = []
    for part, size in zip(parts, shape, strict=True):
        if isinstance(part, slice):
            start, stop, step = part.indices(size)
            if step < 0:
                start, stop = start + (len(range(start, stop, step)) - 1) * step, start + 1
            hull.append(slice(start, max(start, stop)))
            inside.append(slice(None, None, part.step))
            continue
        values = np.asarray(part)
        values = np.where(values < 0, values + size, values).astype(np.intp)
        first, last = (int(values.min()), int(values.max())) if values.size else (0, -1)
        hull.append(slice(first, last + 1))
        inside.append(int(values) - first if values.ndim == 0 else values - first)
    return tuple(hull), tuple(inside)


def _whole_index(index: Any, shape: tuple[int, ...]) -> list[Any]:
    """One part for each dimension; a mask becomes the indices where it is true."""
    given = list(index) if isinstance(index, tuple) else [index]
    parts: list[Any] = []
    for part in given:
        is_mask = not isinstance(part, slice) and part is not Ellipsis and np.asarray(part).dtype == bool
        parts.extend(np.nonzero(part) if is_mask else [part])
    if any(part is Ellipsis for part in parts):
        at = next(i for i, part in enumerate(parts) if part is Ellipsis)
        parts[at : at + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    return parts + [slice(None)] * (len(shape) - len(parts))
