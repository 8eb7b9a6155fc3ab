"""After kill -9 a session has everything that was confirmed."""

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from napari_sam.core.planes import PlaneRef
from napari_sam.errors import SessionError, SessionWarning
from napari_sam.session.finding import find_sessions, session_info
from napari_sam.session.image import ImageRef
from napari_sam.session.labels import LabelArray, LabelDelta, impose
from napari_sam.session.marks import Marks
from napari_sam.session.recovery import Interrupted, recover
from napari_sam.session.restoring import restore_writes
from napari_sam.session.state import OverlapPolicy
from napari_sam.testing.fakes import ArrayVolume
from napari_sam.testing.phantoms import ball_volume
from napari_sam.testing.sessions import Desk, Script

_spec = importlib.util.spec_from_file_location("killed", Path(__file__).with_name("killed.py"))
killed = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(killed)

CENTRE = (5, 20, 20)
PLANE = PlaneRef(0, 5)
CLICK = Marks([(0, 5, 20, 20)], [True])
IMAGE = ball_volume((11, 40, 44), [CENTRE], 5.0).image


def begun(folder):
    desk = Desk(folder)
    desk.open(IMAGE)
    desk.click(CLICK, PLANE)
    return desk


def left(desk):
    """What a killed process leaves: nothing is closed, the lock is gone."""
    state = desk.state()
    desk.session.journal.close()
    assert desk.session.close(timeout=20)
    return state


def again(folder, image=IMAGE):
    desk = Desk(folder.with_name("unused"))
    desk.reopen(folder, image)
    return desk


def test_a_session_comes_back_with_objects_prompts_labels_settings_and_history(tmp_path):
    desk = begun(tmp_path / "one")
    desk.session.propagate()
    desk.settle()
    desk.session.next_object()
    desk.session.state.policy = OverlapPolicy.OVERWRITE
    desk.click(Marks([(0, 4, 20, 20), (0, 4, 1, 1)], [True, False]), PLANE.at(4))
    desk.session.hand.editable()[7, 3:6, 3:6] = 9
    desk.session.hand.finish()
    desk.session.undo()
    desk.settle()
    before = left(desk)
    desk = again(tmp_path / "one")
    assert desk.errors == []
    assert desk.state() == before
    desk.session.redo()
    desk.settle()
    assert (desk.labels[7, 3:6, 3:6] == 9).all()
    while desk.session.history.next_undo:
        desk.session.undo()
        desk.settle()
    assert not desk.labels.any()
    assert desk.session.record.is_empty
    assert desk.session.close(timeout=20)


def test_what_the_model_had_answered_is_asked_in_the_same_way_again(tmp_path):
    desk = begun(tmp_path / "one")
    desk.click(Marks([(0, 5, 20, 20), (0, 5, 20, 22)], [True, True]), PLANE)
    desk.session.commit()
    desk.settle()
    left(desk)
    desk = again(tmp_path / "one")
    asked = []
    predict = desk.backend.predictor.predict_many
    desk.backend.predictor.predict_many = lambda e, p: (asked.extend(p), predict(e, p))[1]
    desk.session.show(PLANE)
    desk.settle()
    assert [len(p.points_yx) for p in asked] == [1, 2]
    assert asked[0].low_res_logits is None
    assert asked[1].low_res_logits is not None
    assert not desk.session.record.pending
    assert desk.session.close(timeout=20)


def test_the_mask_that_the_user_had_chosen_is_chosen_again(tmp_path):
    desk = begun(tmp_path / "one")
    desk.session.cycle()
    area = desk.session.shown_prediction.region.area
    left(desk)
    desk = again(tmp_path / "one")
    desk.session.show(PLANE)
    desk.settle()
    assert desk.session.shown_prediction.region.area == area
    assert desk.session.close(timeout=20)


def test_a_session_folder_can_be_moved_with_its_image(tmp_path):
    desk = begun(tmp_path / "one" / "session")
    desk.session.commit()
    desk.settle()
    before = left(desk)
    shutil.move(tmp_path / "one", tmp_path / "two")
    desk = again(tmp_path / "two" / "session")
    assert desk.state() == before
    assert desk.session.close(timeout=20)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "image.tif").touch()
    volume = ArrayVolume(IMAGE)
    ref = ImageRef.of(volume, path=tmp_path / "a" / "image.tif").to_json(tmp_path / "a" / "session")
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert ImageRef.from_json(ref, tmp_path / "b" / "session").path == str(tmp_path / "b" / "image.tif")


def test_an_image_that_changed_is_noticed(tmp_path):
    left(begun(tmp_path / "one"))
    changed = []
    desk = Desk(tmp_path / "unused")
    desk.session.image_changed.connect(changed.append)
    desk.reopen(tmp_path / "one", IMAGE)
    assert changed == []
    assert desk.session.close(timeout=20)
    other = IMAGE.copy()
    other[5, 0, 0] += 1
    desk = Desk(tmp_path / "unused")
    desk.session.image_changed.connect(changed.append)
    desk.reopen(tmp_path / "one", other)
    assert changed == [(PLANE,)]
    assert desk.session.close(timeout=20)


def test_another_image_is_refused(tmp_path):
    left(begun(tmp_path / "one"))
    desk = again(tmp_path / "one", IMAGE[:-1])
    assert "has (1, 10, 40, 44, 1)" in str(desk.errors[0])
    assert desk.session.close(timeout=20)


def test_sessions_on_an_image_are_found(tmp_path):
    desk = begun(tmp_path / "20260101-one")
    desk.session.commit()
    desk.settle()
    image = ImageRef.of(ArrayVolume(IMAGE))
    assert find_sessions(tmp_path, image) == ()  # it is open
    left(desk)
    empty = Desk(tmp_path / "20260102-two")
    empty.open(IMAGE)
    left(empty)
    (tmp_path / "20260103-three").mkdir()
    (tmp_path / "20260103-three" / "journal.jsonl").write_text("nonsense")
    (info,) = find_sessions(tmp_path, image)
    assert (info.folder.name, info.n_objects, info.n_steps) == ("20260101-one", 1, 2)
    assert find_sessions(tmp_path, ImageRef.of(ArrayVolume(IMAGE[:4]))) == ()


def test_a_folder_without_a_session_is_an_error(tmp_path):
    with pytest.raises(SessionError, match="choose a folder"):
        recover(tmp_path)
    assert not (tmp_path / "journal.jsonl").exists()


def check_recovered(folder, before, after):
    """The labels of a session agree with its journal, and lie between two states; undo leads to nothing."""
    recovered = recover(folder)
    labels, story = recovered.labels, recovered.story
    found = np.asarray(labels.array[:])
    rebuilt = LabelArray(np.zeros_like(found))
    for record in recovered.journal.events():
        if record["event"] == "delta":
            impose(rebuilt, LabelDelta.from_json(record))
    np.testing.assert_array_equal(found, rebuilt.array)
    marks = {str(i): r.marks.to_json() for i, r in story.objects.items() if not r.marks.is_empty}
    assert marks in (before["marks"], after["marks"])
    states = [[state["planes"][z] for state in (before, after)] for z in range(len(found))]
    for z, plane in enumerate(found):
        assert zlib.crc32(np.ascontiguousarray(plane).data) in states[z]
    assert not story.jobs
    while (step := story.history.undo()) is not None:
        list(restore_writes(labels, step.writes, False, 0))
    assert not np.asarray(labels.array[:]).any()
    recovered.journal.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("default::napari_sam.errors.SessionWarning")
def test_nothing_confirmed_is_lost_whenever_the_program_is_killed(tmp_path):
    n_kills = int(os.environ.get("NAPARI_SAM_KILLS", "50"))
    chance = random.Random(1)
    desk = Desk(tmp_path / "reference")
    desk.open(killed.image())
    script, expected = Script(desk, killed.CENTRES, 7), [desk.state()]
    for _ in range(killed.N_STEPS):
        script.step()
        expected.append(desk.state())
    assert desk.session.close(timeout=20)
    command, pipe = [sys.executable, killed.__file__], subprocess.PIPE
    longest, survived = 0.0, set()
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        for number in range(-1, n_kills):
            folder = tmp_path / f"killed-{number}"
            process.stdin.write(f"{folder} 7\n")
            process.stdin.flush()
            pid, begin = int(process.stdout.readline()), time.monotonic()
            if number >= 0:  # the first one is left to end, which says how long it takes
                time.sleep(chance.random() * longest)
                with suppress(ProcessLookupError):  # it may have ended by then
                    os.kill(pid, signal.SIGKILL)
            lines = list(iter(process.stdout.readline, "dead\n"))
            longest = longest or time.monotonic() - begin
            confirmed = [json.loads(line) for line in lines if line.startswith("{")]
            assert confirmed == expected[: len(confirmed)]
            survived.add(len(confirmed))
            if confirmed:
                n = len(confirmed) - 1
                check_recovered(folder, expected[n], expected[min(n + 1, len(expected) - 1)])
    assert len(survived) > min(5, n_kills // 2)


def test_a_torn_last_record_is_said_and_the_rest_is_there(tmp_path):
    desk = begun(tmp_path / "one")
    desk.session.commit()
    desk.settle()
    left(desk)
    path = tmp_path / "one" / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.warns(SessionWarning, match="cut off"):
        recovered = recover(tmp_path / "one")
    assert [s.title for s in recovered.story.history._done] == ["prompt", "keep"]
    recovered.journal.close()
    assert session_info(tmp_path / "one").n_steps == 2


def killed_at_its_third_change(desk, order):
    """Give an order, and leave what a process does that is killed once three changes are in the journal."""
    journal, append, left_over = desk.session.journal, desk.session.journal.append, [3]

    def dying(event, **values):
        if event == "delta":
            left_over[0] -= 1
        if left_over[0] < 0:
            journal.close()
        return append(event, **values)

    journal.append = dying
    order()
    desk.settle()
    assert left_over[0] < 0
    left(desk)


def interrupted(folder):
    """The session that goes on, and what it says was interrupted."""
    desk, found = Desk(folder.with_name("unused")), []
    desk.session.reopened.connect(lambda recovered: found.extend(recovered.story.interrupted))
    desk.reopen(folder, IMAGE)
    assert desk.session.close(timeout=20)
    return desk, found


def two_objects(folder):
    desk = begun(folder)
    desk.session.propagate()
    desk.session.next_object()
    desk.click(Marks([(0, 5, 5, 5)], [True]), PLANE)
    desk.session.commit()
    desk.settle()
    return desk


def test_all_objects_of_an_interrupted_propagation_are_named(tmp_path):
    desk = two_objects(tmp_path / "one")
    killed_at_its_third_change(desk, lambda: desk.session.propagate_objects([2, 1]))
    desk, found = interrupted(tmp_path / "one")
    assert found == [Interrupted("Propagate", (2, 1))]
    assert desk.session.history.next_undo.title == "propagation"


def test_an_interrupted_refinement_is_called_so(tmp_path):
    desk = two_objects(tmp_path / "one")
    killed_at_its_third_change(desk, lambda: desk.session.editing.refine(1))
    desk, found = interrupted(tmp_path / "one")
    assert found == [Interrupted("Refine", (1,))]
    assert desk.session.history.next_undo.title == "refine"


def test_labels_that_were_being_made_objects_are_as_before(tmp_path):
    desk = begun(tmp_path / "one")
    desk.session.labels.array[:, 4:8, 4:8] = 3
    labels = desk.labels
    killed_at_its_third_change(desk, desk.session.editing.take_labels)
    desk, found = interrupted(tmp_path / "one")
    assert found == [Interrupted("TakeLabels")]
    assert not any(record.written for record in desk.session.objects.values())
    assert desk.session.history.next_undo.title == "prompt"
    np.testing.assert_array_equal(desk.labels, labels)
