"""Whose mask it is: what a user kept or corrected stays until the user says otherwise, also after reopening."""

import numpy as np
import pytest

from napari_sam.core.planes import PlaneRef
from napari_sam.session.editing import ABOUT
from napari_sam.session.marks import Marks
from napari_sam.session.objects import ObjectRecord, saved_values
from napari_sam.session.state import OverlapPolicy
from napari_sam.testing.phantoms import ball_volume
from napari_sam.testing.sessions import Desk

IMAGE = ball_volume((24, 64, 64), [(12, 20, 20), (12, 46, 46)], 9.0).image
PLANE = PlaneRef(0, 12)
CLICK, OTHER = Marks([(0, 12, 20, 20)], [True]), Marks([(0, 12, 46, 46)], [True])


@pytest.fixture
def desks(tmp_path):
    """Begins a session, or goes on with the one before."""
    made = []

    def next_desk(image=IMAGE):
        folder = made[-1].session.folder if made else None
        if made:
            assert made[-1].session.close(timeout=20)
        made.append(Desk(tmp_path / str(len(made))))
        if folder is None:
            made[-1].open(image)
        else:
            made[-1].reopen(folder, image)
            assert not made[-1].errors
        return made[-1]

    yield next_desk
    assert made[-1].session.close(timeout=20)


def kept(desk, marks=CLICK, plane=PLANE):
    desk.click(marks, plane)
    desk.session.commit()
    desk.settle()


def painted(desk, value, *where):
    desk.session.hand.editable()[where] = value
    desk.session.hand.finish()
    desk.settle()


def corrected(desk):
    """Keep an object and erase a part of it by hand."""
    kept(desk)
    painted(desk, 0, 12, slice(15, 25), slice(15, 25))
    return desk.labels


def nothing(desk):
    pass


def propagate(desk):
    desk.session.propagate()
    desk.settle()


def delete_and_undo(desk):
    desk.session.erase_object()
    desk.settle()
    desk.session.undo()
    desk.settle()


def look_elsewhere(desk):
    desk.session.show(PLANE.at(3))
    desk.settle()


@pytest.mark.parametrize("meanwhile", [nothing, propagate, delete_and_undo, look_elsewhere])
@pytest.mark.parametrize("is_reopened", [False, True])
def test_a_correction_by_hand_is_not_undone_by_next(desks, meanwhile, is_reopened):
    desk = desks()
    wanted = corrected(desk)
    meanwhile(desk)
    if is_reopened:
        desk = desks()
        desk.session.show(PLANE)
        desk.settle()
    assert not desk.session.record.pending
    desk.session.next_object()
    desk.settle()
    np.testing.assert_array_equal(desk.labels[12], wanted[12])


def test_more_marks_correct_what_was_painted(desks):
    desk = desks()
    corrected(desk)
    desk.click(Marks([(0, 12, 20, 20), (0, 12, 20, 13)], [True, True]), PLANE)
    last = [record for record in desk.session.journal.events() if record["event"] == "answer"][-1]
    assert last["follows"] is None
    assert last["start"] is not None
    assert desk.session.record.pending
    for _ in range(3):  # the click, the painting, the mask
        desk.session.undo()
        desk.settle()
    assert not desk.labels.any()
    assert list(desk.session.record.pending) == [PLANE]


@pytest.mark.parametrize("is_merged", [False, True])
def test_the_next_object_of_a_number_is_not_the_one_before(desks, is_merged):
    desk = desks()
    editing = desk.session.editing
    kept(desk, OTHER)
    desk.session.next_object()
    object_id = desk.session.state.object_id
    kept(desk)
    propagate(desk)
    painted(desk, 0, 15, slice(15, 25), slice(15, 25))
    editing.rename(object_id, "nucleus A")
    editing.classify(object_id, "nucleus")
    editing.colour(object_id, (1.0, 0.0, 0.0))
    editing.mark_reviewed(object_id)
    before = about(desk.session.record)
    if is_merged:
        editing.merge(1, [object_id])
    else:
        editing.delete([object_id])
    desk.settle()
    record = desk.session.objects[object_id]
    assert about(record) == about(ObjectRecord(object_id))
    desk.session.undo()
    desk.settle()
    assert about(record) == before
    desk.session.redo()
    desk.settle()
    editing.delete([1])  # which may have become all of it
    desk.settle()
    desk.session.state.object_id = object_id
    kept(desk)
    propagate(desk)
    assert (desk.labels[10:15] == object_id).sum((1, 2)).all()
    np.testing.assert_array_equal(desk.labels[15] == object_id, desk.labels[9] == object_id)


def about(record):
    return {name: getattr(record, name) for name in ABOUT}


def undo_and_redo(desk):
    desk.session.undo()
    desk.settle()
    desk.session.redo()
    desk.settle()


@pytest.mark.parametrize("meanwhile", [nothing, undo_and_redo, delete_and_undo])
@pytest.mark.parametrize("is_reopened", [False, True])
def test_what_is_known_of_a_kept_mask_stays_with_it(desks, meanwhile, is_reopened):
    desk = desks()
    kept(desk)
    score = desk.session.record.scores[PLANE]
    assert score.is_seed
    assert score.predicted_iou < 1
    meanwhile(desk)
    if is_reopened:
        desk = desks()
    assert desk.session.record.scores == {PLANE: score}
    assert saved_values([desk.session.record])["properties"][1]["predicted_iou"] == score.predicted_iou


@pytest.mark.parametrize("is_reopened", [False, True])
def test_new_marks_do_not_correct_a_mask_that_was_kept(desks, is_reopened):
    desk = desks()
    kept(desk)
    desk.session.clear_marks()
    desk.settle()
    if is_reopened:
        desk = desks()
    desk.click(OTHER, PLANE)
    assert desk.session.journal.events()[-1]["event"] == "answer"
    assert desk.session.journal.events()[-1]["start"] is None


def cycled(desk):
    """Keep another mask than the one that the model chose, and an object beside it, which is active then."""
    desk.click(CLICK, PLANE)
    chosen = desk.session.shown_prediction.region.area
    while desk.session.shown_prediction.region.area <= chosen:
        desk.session.cycle()
    desk.session.next_object()
    kept(desk, OTHER)


def propagate_first(desk):
    desk.session.propagate_objects([1])
    desk.settle()
    assert len(desk.session.objects[1].written) > 3


def refine_first(desk):
    desk.session.editing.refine(1)
    desk.settle()


def merge_into_first(desk):
    desk.session.editing.merge(1, [2])
    desk.settle()


@pytest.mark.parametrize("action", [propagate_first, refine_first])
@pytest.mark.parametrize("is_merged", [False, True])
@pytest.mark.parametrize("is_reopened", [False, True])
def test_a_kept_mask_in_a_prompted_plane_stays(desks, action, is_merged, is_reopened):
    desk = desks()
    cycled(desk)
    if is_merged:
        merge_into_first(desk)
    wanted = desk.labels[12]
    if is_reopened:
        desk = desks()
        desk.session.show(PLANE)
        desk.settle()
    action(desk)
    np.testing.assert_array_equal(desk.labels[12], wanted)
    desk.session.state.object_id = 1
    desk.settle()
    desk.session.next_object()
    desk.settle()
    np.testing.assert_array_equal(desk.labels[12], wanted)


def test_a_mask_chosen_or_asked_for_after_reopening_replaces_the_kept_one(desks):
    desk = desks()
    kept(desk)
    desk = desks()
    desk.session.show(PLANE)
    desk.settle()
    desk.session.cycle()
    assert list(desk.session.record.pending) == [PLANE]
    desk.session.cycle(-1)
    assert not desk.session.record.pending
    desk.click(Marks([*CLICK.points, *OTHER.points], [True, True]), PLANE)
    assert list(desk.session.record.pending) == [PLANE]


SQUARE = np.zeros((4, 64, 64), np.uint8)
SQUARE[2, 10:40, 10:40] = 255
IN_SQUARE, ITS_PLANE = Marks([(0, 2, 20, 30)], [True]), PlaneRef(0, 2)


def paint_object(desk, object_id, *where):
    desk.session.state.object_id = object_id
    painted(desk, object_id, 2, *where)


def half(desk):
    """Object 1 gets only the half of the square that object 2 leaves."""
    paint_object(desk, 2, slice(10, 40), slice(10, 25))
    desk.session.state.object_id = 1
    kept(desk, IN_SQUARE, ITS_PLANE)


def covered(desk):
    """Object 2 is written over all of object 1 but a column."""
    kept(desk, IN_SQUARE, ITS_PLANE)
    painted(desk, 0, 2, slice(10, 40), slice(39, 40))
    desk.session.state.policy = OverlapPolicy.OVERWRITE
    desk.session.state.object_id = 2
    kept(desk, IN_SQUARE, ITS_PLANE)
    desk.session.state.policy = OverlapPolicy.BACKGROUND_ONLY


def bar(desk):
    """Object 2 lies across the square, object 1 on both sides of it."""
    paint_object(desk, 2, slice(10, 40), slice(24, 27))
    desk.session.state.object_id = 1
    kept(desk, IN_SQUARE, ITS_PLANE)


def check_records(desk):
    """Records hold what the labels hold."""
    for record in desk.session.objects.values():
        found = {plane.index: region.mask for plane, region in record.written.items()}
        there = desk.labels == record.object_id
        assert sorted(found) == np.flatnonzero(there.any((1, 2))).tolist()
        assert all((there[z] == mask).all() for z, mask in found.items())


MERGE, SPLIT = "merge", "split"


@pytest.mark.parametrize("is_reopened", [False, True])
@pytest.mark.parametrize(
    ("begin", "end", "areas"),
    [(half, MERGE, [475]), (covered, MERGE, [25]), (bar, SPLIT, [420, 390])],
)
def test_an_object_is_what_the_labels_hold_of_it(desks, begin, end, areas, is_reopened):
    desk = desks(SQUARE)
    begin(desk)
    assert not desk.session.objects[1].pending
    check_records(desk)
    steps = [desk.state()]
    for _ in range(2):
        desk.session.undo()
        desk.settle()
        check_records(desk)
    for _ in range(2):
        desk.session.redo()
        desk.settle()
        check_records(desk)
    assert desk.state() == steps[0]
    assert not desk.session.objects[1].pending
    if is_reopened:
        desk = desks(SQUARE)
        check_records(desk)
        assert desk.state() == steps[0]
    desk.session.editing.delete([2])
    desk.settle()
    if end == MERGE:
        paint_object(desk, 3, slice(50, 55), slice(50, 55))
        desk.session.editing.merge(3, [1])
    else:
        desk.session.editing.split_components(1)
    desk.settle()
    assert sorted(np.bincount(desk.labels.ravel())[1:].tolist(), reverse=True)[: len(areas)] == areas
    check_records(desk)
    while desk.session.history.next_undo:
        desk.session.undo()
        desk.settle()
        check_records(desk)
    assert not desk.labels.any()


BALL = ball_volume((48, 48, 48), [(24, 24, 24)], 14.0).image


def slab(axis, index):
    """A part of the middle of a plane."""
    where = [slice(20, 28)] * 3
    where[axis] = index
    return tuple(where)


def carried(desk, axis):
    """An object that was prompted in a plane along an axis, kept, and propagated."""
    desk.click(Marks([(0, 24, 24, 24)], [True]), PlaneRef(axis, 24))
    desk.session.commit()
    propagate(desk)


@pytest.mark.parametrize("index", [24, 30])  # of the prompted plane, and of another one
@pytest.mark.parametrize("again", [0, 1, 2])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_corrected_plane_survives_along_any_axis(desks, axis, again, index):
    desk = desks(BALL)
    carried(desk, axis)
    painted(desk, 0, *slab(axis, index))
    plane = PlaneRef(axis, index)
    assert desk.session.record.corrected == (plane,)
    wanted = np.take(desk.labels, index, axis)
    desk.session.show(PlaneRef(again, 24))
    desk.settle()
    propagate(desk)
    assert not desk.errors
    np.testing.assert_array_equal(np.take(desk.labels, index, axis), wanted)
    desk.session.editing.refine(1)
    desk.settle()
    np.testing.assert_array_equal(np.take(desk.labels, index, axis), wanted)
    np.testing.assert_array_equal(desk.session.record.written[plane].mask, wanted == 1)
    steps = len(desk.session.history)
    desk = desks(BALL)
    assert len(desk.session.history) == steps
    np.testing.assert_array_equal(desk.session.objects[1].written[plane].mask, wanted == 1)
    while desk.session.history.next_undo:
        desk.session.undo()
        desk.settle()
    assert not desk.labels.any()
    assert not desk.session.record.written


@pytest.mark.parametrize("axis", [1, 2])
def test_what_was_painted_along_another_axis_can_be_split_and_carried_along_three(desks, axis):
    desk = desks(BALL)
    carried(desk, axis)
    painted(desk, 1, *slab(axis, 3))
    assert {plane.axis for plane in desk.session.record.written} == {axis}
    desk.session.editing.agree_along_axes(1)
    desk.session.editing.split_components(1)
    desk.settle()
    assert not desk.errors
    np.testing.assert_array_equal(np.unique(np.take(desk.labels, 3, axis)), [0, 2])


@pytest.mark.parametrize("is_reopened", [False, True])
def test_an_object_written_over_along_another_axis_is_what_is_left_of_it(desks, is_reopened):
    desk = desks(BALL)
    carried(desk, 0)
    before = desk.labels
    desk.session.state.policy = OverlapPolicy.OVERWRITE
    desk.session.state.object_id = 2
    kept(desk, Marks([(0, 24, 24, 24)], [True]), PlaneRef(1, 24))
    if is_reopened:
        desk = desks(BALL)
    for plane, region in desk.session.objects[1].written.items():
        np.testing.assert_array_equal(region.mask, desk.labels[plane.index] == 1)
    assert not (desk.labels[:, 24] == 1).any()
    desk.session.undo()
    desk.settle()
    np.testing.assert_array_equal(desk.labels, before)
    for plane, region in desk.session.objects[1].written.items():
        np.testing.assert_array_equal(region.mask, before[plane.index] == 1)


def test_a_stroke_that_was_cut_off_counts_along_the_axis_of_its_object(desks):
    desk = desks(BALL)
    carried(desk, 1)
    desk.session.hand.editable()[slab(1, 30)] = 0
    desk.session.journal.close()  # as when the program is killed
    desk.session.hand.forget()
    desk = desks(BALL)
    assert desk.session.objects[1].corrected == (PlaneRef(1, 30),)


def test_undo_in_a_painted_plane_leaves_what_was_painted_beyond_it(desks):
    desk = desks(SQUARE)
    kept(desk, IN_SQUARE, ITS_PLANE)
    painted(desk, 0, 2, slice(10, 40), slice(10, 30))
    propagate(desk)
    desk.session.undo()
    desk.settle()
    assert np.count_nonzero(desk.labels[2]) == 300
    check_records(desk)
