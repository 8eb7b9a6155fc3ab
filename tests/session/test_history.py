"""Undo and redo."""

import numpy as np

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.results import LabelEdit
from napari_sam.session.history import NOWHERE, History, LabelWrite, MarksChange, Step, Writes, Writing
from napari_sam.session.marks import Marks
from napari_sam.testing.phantoms import ball_volume
from napari_sam.testing.sessions import Desk, Script


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


def test_memory_is_bounded_but_for_the_last_steps():
    history = History(max_bytes=5000, min_steps=3)
    for number in range(10):
        history.push(step(number, points=1))
    assert len(history) == 10
    for number in range(10):
        history.push(step(number, points=200))
    assert len(history) == 3
    assert history.next_undo.object_id == 9


def test_writes_are_what_was_put_in():
    rng = np.random.default_rng(0)
    known = [
        LabelWrite(at, PlaneRef(int(rng.integers(3)), int(rng.integers(9999)), at % 3, at % 5), *more)
        for at, more in enumerate([(0, NOWHERE), (7, 2**40), (2**32 - 1, 3)] * 900)
    ]
    for n in (0, 1, 1023, 1024, 1025, 2700):
        writes = Writes(known[:n])
        assert list(writes) == known[:n]
        assert list(reversed(writes)) == known[:n][::-1]
        writes.pack()
        writes.extend(known[n:])
        assert len(writes) == 2700
        assert list(writes) == known
        assert list(reversed(writes)) == known[::-1]
        assert writes.object_ids == {7, 2**32 - 1}


def test_a_hundred_propagations_of_many_objects_in_many_planes_can_be_undone():
    """24 objects in 500 planes, a step each time, at places as a journal has them."""
    rng = np.random.default_rng(0)
    n_objects, n_planes = 24, 500
    places = np.cumsum(rng.integers(300, 900, n_objects * n_planes)).tolist()
    writing = Writing("propagation", 1)
    for number, at in enumerate(places):
        plane, object_id = PlaneRef(0, number // n_objects), 1 + number % n_objects
        writing.writes.append(LabelWrite(at + 10**9, plane, object_id, at))
    history, step = History(min_steps=1), writing.step()
    for _ in range(120):
        history.push(step)
    assert len(history) == 120
    assert step.nbytes < 12 * n_objects * n_planes


def test_the_number_of_steps_is_bounded():
    history = History(max_steps=100)
    for number in range(300):
        history.push(step(number))
    assert len(history) == 100


def test_a_hundred_mixed_steps_are_undone_and_redone_bit_by_bit(tmp_path):
    centres = [(3, 14, 14), (4, 30, 34)]
    desk = Desk(tmp_path / "session")
    desk.open(ball_volume((8, 44, 48), centres, 6.0).image)
    script, session = Script(desk, centres, 11), desk.session
    actions = [script._click, script._keep, script._propagate, script._paint, script._delete]
    rng = np.random.default_rng(5)

    def state():
        found = desk.state()
        return found["planes"], found["marks"]

    states = [state()]
    while len(session.history) < 110:
        session.state.object_id = int(rng.integers(1, 4))
        before = len(session.history)
        actions[rng.choice(5, p=[0.35, 0.25, 0.12, 0.2, 0.08])]()
        desk.settle()
        assert len(session.history) - before in (0, 1)
        if len(session.history) > before:
            states.append(state())
    titles = {step.title for step in session.history._done}
    assert titles == {"prompt", "keep", "propagation", "edit by hand", "delete"}
    for expected in states[-2::-1]:
        session.undo()
        desk.settle()
        assert state() == expected
    assert session.history.next_undo is None
    for expected in states[1:]:
        session.redo()
        desk.settle()
        assert state() == expected
    assert session.close(timeout=30)


def test_a_step_weighs_little_however_large_the_object_is(tmp_path):
    desk = Desk(tmp_path / "session")
    desk.open(np.zeros((40, 600, 600), np.uint8))
    region = Region.from_mask(np.random.default_rng(0).random((600, 600)) > 0.5)
    desk.session.writer.write("keep", [LabelEdit(PlaneRef(0, z), region, 1) for z in range(40)])
    desk.settle()
    assert desk.session.history.next_undo.nbytes < 40 * 200
    desk.session.undo()
    desk.settle()
    assert not desk.labels.any()
    assert desk.session.close(timeout=30)
