"""Looking from several sides: nothing shifts, and only what is in doubt is looked at again."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_sam.core.planes import PlaneRef
from napari_sam.core.prompts import PromptSet
from napari_sam.core.results import TileEmbedding
from napari_sam.core.sides import AROUND, FRONT, Side
from napari_sam.inference.decode import TilePrompt, decode
from napari_sam.inference.encode import CachedEncoder
from napari_sam.inference.sides import box_from, map_from, map_to_front, points_from
from napari_sam.inference.sight import Sight, answers
from napari_sam.testing.fakes import ArrayVolume, FakePredictor, FakeStore
from napari_sam.testing.phantoms import discs_plane

SIDES = st.sampled_from(Side)
SIZES = st.integers(1, 12)


@given(SIDES, SIZES, SIZES, st.data())
def test_points_and_pixels_go_the_same_way(side, height, width, data):
    image = np.arange(height * width).reshape(height, width)
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    seen = side.of(image)
    assert seen.shape == side.shape_of(image.shape)
    ((there_x, there_y),) = points_from(side, np.array([[x, y]]), image.shape)
    assert seen[there_y, there_x] == image[y, x]
    x0, y0, x1, y1 = box_from(side, np.array([x - 0.5, y - 0.5, x + 0.5, y + 0.5]), image.shape)
    assert (x0, y0, x1, y1) == (there_x - 0.5, there_y - 0.5, there_x + 0.5, there_y + 0.5)


@given(SIDES, SIZES, SIZES)
def test_maps_are_turned_like_images_and_back(side, height, width):
    values = np.random.default_rng(height).normal(size=(height + 2, width + 1)).astype(np.float32)
    inside = values[:height, :width]
    there = map_from(side, values, (height, width))[: side.shape_of((height, width))[0]]
    if side:
        np.testing.assert_array_equal(there, side.of(inside))
    np.testing.assert_array_equal(map_to_front(side, there, (height, width))[:height, :width], inside)


@pytest.mark.parametrize("side", Side)
def test_a_cell_cut_by_the_edge_does_not_shift_a_map(side):
    ramp = np.add.outer(np.arange(12.0), 3 * np.arange(12.0)).astype(np.float32)
    cells = (7.5, 9.25)
    back = map_to_front(side, map_from(side, ramp, cells), cells)
    np.testing.assert_allclose(back[:7, 1:9], ramp[:7, 1:9], atol=1e-4)


class Drawing:
    """Stands in for a network: its masks are what the prompts say, so that they must agree from all sides."""

    config = SimpleNamespace(mask_size=32, image_size=64)
    prompt_encoder = SimpleNamespace(no_mask_embed=SimpleNamespace(weight=torch.zeros(1)))

    def decode(self, embedding, points=None, labels=None, boxes=None, masks=None):
        count = len(next(one for one in (points, boxes, masks) if one is not None))
        y, x = (
            2 * (g + 0.5) - 0.5 for g in torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
        )
        logits = torch.zeros(count, 4, 32, 32)
        if points is not None:
            for number, (at, sign) in enumerate(zip(points, labels, strict=True)):
                for (px, py), positive in zip(at, sign, strict=True):
                    logits[number] += (2 * positive - 1) * (20 - (x - px).abs() - 2 * (y - py).abs() * 0.5)
        if boxes is not None:
            x0, y0, x1, y1 = boxes.T[..., None, None]
            logits += (10.0 * ((x > x0) & (x < x1) & (y > y0) & (y < y1)))[:, None]
        if masks is not None:
            logits += masks
        return logits, embedding.mean() * torch.ones(count, 4)


def seen_from_all_sides(shape):
    front, *others = (
        TileEmbedding(np.full((1, 8, 8), value), (0, 0, *shape), side.shape_of(shape), side)
        for side, value in zip(AROUND, (0.3, 0.6, 0.9), strict=True)
    )
    return front, TileEmbedding(front.array, front.box_yxyx, shape, others=tuple(others))


@pytest.mark.parametrize("shape", [(64, 40), (30, 64), (64, 64)])
def test_the_answers_of_all_sides_lie_on_each_other(shape):
    front, around = seen_from_all_sides(shape)
    mask = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    prompts = [
        TilePrompt(np.array([[9.0, 20.0]]), np.array([1])),
        TilePrompt(np.array([[9.0, 20.0], [30.0, 5.0]]), np.array([1, 0])),
        TilePrompt(np.zeros((0, 2)), np.zeros(0), np.array([3.0, 4.0, 25.0, 17.0])),
        TilePrompt(np.array([[9.0, 20.0]]), np.array([1]), np.array([3.0, 4.0, 25.0, 17.0]), mask),
    ]
    rows, cols = shape[0] // 2, shape[1] // 2
    for one, mean in zip(decode(Drawing(), front, prompts), decode(Drawing(), around, prompts), strict=True):
        np.testing.assert_allclose(
            mean.low_res_logits[:, :rows, :cols], one.low_res_logits[:, :rows, :cols], atol=1e-4
        )
        np.testing.assert_allclose(mean.predicted_iou, 0.6, atol=1e-6)
        assert mean.tile is around


def test_each_side_is_encoded_once_and_kept():
    image = np.random.default_rng(0).integers(0, 255, (1, 20, 30)).astype(np.uint8)
    predictor, store = FakePredictor(tile_size=64), FakeStore()
    encoder, plane = CachedEncoder(ArrayVolume(image), predictor, store), PlaneRef(0, 0)
    (front,) = encoder.embedding(plane).tiles
    assert front.others == ()
    around = encoder.at(1, AROUND)
    assert not around.is_cached(plane)
    for _ in range(2):
        (tile,) = around.embedding(plane).tiles
    assert predictor.n_encodes == len(store.records) == 3
    np.testing.assert_array_equal(tile.array, front.array)
    assert [one.side for one in (tile, *tile.others)] == list(AROUND)
    assert [one.input_shape for one in tile.others] == [(20, 30), (30, 20)]
    for other in tile.others:
        np.testing.assert_array_equal(other.array[0], other.side.of(tile.array[0]))
    assert around.embedding(plane).nbytes == 3 * encoder.embedding(plane).nbytes
    assert around.is_cached(plane)
    assert around.at(1).sides == FRONT
    other_plane = CachedEncoder(ArrayVolume(image[:, ::-1]), predictor, store).at(1, AROUND)
    list(other_plane.encode_steps(plane))
    assert other_plane.is_cached(plane)
    assert predictor.n_encodes == 6


@pytest.mark.parametrize(("trust", "n_encodes"), [(0.95, 1), (0.5, 3)])
def test_only_doubtful_answers_are_asked_for_again(trust, n_encodes):
    phantom = discs_plane((60, 80), [(30, 40)], [12])
    predictor = FakePredictor(predicted_iou=trust)
    predictor.doubt = 0.9
    encoder = CachedEncoder(ArrayVolume(phantom.image[None]), predictor)
    click = PromptSet([(30, 40)])
    (found,) = answers(encoder, PlaneRef(0, 0), [click], [Sight()])
    np.testing.assert_array_equal(found.mask, phantom.labels == 1)
    assert predictor.n_encodes == n_encodes
    carried = PromptSet(mask=phantom.labels == 1)
    answers(encoder, PlaneRef(0, 0), [carried])
    assert predictor.n_encodes == n_encodes, "a mask from another plane is carried as it is"
