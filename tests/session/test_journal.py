"""A line for everything, written as it happens."""

import pytest

from napari_sam.errors import SessionError
from napari_sam.session.journal import Journal


def test_events_are_there_as_soon_as_they_happened(tmp_path):
    journal = Journal(tmp_path / "session")
    journal.append("marks", object=1, points=[[0.0, 1.5]])
    again = Journal(tmp_path / "session")
    again.append("undo")
    assert [event["event"] for event in again.events()] == ["marks", "undo"]
    assert again.events()[0]["points"] == [[0.0, 1.5]]


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path):
    journal = Journal(tmp_path)
    journal.append("marks")
    with journal.path.open("a") as file:
        file.write('{"event": "un')
    assert [event["event"] for event in journal.events()] == ["marks"]


def test_a_folder_that_cannot_be_made_is_a_session_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SessionError, match="NAPARI_SAM_CACHE"):
        Journal(tmp_path / "file" / "session")
