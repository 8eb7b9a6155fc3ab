"""Multiscale images: labels at full resolution, whatever level the model looked at."""

import json

import numpy as np
import pytest
import zarr

from napari_sam.core.contrast import Contrast
from napari_sam.core.planes import PlaneRef
from napari_sam.embedding import MemoryStore
from napari_sam.inference.encode import CachedEncoder
from napari_sam.inference.sight import Sight
from napari_sam.io.labels import open_labels
from napari_sam.io.volume import open_volume
from napari_sam.propagation.settings import Direction
from napari_sam.session.engine import SamBackend
from napari_sam.session.journal import FILE_NAME, pack_line, read_journal
from napari_sam.session.marks import Marks, ShapeKind, ShapeMark
from napari_sam.session.replay import replay
from napari_sam.session.shown import CLOSER, Shown
from napari_sam.testing.fakes import ArrayVolume, CountingVolume, FakePredictor
from napari_sam.testing.phantoms import ball_volume, discs_plane
from napari_sam.testing.sessions import Desk, FakeBackend

SHAPE = (4, 512, 640)
LARGE, SMALL = (2, 250, 300), (2, 60, 500)
PHANTOM = ball_volume(SHAPE, [LARGE, SMALL], [150.0, 12.0], spacing_zyx=(40.0, 1.0, 1.0))
PLANE = PlaneRef(0, 2)
TILE = 64


def seen_at(scale):
    """What is on screen when the model looks at this scale."""
    return Shown(CLOSER * scale)


class ScalingBackend(FakeBackend):
    """Sessions over real encoders that tile and scale, with a fake network."""

    def __init__(self):
        super().__init__(FakePredictor(tile_size=TILE))
        self.store = MemoryStore(1 << 30)

    def make_encoder(self, volume, predictor):
        return CachedEncoder(volume, predictor, self.store, Contrast((0,), (255,)))


def write_pyramid(path, image, n_levels=4, *, axes="zyx"):
    """An OME-Zarr of means of 2 x 2 pixels, with voxel sizes and places in the metadata."""
    scale = np.array([2.0, 0.5, 0.5][-image.ndim :])
    datasets = []
    group = zarr.create_group(path)
    for level in range(n_levels):
        factor = np.array([1, 2**level, 2**level][-image.ndim :])
        place = 5.0 + scale * (factor - 1) / 2
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": (scale * factor).tolist()},
                    {"type": "translation", "translation": place.tolist()},
                ],
            }
        )
        group.create_array(str(level), data=image, chunks=(1, 64, 64)[-image.ndim :])
        *rest, height, width = image.shape
        image = image.reshape(*rest, height // 2, 2, width // 2, 2).mean((-3, -1)).astype(image.dtype)
    entries = [{"name": a, "type": "space", "unit": "micrometer"} for a in axes]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": entries, "datasets": datasets}]}
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_pyramid(tmp_path_factory.mktemp("image") / "big.ome.zarr", PHANTOM.image)


class Scene:
    """A desk on a volume that counts."""

    def __init__(self, folder, path, backend=None):
        self.volume = CountingVolume(open_volume(path))
        self.desk = Desk(folder, backend or ScalingBackend())
        self.session = self.desk.session
        self.folder = folder

    def open(self):
        self.session.use_volume(self.volume)
        self.desk.settle()
        self.volume.reset()
        return self

    def click(self, zyx, scale=1, **more):
        self.session.show(PLANE, seen_at(scale))
        self.session.set_marks(Marks([(0, *zyx)], [True], **more))
        self.desk.settle()
        assert not self.desk.errors

    def read_levels(self):
        return {read.level for read in self.volume.reads}

    def labels(self):
        return np.asarray(self.session.labels.array[:])

    def close(self):
        assert self.session.close(timeout=20)


@pytest.fixture
def scene(tmp_path, path):
    scene = Scene(tmp_path / "one", path).open()
    yield scene
    scene.close()


def iou(found, truth):
    return (found & truth).sum() / (found | truth).sum()


def test_a_click_from_afar_labels_at_full_resolution_and_reads_no_full_plane(scene):
    scene.click(LARGE, scale=8)
    scene.session.commit()
    scene.desk.settle()
    assert scene.labels().shape == SHAPE
    assert iou(scene.labels()[2] == 1, PHANTOM.labels[2] == 1) > 0.95
    assert scene.read_levels() == {3}
    assert scene.session.record.scale == 8


def test_a_small_object_seen_closely_is_looked_at_in_full_resolution(scene):
    scene.click(SMALL)
    assert scene.read_levels() == {0}
    np.testing.assert_array_equal(scene.session.record.pending[PLANE].mask, PHANTOM.labels[2] == 2)
    assert scene.session.record.scale == 1


def test_a_small_object_seen_from_afar_is_looked_at_again_more_closely(scene):
    """24 pixels across: 3 at scale 8, of the 64 of a tile."""
    scene.click(SMALL, scale=8)
    assert scene.session.record.scale == 4
    assert iou(scene.session.record.pending[PLANE].mask, PHANTOM.labels[2] == 2) > 0.75
    assert scene.read_levels() == {3, 2}


def test_the_size_of_a_box_decides_how_closely_it_is_looked_at(scene):
    box = ShapeMark(
        ShapeKind.RECTANGLE, [(0, 2, y, x) for y, x in ((98, 148), (98, 452), (402, 452), (402, 148))]
    )
    scene.session.show(PLANE)
    scene.desk.settle()
    scene.volume.reset()
    scene.session.set_marks(Marks(shapes=(box,)))
    scene.desk.settle()
    assert scene.session.record.scale == 8
    assert scene.read_levels() == {3}
    assert iou(scene.session.record.pending[PLANE].mask, PHANTOM.labels[2] == 1) > 0.9


def test_a_level_that_the_user_fixes_is_the_one_that_is_read(scene):
    scene.session.state.seen_level = 1
    scene.click(LARGE, scale=8)
    assert scene.read_levels() == {1}
    assert scene.session.record.scale == 2
    scene.volume.reset()
    scene.session.state.seen_level = 2
    scene.desk.settle()
    assert scene.session.record.scale == 4, "what is asked already is asked again"
    assert scene.read_levels() == {2}


def test_a_click_on_an_object_of_many_tiles_is_one_mask_without_seams(scene):
    scene.session.state.seen_level = 0
    scene.click(LARGE)
    np.testing.assert_array_equal(scene.session.record.pending[PLANE].mask, PHANTOM.labels[2] == 1)
    assert scene.read_levels() == {0}


def test_a_correction_goes_on_at_the_scale_of_the_answer(scene):
    scene.click(LARGE, scale=8)
    scene.session.show(PLANE, seen_at(1))
    scene.session.set_marks(Marks([(0, *LARGE), (0, 2, 250, 400)], [True, True]))
    scene.desk.settle()
    assert scene.session.record.scale == 8
    answers = [e for e in scene.session.journal.events() if e["event"] == "answer"]
    assert [(e["scale"], e["follows"]) for e in answers] == [(8, None), (8, [1, 0])]


def test_what_is_shown_is_encoded_once_a_plane_and_scale(scene):
    predictor = scene.desk.backend.predictor
    scene.session.show(PLANE, seen_at(8))
    scene.desk.settle()
    assert scene.session.encoded == {PLANE}
    whole = predictor.n_encodes
    assert whole < 4
    scene.click(LARGE, scale=8)
    assert predictor.n_encodes == whole
    scene.session.show(PLANE, seen_at(4))
    assert scene.session.encoded == set()
    scene.desk.settle()
    assert scene.session.encoded == {PLANE}
    finer = predictor.n_encodes
    assert finer > whole
    for scale in (8, 4, 8):
        scene.session.show(PLANE, seen_at(scale))
        scene.desk.settle()
    assert predictor.n_encodes == finer
    assert scene.read_levels() == {3, 2}


def test_of_a_large_plane_only_what_is_seen_is_encoded(scene):
    """A window of 100 x 100 pixels meets four tiles at most; what it meets of the neighbours waits for idle time."""
    predictor = scene.desk.backend.predictor
    scene.session.state.idle_reach = 1
    scene.session.show(PLANE, Shown(1, (200, 200, 250, 250)))
    scene.desk.settle()
    first = predictor.n_encodes
    assert 0 < first <= 3 * 4
    assert scene.session.encoded == {PLANE.at(1), PLANE, PLANE.at(3)}
    scene.session.show(PLANE, Shown(1, (201, 201, 251, 251)))
    scene.desk.settle()
    assert predictor.n_encodes == first
    assert len(scene.session.encoded) == 3, "the same tiles"
    scene.session.show(PLANE, Shown(1, (400, 500, 450, 550)))
    scene.desk.settle()
    assert first < predictor.n_encodes <= 2 * first
    assert len(scene.session.encoded) == 3
    scene.session.encode_all()
    scene.desk.settle()
    assert len(scene.session.encoded) == SHAPE[0]


def test_a_plane_that_fits_the_model_is_never_shrunk(tmp_path):
    desk = Desk(tmp_path, ScalingBackend())
    desk.open(np.zeros((3, 70, 80), np.uint8))
    desk.session.show(PlaneRef(0, 1), seen_at(16))
    desk.settle()
    assert desk.session.sight == Sight(1, is_fixed=False)
    assert desk.session.encoded == {PlaneRef(0, 1)}
    assert desk.session.close(timeout=20)


def test_a_large_plane_of_one_level_is_encoded_as_it_is_shown(tmp_path):
    desk = Desk(tmp_path, ScalingBackend())
    desk.open(PHANTOM.image)
    desk.session.show(PLANE, seen_at(8))
    desk.settle()
    assert desk.backend.predictor.n_encodes < 4
    desk.session.set_marks(Marks([(0, *LARGE)], [True]))
    desk.settle()
    assert iou(desk.session.record.pending[PLANE].mask, PHANTOM.labels[2] == 1) > 0.95
    assert desk.session.close(timeout=20)


def test_propagation_keeps_the_scale_of_its_object_and_replays_identically(tmp_path, path):
    scene = Scene(tmp_path / "one", path).open()
    scene.click(LARGE, scale=8)
    scene.session.show(PLANE, seen_at(1))
    scene.desk.settle()
    scene.volume.reset()
    scene.session.propagate()
    scene.desk.settle()
    assert scene.read_levels() == {3}
    for z in range(SHAPE[0]):
        assert iou(scene.labels()[z] == 1, PHANTOM.labels[z] == 1) > 0.9
    scene.session.next_object()
    scene.click(SMALL, scale=1)
    scene.session.commit()
    scene.session.undo()
    scene.session.redo()
    scene.desk.settle()
    labels = scene.labels()
    scene.close()
    backend = ScalingBackend()
    again = replay(tmp_path / "one", CountingVolume(open_volume(path)), backend, tmp_path / "again")
    assert again.is_identical
    assert backend.predictor.n_predictions > 0
    np.testing.assert_array_equal(open_labels(tmp_path / "again" / "labels.zarr")[:], labels)
    report = json.loads((tmp_path / "again" / "session.json").read_text())
    assert [(one["id"], one["scale"]) for one in report["objects"]] == [(1, 8), (2, 1)]
    assert report["settings"]["seen_level"] is None


class CloserBackend(ScalingBackend):
    """A model that looks at small objects enlarged."""

    def __init__(self):
        super().__init__()
        self.predictor.looks_closer = True


def test_what_was_looked_at_enlarged_is_corrected_carried_and_replayed_so(tmp_path):
    tiny = ball_volume((4, 96, 128), [(2, 30, 40), (2, 60, 100)], [1.6, 14.0])
    scene = Scene(tmp_path / "one", tiny.image, CloserBackend()).open()
    scene.click((2, 30, 40))
    assert scene.session.record.scale == 0.5
    np.testing.assert_array_equal(scene.session.record.pending[PLANE].mask, tiny.labels[2] == 1)
    scene.session.set_marks(Marks([(0, 2, 30, 40), (0, 2, 60, 100)], [True, False]))
    scene.desk.settle()
    answers = [e for e in scene.session.journal.events() if e["event"] == "answer"]
    assert [one["scale"] for one in answers] == [0.5, 0.5]
    scene.session.propagate()
    scene.desk.settle()
    assert not scene.desk.errors
    np.testing.assert_array_equal(scene.labels(), tiny.labels == 1)
    labels = scene.labels()
    scene.close()
    again = replay(tmp_path / "one", open_volume(tiny.image), CloserBackend(), tmp_path / "again")
    assert again.is_identical
    np.testing.assert_array_equal(open_labels(tmp_path / "again" / "labels.zarr")[:], labels)


def test_a_session_that_goes_on_asks_at_the_same_scale(tmp_path, path):
    scene = Scene(tmp_path / "one", path).open()
    scene.click(LARGE, scale=8)
    pending = scene.session.record.pending[PLANE]
    scene.close()
    other = Scene(tmp_path / "two", path)
    other.session.reopen(tmp_path / "one", other.volume)
    other.desk.settle()
    other.session.show(PLANE, seen_at(1))
    other.desk.settle()
    assert other.session.record.scale == 8
    np.testing.assert_array_equal(other.session.record.pending[PLANE].mask, pending.mask)
    other.session.propagate()
    other.desk.settle()
    assert not other.desk.errors
    assert {r.level for r in other.volume.reads if r.index != PLANE.index} == {3}
    other.close()


def test_objects_carried_together_are_looked_at_as_the_smallest_asks(tmp_path, path):
    scene = Scene(tmp_path / "one", path).open()
    scene.click(LARGE, scale=8)
    scene.session.next_object()
    scene.click(SMALL, scale=1)
    scene.session.commit()
    scene.desk.settle()
    scene.session.state.direction = Direction.FORWARD
    scene.volume.reset()
    scene.session.propagate_objects([1, 2])
    scene.desk.settle()
    assert not scene.desk.errors
    assert {r.level for r in scene.volume.reads if r.index != PLANE.index} == {1}
    assert iou(scene.labels()[3] == 1, PHANTOM.labels[3] == 1) > 0.9
    scene.close()


def test_refining_looks_as_the_object_asks(tmp_path, path):
    scene = Scene(tmp_path / "one", path).open()
    scene.click(LARGE, scale=8)
    scene.session.propagate()
    scene.desk.settle()
    scene.volume.reset()
    scene.session.editing.refine(1)
    scene.session.editing.agree_along_axes(1)
    scene.desk.settle()
    assert not scene.desk.errors
    assert {r.level for r in scene.volume.reads if r.axis == 0} <= {3}
    scene.close()


def older(folder):
    """Make a session what it would have been before there were scales."""
    records = [record for _, record in read_journal(folder / FILE_NAME)]
    kept = [r for r in records if (r["event"], r.get("name")) != ("setting", "seen_level")]
    for number, record in enumerate(kept):
        record["n"] = number
        record.pop("scale", None)
        if record.get("request"):
            record["request"].pop("sight", None)
    (folder / FILE_NAME).write_bytes(b"".join(map(pack_line, kept)))


@pytest.mark.parametrize("level", [0, 1])
def test_a_session_from_before_there_were_scales_opens_and_replays(tmp_path, path, level):
    """Its labels may be of a coarser level; they stay so."""
    scene = Scene(tmp_path / "one", path)
    scene.session.state.level = level
    scene.session.state.seen_level = level
    scene.open()
    plane = PlaneRef(0, 2, level)
    scene.session.show(plane)
    scene.session.set_marks(Marks([(0, *LARGE)], [True]))
    scene.desk.settle()
    scene.session.propagate()
    scene.desk.settle()
    labels = scene.labels()
    assert scene.read_levels() == {level}
    assert labels.shape == (4, 512 >> level, 640 >> level)
    assert iou(labels == 1, PHANTOM.labels[:, :: 1 + level, :: 1 + level] == 1) > 0.9
    scene.close()
    older(tmp_path / "one")
    result = replay(tmp_path / "one", open_volume(path), ScalingBackend())
    assert result.is_identical
    other = Scene(tmp_path / "two", path)
    other.session.reopen(tmp_path / "one", other.volume)
    other.desk.settle()
    assert not other.desk.errors
    assert (other.session.state.level, other.session.state.seen_level) == (level, None)
    np.testing.assert_array_equal(other.labels(), labels)
    other.session.next_object()
    other.session.show(plane, seen_at(4))
    other.session.set_marks(Marks([(0, *LARGE)], [True]))
    other.desk.settle()
    assert other.session.record.pending[plane].plane_shape == labels.shape[1:]
    assert other.session.record.scale == 4
    other.close()


@pytest.mark.slow
def test_the_real_model_outlines_a_large_disc_smoothly_from_afar(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAM_CACHE", str(tmp_path / "cache"))
    phantom = discs_plane((2048, 2048), [(1000, 900)], 160.0)
    path = write_pyramid(tmp_path / "disc.ome.zarr", phantom.image[None], 3)
    scene = Scene(tmp_path / "one", path, SamBackend()).open()
    plane = PlaneRef(0, 0)
    corners = [(0, 0, y, x) for y, x in ((840, 740), (840, 1060), (1160, 1060), (1160, 740))]
    scene.session.show(plane, seen_at(4))
    scene.session.set_marks(Marks(shapes=(ShapeMark(ShapeKind.RECTANGLE, corners),)))
    scene.desk.settle()
    assert not scene.desk.errors
    assert scene.session.record.scale == 4
    assert scene.read_levels() == {2}
    mask = scene.session.record.pending[plane].mask
    assert iou(mask, phantom.labels == 1) > 0.9
    left = mask[950:1050].argmax(axis=1)
    assert np.abs(np.diff(left)).max() < 4, "the outline is no staircase of the level's pixels"
    scene.close()


def test_an_array_with_levels_is_seen_like_a_file(tmp_path):
    image = PHANTOM.image
    levels = [image[:, ::f, ::f] for f in (2, 4)]
    desk = Desk(tmp_path, ScalingBackend())
    desk.session.use_volume(ArrayVolume(image, levels=levels))
    desk.settle()
    desk.session.show(PLANE, seen_at(4))
    desk.session.set_marks(Marks([(0, *LARGE)], [True]))
    desk.settle()
    assert iou(desk.session.record.pending[PLANE].mask, PHANTOM.labels[2] == 1) > 0.95
    assert desk.session.close(timeout=20)
