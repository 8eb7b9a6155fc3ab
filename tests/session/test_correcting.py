"""Clicks in a plane that an object was carried to correct the mask that is there."""

import numpy as np
import pytest

from napari_sam.core.planes import PlaneRef
from napari_sam.session.marks import Marks, ShapeKind, ShapeMark
from napari_sam.session.replay import replay
from napari_sam.testing.fakes import ArrayVolume
from napari_sam.testing.phantoms import ball_volume
from napari_sam.testing.sessions import Desk, FakeBackend

SEED, OTHER = PlaneRef(0, 6), PlaneRef(0, 8)
PHANTOM = ball_volume((12, 44, 48), [(6, 20, 22)], 7.0)
CLICK = ((0, 6, 20, 22), True)
NOT_HERE = ((0, 8, 2, 2), False)
HERE = ((0, 8, 21, 22), True)


def marks(*clicks, shapes=()):
    return Marks([c[0] for c in clicks], [c[1] for c in clicks], shapes)


def opened(folder, asked):
    backend = FakeBackend()
    predict = backend.predictor.predict_many
    backend.predictor.predict_many = lambda e, p: (asked.extend(p), predict(e, p))[1]
    return Desk(folder, backend)


@pytest.fixture
def asked():
    """What the model was asked, in order."""
    return []


@pytest.fixture
def desk(tmp_path, asked):
    """One ball, carried from the middle through all planes."""
    desk = opened(tmp_path / "one", asked)
    desk.open(PHANTOM.image)
    desk.click(marks(CLICK), SEED)
    desk.session.propagate()
    desk.settle()
    np.testing.assert_array_equal(desk.labels == 1, PHANTOM.labels == 1)
    asked.clear()
    yield desk
    assert desk.session.close(timeout=10)


def test_a_click_that_only_says_what_is_not_of_it_leaves_the_rest(desk, asked):
    before = desk.labels
    desk.click(marks(CLICK, NOT_HERE), OTHER)
    np.testing.assert_array_equal(asked[0].mask, before[8] == 1)
    assert asked[0].polarity.tolist() == [False]
    desk.session.propagate()
    desk.settle()
    np.testing.assert_array_equal(desk.labels, before)


def test_further_clicks_follow_the_first_answer(desk, asked):
    desk.click(marks(CLICK, HERE), OTHER)
    desk.click(marks(CLICK, HERE, NOT_HERE), OTHER)
    assert asked[1].mask is None
    assert asked[1].low_res_logits is not None


def test_a_box_says_afresh_where_the_object_is(desk, asked):
    box = ShapeMark(ShapeKind.RECTANGLE, [(0, 8, 12, 14), (0, 8, 28, 14), (0, 8, 28, 30), (0, 8, 12, 30)])
    desk.click(marks(CLICK, shapes=(box,)), OTHER)
    assert asked[0].mask is None


def test_a_mask_that_answers_the_users_own_click_is_asked_for_afresh(desk, asked):
    desk.click(marks(((0, 6, 22, 22), True)), SEED)
    assert asked[0].mask is None
    desk.click(marks(((0, 6, 2, 2), False)), SEED)
    assert asked[1].mask is not None


def test_who_propagates_before_the_model_has_answered_corrects_as_well(desk, tmp_path):
    before = desk.labels
    desk.backend.predictor.encode_delay_s = 0.2
    desk.session.show(OTHER)
    desk.session.set_marks(marks(CLICK, NOT_HERE))
    assert desk.session.shown_prediction is None
    desk.session.propagate()
    desk.settle()
    np.testing.assert_array_equal(desk.labels, before)
    desk.session.journal.close()
    assert replay(tmp_path / "one", ArrayVolume(PHANTOM.image), FakeBackend()).is_identical


def test_a_session_that_was_killed_and_a_replay_ask_the_same(desk, asked, tmp_path):
    desk.click(marks(CLICK, NOT_HERE), OTHER)
    desk.session.commit()
    desk.settle()
    before, labels = asked[0].mask, desk.labels
    desk.session.journal.close()
    again = opened(tmp_path / "unused", repeated := [])
    again.reopen(tmp_path / "one", PHANTOM.image)
    again.session.show(OTHER)
    again.settle()
    masks = [prompts.mask for prompts in repeated if prompts.mask is not None]
    np.testing.assert_array_equal(masks, [before])
    assert not again.session.record.pending
    assert again.session.close(timeout=10)
    assert replay(tmp_path / "one", ArrayVolume(PHANTOM.image), FakeBackend()).is_identical
    assert labels[8].any()


def test_a_click_beside_a_known_mask_takes_the_answer_most_like_it(tmp_path):
    """The object is what the user chose in the plane before: with another answer than the default one."""
    desk = Desk(tmp_path / "one", FakeBackend())
    desk.open(PHANTOM.image)
    desk.click(marks(CLICK), SEED)
    default = desk.session.shown_prediction.chosen
    desk.session.cycle()
    chosen = desk.session.shown_prediction
    assert chosen.chosen != default
    desk.click(marks(CLICK, ((0, 7, 20, 22), True)), PlaneRef(0, 7))
    beside = desk.session.shown_prediction
    assert beside.chosen == chosen.chosen
    desk.session.commit()
    desk.settle()
    desk.session.next_object()
    desk.click(marks(((0, 7, 20, 22), True)), PlaneRef(0, 7))
    assert desk.session.shown_prediction.chosen == default, "another object knows nothing of it"
    assert desk.session.close(timeout=10)
    again = Desk(tmp_path / "unused", FakeBackend())
    again.reopen(tmp_path / "one", PHANTOM.image)
    assert again.session.close(timeout=10)
    assert replay(tmp_path / "one", ArrayVolume(PHANTOM.image), FakeBackend()).is_identical
