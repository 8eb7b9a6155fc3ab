"""Many objects are deleted and merged without their masks passing through the session's own thread."""

import shutil
import threading

import numpy as np
import pytest

from napari_sam.core.planes import PackedRegion, PlaneRef
from napari_sam.session import codec, labels
from napari_sam.session.journal import FILE_NAME, read_journal
from napari_sam.session.many import Batch
from napari_sam.session.recovery import recover
from napari_sam.session.replay import replay
from napari_sam.testing.fakes import ArrayVolume
from napari_sam.testing.sessions import Desk, FakeBackend

SIDE, N = 6, 40
IMAGE = np.zeros((5, 64, 64), np.uint8)


def grid():
    """Objects 1 to N in planes 1 to 3, a grid of squares that touch each other."""
    found = np.zeros(IMAGE.shape, np.uint32)
    for number in range(N):
        y, x = (SIDE * i for i in divmod(number, 8))
        found[1:4, y : y + SIDE, x : x + SIDE] = number + 1
    return found


@pytest.fixture
def desk(tmp_path):
    """A session in which all of them are objects."""
    desk = Desk(tmp_path / "one")
    desk.open(IMAGE)
    desk.session.show(PlaneRef(0, 2))
    desk.session.editing.import_labels(grid()[None])
    desk.settle()
    desk.session.editing.take_labels()
    desk.settle()
    yield desk
    assert desk.session.close(timeout=20)
    assert desk.errors == []


@pytest.fixture
def looked_at(monkeypatch):
    """Masks that the test's own thread, which is the session's, packs or unpacks."""
    found = []

    def counting(function):
        def counted(*args):
            if threading.current_thread() is threading.main_thread():
                found.append(function)
            return function(*args)

        return counted

    pack = counting(codec.pack_region)
    monkeypatch.setattr(codec, "pack_region", pack)
    monkeypatch.setattr(labels, "pack_region", pack)
    monkeypatch.setattr(PackedRegion, "crop", property(counting(PackedRegion.crop.fget)))
    return found


def objects(desk):
    return sorted(i for i, record in desk.session.objects.items() if record.written)


def test_deleting_looks_at_no_mask(desk, looked_at):
    desk.session.editing.delete(range(1, N))
    desk.settle()
    assert looked_at == []
    np.testing.assert_array_equal(desk.labels, np.where(grid() == N, N, 0))
    assert objects(desk) == [N]
    desk.session.undo()
    desk.settle()
    np.testing.assert_array_equal(desk.labels, grid())
    assert objects(desk) == list(range(1, N + 1))
    assert (desk.session.objects[7].written[PlaneRef(0, 2)].mask == (grid()[2] == 7)).all()


def test_merging_looks_at_no_mask(desk, looked_at):
    desk.session.editing.merge(5, range(1, N))
    desk.settle()
    assert looked_at == []
    merged = np.where((grid() > 0) & (grid() < N), 5, grid())
    np.testing.assert_array_equal(desk.labels, merged)
    assert objects(desk) == [5, N]
    assert (desk.session.objects[5].written[PlaneRef(0, 2)].mask == (merged[2] == 5)).all()


def test_a_reopened_session_does_not_either(desk, looked_at, tmp_path):
    desk.session.journal.close()
    again = Desk(tmp_path / "unused")
    again.reopen(tmp_path / "one", IMAGE)
    again.session.show(PlaneRef(0, 2))
    looked_at.clear()
    again.session.editing.delete(range(1, N + 1))
    again.settle()
    assert looked_at == again.errors == []
    assert not again.labels.any()
    assert again.session.close(timeout=20)


def test_what_was_painted_since_goes_too(desk):
    array = desk.session.hand.editable()
    array[2, 60:63, 60:63] = 3
    desk.session.hand.finish()
    desk.session.editing.delete([3, 4])
    desk.settle()
    np.testing.assert_array_equal(desk.labels, np.where(np.isin(grid(), (3, 4)), 0, grid()))
    desk.session.undo()
    desk.settle()
    assert (desk.labels[2, 60:63, 60:63] == 3).all()


def test_a_few_events_tell_of_many_masks(desk, monkeypatch):
    batches, shown = [], []
    receive = desk.session._answers._on_batch
    monkeypatch.setattr(
        desk.session._answers, "_on_batch", lambda w, b: (batches.append(b), receive(w, b))[1]
    )
    monkeypatch.setattr("napari_sam.session.many.BATCH_S", 60.0)
    desk.session.labels_changed.connect(shown.append)
    desk.session.editing.delete(range(1, N))
    desk.settle()
    (batch,) = batches
    assert isinstance(batch, Batch)
    assert len(batch.answers) == 3 * (N - 1)
    assert [change.plane.index for change in shown] == [1, 2, 3]
    for change in shown:
        np.testing.assert_array_equal(
            change.values, desk.labels[desk.session.labels.index(change.plane, change.box_yxyx)[-3:]]
        )


@pytest.mark.parametrize("what", ["delete", "merge"])
@pytest.mark.parametrize("known", [0, 1, 50])
def test_what_was_ordered_is_finished_after_a_kill(desk, tmp_path, what, known):
    folder = tmp_path / "killed"
    shutil.copytree(desk.session.folder, folder)
    if what == "delete":
        desk.session.editing.delete(range(1, N))
    else:
        desk.session.editing.merge(5, range(1, N))
    desk.settle()
    lines = desk.session.journal.path.read_bytes().splitlines(keepends=True)
    records = [record for _, record in read_journal(desk.session.journal.path)]
    step = max(n for n, record in enumerate(records) if record["event"] == "step")
    (folder / FILE_NAME).write_bytes(b"".join(lines[: step + 1 + known]))
    recovered = recover(folder)
    recovered.journal.close()
    np.testing.assert_array_equal(np.asarray(recovered.labels.array[:]), desk.labels)
    written = sorted(i for i, record in recovered.story.objects.items() if record.written)
    assert written == objects(desk)


def test_a_replay_does_it_again(desk):
    desk.session.hand.editable()[2, 60:63, 60:63] = 3
    desk.session.hand.finish()
    desk.session.editing.merge(5, range(1, 9))
    desk.settle()
    desk.session.editing.delete(range(9, 20))
    desk.settle()
    desk.session.undo()
    desk.settle()
    desk.session.redo()
    desk.settle()
    folder = desk.session.folder
    desk.session.journal.close()
    assert replay(folder, ArrayVolume(IMAGE), FakeBackend()).is_identical
