"""What is done while something runs: nothing is lost, nothing is stopped in silence, and all of it can be undone."""

import time

import numpy as np
import pytest

from napari_sam.core.planes import PlaneRef
from napari_sam.session.marks import Marks
from napari_sam.session.objects import ObjectState
from napari_sam.testing.phantoms import ball_volume
from napari_sam.testing.sessions import Desk, FakeBackend

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
