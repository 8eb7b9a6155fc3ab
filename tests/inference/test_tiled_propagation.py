"""An object is carried through planes that are cut into tiles, over their borders."""

import numpy as np
import pytest

from napari_sam.core.planes import PlaneRef
from napari_sam.core.prompts import PromptSet
from napari_sam.core.sides import FRONT
from napari_sam.inference.decoding import answer_plane
from napari_sam.inference.tiles import plan_tiles
from napari_sam.propagation import Carry, PropagationSettings, propagate_objects
from napari_sam.testing.fakes import ArrayVolume

SIDE, RADIUS, DEPTH = 64, 16, 31
PLANE = (170, 280)
"""Twelve tiles and more."""


def centre(z):
    """Where the object is: it wanders through the whole plane."""
    return 30 + 110 * z / (DEPTH - 1), 30 + 220 * z / (DEPTH - 1)


@pytest.fixture
def truth():
    y, x = np.ogrid[: PLANE[0], : PLANE[1]]
    return np.array([(y - cy) ** 2 + (x - cx) ** 2 <= RADIUS**2 for cy, cx in map(centre, range(DEPTH))])


class TiledEncoder:
    """Gives the tiles of a plane to a network that segments by threshold."""

    scale = 1

    def __init__(self, volume, net):
        self.volume, self._net, self.predictor = volume, net, TiledPredictor(net)

    def at(self, scale, sides=FRONT):
        return self

    def pixels(self, plane):
        return self.volume.read_plane(plane)

    def embedding(self, plane, prompts=None):
        return self._net.embed(self.volume.read_plane(plane) > 0)


class TiledPredictor:
    """Answers as the real one does, with that network; counts the tiles that each plane has."""

    digest = "threshold"

    def __init__(self, net):
        self._net = net
        self.n_tiles = []

    def predict_many(self, embedding, prompts):
        self.n_tiles.append(len(embedding.tiles))
        return answer_plane(self._net, embedding, list(prompts))

    def predict(self, embedding, prompts):
        return self.predict_many(embedding, [prompts])[0]


def iou(a, b):
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


@pytest.mark.parametrize("seed", [0, DEPTH // 2, DEPTH - 1])
def test_an_object_that_wanders_over_many_tiles_is_followed(threshold_net, truth, seed):
    volume, predictor = ArrayVolume(truth.astype(np.uint8)), TiledPredictor(threshold_net)
    boxes = plan_tiles(PLANE, SIDE)
    homes = {max(range(len(boxes)), key=lambda i: mask[_slices(boxes[i])].sum()) for mask in truth}
    cut = [z for z, mask in enumerate(truth) if max(mask[_slices(b)].sum() for b in boxes) < mask.sum()]
    assert len(homes) >= 5
    assert cut  # no single tile holds it there
    seeds = {1: {seed: PromptSet([tuple(np.round(centre(seed)))])}}
    settings = PropagationSettings(carry=(Carry.POINTS,), min_likeness=None)
    steps = list(propagate_objects(TiledEncoder(volume, threshold_net), predictor, seeds, settings=settings))
    found = {step.plane_index: step.mask for step in steps if step.region.area}
    assert sorted(found) == list(range(DEPTH))
    assert min(predictor.n_tiles) > 12
    for z, mask in found.items():
        assert iou(mask, truth[z]) > 0.8, f"plane {z}"


def test_another_axis_is_tiled_as_well(threshold_net, truth):
    turned = np.moveaxis(truth, 0, 1)
    volume, predictor = ArrayVolume(turned.astype(np.uint8)), TiledPredictor(threshold_net)
    assert volume.plane_shape(1) == PLANE
    seeds = {1: {3: PromptSet([tuple(np.round(centre(3)))])}}
    encoder = TiledEncoder(volume, threshold_net)
    steps = propagate_objects(
        encoder,
        predictor,
        seeds,
        axis=1,
        settings=PropagationSettings(carry=(Carry.POINTS,), min_likeness=None),
    )
    for step in steps:
        assert step.plane == PlaneRef(1, step.plane_index)
        assert iou(step.mask, truth[step.plane_index]) > 0.8


def _slices(box):
    return slice(box[0], box[2]), slice(box[1], box[3])
