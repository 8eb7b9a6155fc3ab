"""A long session in a real window, killed in the middle, finished by another process, and replayed.

The user (`long_session_child.py`) works with mouse and buttons in processes of his own; here is what has to be true of
the files that he leaves. ``python scripts/make_pictures.py`` keeps pictures of his window in docs/images.
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_sam.cli.app import run
from napari_sam.core.planes import PlaneRef
from napari_sam.io.labels import open_labels
from napari_sam.io.samples import open_sample
from napari_sam.io.volume import open_volume
from napari_sam.testing.images import write_ome_zarr

pytestmark = [pytest.mark.gui, pytest.mark.slow, pytest.mark.timeout(1800)]

CHILD = Path(__file__).with_name("long_session_child.py")
_spec = importlib.util.spec_from_file_location("long_session_child", CHILD)
user = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(user)

SPACING, PLACE = (0.06, 0.02, 0.02), (1.2, -3.0, 5.0)
PATIENCE = 600.0


class Left:
    """What the user left in his folder, by the name of the thing done."""

    def __init__(self, folder):
        self.folder = folder

    def labels(self, thing):
        return np.load(self.folder / f"{thing}.npy")

    def said(self, thing):
        return json.loads((self.folder / f"{thing}.json").read_text())

    def changes(self, before, after):
        """Planes and labels of the voxels that are not as before."""
        a, b = self.labels(before), self.labels(after)
        at = a != b
        return set(np.flatnonzero(at.any(axis=(1, 2))).tolist()), set(np.unique([a[at], b[at]]).tolist()) - {
            0
        }

    def session(self):
        return Path(self.said("five")["session"])


def whole(volume):
    return np.stack([volume.read_plane(PlaneRef(0, z)) for z in range(volume.shape_zyx()[0])])


def start(what, folder):
    """A process with a napari window of its own."""
    environment = os.environ | {"NAPARI_CONFIG": str(folder / "settings.yaml")}
    with (folder / f"{what}.log").open("w") as log:
        command = [sys.executable, str(CHILD), what, str(folder)]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """The folder after the user worked, was killed, went on, saved and ended."""
    folder = tmp_path_factory.mktemp("long")
    with pytest.MonkeyPatch.context() as patch, open_sample("chloroplasts") as image:
        patch.setenv("NAPARI_SAM_CACHE", str(folder / "cache"))
        write_ome_zarr(folder / "leaf.ome.zarr", whole(image), spacing_zyx=SPACING, translate_zyx=PLACE)
        process, end = start("begin", folder), time.monotonic() + PATIENCE
        while not (folder / "ready").exists():
            assert process.poll() is None, (folder / "begin.log").read_text()
            assert time.monotonic() < end, "it takes too long"
            time.sleep(0.1)
        process.kill()
        assert process.wait() == -9
        found = Left(folder)
        np.save(folder / "killed.npy", open_labels(found.session() / "labels.zarr")[:])
        process = start("finish", folder)
        try:
            assert process.wait(PATIENCE) == 0, (folder / "finish.log").read_text()
        finally:
            process.kill()
    return found


@pytest.fixture(scope="module")
def truth():
    """The chloroplasts that the clicks mean, numbered as the objects of the session."""
    with open_sample("chloroplasts", "labels") as labels:
        published = whole(labels)
    places = [*user.OBJECTS, user.LATE]
    return [published == published[user.SEED][place] for place in places]


def overlap(a, b):
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def is_better(left, truth, before, after, object_id, plane):
    """Whether an object's mask in a plane is nearer to what is meant."""
    found = [
        overlap(left.labels(t)[plane] == object_id, truth[object_id - 1][plane]) for t in (before, after)
    ]
    return found[1] > found[0]


def test_five_objects_are_carried_together(left, truth):
    labels = left.labels("five")
    assert set(np.unique(labels)) == {0, 1, 2, 3, 4, 5}
    found = [overlap(labels == i, truth[i - 1]) for i in range(1, 6)]
    assert min(found) > 0.6, found


def test_a_correction_changes_only_the_gaps_beside_it(left, truth):
    for number, (object_id, plane, _, _) in enumerate(user.CORRECTIONS, 1):
        before, after = ["five", "corrected-1", "corrected-2"][number - 1 : number + 1]
        planes, ids = left.changes(before, after)
        beside = range(user.SEED) if plane < user.SEED else range(user.SEED + 1, 10)
        assert ids == {object_id}
        assert plane in planes
        assert planes <= set(beside), planes
        assert is_better(left, truth, before, after, object_id, plane)


def test_planes_of_the_user_are_not_changed_when_all_is_carried_again(left):
    object_id, plane, _, _ = user.CORRECTIONS[0]
    before, after = left.labels("corrected-2"), left.labels("again")
    assert left.said("again")["undo"] == left.said("corrected-2")["undo"] + 1
    for own in (plane, user.SEED):
        np.testing.assert_array_equal(before[own], after[own])
    assert left.changes("corrected-2", "again")[1] <= {object_id}


def test_a_late_object_leaves_the_others_as_they_are(left, truth):
    before, after = left.labels("again"), left.labels("six")
    late = after == 6
    np.testing.assert_array_equal(before[~late], after[~late])
    assert not before[late].any()
    assert overlap(late, truth[5]) > 0.5


def test_three_steps_are_undone_bit_by_bit(left):
    assert left.said("undone")["undo"] == left.said("six")["undo"] - 3
    np.testing.assert_array_equal(left.labels("undone"), left.labels("again"))
    assert left.said("undone")["marks"] == left.said("again")["marks"]


def test_everything_confirmed_is_there_after_the_kill(left):
    np.testing.assert_array_equal(left.labels("killed"), left.labels("undone"))
    assert "5 objects" in (left.folder / "offer.txt").read_text()
    np.testing.assert_array_equal(left.labels("reopened"), left.labels("undone"))
    before, after = left.said("undone"), left.said("reopened")
    assert after == before | {name: after[name] for name in ("status", "strip")}


def test_the_second_process_goes_on(left, truth):
    np.testing.assert_array_equal(left.labels("redone"), left.labels("six"))
    object_id, plane, _, _ = user.LAST
    planes, ids = left.changes("redone", "finished")
    assert (ids, plane in planes) == ({object_id}, True)
    assert user.SEED not in planes
    assert is_better(left, truth, "redone", "finished", object_id, plane)


def test_nothing_was_complained_of(left):
    for report in left.folder.glob("*.json"):
        assert json.loads(report.read_text())["complaints"] == [], report.name


@pytest.mark.parametrize("name", ["leaf-labels.ome.zarr", "leaf-labels.ome.tif", "leaf-labels.tif"])
def test_what_was_saved_has_its_physical_scale(left, name):
    with open_volume(left.folder / name) as saved:
        np.testing.assert_array_equal(whole(saved), left.labels("finished"))
        np.testing.assert_allclose(saved.spacing_zyx, SPACING, rtol=1e-5)
        np.testing.assert_allclose(saved.translate_zyx, PLACE if name.endswith("zarr") else (0, 0, 0))
        assert saved.unit == "micrometer"


def test_another_reader_finds_the_scale_in_the_tiff(left):
    with tifffile.TiffFile(left.folder / "leaf-labels.ome.tif") as tif:
        pixels = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
    assert [pixels[f"PhysicalSize{a}"] for a in "ZYX"] == pytest.approx(list(SPACING))


def test_a_replay_gives_identical_labels(left, tmp_path):
    assert run(["replay", str(left.session()), "--output", str(tmp_path / "again")]) == 0
    again = open_labels(tmp_path / "again" / "labels.zarr")[:]
    np.testing.assert_array_equal(again, left.labels("finished"))
