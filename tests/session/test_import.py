"""Labels from elsewhere come in as one step, with numbers of their own, wholly or not at all."""

import json

import numpy as np
import pytest

from napari_sam.core.planes import PlaneRef
from napari_sam.errors import SessionError
from napari_sam.io.volume import open_volume
from napari_sam.session import labels as session_labels
from napari_sam.session import many, object_jobs
from napari_sam.session.marks import Marks
from napari_sam.session.recovery import recover
from napari_sam.session.replay import replay
from napari_sam.testing.fakes import ArrayVolume
from napari_sam.testing.phantoms import ball_volume
from napari_sam.testing.sessions import Desk, FakeBackend

SHAPE = (40, 24, 28)
IMAGE = ball_volume(SHAPE, [(20, 8, 8)], 4.2).image
FOREIGN = np.zeros((1, *SHAPE), np.uint16)
FOREIGN[0, :, 4:12, 4:12] = 1
FOREIGN[0, :, 16:20, 16:20] = 5


class Source:
    """Labels that do something when plane 8 is copied; they are looked through first, which reads all planes."""

    def __init__(self, action, values=FOREIGN):
        self.values, self.action = values, action
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, index):
        if isinstance(index[1], slice) and index[1].start >= 8:
            self.action()
        return self.values[index]


@pytest.fixture(autouse=True)
def short_runs(monkeypatch):
    monkeypatch.setattr(object_jobs, "RUN_PLANES", 4)


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "session")
    desk.open(IMAGE)
    yield desk
    assert desk.session.close(timeout=20)


def copy(desk, source=FOREIGN):
    desk.session.editing.import_labels(source)
    desk.settle()


def kept(desk):
    """Object 1, written in a plane."""
    desk.click(Marks([(0, 20, 8, 8)], [True]), PlaneRef(0, 20))
    desk.session.commit()
    desk.settle()
    assert desk.labels.any()
    return desk.labels


def test_labels_keep_their_numbers_in_a_session_without_any(desk):
    seen = []
    desk.session.labels_changed.connect(seen.append)
    copy(desk)
    np.testing.assert_array_equal(desk.labels, FOREIGN[0])
    assert desk.session.next_free_id == 6
    assert desk.session.state.object_id == 6
    assert {change.plane.index for change in seen} == set(range(40))
    desk.session.undo()
    desk.settle()
    assert not desk.labels.any()
    desk.session.redo()
    desk.settle()
    np.testing.assert_array_equal(desk.labels, FOREIGN[0])


def test_labels_get_numbers_that_no_object_has_and_change_none(desk):
    before = kept(desk)
    copy(desk)
    wanted = np.where((before == 0) & (FOREIGN[0] > 0), FOREIGN[0] + 1, before)
    np.testing.assert_array_equal(desk.labels, wanted)
    desk.session.editing.take_labels()
    desk.settle()
    for object_id, record in desk.session.objects.items():
        planes = {p.index for p in record.written}
        assert planes == set(np.flatnonzero((desk.labels == object_id).any((1, 2))))
    assert {i for i, r in desk.session.objects.items() if r.written} == {1, 2, 6}
    for _ in range(2):
        desk.session.undo()
        desk.settle()
    np.testing.assert_array_equal(desk.labels, before)
    assert list(desk.session.objects[1].written) == [PlaneRef(0, 20)]


def test_cancelling_leaves_nothing_behind(desk, tmp_path):
    before, during = kept(desk), []

    def cancel():
        if not during:
            during.append(desk.labels)
            desk.session.cancel()

    copy(desk, Source(cancel))
    assert (during[0] != before).any()
    np.testing.assert_array_equal(desk.labels, before)
    assert desk.session.history.next_undo.title == "keep"
    assert desk.session.history.next_redo is None
    assert not desk.errors
    copy(desk)
    assert (desk.labels == desk.labels.max()).any((1, 2)).all()
    labels = desk.labels
    assert desk.session.close(timeout=20)
    result = replay(tmp_path / "session", ArrayVolume(IMAGE), FakeBackend(), tmp_path / "again")
    assert result.is_identical
    assert labels.max() == 11  # numbers of what was cancelled are not given again


def test_a_source_that_cannot_be_read_leaves_nothing_behind(desk):
    before = kept(desk)

    def fail():
        raise OSError("the disk is gone")

    copy(desk, Source(fail))
    assert "the disk is gone" in str(desk.errors)
    np.testing.assert_array_equal(desk.labels, before)
    assert desk.session.history.next_redo is None


@pytest.mark.parametrize("undoing", [False, True])
def test_a_killed_copy_is_taken_back(desk, tmp_path, undoing):
    before = kept(desk)
    killed = []

    def kill():
        if not killed:
            desk.session.journal.close()
            killed.append(desk.labels)

    copy(desk, Source(kill))
    assert (killed[0] != before).any()
    desk.session.labels.array[:] = killed[0]
    if undoing:  # killed again while the copy was taken back: nothing of this is in the array yet
        recovered = recover(tmp_path / "session")
        recovered.journal.close()
        _cut_after(tmp_path / "session" / "journal.jsonl", "undo")
        desk.session.labels.array[:] = killed[0]
    again = Desk(tmp_path / "unused")
    again.reopen(tmp_path / "session", IMAGE)
    np.testing.assert_array_equal(again.labels, before)
    assert again.session.history.next_undo.title == "keep"
    assert again.session.history.next_redo is None
    assert again.session.next_free_id == 7
    assert again.session.close(timeout=20)
    assert replay(tmp_path / "session", ArrayVolume(IMAGE), FakeBackend()).is_identical


def _cut_after(path, event):
    lines = path.read_bytes().splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if json.loads(line[9:])["event"] == event)
    path.write_bytes(b"".join(lines[: last + 1]))


def test_a_session_with_copied_labels_comes_back_and_is_repeated(desk, tmp_path):
    kept(desk)
    copy(desk)
    desk.session.hand.editable()[3, 4:6, 4:6] = 0
    desk.session.hand.finish()
    desk.session.propagate()
    desk.settle()
    before = desk.state()
    desk.session.journal.close()
    again = Desk(tmp_path / "unused")
    again.reopen(tmp_path / "session", IMAGE)
    assert again.state() == before
    assert again.session.next_free_id == 7
    while again.session.history.next_undo is not None:
        again.session.undo()
        again.settle()
    assert not again.labels.any()
    assert again.session.close(timeout=20)
    assert replay(tmp_path / "session", ArrayVolume(IMAGE), FakeBackend()).is_identical


def test_copied_labels_are_saved_where_the_image_is(tmp_path):
    desk = Desk(tmp_path / "session")
    where = {"spacing_zyx": (2.0, 0.5, 0.25), "translate_zyx": (10.0, 1.0, 2.0), "unit": "micrometer"}
    desk.session.use_volume(ArrayVolume(IMAGE, **where))
    desk.settle()
    copy(desk)
    desk.session.save(tmp_path / "labels.ome.zarr")
    desk.settle()
    assert not desk.errors
    with open_volume(tmp_path / "labels.ome.zarr") as saved:
        assert saved.axes == "ZYX"
        assert {name: getattr(saved, name) for name in where} == where
        np.testing.assert_array_equal(saved.read_plane(PlaneRef(0, 7)), FOREIGN[0, 7])
    assert desk.session.close(timeout=20)


@pytest.mark.parametrize(("label", "words"), [(-3, "-3; 0 is background"), (2**40, "too large")])
def test_labels_that_cannot_be_kept_are_refused(desk, label, words):
    source = FOREIGN.astype(np.int64)
    source[0, 7, 5, 5] = label
    copy(desk, source)
    assert isinstance(desk.errors[0], SessionError)
    assert words in str(desk.errors[0])
    assert not desk.labels.any()
    assert len(desk.session.history) == 0


def test_planes_too_large_to_be_read_at_once_and_time_points(tmp_path, monkeypatch):
    monkeypatch.setattr(object_jobs, "MOST_VOXELS", 4 * 300 * 8)
    values = np.random.default_rng(0).integers(0, 9, (2, 6, 300, 40), np.uint8)
    desk = Desk(tmp_path / "session")
    desk.session.use_volume(ArrayVolume(np.zeros(values.shape, np.uint8), "TZYX"))
    desk.settle()
    copy(desk, values)
    np.testing.assert_array_equal(desk.labels, values)
    assert desk.session.close(timeout=20)


def test_objects_that_are_being_made_of_labels_are_not_left_in_parts(desk, monkeypatch):
    monkeypatch.setattr(many, "BATCH_S", 0.0)
    monkeypatch.setattr(session_labels, "RUN_CHANGES", 1)
    copy(desk)
    desk.session.show(PlaneRef(0, 3))
    before, append, changes = desk.labels, desk.session.journal.append, []

    def cancelling(event, **values):
        if event == "delta":
            changes.append(values["object"])
            if len(changes) == 5:
                desk.session.cancel()
        return append(event, **values)

    desk.session.journal.append = cancelling
    desk.session.editing.take_labels()
    desk.settle()
    assert changes == [1, 5, 1, 5, 1, *[0] * 5]  # five were made, and taken back
    assert not any(record.written for record in desk.session.objects.values())
    assert desk.session.history.next_undo.title == "copy labels"
    assert desk.session.history.next_redo is None
    np.testing.assert_array_equal(desk.labels, before)


def test_painting_beside_copied_labels_makes_no_object_of_them(desk):
    """Object 1 was only looked at before a label came that has its number."""
    copy(desk)
    assert 1 in desk.session.objects
    desk.session.state.object_id = 6
    diagonal = np.arange(2, 15)  # from one side of label 1 to the other
    desk.session.hand.editable()[np.full(13, 3), diagonal, diagonal] = 6
    desk.session.hand.finish()
    desk.settle()
    for _ in range(2):
        assert desk.session.objects[1].is_empty
        desk.session.undo()
        desk.settle()
        desk.session.redo()
        desk.settle()
    desk.session.show(PlaneRef(0, 3))
    desk.session.editing.take_labels()
    desk.settle()
    assert len(desk.session.objects[1].written) == 40
