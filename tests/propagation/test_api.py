"""`napari_sam.propagate`, the public door."""

import numpy as np
import pytest
import zarr

import napari_sam as ns
from napari_sam.embedding import cache_info
from napari_sam.errors import PromptError, VolumeError
from napari_sam.propagation import PropagationSettings
from napari_sam.testing.fakes import ArrayVolume, CountingVolume, FakePredictor, FakeStore
from napari_sam.testing.phantoms import Look, ball_volume, drifting_disc_volume

EXACT = PropagationSettings(min_iou=None, max_area_change=None)


@pytest.fixture
def phantom():
    return ball_volume((20, 40, 48), look=Look(noise=5))  # every plane differs, equal planes share a record


@pytest.fixture
def seeds():
    return {10: ns.PromptSet(points_yx=[(20, 24)], positive=[True])}


def found(steps, shape):
    labels = np.zeros(shape, np.uint16)
    for step in steps:
        labels[step.plane_index][step.mask] = step.object_id
    return labels


@pytest.mark.parametrize("kind", ["array", "path", "volume", "fake"])
def test_takes_any_volume(phantom, seeds, tmp_path, kind):
    path = tmp_path / "image.zarr"
    zarr.save_array(str(path), phantom.image)
    volume = {
        "array": phantom.image,
        "path": str(path),
        "volume": ns.open_volume(phantom.image, axes="ZYX"),
        "fake": ArrayVolume(phantom.image),
    }[kind]
    steps = ns.propagate(volume, FakePredictor(), seeds=seeds, axis=0, settings=EXACT)
    np.testing.assert_array_equal(found(steps, phantom.labels.shape), phantom.labels)


def test_embeddings_are_kept_for_the_next_time(phantom, seeds):
    predictor, store = FakePredictor(), FakeStore()
    for _ in range(2):
        steps = list(ns.propagate(phantom.image, predictor, seeds, settings=EXACT, store=store, object_id=4))
        assert {step.object_id for step in steps} == {4}
    assert predictor.n_encodes == len(steps)


def test_default_store_is_the_users_cache(phantom, seeds):
    steps = list(ns.propagate(phantom.image, FakePredictor(), seeds, settings=EXACT))
    assert cache_info().n_records == len(steps)


def test_first_mask_of_a_deep_volume_costs_one_plane(seeds):
    volume = CountingVolume(ArrayVolume(np.broadcast_to(ball_volume((20, 40, 48)).image[10], (2000, 40, 48))))
    predictor = FakePredictor()
    steps = ns.propagate(volume, predictor, seeds, store=FakeStore())
    before = volume.n_reads
    first = next(steps)
    steps.close()
    assert first.is_seed
    assert predictor.n_encodes == 1
    assert volume.n_reads - before <= 8, "contrast is estimated from a few planes, the rest stays unread"


def test_errors_come_at_the_call(phantom, tmp_path):
    with pytest.raises(PromptError, match="no seed"):
        ns.propagate(phantom.image, FakePredictor(), {})
    with pytest.raises(VolumeError):
        ns.propagate(tmp_path / "none.zarr", FakePredictor(), {0: ns.PromptSet(points_yx=[(1, 1)])})


def test_objects_are_tracked_through_time():
    drift = drifting_disc_volume((6, 64, 96))
    series = np.stack([np.zeros_like(drift.image), drift.image], axis=1)  # T Z Y X, the disc in plane 1
    volume = ns.open_volume(series, axes="TZYX:T")
    seeds = {2: ns.PromptSet(points_yx=[(30, 30)], positive=[True])}
    steps = ns.propagate(volume, FakePredictor(), seeds, settings=EXACT, time=1)
    np.testing.assert_array_equal(found(steps, drift.labels.shape), drift.labels)
