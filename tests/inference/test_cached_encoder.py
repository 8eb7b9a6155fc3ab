"""Embeddings of a volume's planes, cached."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from napari_sam.core.contrast import Contrast
from napari_sam.core.models import InputRecipe, ModelSpec
from napari_sam.core.planes import PlaneRef
from napari_sam.core.prompts import PromptSet
from napari_sam.embedding import MemoryStore, TieredStore, ZarrStore, default_store
from napari_sam.errors import CacheWarning
from napari_sam.inference.device import choose_runtime
from napari_sam.inference.encode import CachedEncoder
from napari_sam.inference.precompute import precompute
from napari_sam.inference.predict import predict_plane
from napari_sam.inference.predictor import SamPredictor
from napari_sam.model.checkpoints import load_sam
from napari_sam.testing.fakes import ArrayVolume, CountingVolume, FakePredictor, FakeStore


def stack(depth=5, side=20, seed=0):
    return np.random.default_rng(seed).integers(0, 4000, (depth, side, side), np.uint16)


@pytest.fixture
def volume():
    return CountingVolume(ArrayVolume(stack()))


def test_a_plane_is_encoded_once(volume):
    predictor, store = FakePredictor(), FakeStore()
    encoder = CachedEncoder(volume, predictor, store)
    plane = PlaneRef(0, 2)
    assert not encoder.is_cached(plane)
    first = encoder.embedding(plane)
    assert encoder.is_cached(plane)
    assert predictor.n_encodes == 1
    again = CachedEncoder(volume, predictor, store).embedding(plane)
    assert predictor.n_encodes == 1
    np.testing.assert_array_equal(first.array, again.array)
    assert first.array.dtype == np.float16
    assert len(store.records) == 1


def test_the_first_mask_costs_one_encode_and_few_reads():
    volume = CountingVolume(ArrayVolume(np.zeros((2000, 8, 8), np.uint8)))
    predictor = FakePredictor()
    encoder = CachedEncoder(volume, predictor)
    predict_plane(encoder, PlaneRef(0, 1000), [PromptSet([(3, 3)])])
    assert predictor.n_encodes == 1
    assert volume.n_reads <= 8
    volume.reset()
    predict_plane(encoder, PlaneRef(0, 1000), [PromptSet([(3, 3)]), PromptSet([(5, 5)])])
    assert volume.n_reads == 0
    assert predictor.n_encodes == 1


@pytest.mark.parametrize("change", ["pixels", "contrast", "model", "plane", "axis"])
def test_whatever_changes_the_embedding_changes_the_key(change):
    store, predictor = FakeStore(), FakePredictor()
    contrast = Contrast((0,), (4000,))
    array = stack(20, 20)
    CachedEncoder(ArrayVolume(array), predictor, store, contrast).embedding(PlaneRef(0, 2))
    plane = PlaneRef(0, 2)
    if change == "pixels":
        array[2, 3, 4] ^= 1
    elif change == "contrast":
        contrast = Contrast((0,), (3999,))
    elif change == "model":
        predictor = FakePredictor(digest="other")
    else:
        plane = PlaneRef(0, 3) if change == "plane" else PlaneRef(1, 2)
    CachedEncoder(ArrayVolume(array), predictor, store, contrast).embedding(plane)
    assert len(store.records) == 2


@pytest.mark.parametrize("recipe", InputRecipe)
def test_a_plane_is_prepared_as_an_image_that_stands_alone(model_path, monkeypatch, recipe):
    """What the network is given; of the 8 bit image a few grey values are used, and one pixel is hot."""
    predictor = SamPredictor(load_sam(model_path), ModelSpec(), choose_runtime("cpu", "float32"), recipe)
    inputs = []
    monkeypatch.setattr(predictor._sam, "encode", lambda x: inputs.append(x) or torch.zeros(len(x), 32, 8, 8))
    image = np.random.default_rng(0).integers(30, 120, (50, 60), np.uint8)
    image[3, 4] = 250
    predictor.encode(image)
    CachedEncoder(ArrayVolume(image[None]), predictor).embedding(PlaneRef(0, 0))
    assert torch.equal(*inputs)


def test_a_recipe_has_embeddings_of_its_own(model_path):
    store, image = FakeStore(), stack(1)
    for recipe in InputRecipe:
        predictor = SamPredictor(load_sam(model_path), ModelSpec(), choose_runtime("cpu", "float32"), recipe)
        CachedEncoder(ArrayVolume(image), predictor, store).embedding(PlaneRef(0, 0))
    assert len(store.records) == len(InputRecipe)


def test_equal_pixels_elsewhere_are_found():
    store, predictor = FakeStore(), FakePredictor()
    array = stack()
    contrast = Contrast((0,), (4000,))
    CachedEncoder(ArrayVolume(array), predictor, store, contrast).embedding(PlaneRef(0, 2))
    CachedEncoder(ArrayVolume(array[2:]), predictor, store, contrast).embedding(PlaneRef(0, 0))
    assert predictor.n_encodes == 1


def test_an_embedding_is_kept_under_the_pixels_it_was_made_of():
    array, predictor, store = stack(), FakePredictor(), FakeStore()
    before, contrast = array.copy(), Contrast((0,), (4000,))
    encoder = CachedEncoder(ArrayVolume(array), predictor, store, contrast)
    assert not encoder.is_cached(PlaneRef(0, 0))
    array[0] = 0
    encoder.embedding(PlaneRef(0, 0))
    other = CachedEncoder(ArrayVolume(before), predictor, store, contrast)
    assert not other.is_cached(PlaneRef(0, 0))


def test_forgetting_pixels_after_a_change():
    array, predictor = stack(), FakePredictor()
    encoder = CachedEncoder(ArrayVolume(array), predictor, FakeStore(), Contrast((0,), (4000,)))
    encoder.embedding(PlaneRef(0, 0))
    array[0] = 0
    encoder.forget_pixels()
    encoder.embedding(PlaneRef(0, 0))
    assert predictor.n_encodes == 2


def test_a_damaged_record_is_computed_again_with_a_warning(volume, tmp_path):
    store, predictor = ZarrStore(tmp_path / "s.zarr"), FakePredictor()
    first = CachedEncoder(volume, predictor, store).embedding(PlaneRef(0, 1))
    (record,) = store.records()
    (record / "c" / "0" / "0" / "0").write_bytes(b"short")
    with pytest.warns(CacheWarning, match="computed again"):
        again = CachedEncoder(volume, predictor, store).embedding(PlaneRef(0, 1))
    assert predictor.n_encodes == 2
    np.testing.assert_array_equal(first.array, again.array)
    CachedEncoder(volume, predictor, store).embedding(PlaneRef(0, 1))
    assert predictor.n_encodes == 2


def test_precompute_tells_and_resumes(volume):
    predictor, store = FakePredictor(), FakeStore()
    planes = [PlaneRef(0, i) for i in range(5)]
    events = precompute(CachedEncoder(volume, predictor, store), planes)
    first = [next(events), next(events)]
    events.close()
    assert [(e.plane.index, e.from_cache, e.done, e.total) for e in first] == [
        (0, False, 1, 5),
        (1, False, 2, 5),
    ]
    rest = list(precompute(CachedEncoder(volume, predictor, store), planes))
    assert [e.from_cache for e in rest] == [True, True, False, False, False]
    assert predictor.n_encodes == 5


def test_batches_where_the_model_takes_them(predictor, monkeypatch):
    sizes = []
    plain = predictor.encode_tiles
    monkeypatch.setattr(predictor, "encode_tiles", lambda images: sizes.append(len(images)) or plain(images))
    monkeypatch.setattr(predictor._stepper, "batch_size", 3)
    list(precompute(CachedEncoder(ArrayVolume(stack()), predictor), [PlaneRef(0, i) for i in range(5)]))
    assert sizes == [3, 2]


def test_a_real_model_gives_the_same_from_the_cache(predictor, tmp_path):
    volume = ArrayVolume(stack(3, 50))
    store = default_store(tmp_path)
    prompts = [PromptSet([(20, 20)]), PromptSet(box_yxyx=(5, 5, 30, 30))]
    fresh = predict_plane(CachedEncoder(volume, predictor, store), PlaneRef(0, 1), prompts)
    kept = predict_plane(CachedEncoder(volume, predictor, default_store(tmp_path)), PlaneRef(0, 1), prompts)
    for one, other in zip(fresh, kept):
        np.testing.assert_array_equal(one.mask, other.mask)
        np.testing.assert_array_equal(one.low_res_logits, other.low_res_logits)


def test_only_needed_tiles_of_a_large_plane(predictor):
    volume = ArrayVolume(stack(2, 200))
    encoder = CachedEncoder(volume, predictor, FakeStore())
    embedding = encoder.embedding(PlaneRef(0, 0), [PromptSet([(20, 20)])])
    assert [tile.box_yxyx for tile in embedding.tiles] == [(0, 0, 64, 64), (0, 0, 200, 200)]
    assert not encoder.is_cached(PlaneRef(0, 0))
    whole = encoder.embedding(PlaneRef(0, 0))
    assert len(whole.tiles) == 17
    assert encoder.is_cached(PlaneRef(0, 0))
    assert len(encoder.store.records) == 17


def test_of_a_very_large_plane_one_tile_is_enough(predictor):
    encoder = CachedEncoder(ArrayVolume(stack(2, 300)), predictor, FakeStore())
    embedding = encoder.embedding(PlaneRef(0, 0), [PromptSet([(20, 20)])])
    assert [tile.box_yxyx for tile in embedding.tiles] == [(0, 0, 64, 64)]


def test_a_large_plane_is_encoded_tile_by_tile(predictor):
    volume = CountingVolume(ArrayVolume(stack(2, 200)))
    encoder, plane = CachedEncoder(volume, predictor, FakeStore()), PlaneRef(0, 0)
    steps = encoder.encode_steps(plane)
    next(steps)
    encoder.embedding(plane, [PromptSet([(180, 180)])])  # somebody else has a turn
    assert [len(encoder.store.records) for _ in steps] == list(range(3, 18))
    assert encoder.is_cached(plane)
    assert list(encoder.encode_steps(plane)) == []
    whole = CachedEncoder(volume, predictor, FakeStore()).embedding(plane)
    for one, other in zip(encoder.embedding(plane).tiles, whole.tiles, strict=True):
        np.testing.assert_array_equal(one.array, other.array)


def test_memory_that_is_too_small_still_works(volume):
    encoder = CachedEncoder(volume, FakePredictor(), TieredStore(MemoryStore(10), MemoryStore(10)))
    assert encoder.embedding(PlaneRef(0, 0)).array.shape == (1, 20, 20)


def test_encoding_through_the_cache_needs_no_torch():
    code = "import sys, napari_sam.inference.encode, napari_sam.inference.predict; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
