"""What is done while something runs: nothing is lost, nothing is stopped in silence, and all of it can be undone."""

import numpy as np
import pytest

from napari_sam.core.planes import PlaneRef
from napari_sam.session.marks import Marks
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
