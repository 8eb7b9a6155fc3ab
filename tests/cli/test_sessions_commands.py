"""Listing sessions, describing one, mending one."""

import json

import pytest

from napari_sam.cli.app import run
from napari_sam.core.planes import PlaneRef
from napari_sam.session.marks import Marks
from napari_sam.testing.phantoms import ball_volume
from napari_sam.testing.sessions import Desk

IMAGE = ball_volume((11, 40, 44), [(5, 20, 20)], 5.0).image


def make(folder, *, work=True):
    desk = Desk(folder)
    desk.open(IMAGE)
    if work:
        desk.click(Marks([(0, 5, 20, 20)], [True]), PlaneRef(0, 5))
        desk.session.commit()
        desk.settle()
    assert desk.session.close(timeout=30)


def test_sessions_are_listed_described_and_cut(tmp_path, capsys):
    make(tmp_path / "20260101")
    make(tmp_path / "20260102", work=False)
    assert run(["sessions", "list", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "1 objects, 2 steps  image" in lines[0]
    assert lines[1].startswith("1 more")
    (tmp_path / "20260101" / "session.json").unlink()
    assert run(["sessions", "report", str(tmp_path / "20260101")]) == 0
    assert json.loads((tmp_path / "20260101" / "session.json").read_text())["steps"] == 2
    path = tmp_path / "20260101" / "journal.jsonl"
    data = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*data[:-3], b"broken\n", *data[-2:]]))
    assert run(["sessions", "list", str(tmp_path)]) == 0
    assert "napari-sam sessions cut" in capsys.readouterr().out
    assert run(["sessions", "cut", str(tmp_path / "20260101")]) == 0
    assert f"first {len(data) - 3} records" in capsys.readouterr().out


def test_what_cannot_be_replayed_says_why(tmp_path, capsys):
    assert run(["replay", str(tmp_path)]) == 1
    assert "there is no session" in capsys.readouterr().err
    make(tmp_path / "one")
    assert run(["replay", str(tmp_path / "one")]) == 1
    assert "--image" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["list", "cut"])
def test_a_folder_that_is_not_there_is_told_in_one_line(call, tmp_path, command):
    code, _, err = call("sessions", command, tmp_path / "nowhere")
    assert (code, err.count("\n")) == (1, 1)
    assert "nowhere" in err
