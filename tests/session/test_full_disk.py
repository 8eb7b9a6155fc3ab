"""A disk that is full for a while costs what could not be written, and nothing else."""

import numpy as np
import pytest

from napari_sam.core.planes import PlaneRef
from napari_sam.errors import SessionError
from napari_sam.session.journal import Journal
from napari_sam.session.marks import Marks
from napari_sam.testing.phantoms import ball_volume
from napari_sam.testing.sessions import Desk

resource = pytest.importorskip("resource", reason="limits the size of files")

IMAGE = ball_volume((24, 64, 64), [(12, 32, 32)], 11.0).image
PLANE = PlaneRef(0, 12)


@pytest.fixture
def limit():
    """Says from how many bytes on a file takes no more."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.fixture
def desk(tmp_path):
    """One kept plane."""
    desk = Desk(tmp_path / "session")
    desk.open(IMAGE)
    desk.click(Marks([(0, 12, 32, 32)], [True]), PLANE)
    desk.session.commit()
    desk.settle()
    yield desk
    assert desk.session.close(timeout=20)


def room_for(desk, size):
    return desk.session.journal.path.stat().st_size + size


def again(desk, tmp_path):
    """The labels and the state of the session, and of the same one reopened."""
    before = desk.labels, desk.state()
    folder = desk.session.folder
    desk.session.leave_volume()
    desk.settle()
    other = Desk(tmp_path / "other")
    other.reopen(folder, IMAGE)
    assert other.errors == []
    after = other.labels, other.state()
    assert other.session.close(timeout=20)
    return before, after


@pytest.mark.parametrize("undone", [True, False])
def test_a_propagation_that_the_disk_ends_can_be_undone_and_reopened(desk, tmp_path, limit, undone):
    session, kept = desk.session, desk.labels
    limit(room_for(desk, 4000))
    session.propagate()
    desk.settle()
    assert all("make room on the disk" in str(error) for error in desk.errors)
    assert desk.errors
    limit(None)
    assert np.count_nonzero(desk.labels) > np.count_nonzero(kept)
    if undone:
        session.undo()
        desk.settle()
        np.testing.assert_array_equal(desk.labels, kept)
    desk.click(Marks([(0, 12, 32, 32), (0, 14, 32, 32)], [True, True]), PlaneRef(0, 14))
    session.commit()
    desk.settle()
    (labels, state), (same_labels, same_state) = again(desk, tmp_path)
    np.testing.assert_array_equal(labels, same_labels)
    assert state == same_state


def test_a_stroke_whose_end_does_not_fit_is_a_step(desk, tmp_path, limit):
    session = desk.session
    session.hand.editable()[3, 2:6, 2:6] = 1
    limit(room_for(desk, 3))
    session.hand.finish()
    assert len(desk.errors) == 1
    with pytest.raises(SessionError, match="make room"):
        session.undo()
    limit(None)
    assert session.record.corrected == (PlaneRef(0, 3),)
    session.undo()
    desk.settle()
    assert not desk.labels[3].any()
    before, after = again(desk, tmp_path)
    assert before[1] == after[1]


def test_half_a_record_is_taken_back(tmp_path, limit):
    journal = Journal(tmp_path)
    limit(journal.path.stat().st_size + 20)
    with pytest.raises(SessionError, match="make room"):
        journal.append("lost")
    with pytest.raises(SessionError, match="make room"):
        journal.owe("late")
    limit(None)
    journal.append("more")
    journal.close()
    assert [record["event"] for record in Journal(tmp_path).events()] == ["session", "late", "more"]
