"""One mask over several tiles, with the network replaced by a threshold."""

import numpy as np
import pytest

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.prompts import PromptSet
from napari_sam.inference import joining
from napari_sam.inference.decoding import answer_plane
from napari_sam.inference.joining import Blend, Grid, TileLogits, open_ends
from napari_sam.inference.predict import predict_plane
from napari_sam.inference.tiles import plan_tiles, tiles_for
from napari_sam.testing.fakes import ArrayVolume

SHAPE = (150, 160)
WIDE = (150, 280)
"""So large that its overview shows nothing but what fits no tile."""


def disc(cy, cx, radius, shape=SHAPE):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (y - cy) ** 2 + (x - cx) ** 2 <= radius**2


def iou(a, b):
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def test_an_object_over_four_tiles_gives_one_mask(threshold_net):
    boxes = plan_tiles(WIDE, 64)
    truth = disc(56, 56, 20, WIDE)
    image = truth | disc(120, 120, 10, WIDE)
    assert sum(bool(truth[y0:y1, x0:x1].any()) for y0, x0, y1, x1 in boxes) >= 4
    (answer,) = answer_plane(threshold_net, threshold_net.embed(image), [PromptSet([(44, 44)])])
    assert iou(answer.mask, truth) > 0.9
    assert not answer.mask[110:130, 110:130].any()
    assert len(answer.candidates) == 3


def test_no_seam_where_tiles_meet(threshold_net):
    truth = np.zeros(SHAPE, bool)
    truth[70:90, 4:156] = True
    (answer,) = answer_plane(threshold_net, threshold_net.embed(truth), [PromptSet([(80, 20)])])
    rows = answer.mask[80, 6:154]
    assert rows.all()
    edges = np.diff(answer.mask[:, 10:150].astype(int), axis=0).nonzero()[0].reshape(2, -1)
    assert np.ptp(edges, axis=1).max() <= 1


def test_another_object_beyond_the_border_is_left_alone(threshold_net):
    boxes = plan_tiles(SHAPE, 64)
    border = boxes[0][3]
    truth = disc(30, border - 16, 12)
    image = truth | disc(30, border + 14, 10)
    (answer,) = answer_plane(threshold_net, threshold_net.embed(image), [PromptSet([(30, border - 20)])])
    assert iou(answer.mask, truth) > 0.85
    assert not answer.mask[:, border + 5 :].any()


def test_a_box_larger_than_a_tile_uses_the_overview(threshold_net):
    truth = disc(75, 80, 60)
    (answer,) = answer_plane(
        threshold_net, threshold_net.embed(truth), [PromptSet(box_yxyx=(14, 19, 136, 141))]
    )
    assert iou(answer.mask, truth) > 0.9
    assert threshold_net.calls == [1]


def test_a_large_object_is_looked_for_in_the_overview(threshold_net):
    truth = disc(75, 80, 40)
    image = truth | disc(20, 20, 8)
    embedding = threshold_net.embed(image)
    (large, small) = answer_plane(threshold_net, embedding, [PromptSet([(75, 80)]), PromptSet([(20, 20)])])
    assert iou(large.mask, truth) > 0.85
    assert iou(small.mask, disc(20, 20, 8)) > 0.8
    assert threshold_net.calls == [1, 1, 1]  # the overview each, and a tile for the small one
    threshold_net.calls.clear()
    more = PromptSet([(75, 80), (90, 80)], low_res_logits=large.low_res_logits)
    (again,) = answer_plane(threshold_net, embedding, [more])
    assert iou(again.mask, truth) > 0.85
    assert threshold_net.calls == [1]


def test_joined_logits_go_back_in(threshold_net):
    truth = disc(56, 56, 20, WIDE)
    embedding = threshold_net.embed(truth)
    (first,) = answer_plane(threshold_net, embedding, [PromptSet([(44, 44)])])
    assert first.low_res_logits.shape == (38, 70)
    (again,) = answer_plane(threshold_net, embedding, [PromptSet(low_res_logits=first.low_res_logits)])
    assert iou(again.mask, truth) > 0.9


def test_an_object_up_to_the_overlap_is_found_whole_in_its_tile(threshold_net):
    rng = np.random.default_rng(0)
    boxes = plan_tiles(SHAPE, 64)
    for _ in range(20):
        cy, cx = rng.integers(8, 140, 2)
        truth = disc(cy, cx, 6)
        needed = tiles_for([PromptSet([(cy, cx)])], boxes, SHAPE)
        embedding = threshold_net.embed(truth, needed)
        (answer,) = answer_plane(threshold_net, embedding, [PromptSet([(cy, cx)])])
        assert iou(answer.mask, truth) > 0.6
        assert len(open_ends(answer.region, needed)) == 0


class TileByTile:
    """A plane encoder that embeds for the threshold network and counts tiles."""

    def __init__(self, net, image):
        self.net, self.image, self.volume = net, image, ArrayVolume(image[None])
        self.predictor = self
        self.encoded = set()

    def embedding(self, plane, prompts=None):
        boxes = plan_tiles(self.image.shape, 64)
        needed = boxes if prompts is None else tiles_for(prompts, boxes, self.image.shape)
        self.encoded |= set(needed)
        return self.net.embed(self.image, needed)

    def predict_many(self, embedding, prompts):
        return answer_plane(self.net, embedding, prompts)


def test_only_tiles_that_the_object_reaches_are_encoded(threshold_net):
    truth = disc(56, 56, 20, WIDE)
    encoder = TileByTile(threshold_net, truth)
    (answer,) = predict_plane(encoder, PlaneRef(0, 0), [PromptSet([(44, 44)])])
    assert iou(answer.mask, truth) > 0.9
    assert 4 <= len(encoder.encoded) < len(plan_tiles(WIDE, 64))
    small = TileByTile(threshold_net, disc(20, 20, 8, WIDE))
    predict_plane(small, PlaneRef(0, 0), [PromptSet([(20, 20)])])
    assert len(small.encoded) == 1
    assert predict_plane(small, PlaneRef(0, 0), []) == []


def test_the_whole_plane_bright_ends(threshold_net):
    everything = np.ones(SHAPE, bool)
    (answer,) = answer_plane(threshold_net, threshold_net.embed(everything), [PromptSet([(75, 80)])])
    assert answer.mask.all()


@pytest.mark.parametrize("mask", [np.zeros(SHAPE, bool), disc(20, 20, 5)])
def test_closed_masks_have_no_open_ends(mask):
    assert len(open_ends(Region.from_mask(mask), [(0, 0, 64, 64)])) == 0


def test_a_mask_with_many_open_ends_is_closed_at_once(monkeypatch):
    """Where no tile is left, its ends are given up together; one by one they froze a large plane."""

    grid = Grid((400, 400), 1)
    boxes = [(0, 0, 100, 100), (300, 300, 400, 400)]
    blend = Blend(grid, boxes, 8)
    stripes = np.full((100, 100), -5.0, np.float32)
    stripes[::2] = 5
    stripes[:, 0] = 5
    calls, dilate = [], joining.ndimage.binary_dilation
    monkeypatch.setattr(
        joining.ndimage, "binary_dilation", lambda *a, **k: calls.append(1) or dilate(*a, **k)
    )
    joined = joining.follow(
        blend, TileLogits(stripes, boxes[0], (100.0, 100.0)), [], lambda *_: pytest.fail("no tile")
    )
    assert (joined[:100, :100] > 0).sum() > 4000
    assert len(calls) == 1
