"""Undo and redo."""

import numpy as np

from napari_sam.session.history import History, MarksChange, Step
from napari_sam.session.marks import Marks


def step(number, points=1):
    marks = Marks(np.zeros((points, 4)), np.ones(points, bool))
    return Step("prompt", number, (MarksChange(number, Marks(), marks),))


def test_more_than_a_hundred_steps_are_undone_and_redone_in_order():
    history = History()
    for number in range(150):
        history.push(step(number))
    undone = [history.undo().object_id for _ in range(150)]
    assert undone == list(range(149, -1, -1))
    assert history.undo() is None
    redone = [history.redo().object_id for _ in range(150)]
    assert redone == list(range(150))
    assert history.redo() is None


def test_a_new_step_ends_what_could_be_redone():
    history = History()
    history.push(step(1))
    history.undo()
    history.push(step(2))
    assert history.next_redo is None
    assert history.next_undo.object_id == 2


def test_memory_is_bounded_and_the_last_step_is_kept():
    history = History(max_bytes=1000)
    for number in range(10):
        history.push(step(number, points=20))
    assert len(history) == 1
    history.push(step(11, points=1000))
    assert history.next_undo.object_id == 11


def test_the_number_of_steps_is_bounded():
    history = History(max_steps=100)
    for number in range(300):
        history.push(step(number))
    assert len(history) == 100
