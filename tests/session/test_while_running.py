"""What is done while something runs: nothing is lost, nothing is stopped in silence, and all of it can be undone."""

import shutil
import time

import numpy as np
import pytest

from napari_sam.core.planes import PlaneRef
from napari_sam.session.marks import Marks
from napari_sam.session.objects import ObjectState
from napari_sam.session.replay import replay
from napari_sam.session.state import OverlapPolicy
from napari_sam.testing.fakes import ArrayVolume
from napari_sam.testing.phantoms import ball_volume
from napari_sam.testing.sessions import Desk, FakeBackend, Script

CENTRES = [(12, 20, 20), (12, 46, 46)]
PHANTOM = ball_volume((24, 64, 64), CENTRES, 9.0)
PLANE = PlaneRef(0, 12)


@pytest.fixture
def desk(tmp_path):
    """A session on two balls."""
    desk = Desk(tmp_path / "session", FakeBackend())
    desk.open(PHANTOM.image)
    desk.session.show(PLANE)
    yield desk
    desk.backend.predictor.delay_s = 0
    assert desk.session.close(timeout=20)


def ask(desk, object_id, *more):
    """Make an object active and click on it, without waiting for the answer."""
    desk.session.state.object_id = object_id
    clicks = [CENTRES[object_id - 1], *more]
    desk.session.set_marks(Marks([(0, *click) for click in clicks], [True] * len(clicks)))


def undo_all(desk):
    while len(desk.session.history):
        desk.session.undo()
        desk.settle()


@pytest.mark.parametrize("end", ["commit", "next_object"])
def test_a_mask_is_kept_that_was_not_there_yet(desk, end):
    desk.backend.predictor.delay_s = 0.1
    ask(desk, 1)
    getattr(desk.session, end)()
    if end == "next_object":  # the next object may be clicked in the same plane at once
        ask(desk, desk.session.state.object_id)
    desk.settle()
    first = desk.session.objects[1]
    assert np.count_nonzero(desk.labels[12] == 1) == first.written[PLANE].area > 0
    assert not first.pending
    assert desk.session.history.next_undo.title == "keep"
    undo_all(desk)
    assert not desk.labels.any()


def test_what_is_asked_for_and_taken_back_is_not_kept(desk):
    desk.backend.predictor.delay_s = 0.1
    ask(desk, 1)
    desk.session.commit()
    desk.session.clear_marks()
    desk.settle()
    assert not desk.labels.any()
    ask(desk, 1)
    desk.settle()
    assert desk.session.record.pending  # the wish is not remembered for later


def begin(desk, *object_ids, planes=3):
    """Propagate slowly, and wait until some planes are written."""
    desk.backend.predictor.delay_s = 0.01
    desk.session.propagate_objects(object_ids)
    end = time.monotonic() + 30
    while sum(len(desk.session.objects[i].written) for i in object_ids) < planes:
        assert time.monotonic() < end
        desk.step()


def test_propagations_of_different_objects_follow_each_other(desk):
    for object_id in (1, 2):
        ask(desk, object_id)
    desk.settle()
    begin(desk, 1)
    desk.session.propagate_objects([2])
    desk.settle()
    for object_id in (1, 2):
        record = desk.session.objects[object_id]
        truth = PHANTOM.labels == object_id
        assert record.state is ObjectState.PROPAGATED
        assert record.ends
        assert np.count_nonzero((desk.labels == object_id) & truth) > 0.9 * truth.sum()
    undo_all(desk)
    assert not desk.labels.any()


def test_an_object_that_is_carried_again_meanwhile_is_carried_once(desk):
    ask(desk, 1)
    desk.settle()
    begin(desk, 1)
    desk.session.propagate_objects([1])
    desk.settle()
    record, found = desk.session.record, desk.labels
    assert record.state is ObjectState.PROPAGATED
    assert {z for z in range(24) if (found[z] == 1).any()} == {plane.index for plane in record.written}
    for plane, region in record.written.items():
        np.testing.assert_array_equal(found[plane.index] == 1, region.mask)
    undo_all(desk)
    assert not desk.labels.any()


def test_what_was_not_carried_to_its_end_is_a_draft(desk, tmp_path):
    ask(desk, 1)
    desk.settle()
    begin(desk, 1)
    desk.session.cancel()
    desk.settle()
    assert desk.session.record.state is ObjectState.DRAFT
    folder = desk.session.folder
    desk.session.leave_volume()
    desk.settle()
    other = Desk(tmp_path / "other")
    other.reopen(folder, PHANTOM.image)
    assert other.session.record.state is ObjectState.DRAFT
    assert other.session.close(timeout=20)


def check_records(desk):
    """No voxel has the label of an object whose record does not say so."""
    for z, plane in enumerate(desk.labels):
        for object_id in set(np.unique(plane).tolist()) - {0}:
            written = desk.session.objects[object_id].written[PlaneRef(0, z)]
            assert not ((plane == object_id) & ~written.mask).any()


def reopened(desk, tmp_path):
    """The same session, as a process finds it that begins now."""
    folder = shutil.copytree(desk.session.folder, tmp_path / "copy")
    other = Desk(tmp_path / "other")
    other.reopen(folder, PHANTOM.image)
    assert other.errors == []
    assert other.session.close(timeout=20)
    return other


def paint_ahead(desk):
    desk.session.hand.editable()[19, 2:6, 2:6] = 1
    desk.session.hand.finish()


def erase_behind(desk):
    desk.session.hand.editable()[12, 16:24, 16:24] = 0
    desk.session.hand.finish()


def overwrite(desk):
    desk.session.state.policy = OverlapPolicy.OVERWRITE
    ask(desk, 2)
    desk.session.commit()


ACTIONS = {
    "paint ahead": paint_ahead,
    "erase behind": erase_behind,
    "overwrite": overwrite,
    "keep": lambda desk: desk.session.commit(),
    "next": lambda desk: desk.session.next_object(),
    "delete": lambda desk: desk.session.erase_object(),
    "merge": lambda desk: desk.session.editing.merge(2, [1]),
    "split": lambda desk: desk.session.editing.split_components(1),
    "refine": lambda desk: desk.session.editing.refine(1),
    "take": lambda desk: desk.session.editing.take_labels(),
    "review": lambda desk: desk.session.editing.mark_reviewed(1),
    "undo": lambda desk: desk.session.undo(),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_labels_and_records_agree_after_what_was_done_meanwhile_and_after_undoing_it(desk, tmp_path, name):
    ask(desk, 2)
    desk.settle()
    desk.session.commit()
    ask(desk, 1)
    desk.settle()
    begin(desk, 1)
    ACTIONS[name](desk)
    desk.settle()
    check_records(desk)
    found, n_steps = desk.labels, len(desk.session.history)
    assert reopened(desk, tmp_path).state() == desk.state()
    assert replay(desk.session.folder, ArrayVolume(PHANTOM.image), FakeBackend()).is_identical
    undo_all(desk)
    assert not desk.labels.any()
    assert not any(record.written for record in desk.session.objects.values())
    for _ in range(n_steps):
        desk.session.redo()
        desk.settle()
    np.testing.assert_array_equal(desk.labels, found)


def test_what_is_painted_ahead_stays_as_it_was_painted(desk):
    ask(desk, 1)
    desk.settle()
    begin(desk, 1)
    paint_ahead(desk)
    desk.settle()
    plane = PlaneRef(0, 19)
    record = desk.session.objects[1]
    assert np.count_nonzero(desk.labels[19]) == record.written[plane].area == 16
    assert plane in record.corrected


def test_what_is_painted_before_it_is_known_to_be_written_is_the_users(desk):
    """The thread is ahead of the window: a plane is painted that the window has not heard of."""
    ask(desk, 1)
    desk.settle()
    desk.session.propagate()
    end = time.monotonic() + 30
    while not np.asarray(desk.session.labels.array[13]).any():
        assert time.monotonic() < end
    erase = desk.session.hand.editable()
    erase[13, 16:24, 16:24] = 0
    desk.session.hand.finish()
    desk.settle()
    plane, record = PlaneRef(0, 13), desk.session.objects[1]
    assert plane in record.corrected
    np.testing.assert_array_equal(record.written[plane].mask, desk.labels[13] == 1)
    assert not desk.labels[13, 16:24, 16:24].any()


@pytest.mark.parametrize("name", ["delete", "merge"])
def test_an_object_that_is_no_more_is_not_carried_on(desk, name):
    for object_id in (2, 1):
        ask(desk, object_id)
        desk.settle()
        desk.session.commit()
    begin(desk, 1)
    ACTIONS[name](desk)
    desk.settle()
    assert set(np.unique(desk.labels).tolist()) == {0, 2}
    assert not desk.session.objects[1].written


def test_what_is_painted_during_an_undo_is_known(desk):
    """The stroke is made while the window has not heard yet what the undo left."""
    ask(desk, 1)
    desk.settle()
    desk.session.propagate()
    desk.settle()
    desk.session.undo()
    end = time.monotonic() + 30
    while np.asarray(desk.session.labels.array[:]).any():
        assert time.monotonic() < end
    desk.session.hand.editable()[12, 20:24, 20:24] = 1
    desk.session.hand.finish()
    desk.settle()
    written = desk.session.record.written
    assert list(written) == [PLANE]
    np.testing.assert_array_equal(written[PLANE].mask, desk.labels[12] == 1)


@pytest.mark.parametrize("seed", [7, 11, 17, 19, 20, 22])
def test_whatever_is_done_without_waiting_is_undone_to_nothing(desk, seed):
    script, random = Script(desk, CENTRES, seed), np.random.default_rng(seed)
    desk.backend.predictor.delay_s = 0.005
    for _ in range(40):
        if script.step(settle=False) in ("undo", "redo"):
            desk.settle()
        for _ in range(random.integers(8)):
            desk.step(0.002)
    desk.settle()
    undo_all(desk)
    assert not desk.labels.any()
    assert not any(record.written for record in desk.session.objects.values())
