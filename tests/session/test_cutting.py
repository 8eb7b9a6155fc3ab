"""A session whose journal is damaged goes back to what was there before, labels and all."""

import numpy as np
import pytest

from napari_sam.core.planes import PlaneRef
from napari_sam.session.cutting import cut_session
from napari_sam.session.marks import Marks
from napari_sam.testing.phantoms import ball_volume
from napari_sam.testing.sessions import Desk

IMAGE = ball_volume((16, 40, 40), [(8, 20, 20)], 6.0).image
N_STEPS = 4


@pytest.fixture
def worked(tmp_path):
    """A session folder, and after each step how many records there were and what the labels held."""
    desk, moments = Desk(tmp_path / "session"), []
    session = desk.session

    def paint():
        session.hand.editable()[3, 2:10, 2:10] = 5
        session.hand.finish()

    desk.open(IMAGE)
    desk.click(Marks([(0, 8, 20, 20)], [True]), PlaneRef(0, 8))
    for action in (session.commit, paint, session.propagate, session.erase_object):
        action()
        desk.settle()
        moments.append((len(session.journal.events()), desk.labels))
    session.state.positive = False  # one more record
    folder = session.folder
    assert session.close(timeout=20)
    return folder, moments


def damage(folder, number):
    path = folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number] = lines[number].replace(b'"time"', b'"tome"')
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize("step", range(N_STEPS))
def test_labels_are_as_when_the_last_record_that_is_kept_was_written(worked, tmp_path, step):
    folder, moments = worked
    n_records, labels = moments[step]
    damage(folder, n_records)
    assert cut_session(folder) == n_records
    assert (folder / "labels.zarr.broken").is_dir()
    desk = Desk(tmp_path / "other")
    desk.reopen(folder, IMAGE)
    assert desk.errors == []
    np.testing.assert_array_equal(desk.labels, labels)
    while len(desk.session.history):
        desk.session.undo()
        desk.settle()
    assert not desk.labels.any()
    assert desk.session.close(timeout=20)


def test_a_second_cut_sets_aside_as_well_and_a_whole_session_is_left_alone(worked):
    folder, moments = worked
    for n_records, _ in reversed(moments[:2]):
        damage(folder, n_records)
        cut_session(folder)
    cut_session(folder)
    names = sorted(path.name for path in folder.glob("labels.zarr*"))
    assert names == ["labels.zarr", "labels.zarr.broken", "labels.zarr.broken-2"]
