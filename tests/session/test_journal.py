"""A line for everything, written as it happens."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sam.errors import SessionError, SessionWarning
from napari_sam.session.cutting import cut_session
from napari_sam.session.journal import Journal, pack_line, unpack_line


def names(journal):
    return [event["event"] for event in journal.events()]


def test_records_are_there_as_soon_as_they_happened(tmp_path):
    journal = Journal(tmp_path / "session")
    journal.append("marks", object=1, points=[[0.0, 1.5]])
    assert names(journal) == ["session", "marks"]
    journal.close()
    again = Journal(tmp_path / "session")
    again.append("undo")
    assert names(again) == ["session", "marks", "undo"]
    assert again.events()[1]["points"] == [[0.0, 1.5]]
    assert [e["n"] for e in again.events()] == [0, 1, 2]


def test_a_record_is_read_from_the_place_that_append_gave(tmp_path):
    journal = Journal(tmp_path)
    places = [journal.append("number", value=i, text="ä" * i) for i in range(20)]
    assert [journal.read(at)["value"] for at in places] == list(range(20))
    journal.close()
    again = Journal(tmp_path)
    assert again.read(again.append("number", value=20))["value"] == 20


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_last_record_that_was_cut_off_is_dropped_and_said_so(tmp_path, cut):
    journal = Journal(tmp_path)
    journal.append("marks")
    journal.append("undo", text="x" * 40)
    journal.close()
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:-cut])
    with pytest.warns(SessionWarning, match="cut off"):
        again = Journal(tmp_path)
    again.append("redo")
    assert names(again) == ["session", "marks", "redo"]


def test_a_damaged_record_in_the_middle_is_an_error_with_a_remedy(tmp_path):
    journal = Journal(tmp_path)
    for i in range(5):
        journal.append("marks", value=i)
    journal.close()
    data = bytearray(journal.path.read_bytes())
    data[data.index(b'"value":2') + 8] = ord("7")
    journal.path.write_bytes(data)
    with pytest.raises(SessionError, match=r"record 3 .*napari-sam sessions cut"):
        Journal(tmp_path)
    assert cut_session(tmp_path) == 3
    assert [e.get("value") for e in Journal(tmp_path).events()] == [None, 0, 1]
    assert (tmp_path / "journal.jsonl.broken").read_bytes() == data


def test_a_missing_record_is_noticed(tmp_path):
    journal = Journal(tmp_path)
    for i in range(4):
        journal.append("marks", value=i)
    journal.close()
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(SessionError, match="record 2"):
        Journal(tmp_path)


def test_a_journal_of_a_newer_program_is_refused(tmp_path):
    line = pack_line({"n": 0, "time": "", "event": "session", "format": 99, "version": "9"})
    (tmp_path / "journal.jsonl").write_bytes(line)
    with pytest.raises(SessionError, match="update the program"):
        Journal(tmp_path)


@pytest.mark.parametrize("text", ["", '{"time": "2026", "event": "volume"}\n', "something else"])
def test_another_file_of_that_name_is_refused_and_left_alone(tmp_path, text):
    path = tmp_path / "journal.jsonl"
    path.write_text(text)
    if text:
        with pytest.raises(SessionError, match="not a journal"):
            Journal(tmp_path)
        assert path.read_text() == text
    else:
        assert names(Journal(tmp_path)) == ["session"]


def test_a_folder_that_cannot_be_made_is_a_session_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SessionError, match="NAPARI_SAM_CACHE"):
        Journal(tmp_path / "file" / "session")


def test_a_journal_is_open_once(tmp_path):
    journal = Journal(tmp_path)
    assert Journal.is_open(tmp_path)
    with pytest.raises(SessionError, match="open elsewhere"):
        Journal(tmp_path)
    journal.close()
    assert not Journal.is_open(tmp_path)
    Journal(tmp_path).close()


def test_threads_may_write_together(tmp_path):
    journal = Journal(tmp_path)
    threads = [
        threading.Thread(target=lambda k=k: [journal.append("x", k=k, i=i) for i in range(50)])
        for k in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [(e["k"], e["i"]) for e in journal.events()[1:]]
    assert sorted(found) == [(k, i) for k in range(8) for i in range(50)]


def test_a_killed_process_loses_no_record_that_it_had_written(tmp_path):
    script = (
        "import sys\nfrom napari_sam.session.journal import Journal\n"
        "journal = Journal(sys.argv[1])\n"
        "for i in range(10**6):\n    journal.append('x', i=i)\n    print(i, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    confirmed = [int(process.stdout.readline()) for _ in range(200)][-1]
    os.kill(process.pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    confirmed = max([confirmed, *(int(line) for line in process.stdout if line.endswith(b"\n"))])
    process.stdout.close()
    process.wait()
    found = [e["i"] for e in Journal(tmp_path).events()[1:]]
    assert found == list(range(len(found)))
    assert len(found) > confirmed


@given(st.dictionaries(st.text(), st.one_of(st.integers(), st.text(), st.floats(allow_nan=False))))
def test_a_line_comes_back_and_no_part_of_it_does(values):
    line = pack_line(values)
    assert unpack_line(line) == values
    assert line.count(b"\n") == 1
    assert unpack_line(line[: len(line) // 2]) is None


def test_a_journal_without_a_folder_keeps_nothing():
    journal = Journal(None)
    assert journal.append("marks") == -1
    assert journal.events() == []
