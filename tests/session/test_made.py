"""An object knows what it was made with: model, contrast, settings of its propagation."""

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_sam.core.contrast import Contrast
from napari_sam.core.models import ModelSpec
from napari_sam.core.planes import PlaneRef
from napari_sam.propagation.settings import Carry, Direction, PropagationSettings
from napari_sam.session.journal import FILE_NAME, pack_line, read_journal
from napari_sam.session.marks import Marks
from napari_sam.session.recovery import recover
from napari_sam.session.report import describe
from napari_sam.testing.fakes import FakeEncoder
from napari_sam.testing.phantoms import ball_volume
from napari_sam.testing.sessions import Desk, FakeBackend

PHANTOM = ball_volume((11, 40, 44), [(5, 12, 12), (5, 28, 30)], 5.0)
CONTRAST = Contrast((7.0,), (199.0,))
SETTINGS = PropagationSettings(carry=(Carry.BOX,), min_iou=0.25, bridge=2)


class ContrastEncoder(FakeEncoder):
    """Sees the same grey values as black and white at all times."""

    def contrast_at(self, time):
        return CONTRAST


class Backend(FakeBackend):
    def make_encoder(self, volume, predictor):
        return ContrastEncoder(volume, predictor)


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "one", Backend())
    desk.open(PHANTOM.image)
    yield desk
    assert desk.session.close(timeout=20)


def click(desk, object_id):
    z, y, x = [(5, 12, 12), (5, 28, 30)][object_id - 1]
    desk.session.state.object_id = object_id
    desk.click(Marks([(0, z, y, x)], [True]), PlaneRef(0, z))


def carry(desk, object_id, settings=None):
    click(desk, object_id)
    desk.session.propagate(settings)
    desk.settle()


def test_each_object_has_its_own(desk):
    carry(desk, 1, SETTINGS)
    desk.session.state.direction = Direction.FORWARD
    carry(desk, 2)
    first, second = (desk.session.objects[i].made_with[0] for i in (1, 2))
    assert first.settings == replace(SETTINGS, plane_range=(0, 11))
    assert second.settings == PropagationSettings(plane_range=(0, 11), direction=Direction.FORWARD)
    assert first.contrast == second.contrast == CONTRAST
    assert first.model == ModelSpec()
    assert first.encoder_digest == desk.backend.predictor.digest


def test_a_mask_that_was_only_kept_has_no_settings_and_a_correction_leaves_them(desk):
    click(desk, 1)
    desk.session.commit()
    desk.settle()
    assert desk.session.record.made_with[0].settings is None
    assert desk.session.record.made_with[0].contrast == CONTRAST
    desk.session.propagate(SETTINGS)
    desk.settle()
    made = desk.session.record.made_with
    desk.click(Marks([(0, 5, 12, 12), (0, 7, 12, 12)], [True, True]), PlaneRef(0, 7))
    desk.session.commit()
    desk.settle()
    assert desk.session.record.made_with == made


def test_undo_and_redo_take_it_back_and_forth(desk):
    carry(desk, 1, SETTINGS)
    made = desk.session.record.made_with
    carry(desk, 1, replace(SETTINGS, bridge=0))
    assert desk.session.record.made_with[0].settings.bridge == 0
    desk.session.undo()
    desk.settle()
    assert desk.session.objects[1].made_with == made
    desk.session.redo()
    desk.settle()
    assert desk.session.objects[1].made_with[0].settings.bridge == 0


def test_a_deleted_object_leaves_nothing_to_the_next_of_its_number(desk):
    carry(desk, 1, SETTINGS)
    desk.session.erase_object()
    desk.settle()
    assert desk.session.objects[1].made_with == {}
    click(desk, 1)
    desk.session.commit()
    desk.settle()
    assert desk.session.objects[1].made_with[0].settings is None


def test_the_parts_of_a_split_object_inherit_it(desk):
    carry(desk, 1, SETTINGS)
    carry(desk, 2)
    desk.session.editing.merge(1, [2])
    desk.settle()
    assert desk.session.objects[2].made_with == {}
    desk.session.editing.split_components(1)
    desk.settle()
    assert desk.session.objects[3].made_with == desk.session.objects[1].made_with
    assert desk.session.objects[3].made_with[0].settings.bridge == 2


def test_it_is_there_again_after_a_kill_and_in_the_report(desk, tmp_path):
    carry(desk, 1, SETTINGS)
    desk.session.editing.rename(1, "left")
    made = desk.session.record.made_with
    desk.session.journal.close()
    with_again = Desk(tmp_path / "unused", Backend())
    with_again.reopen(tmp_path / "one", PHANTOM.image)
    assert with_again.session.objects[1].made_with == made
    assert with_again.session.close(timeout=20)
    (row,) = json.loads((tmp_path / "one" / "session.json").read_text())["objects"]
    assert (row["name"], row["state"]) == ("left", "propagated")
    how = row["made_with"]["0"]
    assert (how["model"], how["encoder_digest"]) == ("default", desk.backend.predictor.digest)
    assert how["contrast"] == {"black": [7.0], "white": [199.0], "digest": CONTRAST.digest}
    assert how["propagation"]["carry"] == ["box"]
    assert (how["propagation"]["bridge"], how["propagation"]["plane_range"]) == (2, [0, 11])


def cut(folder, keep):
    """Leave the records of a journal that `keep` wants, numbered anew."""
    records = [record for _, record in read_journal(folder / FILE_NAME) if keep(record)]
    lines = [pack_line({**record, "n": n}) for n, record in enumerate(records)]
    (folder / FILE_NAME).write_bytes(b"".join(lines))


def test_what_an_interrupted_propagation_made_is_known(desk, tmp_path):
    carry(desk, 1, SETTINGS)
    made = desk.session.record.made_with
    desk.session.journal.close()
    cut(tmp_path / "one", lambda record: record["event"] != "end")
    recovered = recover(tmp_path / "one")
    recovered.journal.close()
    assert recovered.story.objects[1].made_with == made


def test_a_session_written_before_opens_and_knows_nothing(desk, tmp_path):
    carry(desk, 1, SETTINGS)
    before = np.array(desk.labels)
    desk.session.journal.close()
    path = tmp_path / "one" / FILE_NAME
    records = [{k: v for k, v in r.items() if k != "made"} for _, r in read_journal(path)]
    path.write_bytes(b"".join(pack_line(r) for r in records))
    old = Desk(tmp_path / "unused", Backend())
    old.reopen(tmp_path / "one", PHANTOM.image)
    assert old.errors == []
    assert old.session.objects[1].made_with == {}
    np.testing.assert_array_equal(old.labels, before)
    old.session.undo()
    old.settle()
    assert not old.labels.any()
    assert old.session.close(timeout=20)
    assert describe(tmp_path / "one")["objects"] == []


def test_rules_of_the_users_own_are_left_out(desk):
    carry(desk, 1, replace(SETTINGS, extra_rules=(lambda previous, current, iou: None,)))
    assert desk.errors == []
    assert desk.session.record.made_with[0].settings == replace(SETTINGS, plane_range=(0, 11))
