"""A whole session without a window: everything napari's widget does goes through here."""

from dataclasses import replace

import numpy as np
import pytest

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.results import MaskPrediction
from napari_sam.errors import DeviceMemoryError, PromptError
from napari_sam.inference.answers import denies_mask
from napari_sam.io.save import save_labels
from napari_sam.io.volume import open_volume
from napari_sam.propagation.settings import PropagationSettings
from napari_sam.session.marks import Marks, ShapeKind, ShapeMark
from napari_sam.session.resolve import Blocked
from napari_sam.session.state import OverlapPolicy
from napari_sam.testing.fakes import ArrayVolume, CountingVolume
from napari_sam.testing.phantoms import ball_volume

Z, Y, X = 12, 32, 40
PLANE = PlaneRef(0, Z)
CLICK = Marks([(0, Z, Y, X)], [True])


def click(desk, marks=CLICK, plane=PLANE):
    desk.session.show(plane)
    desk.session.set_marks(marks)
    desk.settle()


def test_the_first_mask_costs_one_plane(empty_desk, phantom):
    volume = CountingVolume(ArrayVolume(phantom.image))
    empty_desk.session.use_volume(volume)
    click(empty_desk)
    assert empty_desk.backend.predictor.n_encodes == 1
    assert {plane.index for plane in volume.reads} == {Z}


def test_a_click_is_previewed_inside_its_box(desk, phantom):
    click(desk)
    expected = phantom.labels[Z] > 0
    np.testing.assert_array_equal(desk.session.preview[0, Z] > 0, expected)
    rows, cols = np.nonzero(expected)
    box = (rows.min(), cols.min(), rows.max() + 1, cols.max() + 1)
    assert [(r.plane, r.box_yxyx) for r in desk.redraws] == [(PLANE, box)]


def test_commit_writes_the_object_and_clears_the_preview(desk, phantom):
    click(desk)
    desk.session.commit()
    desk.settle()
    written = desk.session.labels.array[:]
    np.testing.assert_array_equal(written[Z] == 1, phantom.labels[Z] > 0)
    assert not np.delete(written, Z, axis=0).any()
    assert not np.asarray(desk.session.preview).any()


def test_a_further_click_on_a_kept_plane_replaces_what_was_kept(desk):
    click(desk)
    desk.session.commit()
    desk.settle()
    click(desk, Marks([(0, Z, Y, X), (0, Z, Y, X)], [True, False]))
    desk.session.commit()
    desk.settle()
    assert PLANE not in desk.session.record.pending


def test_a_further_click_feeds_the_earlier_answer_back(desk):
    asked = []
    predict = desk.backend.predictor.predict_many
    desk.backend.predictor.predict_many = lambda e, p: (asked.extend(p), predict(e, p))[1]
    click(desk)
    earlier = desk.session.shown_prediction
    click(desk, Marks([(0, Z, Y, X), (0, Z, 2, 2)], [True, False]))
    assert asked[0].low_res_logits is None
    np.testing.assert_array_equal(asked[1].low_res_logits, earlier.low_res_logits)
    click(desk, Marks([(0, Z, Y, X + 1)], [True]))
    assert asked[2].low_res_logits is None


def test_the_answer_that_the_model_chose_is_shown(desk):
    predict = desk.backend.predictor.predict_many
    desk.backend.predictor.predict_many = lambda e, p: [one.cycled(2) for one in predict(e, p)]
    click(desk)
    assert desk.session.shown_prediction.chosen == 2


def test_the_answers_can_be_cycled(desk):
    click(desk)
    areas = []
    for _ in range(4):
        areas.append(int(desk.session.preview[0, Z].sum()))
        desk.session.cycle()
    assert areas[0] == areas[3]
    assert len(set(areas[:3])) == 3


def test_propagation_fills_the_ball_and_is_undone_as_one_step(desk, phantom):
    click(desk)
    desk.session.propagate()
    desk.settle()
    ball = phantom.labels > 0
    ball[[3, 21]] = False  # single pixels: too great a change of area
    np.testing.assert_array_equal(desk.session.labels.array[:] > 0, ball)
    assert sorted(e.plane_index for e in desk.session.record.ends) == [3, 21]
    desk.session.undo()
    desk.settle()
    assert not desk.session.labels.array[:].any()
    desk.session.redo()
    desk.settle()
    np.testing.assert_array_equal(desk.session.labels.array[:] > 0, ball)


def test_a_cancelled_propagation_keeps_its_planes_and_can_be_undone(desk):
    click(desk)
    desk.backend.predictor.predict_delay_s = 0.05
    desk.session.propagate()
    desk.until(lambda: len(desk.session.record.written) >= 3)
    desk.session.cancel()
    desk.settle()
    kept = np.flatnonzero(desk.session.labels.array[:].any((1, 2)))
    assert 3 <= len(kept) < 17
    assert sorted(p.index for p in desk.session.record.written) == kept.tolist()
    desk.session.undo()
    desk.settle()
    assert not desk.session.labels.array[:].any()


def test_undo_during_a_propagation_cancels_it_first(desk):
    click(desk)
    desk.backend.predictor.predict_delay_s = 0.05
    desk.session.propagate()
    desk.until(lambda: len(desk.session.record.written) >= 2)
    desk.session.undo()
    desk.settle()
    assert not desk.session.labels.array[:].any()
    assert desk.session.record.marks.same_as(CLICK)


def test_a_second_propagation_takes_back_what_the_first_found_too_far(desk):
    click(desk)
    desk.session.propagate()
    desk.settle()
    first = set(desk.session.record.written)
    desk.backend.predictor.predicted_iou = 0.1
    desk.session.propagate(PropagationSettings(min_predicted_iou=0.5))
    desk.settle()
    assert set(desk.session.record.written) == {PLANE} < first
    assert np.flatnonzero(desk.session.labels.array[:].any((1, 2))).tolist() == [Z]


def test_the_plane_range_is_respected(desk):
    click(desk)
    desk.session.state.first_plane, desk.session.state.last_plane = Z - 1, Z + 2
    desk.session.propagate()
    desk.settle()
    assert np.flatnonzero(desk.session.labels.array[:].any((1, 2))).tolist() == [Z - 1, Z, Z + 1, Z + 2]


def test_everything_is_undone_in_order_back_to_nothing(empty_desk):
    desk, states = empty_desk, []
    desk.session.use_volume(ArrayVolume(ball_volume((24, 64, 80), [(Z, Y, X), (Z, 12, 12)], 9.0).image))

    def look():
        desk.settle()
        record = desk.session.record
        states.append((record.marks, desk.session.labels.array[:].sum(), desk.session.preview[0].sum()))

    desk.session.show(PLANE)
    look()
    for action in (
        lambda: desk.session.set_marks(CLICK),
        lambda: desk.session.commit(),
        lambda: desk.session.set_marks(Marks([(0, Z, Y, X), (0, Z, 12, 12)], [True, True])),
        lambda: desk.session.commit(),
        lambda: desk.session.propagate(),
    ):
        action()
        look()
    forward, states[:] = list(states), []
    for _ in range(5):
        desk.session.undo()
        look()
    for (marks, labels, preview), (was_marks, was_labels, was_preview) in zip(
        states, forward[-2::-1], strict=True
    ):
        assert marks.same_as(was_marks)
        assert (labels, preview) == (was_labels, was_preview)


def test_objects_get_their_own_ids_and_keep_their_prompts(empty_desk):
    phantom = ball_volume((24, 64, 80), [(12, 20, 20), (12, 44, 60)], 9.0)
    desk, session = empty_desk, empty_desk.session
    session.use_volume(ArrayVolume(phantom.image))
    first = Marks([(0, 12, 20, 20)], [True])
    click(desk, first)
    session.next_object()
    desk.settle()
    assert session.state.object_id == 2
    assert session.marks.is_empty
    click(desk, Marks([(0, 12, 44, 60)], [True]))
    session.commit()
    desk.settle()
    np.testing.assert_array_equal(session.labels.array[12], phantom.labels[12])
    session.state.object_id = 1
    assert session.marks.same_as(first)
    session.erase_object()
    desk.settle()
    np.testing.assert_array_equal(session.labels.array[12] > 0, phantom.labels[12] == 2)
    session.undo()
    desk.settle()
    np.testing.assert_array_equal(session.labels.array[12], phantom.labels[12])
    assert session.marks.same_as(first)


@pytest.mark.parametrize(
    ("policy", "owner"), [(OverlapPolicy.BACKGROUND_ONLY, 7), (OverlapPolicy.OVERWRITE, 1)]
)
def test_the_policy_decides_who_gets_a_contested_pixel(desk, policy, owner):
    desk.session.labels.array[Z, Y, X] = 7
    desk.session.state.policy = policy
    click(desk)
    desk.session.commit()
    desk.settle()
    assert desk.session.labels.array[Z, Y, X] == owner
    assert desk.session.labels.array[Z, Y, X + 1] == 1


def test_neighbours_are_encoded_when_nothing_else_is_to_do(desk):
    desk.session.state.idle_reach = 2
    desk.session.show(PLANE)
    desk.settle()
    assert {p.index for p in desk.session.encoded} == {10, 11, 12, 13, 14}
    desk.session.encode_all()
    desk.settle()
    assert len(desk.session.encoded) == 24
    assert desk.backend.predictor.n_encodes == 24


def test_a_click_passes_the_encoding_of_neighbours(desk):
    desk.session.state.idle_reach = 10
    desk.backend.predictor.encode_delay_s = 0.05
    desk.session.show(PLANE)
    desk.until(lambda: len(desk.session.encoded) >= 2)
    desk.session.set_marks(CLICK)
    desk.until(lambda: bool(desk.session.record.pending))
    assert len(desk.session.encoded) < 8


def test_an_old_answer_is_dropped_when_the_prompts_changed_meanwhile(desk):
    desk.backend.predictor.predict_delay_s = 0.1
    desk.session.show(PLANE)
    desk.session.set_marks(CLICK)
    desk.step()
    desk.session.set_marks(Marks())
    desk.settle()
    assert not desk.session.record.pending
    assert not np.asarray(desk.session.preview).any()


def test_errors_arrive_with_their_message_and_work_goes_on(desk):
    desk.session.show(PLANE)
    desk.settle()
    desk.backend.predictor.error = DeviceMemoryError("out of memory; choose a smaller model")
    click(desk)
    assert [str(e) for e in desk.errors] == ["out of memory; choose a smaller model"]
    click(desk, Marks([(0, Z, Y, X), (0, Z, Y, X + 1)], [True, True]))
    assert desk.session.record.pending


def test_a_cancelled_question_is_asked_again_when_its_plane_comes_back(desk):
    desk.backend.predictor.delay_s = 0.2
    desk.session.show(PLANE)
    desk.session.set_marks(CLICK)
    desk.session.cancel()
    desk.settle()
    assert not desk.session.record.pending
    desk.session.show(PLANE.at(3))
    desk.session.show(PLANE)
    desk.settle()
    assert desk.session.record.pending


def test_a_shape_without_pixels_is_an_error_not_a_crash(desk):
    tiny = ShapeMark(ShapeKind.POLYGON, [(0, Z, 3.1, 3.1), (0, Z, 3.1, 3.2), (0, Z, 3.2, 3.1)])
    click(desk, Marks(shapes=(tiny,)))
    assert [type(e) for e in desk.errors] == [PromptError]


def test_labels_are_saved_with_their_size(desk, phantom, tmp_path):
    saved = []
    desk.session.saved.connect(saved.append)
    click(desk)
    desk.session.propagate()
    desk.settle()
    desk.session.save(tmp_path / "labels.ome.tif")
    desk.settle()
    assert saved == [tmp_path / "labels.ome.tif"]
    volume = open_volume(saved[0])
    assert (volume.read_plane(PLANE) > 0).sum() == (phantom.labels[Z] > 0).sum()


def test_a_new_model_forgets_what_the_old_one_encoded(desk):
    click(desk)
    assert PLANE in desk.session.encoded
    desk.session.state.model = type(desk.session.state.model)("other")
    assert not desk.session.encoded
    desk.settle()
    assert desk.session.record.pending


def test_leaving_an_image_in_the_middle_of_work_leaves_nothing_behind(desk, phantom):
    click(desk)
    desk.backend.predictor.predict_delay_s = 0.05
    desk.session.propagate()
    desk.until(lambda: len(desk.session.record.written) >= 2)
    desk.session.use_volume(ArrayVolume(phantom.image))
    desk.settle()
    assert not desk.session.record.written
    assert desk.session.history.next_undo is None
    assert not desk.session.labels.array[:].any()


def test_a_view_that_is_blocked_runs_nothing(desk):
    desk.session.show(Blocked("leave the 3D view"))
    desk.session.set_marks(CLICK)
    desk.session.propagate()
    desk.settle()
    assert desk.backend.predictor.n_predictions == 0
    assert not desk.session.record.written


def test_the_journal_tells_what_happened(desk):
    click(desk)
    desk.session.commit()
    desk.settle()
    desk.session.undo()
    desk.settle()
    ignored = ("setting", "pixels", "model", "weights")
    events = [e for e in desk.session.journal.events() if e["event"] not in ignored]
    assert [e["event"] for e in events] == [
        *("session", "image", "labels"),
        *("step", "answer", "step", "delta", "end", "undo", "delta", "end"),
    ]
    assert [e["title"] for e in events if e["event"] == "step"] == ["prompt", "keep"]
    marks = events[3]["changes"][0]["marks"]
    assert Marks.from_json(marks).same_as(CLICK)


@pytest.fixture
def denying(desk):
    """The desk with a model that takes a negative click on a carried mask for a denial; and what it was asked."""
    asked = []
    predict = desk.backend.predictor.predict_many

    def answer_all(embedding, prompts):
        asked.extend(prompts)
        return [answer(embedding, *pair) for pair in zip(prompts, predict(embedding, prompts), strict=True)]

    def answer(embedding, prompts, prediction):
        if not denies_mask(prompts):
            return prediction
        nothing = replace(prediction.best, drawing=Region.from_mask(np.zeros(embedding.plane_shape, bool)))
        return MaskPrediction((nothing, *prediction.candidates))

    desk.backend.predictor.predict_many = answer_all
    click(desk)
    desk.session.propagate()
    desk.settle()
    asked.clear()
    return asked


def test_a_carried_mask_can_be_denied_and_the_object_ends_there(desk, denying):
    before = desk.session.labels.array[:]
    denied = Z + 4
    no = Marks([(0, Z, Y, X), (0, denied, Y, X)], [True, False])
    click(desk, no, PlaneRef(0, denied))
    assert not np.asarray(desk.session.preview)[0, denied].any()
    desk.session.commit()
    desk.settle()
    desk.session.propagate()
    desk.settle()
    after = desk.session.labels.array[:]
    assert not after[denied:].any()
    np.testing.assert_array_equal(after[:denied], before[:denied])
    desk.session.undo()
    desk.session.undo()
    desk.settle()
    np.testing.assert_array_equal(desk.session.labels.array[:], before)


def test_what_was_denied_is_not_fed_back(desk, denying):
    plane = PlaneRef(0, Z + 4)
    marks = [(0, Z, Y, X), (0, Z + 4, Y, X), (0, Z + 4, Y + 1, X)]
    click(desk, Marks(marks[:2], [True, False]), plane)
    click(desk, Marks(marks, [True, False, False]), plane)
    assert not np.asarray(desk.session.preview)[0, Z + 4].any(), "denied twice"
    click(desk, Marks([*marks, (0, Z + 4, 2, 2)], [True, False, False, True]), plane)
    assert [one.mask is None for one in denying] == [False, False, True]
    assert all(one.low_res_logits is None for one in denying)


@pytest.mark.parametrize("name", ["image.ome.zarr", "image.tif"])
def test_the_image_is_never_replaced(empty_desk, phantom, tmp_path, name):
    path = save_labels(phantom.labels, tmp_path / name)
    empty_desk.session.use_volume(open_volume(path))
    empty_desk.settle()
    empty_desk.session.labels.array[Z] = 1
    empty_desk.session.save(path, overwrite=True)
    empty_desk.settle()
    assert [str(error).rpartition(" is ")[2] for error in empty_desk.errors] == [
        "being read from; save the labels under another name"
    ]
    with open_volume(path) as image:
        np.testing.assert_array_equal(image.read_plane(PLANE), phantom.labels[Z])


@pytest.mark.parametrize("level", [0, 1])
def test_labels_of_a_level_are_saved_where_its_voxels_are(empty_desk, phantom, tmp_path, level):
    """A voxel of a level twice as coarse has its centre between the first two of the finest."""
    coarse = phantom.image[:, ::2, ::2]
    volume = ArrayVolume(
        phantom.image,
        levels=[coarse],
        spacing_zyx=(2.0, 0.5, 0.25),
        translate_zyx=(1.0, 0.0, 8.0),
        unit="micrometer",
    )
    empty_desk.session.state.level = level
    empty_desk.session.use_volume(volume)
    empty_desk.settle()
    empty_desk.session.labels.array[Z] = 1
    empty_desk.session.save(tmp_path / "labels.ome.zarr")
    empty_desk.settle()
    assert not empty_desk.errors
    with open_volume(tmp_path / "labels.ome.zarr") as saved:
        assert saved.shape_zyx() == volume.shape_zyx(level)
        assert saved.spacing_zyx == ((2.0, 0.5, 0.25), (2.0, 1.0, 0.5))[level]
        assert saved.translate_zyx == ((1.0, 0.0, 8.0), (1.0, 0.25, 8.125))[level]
        assert saved.unit == "micrometer"
