"""Whole objects: named, merged, split, taken from labels, carried together, undone in one step."""

import tracemalloc

import numpy as np
import pytest
import zarr

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.errors import PromptError
from napari_sam.io.properties import read_properties
from napari_sam.session.marks import Marks
from napari_sam.session.objects import ObjectState
from napari_sam.testing.fakes import ArrayVolume
from napari_sam.testing.phantoms import ball_volume

CENTRES = [(12, 20, 20), (12, 44, 58)]


@pytest.fixture
def two(empty_desk):
    """A session on a volume with two balls."""
    phantom = ball_volume((24, 64, 80), CENTRES, [8.2, 9.2])
    empty_desk.session.use_volume(ArrayVolume(phantom.image, spacing_zyx=(2.0, 1.0, 1.0)))
    empty_desk.settle()
    empty_desk.truth = phantom.labels
    return empty_desk


@pytest.fixture
def ball(empty_desk):
    """A session on an isotropic volume with one ball."""
    phantom = ball_volume((24, 40, 40), [(12, 20, 20)], [8.2])
    empty_desk.session.use_volume(ArrayVolume(phantom.image))
    empty_desk.settle()
    empty_desk.truth = phantom.labels
    return empty_desk


def mark(desk, object_id, centre):
    session = desk.session
    session.state.object_id = object_id
    session.show(PlaneRef(0, centre[0]))
    session.set_marks(Marks([(0, *centre)], [True]))
    desk.settle()


def labels(desk):
    return np.asarray(desk.session.labels.array[:])


def both(desk):
    for object_id, centre in enumerate(CENTRES, 1):
        mark(desk, object_id, centre)
    desk.session.propagate_objects([1, 2])
    desk.settle()
    assert not desk.errors


def undo(desk):
    desk.session.undo()
    desk.settle()


def test_objects_are_carried_together_and_undone_as_one_step(two):
    both(two)
    found = labels(two)
    np.testing.assert_array_equal(found, np.where(found > 0, two.truth, 0))
    assert (found > 0).sum() > 0.95 * (two.truth > 0).sum()
    record = two.session.objects[1]
    assert record.state is ObjectState.PROPAGATED
    assert set(record.scores) == set(record.written)
    assert record.summary.planes == (
        min(p.index for p in record.written),
        max(p.index for p in record.written),
    )
    assert record.ends
    undo(two)
    assert not labels(two).any()
    assert record.state is ObjectState.DRAFT
    assert not record.scores


def test_an_empty_range_is_said(two):
    mark(two, 1, CENTRES[0])
    two.session.state.first_plane, two.session.state.last_plane = 8, 3
    two.session.propagate_objects([1])
    two.settle()
    assert [type(error) for error in two.errors] == [PromptError]
    assert "range is empty" in str(two.errors[0])
    assert len(two.session.history) == 1


def test_a_late_object_leaves_the_others_and_their_planes_alone(two):
    mark(two, 1, CENTRES[0])
    two.session.propagate()
    two.settle()
    before = labels(two)
    predictor = two.backend.predictor
    mark(two, 2, CENTRES[1])
    predictor.reset_counts()
    two.session.propagate()
    two.settle()
    np.testing.assert_array_equal(labels(two) == 1, before == 1)
    assert predictor.n_predictions <= 2 + len(two.session.objects[2].written) + 4


def test_a_correction_runs_only_the_gaps_beside_it(two):
    mark(two, 1, CENTRES[0])
    two.session.propagate()
    two.settle()
    record = two.session.record
    more = Marks([(0, *CENTRES[0]), (0, 9, 20, 20)], [True, True])
    two.session.show(PlaneRef(0, 9))
    two.session.set_marks(more)
    two.settle()
    carried = two.session.editing.carried(record, range(24), _settings(two))
    assert [(gap.below, gap.above) for gap in carried.gaps] == [(None, 9), (9, 12)]
    assert all(plane.index < 12 for plane in carried.stale)
    above = {plane: region for plane, region in record.written.items() if plane.index > 12}
    two.session.propagate()
    two.settle()
    assert all(record.written[plane] is region for plane, region in above.items())


def _settings(desk):
    from napari_sam.session.resolve import propagation_settings

    return propagation_settings(desk.session.state, desk.session.resolved.reach)


def test_nothing_changed_means_all_is_done_again_and_a_cancelled_one_is_not_forgotten(two):
    mark(two, 1, CENTRES[0])
    two.session.propagate()
    two.settle()
    record = two.session.record
    assert len(two.session.editing.carried(record, range(24), _settings(two)).gaps) == 2
    assert record.anchors
    two.backend.predictor.error = RuntimeError("no power")
    two.session.propagate()
    two.settle()
    assert two.errors
    assert not record.anchors  # it did not come to its end


def test_planes_painted_by_hand_are_not_touched_again(two):
    mark(two, 1, CENTRES[0])
    two.session.propagate()
    two.settle()
    record, session = two.session.record, two.session
    editable = session.hand.editable()
    plane = np.zeros((64, 80), bool)
    plane[18:22, 18:30] = True
    whole = np.where(labels(two)[15] == 1, 0, labels(two)[15])
    editable[15] = np.where(plane, 1, whole)
    session.hand.finish()
    two.settle()
    assert record.corrected == (PlaneRef(0, 15),)
    np.testing.assert_array_equal(record.written[PlaneRef(0, 15)].mask, plane)
    session.propagate()
    two.settle()
    np.testing.assert_array_equal(labels(two)[15] == 1, plane)
    undo(two)
    undo(two)
    assert record.corrected == ()
    assert record.written[PlaneRef(0, 15)].area != plane.sum()


def test_a_plane_wiped_by_hand_stays_empty(two):
    mark(two, 1, CENTRES[0])
    two.session.propagate()
    two.settle()
    editable = two.session.hand.editable()
    editable[14] = 0
    two.session.hand.finish()
    two.session.propagate()
    two.settle()
    assert not labels(two)[14].any()
    assert PlaneRef(0, 14) not in two.session.record.written


def test_names_states_and_colours_are_steps(two):
    mark(two, 1, CENTRES[0])
    editing, record = two.session.editing, two.session.record
    steps = len(two.session.history)
    editing.rename(1, " nucleus ")
    editing.classify(1, "cell")
    editing.colour(1, (1.0, 0.5, 0.0))
    editing.mark_reviewed(1)
    editing.rename(1, "nucleus")  # nothing new
    assert (record.name, record.class_name, record.colour) == ("nucleus", "cell", (1.0, 0.5, 0.0))
    assert record.state is ObjectState.REVIEWED
    assert len(two.session.history) == steps + 4
    for _ in range(4):
        undo(two)
    assert (record.name, record.class_name, record.colour) == ("", "", None)
    assert record.state is ObjectState.DRAFT


def test_merge_and_undo(two):
    both(two)
    before = labels(two)
    two.session.editing.merge(2, [1])
    two.settle()
    np.testing.assert_array_equal(labels(two), np.where(before > 0, 2, 0))
    assert two.session.objects[1].is_empty
    assert len(two.session.objects[2].marks.points) == 2
    assert not two.session.objects[2].pending
    undo(two)
    np.testing.assert_array_equal(labels(two), before)
    assert not two.session.objects[1].is_empty
    assert len(two.session.objects[2].marks.points) == 1


def test_split_by_components_and_undo(two):
    both(two)
    before = labels(two)
    two.session.editing.merge(1, [2])
    two.settle()
    two.session.editing.split_components(1)
    two.settle()
    found = labels(two)
    assert sorted(np.unique(found)) == [0, 1, 3]
    np.testing.assert_array_equal(found == 1, before == 2)  # the larger part keeps the number
    np.testing.assert_array_equal(found == 3, before == 1)
    assert set(two.session.objects[3].written) == {
        PlaneRef(0, int(z)) for z in np.flatnonzero((found == 3).any((1, 2)))
    }
    undo(two)
    assert sorted(np.unique(labels(two))) == [0, 1]


def test_split_by_points(empty_desk):
    """Two balls that overlap are one component; points on both sides cut them apart."""
    phantom = ball_volume((24, 64, 80), [(12, 32, 26), (12, 32, 44)], [10.2, 10.2])
    empty_desk.session.use_volume(ArrayVolume(phantom.image))
    empty_desk.settle()
    empty_desk.session.labels.array[:] = (phantom.labels > 0).astype(np.uint32)
    empty_desk.session.show(PlaneRef(0, 12))
    empty_desk.session.editing.take_labels()
    empty_desk.settle()
    empty_desk.session.editing.split_by_points(1, np.array([(0, 12, 32, 24)]), np.array([(0, 12, 32, 46)]))
    empty_desk.settle()
    assert not empty_desk.errors
    found = labels(empty_desk)
    truth = phantom.labels
    assert ((found > 0) == (truth > 0)).all()
    assert ((found == 1) == (truth == 1)).mean() > 0.99
    empty_desk.session.editing.split_by_points(1, np.array([(0, 1, 1, 1)]), np.array([(0, 12, 32, 26)]))
    empty_desk.settle()
    assert "two sets of points" in str(empty_desk.errors[0])
    np.testing.assert_array_equal(labels(empty_desk), found)


def test_labels_are_taken_as_objects_without_a_change(two):
    two.session.labels.array[:] = two.truth
    two.session.show(PlaneRef(0, 12))
    two.session.editing.take_labels([2])
    two.settle()
    assert {i for i, record in two.session.objects.items() if record.written} == {2}
    two.session.editing.take_labels()
    two.settle()
    for object_id in (1, 2):
        record = two.session.objects[object_id]
        for plane, region in record.written.items():
            np.testing.assert_array_equal(region.mask, two.truth[plane.index] == object_id)
        assert record.summary.planes is not None
    np.testing.assert_array_equal(labels(two), two.truth)
    assert two.session.next_free_id == 3


def test_refine_snaps_rough_labels_to_the_image(two):
    rough = np.zeros_like(two.truth)
    rough[:, :, 2:] = np.where(two.truth == 1, 1, 0)[:, :, :-2]  # the labels lie two pixels off
    two.session.labels.array[:] = rough
    two.session.show(PlaneRef(0, 12))
    two.session.editing.take_labels()
    two.settle()
    two.session.editing.refine(1)
    two.settle()
    truth = two.truth == 1
    before, after = ((one & truth).sum() / (one | truth).sum() for one in (rough == 1, labels(two) == 1))
    assert before < 0.8
    assert after > 0.95  # but for the poles, where two pixels are most of the disc
    undo(two)
    np.testing.assert_array_equal(labels(two), rough)


def test_delete_several_and_undo(two):
    both(two)
    before = labels(two)
    two.session.editing.delete([1, 2])
    two.settle()
    assert not labels(two).any()
    assert all(record.is_empty for record in two.session.objects.values())
    undo(two)
    np.testing.assert_array_equal(labels(two), before)


def test_names_scores_and_corrections_survive_a_restart(two, tmp_path):
    both(two)
    session = two.session
    session.editing.rename(2, "right")
    session.editing.mark_reviewed(1)
    editable = session.hand.editable()
    editable[10, 18:20, 18:20] = 0
    session.hand.finish()
    two.settle()
    folder, volume = session.folder, session.volume
    scores = dict(session.objects[2].scores)
    session.leave_volume()
    two.settle()
    session.reopen(folder, volume)
    two.settle()
    assert not two.errors
    assert session.objects[2].name == "right"
    assert session.objects[1].state is ObjectState.REVIEWED
    assert session.objects[2].scores == scores
    assert session.objects[1].corrected == (PlaneRef(0, 10),)
    np.testing.assert_array_equal(session.objects[1].written[PlaneRef(0, 10)].mask, labels(two)[10] == 1)


def test_three_axes_mend_what_one_got_wrong(ball):
    rough = ball.truth.copy()
    rough[15:] = 0  # ended too soon
    ball.session.labels.array[:] = rough
    ball.session.show(PlaneRef(0, 12))
    ball.session.editing.take_labels()
    ball.settle()
    ball.session.editing.agree_along_axes(1)
    ball.settle()
    assert not ball.errors
    np.testing.assert_array_equal(labels(ball) == 1, ball.truth == 1)
    assert max(p.index for p in ball.session.objects[1].written) == ball.truth.nonzero()[0].max()
    undo(ball)
    np.testing.assert_array_equal(labels(ball), rough)


def test_three_axes_need_three(empty_desk):
    empty_desk.session.use_volume(ArrayVolume(ball_volume((1, 40, 40), [(0, 20, 20)], [8.2]).image))
    empty_desk.settle()
    mark(empty_desk, 1, (0, 20, 20))
    empty_desk.session.commit()
    empty_desk.settle()
    empty_desk.session.editing.agree_along_axes(1)
    assert "the image is flat" in str(empty_desk.errors.pop())


def test_three_axes_leave_the_users_planes(ball):
    mark(ball, 1, (12, 20, 20))
    ball.session.commit()
    ball.settle()
    ball.session.editing.agree_along_axes(1)
    ball.settle()
    np.testing.assert_array_equal(labels(ball)[12] == 1, ball.truth[12] == 1)


def test_saved_labels_tell_of_their_objects(two, tmp_path):
    both(two)
    two.session.editing.rename(1, "left")
    two.session.editing.classify(1, "nucleus")
    two.session.editing.colour(2, (1.0, 0.5, 0.0))
    two.session.save(tmp_path / "balls.ome.zarr")
    two.session.save(tmp_path / "balls.ome.tif")
    two.session.save(tmp_path / "balls.tif")
    two.settle()
    assert not two.errors
    for name in ("balls.ome.zarr", "balls.ome.tif", "balls.tif"):
        known = read_properties(tmp_path / name)
        assert (known[1]["name"], known[1]["class"], known[1]["state"]) == ("left", "nucleus", "propagated")
        assert known[1]["predicted_iou"] == two.session.objects[1].summary.predicted_iou
        assert "name" not in known[2]
    entry = zarr.open_group(tmp_path / "balls.ome.zarr", mode="r").attrs["ome"]["image-label"]
    assert entry["colors"] == [{"label-value": 2, "rgba": [255, 128, 0, 255]}]


def test_many_objects_take_little_memory_and_an_order_looks_only_at_its_own(empty_desk):
    """500 objects of 60 x 60 pixels in 20 planes: 3600 bytes each as they come, 450 packed."""
    session = empty_desk.session
    disc = np.hypot(*np.mgrid[-30:30, -30:30]) < 30
    session.use_volume(ArrayVolume(np.zeros((20, 70, 70), np.uint8)))
    empty_desk.settle()
    tracemalloc.start()
    for object_id in range(1, 501):
        record = session.object(object_id)
        for z in range(20):
            region = Region((70, 70), (5, 5, 65, 65), disc.copy())
            session.writer.set_written(record, PlaneRef(0, z), region, 20 * object_id + z)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 500 * 20 * 1300
    np.testing.assert_array_equal(record.written[PlaneRef(0, 7)].crop, disc)
    encoded = session.writer.encoded(dict(session.objects[3].written), [3])
    assert [value["at"] for _, value in encoded["items"]] == list(range(60, 80))
    assert len(session.writer._origins([3])) == 20
