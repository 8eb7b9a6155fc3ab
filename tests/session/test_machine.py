"""Whatever is done in whatever order: labels, marks, undo and journal are as in a simple model, and after a kill too.

The number of examples is 200, or what the environment variable NAPARI_SAM_EXAMPLES says.
"""

import os
import shutil
import tempfile
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scipy import ndimage

from napari_sam.core.planes import PlaneRef
from napari_sam.errors import SessionWarning
from napari_sam.session import engine, object_jobs, orders, recovery
from napari_sam.session.labels import LabelArray, LabelDelta, impose
from napari_sam.session.marks import Marks
from napari_sam.session.session import Session
from napari_sam.session.state import OverlapPolicy
from napari_sam.session.worker import Answer, Failed, Finished, Started
from napari_sam.testing.fakes import ArrayVolume
from napari_sam.testing.sessions import FakeBackend

N_EXAMPLES = int(os.environ.get("NAPARI_SAM_EXAMPLES", "200"))
SHAPE = (4, 9, 10)
SPOTS = [(2, 2), (6, 7), (2, 7)]
IMAGE = np.zeros(SHAPE, np.uint8)
for _y, _x in SPOTS:
    IMAGE[:, _y - 1 : _y + 2, _x - 1 : _x + 2] = 200
IMAGE[0, :4, :4] = 0  # one thing ends before the first plane


class KilledError(BaseException):
    """The process died here."""


class Disk:
    """A label array that outlives its session, and may die before a write."""

    def __init__(self, shape):
        self.values = np.zeros(shape, np.uint16)
        self.shape, self.ndim, self.dtype = shape, len(shape), self.values.dtype
        self.writes_left = None

    def __getitem__(self, index):
        return self.values[index].copy()

    def __setitem__(self, index, value):
        if self.writes_left is not None:
            self.writes_left -= 1
            if self.writes_left < 0:
                raise KilledError
        self.values[index] = value


class Inline:
    """Carries out every request as it is submitted."""

    def __init__(self, job, deliver, name=""):
        self._job, self._deliver = job, deliver
        self.is_busy = False

    def submit(self, request):
        self._deliver(Started(request))
        try:
            for value in self._job(request):
                self._deliver(Answer(request, value))
        except Exception as error:
            self._deliver(Failed(request, error))
            raise
        self._deliver(Finished(request))

    def cancel(self, matches):
        return 0

    def close(self, timeout=None, keep=None):
        return True


class SessionMachine(RuleBasedStateMachine):
    """The model is: what the labels are, what each object has where, and copies of both for undo."""

    def __init__(self):
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.root = Path(tempfile.mkdtemp())
        self.disk = Disk(SHAPE)
        self.patch.setattr(orders, "InferenceThread", Inline)
        self.patch.setattr(engine, "_new_labels", self._new_labels)
        self.patch.setattr(recovery, "open_labels", lambda path: self.disk)
        self.patch.setattr(object_jobs, "RUN_PLANES", 2)

    def _new_labels(self, request):
        request.path.mkdir()
        (request.path / "zarr.json").touch()
        return self.disk

    @initialize(planes=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), max_size=3))
    def begin(self, planes):
        """An image, and objects kept in these planes each; two of the things in the image are often one object."""
        self.session = self._new_session()
        self.session.use_volume(ArrayVolume(IMAGE))
        self.session.show(PlaneRef(0, 1))
        self.labels = np.zeros(SHAPE, np.uint16)
        self.marks, self.written, self.names = {}, {}, {}
        self.undone, self.done = [], []
        self.copied = set()
        for number, indices in enumerate(planes):
            self.choose(number + 1)
            for z in indices:
                self.click(z, SPOTS[(number + z) % 3], True)
            if self.session.record.pending:
                self.keep(None)

    def _new_session(self):
        session = Session(FakeBackend(), lambda function: function(), self.root / "session")
        session.state.idle_reach = 0
        session.load_model()
        return session

    # The model

    def _copy(self):
        return deepcopy((self.labels, self.marks, self.written, self.names))

    def _take(self, copy):
        self.labels, self.marks, self.written, self.names = copy

    def _step(self):
        """Call before the model changes."""
        self.done.append(self._copy())
        self.undone.clear()

    def _put(self, label, z, mask, protects=True):
        plane = self.labels[z]
        old = self.written.pop((label, z), None)
        if old is not None:
            plane[old & (plane == label)] = 0
        if mask.any():
            free = (plane == 0) | (plane == label)
            plane[mask & (free if protects else True)] = label
            self.written[label, z] = mask

    def _planes(self, object_id):
        return {z: mask for (label, z), mask in self.written.items() if label == object_id}

    def _is_usable(self, label):
        """Nobody works with a number that was copied from elsewhere before it is an object."""
        return label not in self.copied or bool(self._planes(label))

    def _there(self):
        """The objects that are there."""
        return sorted({*(i for i, _ in self.written), *(i for i, marks in self.marks.items() if marks)})

    def _parts(self, object_id):
        """(Z, Y, X) numbers of the connected parts of an object, and how many there are."""
        block = np.zeros(SHAPE, bool)
        for z, mask in self._planes(object_id).items():
            block[z] = mask
        return ndimage.label(block, np.ones((3, 3, 3)))

    def _splittable(self):
        return [i for i in sorted({i for i, _ in self.written}) if self._parts(i)[1] > 1]

    # What a user does

    @rule(object_id=st.integers(1, 5))
    def choose(self, object_id):
        if self._is_usable(object_id):
            self.session.state.object_id = object_id

    @rule(policy=st.sampled_from(OverlapPolicy))
    def protect(self, policy):
        self.session.state.policy = policy

    @precondition(lambda self: self._is_usable(self.session.state.object_id))
    @rule(z=st.integers(0, 3), spot=st.sampled_from(SPOTS), positive=st.booleans())
    def click(self, z, spot, positive):
        self._step()
        self.session.show(PlaneRef(0, z))
        marks = self.session.marks
        points = [*marks.points.tolist(), [0, z, *spot]]
        self.session.set_marks(Marks(points, [*marks.positive.tolist(), positive]))
        self.marks[self.session.state.object_id] = points

    @precondition(lambda self: self.session.record.pending)
    @rule(kill_after=st.none() | st.integers(0, 3))
    def keep(self, kill_after):
        self._step()
        object_id = self.session.state.object_id
        for plane, region in self.session.record.pending.items():
            protects = self.session.state.policy is OverlapPolicy.BACKGROUND_ONLY
            self._put(object_id, plane.index, region.mask, protects)
        self._perhaps_killed(self.session.commit, kill_after)

    @precondition(lambda self: not self.session.record.is_empty)
    @rule(kill_after=st.none() | st.integers(0, 3))
    def delete(self, kill_after):
        self._step()
        object_id = self.session.state.object_id
        for label, z in [key for key in self.written if key[0] == object_id]:
            self._put(label, z, np.zeros(SHAPE[1:], bool))
        self.marks.pop(object_id, None)
        self.names.pop(object_id, None)
        self._perhaps_killed(self.session.erase_object, kill_after)

    @rule(
        z=st.integers(0, 2),
        thickness=st.integers(1, 2),
        y=st.integers(0, 6),
        x=st.integers(0, 6),
        label=st.integers(0, 5),
        killed=st.booleans(),
    )
    def paint(self, z, thickness, y, x, label, killed):
        if label not in self.session.objects or not self._is_usable(label):
            label = 0  # nobody paints the label of an object that comes later: it gets another one
        where = slice(z, z + thickness), slice(y, y + 3), slice(x, x + 3)
        if (self.labels[where] != label).any():
            self._step()
            self.labels[where] = label

        def stroke():
            self.session.hand.editable()[where] = label
            self.session.hand.finish()

        self._perhaps_killed(stroke, 0 if killed else None)
        self.written = self._found()  # objects follow what is painted over them
        for key, part in self._in_labels(self.written).items():
            np.testing.assert_array_equal(part, self.labels[key[1]] == key[0])

    @precondition(lambda self: not self.session.marks.is_empty)
    @rule(kill_after=st.none() | st.integers(0, 3))
    def propagate(self, kill_after):
        self._changes_only([self.session.state.object_id], self.session.propagate, kill_after)

    @precondition(lambda self: len(self._there()) > 1)
    @rule(data=st.data(), kill_after=st.none() | st.integers(0, 5))
    def propagate_several(self, data, kill_after):
        object_ids = data.draw(st.lists(st.sampled_from(self._there()), min_size=2, unique=True))
        self._changes_only(object_ids, lambda: self.session.propagate_objects(object_ids), kill_after)

    @precondition(lambda self: self.written)
    @rule(data=st.data(), kill_after=st.none() | st.integers(0, 1))
    def refine(self, data, kill_after):
        object_id = data.draw(st.sampled_from(self._there()))
        self._changes_only([object_id], lambda: self.session.editing.refine(object_id), kill_after)

    def _changes_only(self, object_ids, action, kill_after=None):
        """What the model finds is not foretold, but no other object loses or gains a voxel."""
        before, steps = self._copy(), self.session.history.next_undo
        self._perhaps_killed(action, kill_after)
        now = self.disk.values
        np.testing.assert_array_equal(
            *(np.where(np.isin(one, [0, *object_ids]), 0, one) for one in (now, self.labels))
        )
        if self.session.history.next_undo is not steps:
            self.done.append(before)
            self.undone.clear()
        self.labels = now.copy()
        self.written = self._found()

    @rule(object_id=st.integers(1, 5), name=st.sampled_from(["", "cell", "nucleus"]))
    def rename(self, object_id, name):
        if object_id in self.session.objects and self.names.get(object_id, "") != name:
            self._step()
            self.names[object_id] = name
        self.session.editing.rename(object_id, name)

    @precondition(lambda self: len(self._there()) > 1)
    @rule(data=st.data(), kill_after=st.none() | st.integers(0, 5))
    def merge(self, data, kill_after):
        goal, *others = data.draw(st.lists(st.sampled_from(self._there()), min_size=1, max_size=3))
        found = [i for i in dict.fromkeys(others) if i != goal]
        if found:
            self._step()
            united = {}
            for other in found:
                for z, mask in self._planes(other).items():
                    united[z] = united.get(z, False) | mask
            everything = {z: mask | self._planes(goal).get(z, False) for z, mask in united.items()}
            for (
                z,
                mask,
            ) in everything.items():  # whoever of them has a voxel that any of them covers gives it away
                self.labels[z][mask & np.isin(self.labels[z], found)] = 0
            for key in [key for key in self.written if key[0] in found]:
                del self.written[key]
            for z, mask in everything.items():
                self._put(goal, z, mask)
            for other in found:
                self.names.pop(other, None)
            points = [point for i in (goal, *found) for point in self.marks.pop(i, [])]
            self.marks[goal] = points
        self._perhaps_killed(lambda: self.session.editing.merge(goal, others), kill_after)

    @precondition(lambda self: self._splittable())
    @rule(data=st.data(), kill_after=st.none() | st.integers(0, 5))
    def split(self, data, kill_after):
        object_id = data.draw(st.sampled_from(self._splittable()))
        parts, _ = self._parts(object_id)
        self._step()
        order = 1 + np.argsort(-np.bincount(parts.ravel())[1:], kind="stable")
        first = 1 + max(self.session.largest_label, *self.session.objects)
        for z in list(self._planes(object_id)):
            self._put(object_id, z, parts[z] == order[0])
        for number, part in enumerate(order[1:]):
            for z in np.flatnonzero((parts == part).any((1, 2))).tolist():
                self._put(first + number, z, parts[z] == part)
            if self.names.get(object_id):
                self.names[first + number] = f"{self.names[object_id]} ({number + 2})"
        self._perhaps_killed(lambda: self.session.editing.split_components(object_id), kill_after)

    @rule(
        boxes=st.lists(st.tuples(*[st.integers(0, 7)] * 2, st.integers(1, 2)), min_size=1, max_size=2),
        kill_after=st.none() | st.integers(0, 1),
    )
    def copy_labels(self, boxes, kill_after):
        source = np.zeros((1, *SHAPE), np.uint8)
        for y, x, label in boxes:
            source[0, :, y : y + 2, x : x + 2] = label
        offset = self.session.next_free_id - 1
        after = np.where((self.labels == 0) & (source[0] > 0), source[0] + offset, self.labels)
        is_changed = (after != self.labels).any()
        before = self._copy()
        was_killed = self._perhaps_killed(lambda: self.session.editing.import_labels(source), kill_after)
        if is_changed:
            self.undone.clear()
        if is_changed and not was_killed:  # else there is nothing of it
            self.done.append(before)
            self.labels = after
        self.copied |= {offset + label for label in range(1, int(source.max()) + 1)}

    @precondition(lambda self: not set(np.unique(self.labels)) <= {0, *(i for i, _ in self.written)})
    @rule()
    def take_labels(self):
        known = {label for label, _ in self.written}
        self._changes_only([], self.session.editing.take_labels)
        for label in set(np.unique(self.labels).tolist()) - known - {0}:
            for z, mask in self._planes(label).items():
                np.testing.assert_array_equal(mask, self.labels[z] == label)
            assert len(self._planes(label)) == (self.labels == label).any((1, 2)).sum()

    @rule(kill_after=st.none() | st.integers(0, 2))
    def undo(self, kill_after):
        if self.done:
            self.undone.append(self._copy())
            self._take(self.done.pop())
        self._perhaps_killed(self.session.undo, kill_after)

    @rule(kill_after=st.none() | st.integers(0, 2))
    def redo(self, kill_after):
        if self.undone:
            self.done.append(self._copy())
            self._take(self.undone.pop())
        self._perhaps_killed(self.session.redo, kill_after)

    @rule(cut=st.integers(0, 60))
    def killed_while_writing_the_journal(self, cut):
        """A record that was never finished is as if nothing had been done."""
        path = self.session.journal.path
        self.session.journal.close()
        with path.open("ab") as file:
            file.write(b'deadbeef {"n":99999,"time":"2026-01-01T00:00:00","event":"step"}'[:cut])
        with pytest.warns(SessionWarning) if cut else nothing():
            self._reopen()

    # Dying and coming back

    def _perhaps_killed(self, action, kill_after):
        """Do something, and die before one of its writes; whether it came to that."""
        self.disk.writes_left = kill_after
        try:
            action()
        except KilledError:
            self.disk.writes_left = None
            self.session.journal.close()
            self._reopen()
            return True
        finally:
            self.disk.writes_left = None
        return False

    def _reopen(self):
        active, policy = self.session.state.object_id, self.session.state.policy
        self.session = self._new_session()
        self.session.reopen(self.root / "session", ArrayVolume(IMAGE))
        self.session.show(PlaneRef(0, 1))
        assert self.session.state.object_id == active
        assert self.session.state.policy is policy

    def _found(self):
        return {
            (record.object_id, plane.index): region.mask
            for record in self.session.objects.values()
            for plane, region in record.written.items()
        }

    def _in_labels(self, masks):
        """The part of each mask that the object has in the labels; the rest belongs to others."""
        parts = {(i, z): mask & (self.labels[z] == i) for (i, z), mask in masks.items()}
        return {key: part for key, part in parts.items() if part.any()}

    # What must be so at any moment

    @invariant()
    def labels_are_those_of_the_model(self):
        if hasattr(self, "labels"):
            np.testing.assert_array_equal(self.disk.values, self.labels)

    @invariant()
    def objects_are_those_of_the_model(self):
        if not hasattr(self, "labels"):
            return
        assert all(mask.any() for mask in self._found().values())
        assert all((mask == (self.labels[z] == i)).all() for (i, z), mask in self._found().items())
        found, wanted = self._in_labels(self._found()), self._in_labels(self.written)
        assert found.keys() == wanted.keys()
        assert all((found[key] == mask).all() for key, mask in wanted.items())
        marks = {r.object_id: r.marks.points.tolist() for r in self.session.objects.values()}
        assert {k: v for k, v in marks.items() if v} == {k: v for k, v in self.marks.items() if v}
        names = {r.object_id: r.name for r in self.session.objects.values() if r.name}
        assert names == {k: v for k, v in self.names.items() if v}
        self.written = self._found()  # what a mask covers that is another object's now is not looked at

    @invariant()
    def undo_and_redo_reach_as_far(self):
        if hasattr(self, "labels"):
            assert len(self.session.history) == len(self.done)
            assert (self.session.history.next_redo is not None) == bool(self.undone)

    def teardown(self):
        try:
            if hasattr(self, "labels"):
                self._journal_agrees()
        finally:
            self.patch.undo()  # first: an example may end before it has a session
            if hasattr(self, "session"):
                self.session.journal.close()
            shutil.rmtree(self.root)

    def _journal_agrees(self):
        rebuilt = LabelArray(np.zeros(SHAPE, np.uint16))
        for record in self.session.journal.events():
            if record["event"] == "delta":
                impose(rebuilt, LabelDelta.from_json(record))
        np.testing.assert_array_equal(rebuilt.array, self.disk.values)


class nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return False


TestSession = SessionMachine.TestCase
TestSession.settings = settings(
    max_examples=N_EXAMPLES,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
TestSession.pytestmark = [pytest.mark.timeout(max(300, 3 * N_EXAMPLES))]


def test_a_deletion_undone_gives_back_what_other_objects_had_left():
    """Object 3 was written over a part of object 1, which the box of the deletion does not hold."""
    state = SessionMachine()
    state.begin(planes=[[2], [0], [0, 2]])
    state.protect(policy=OverlapPolicy.OVERWRITE)
    state.undo(kill_after=None)
    state.keep(kill_after=None)
    state.choose(object_id=1)
    state.delete(kill_after=None)
    state.undo(kill_after=None)
    state.labels_are_those_of_the_model()
    state.objects_are_those_of_the_model()
    state.teardown()
