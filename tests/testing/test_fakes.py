"""The fakes do exactly what they say."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from napari_sam.core.planes import PlaneRef
from napari_sam.core.prompts import PromptSet
from napari_sam.core.protocols import EmbeddingStore, PlaneEncoder, Predictor, VolumeLike
from napari_sam.core.results import ImageEmbedding, TileEmbedding
from napari_sam.errors import PromptError, VolumeError
from napari_sam.testing.conformance import StoreConformance
from napari_sam.testing.fakes import ArrayVolume, CountingVolume, FakeEncoder, FakePredictor, FakeStore
from napari_sam.testing.phantoms import ball_volume, discs_plane


class TestFakeStore(StoreConformance):
    @pytest.fixture
    def store(self) -> EmbeddingStore:
        return FakeStore()


@pytest.fixture
def plane():
    return discs_plane()


@pytest.fixture
def predictor() -> FakePredictor:
    return FakePredictor()


def test_the_fakes_fit_their_protocols(plane) -> None:
    predictor: Predictor = FakePredictor()
    volume: VolumeLike = CountingVolume(ArrayVolume(plane.image))
    encoder: PlaneEncoder = FakeEncoder(volume, predictor)
    assert isinstance(volume, VolumeLike)
    assert isinstance(ArrayVolume(plane.image), VolumeLike)
    assert encoder.volume is volume


def test_the_embedding_is_the_image(plane, predictor) -> None:
    tile = predictor.encode(plane.image).tiles[0]
    assert tile.array.shape == (1, 96, 128)
    np.testing.assert_array_equal(tile.array[0], plane.image)
    coloured = predictor.encode(np.stack([plane.image] * 3, axis=2))
    np.testing.assert_array_equal(coloured.array[0], plane.image)


def test_a_click_takes_the_disc_under_it(plane, predictor) -> None:
    prediction = predictor.predict(predictor.encode(plane.image), PromptSet([(30, 32)]))
    np.testing.assert_array_equal(prediction.mask, plane.labels == 1)
    assert prediction.predicted_iou == 0.95
    assert len(prediction.candidates) == 3
    areas = [c.region.area for c in prediction.candidates]
    assert areas[1] < areas[0] < areas[2]


def test_a_click_beside_the_discs_gives_an_empty_mask(plane, predictor) -> None:
    prediction = predictor.predict(predictor.encode(plane.image), PromptSet([(5, 5)]))
    assert not prediction.mask.any()
    assert prediction.predicted_iou == 0.0


@pytest.mark.parametrize("kind", ["box", "mask", "logits", "points"])
def test_every_other_prompt_finds_its_disc(plane, predictor, kind) -> None:
    truth = plane.labels == 2
    near = np.roll(truth, 5, axis=1)
    prompts = {
        "box": PromptSet(box_yxyx=(50, 80, 75, 100)),
        "mask": PromptSet(mask=near),
        "logits": PromptSet(low_res_logits=np.where(near, 1, -1)),
        "points": PromptSet([(30, 32), (62, 90)], [False, True]),
    }[kind]
    (prediction,) = predictor.predict_many(predictor.encode(plane.image), [prompts])
    np.testing.assert_array_equal(prediction.mask, truth)
    assert len(prediction.candidates) == 1


def test_a_negative_point_takes_its_disc_away(plane, predictor) -> None:
    prompts = PromptSet([(30, 32), (30, 34)], [True, False])
    assert not predictor.predict(predictor.encode(plane.image), prompts).mask.any()


def test_points_outside_and_foreign_embeddings_are_refused(plane, predictor) -> None:
    with pytest.raises(PromptError, match="outside"):
        predictor.predict(predictor.encode(plane.image), PromptSet([(96, 3)]))
    with pytest.raises(ValueError, match="encode again"):
        predictor.predict(FakePredictor(digest="other").encode(plane.image), PromptSet([(30, 32)]))


def test_tiles_are_laid_back_into_the_plane(plane, predictor) -> None:
    grey = plane.image[None].astype(np.float32)
    boxes = [(0, 0, 96, 50), (0, 30, 96, 128)]
    tiles = tuple(TileEmbedding(grey[:, b[0] : b[2], b[1] : b[3]], b, (96, b[3] - b[1])) for b in boxes)
    prediction = predictor.predict(ImageEmbedding((96, 128), tiles, "fake"), PromptSet([(30, 32)]))
    np.testing.assert_array_equal(prediction.mask, plane.labels == 1)


def test_counters_are_exact_under_threads(plane, predictor) -> None:
    embedding = predictor.encode(plane.image)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: predictor.predict_many(embedding, [PromptSet([(30, 32)])] * 2), range(40)))
    assert (predictor.n_encodes, predictor.n_predictions, predictor.n_batches) == (1, 80, 40)
    predictor.reset_counts()
    assert (predictor.n_encodes, predictor.n_predictions, predictor.n_batches) == (0, 0, 0)


def test_delays_and_errors_are_settable(plane, predictor) -> None:
    embedding = predictor.encode(plane.image)
    predictor.delay_s = 0.05
    assert predictor.encode_delay_s == predictor.predict_delay_s == predictor.delay_s == 0.05
    start = time.perf_counter()
    predictor.predict(embedding, PromptSet([(30, 32)]))
    assert time.perf_counter() - start >= 0.05
    predictor.error = MemoryError("full")
    with pytest.raises(MemoryError):
        predictor.encode(plane.image)
    predictor.encode(plane.image)


def test_planes_along_every_axis_and_level() -> None:
    image = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    volume = ArrayVolume(
        image.transpose(4, 0, 2, 3, 1), "CTYXZ", levels=[image[:, :, ::2, ::2].transpose(4, 0, 2, 3, 1)]
    )
    assert (volume.n_time, volume.n_channels, volume.n_levels) == (2, 6, 2)
    assert volume.shape_zyx() == (3, 4, 5)
    assert [volume.plane_shape(axis) for axis in range(3)] == [(4, 5), (3, 5), (3, 4)]
    np.testing.assert_array_equal(volume.read_plane(PlaneRef(1, 3, 0, 1)), image[1, :, 3])
    np.testing.assert_array_equal(volume.read_plane(PlaneRef(0, 2, 1, 0)), image[0, 2, ::2, ::2])


@pytest.mark.parametrize("plane", [PlaneRef(0, 3), PlaneRef(0, 0, 1), PlaneRef(0, 0, 0, 1)])
def test_planes_outside_the_volume_are_refused(plane) -> None:
    with pytest.raises(VolumeError, match="outside"):
        ArrayVolume(np.zeros((3, 4, 5))).read_plane(plane)


@pytest.mark.parametrize("axes", ["ZY", "ZYXC", "ZYY", "ABC"])
def test_axes_that_do_not_fit_are_refused(axes) -> None:
    with pytest.raises(VolumeError, match="axes"):
        ArrayVolume(np.zeros((3, 4, 5)), axes)


def test_reads_are_counted() -> None:
    volume = CountingVolume(ArrayVolume(ball_volume().image))
    encoder = FakeEncoder(volume, FakePredictor())
    assert volume.n_reads == 0
    for _ in range(2):
        encoder.embedding(PlaneRef(0, 12))
    encoder.embedding(PlaneRef(2, 40))
    assert volume.reads == [PlaneRef(0, 12), PlaneRef(2, 40)]
    assert encoder.is_cached(PlaneRef(0, 12))
    volume.reset()
    assert volume.n_reads == 0
