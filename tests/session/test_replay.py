"""A session does again what it did, bit by bit."""

import json
from pathlib import Path

import numpy as np
import pytest

from napari_sam.core.planes import PlaneRef
from napari_sam.errors import SessionError
from napari_sam.io.labels import open_labels
from napari_sam.session.marks import Marks
from napari_sam.session.replay import replay
from napari_sam.session.report import describe
from napari_sam.testing.fakes import ArrayVolume, FakePredictor
from napari_sam.testing.phantoms import ball_volume
from napari_sam.testing.sessions import Desk, FakeBackend, Script

CENTRES = [(5, 14, 14), (6, 30, 34)]
IMAGE = ball_volume((12, 44, 48), CENTRES, 6.0).image


def done(folder, seed=3, n_steps=25):
    """A session with a bit of everything, closed."""
    desk = Desk(folder)
    desk.open(IMAGE)
    script = Script(desk, CENTRES, seed)
    for _ in range(n_steps):
        script.step()
    labels = desk.labels
    assert desk.session.close(timeout=20)
    return labels


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_a_replay_gives_identical_labels(tmp_path, seed):
    labels = done(tmp_path / "one", seed)
    assert labels.any()
    backend = FakeBackend()
    result = replay(tmp_path / "one", ArrayVolume(IMAGE), backend, tmp_path / "again")
    assert result.is_identical
    assert result.remarks == []
    assert backend.predictor.n_predictions > 0
    np.testing.assert_array_equal(open_labels(tmp_path / "again" / "labels.zarr")[:], labels)
    report = json.loads((tmp_path / "again" / "session.json").read_text())
    assert report["steps"] == result.n_steps
    with pytest.raises(SessionError, match="exists"):
        replay(tmp_path / "one", ArrayVolume(IMAGE), backend, tmp_path / "again")


def test_masks_come_from_the_model_again_not_from_the_journal(tmp_path):
    desk = Desk(tmp_path / "one")
    desk.open(IMAGE)
    desk.click(Marks([(0, 5, 14, 14)], [True]), PlaneRef(0, 5))
    desk.session.commit()
    desk.settle()
    assert desk.session.close(timeout=20)
    worse = FakeBackend(FakePredictor(threshold=300.0))
    result = replay(tmp_path / "one", ArrayVolume(IMAGE), worse)
    assert list(result.differing) == [5]


def test_a_cancelled_propagation_is_replayed_as_far_as_it_came(tmp_path):
    desk = Desk(tmp_path / "one")
    desk.open(IMAGE)
    desk.click(Marks([(0, 5, 14, 14)], [True]), PlaneRef(0, 5))
    desk.backend.predictor.predict_delay_s = 0.05
    desk.session.propagate()
    while len(desk.session.record.written) < 3:
        desk._queue.get(timeout=20)()
    desk.session.cancel()
    desk.settle()
    assert 3 <= len(desk.session.record.written) < 9
    assert desk.session.close(timeout=20)
    assert replay(tmp_path / "one", ArrayVolume(IMAGE), FakeBackend()).is_identical


def test_other_weights_and_another_image_are_refused_unless_forced(tmp_path):
    done(tmp_path / "one", n_steps=6)
    other = FakeBackend(FakePredictor(digest="other"))
    with pytest.raises(SessionError, match="weights of 'default' are other, the session used fake"):
        replay(tmp_path / "one", ArrayVolume(IMAGE), other)
    assert replay(tmp_path / "one", ArrayVolume(IMAGE), other, force=True).is_identical
    changed = IMAGE.copy()
    changed[:, 0, 0] += 1
    with pytest.raises(SessionError, match="not that of the session: plane"):
        replay(tmp_path / "one", ArrayVolume(changed), FakeBackend())
    with pytest.raises(SessionError, match="has the shape"):
        replay(tmp_path / "one", ArrayVolume(IMAGE[1:]), FakeBackend())


def test_the_report_names_what_a_reader_needs(tmp_path):
    done(tmp_path / "one")
    report = describe(tmp_path / "one")
    assert report == json.loads((tmp_path / "one" / "session.json").read_text())
    assert report["image"]["shape"] == [1, *IMAGE.shape, 1]
    assert report["models"][0]["encoder_digest"] == "fake"
    assert report["settings"]["policy"] in ("background only", "overwrite")
    assert report["objects"]
    assert set(report["image"]["planes_used"]) >= {"axis 0, index 5, level 0, time 0"}


def test_the_model_in_the_package_replays_its_own_session(tmp_path, monkeypatch):
    """The real thing: default model, contrast, cache, propagation; then by the command."""
    import tifffile

    from napari_sam.cli.app import run
    from napari_sam.io.volume import open_volume
    from napari_sam.session.engine import SamBackend

    monkeypatch.setenv("NAPARI_SAM_CACHE", str(tmp_path / "cache"))
    phantom = ball_volume((5, 64, 72), [(2, 30, 34)], 18.0)
    path = tmp_path / "balls.tif"
    tifffile.imwrite(path, phantom.image, metadata={"axes": "ZYX"})
    desk = Desk(tmp_path / "one", SamBackend())
    with open_volume(path) as volume:
        desk.session.use_volume(volume, "balls")
        desk.settle()
        desk.click(Marks([(0, 2, 30, 34)], [True]), PlaneRef(0, 2))
        desk.click(Marks([(0, 2, 30, 34), (0, 2, 30, 44)], [True, True]), PlaneRef(0, 2))
        desk.session.cycle()
        desk.session.commit()
        desk.settle()
        desk.session.propagate()
        desk.settle(240)
        assert desk.errors == []
        assert desk.labels.any()
        assert desk.session.close(timeout=60)
    report = describe(tmp_path / "one")
    assert report["models"][0]["file_hash"].startswith("sha256:")
    assert report["contrast"]["0"]["black"]
    monkeypatch.setenv("NAPARI_SAM_CACHE", str(tmp_path / "other cache"))
    assert run(["replay", str(tmp_path / "one"), "--output", str(tmp_path / "again")]) == 0
    again = open_labels(tmp_path / "again" / "labels.zarr")[:]
    np.testing.assert_array_equal(again, open_labels(tmp_path / "one" / "labels.zarr")[:])
    Path(path).unlink()
    assert run(["replay", str(tmp_path / "one")]) == 1
