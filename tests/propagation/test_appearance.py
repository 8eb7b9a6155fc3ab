"""An object ends where its mask no longer lies on what it looks like."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sam.core.planes import Region
from napari_sam.core.prompts import PromptSet
from napari_sam.core.results import (
    DoubtReason,
    ImageEmbedding,
    MaskCandidate,
    MaskPrediction,
    StopReason,
    TileEmbedding,
)
from napari_sam.errors import PromptError
from napari_sam.propagation import Carry, PropagationSettings, propagate_objects
from napari_sam.propagation.appearance import Change, Look, Reference, look_of
from napari_sam.testing.fakes import ArrayVolume, FakeEncoder, FakePredictor


def look(inside, around):
    return Look(np.array(inside, np.float32), np.array(around, np.float32))


def test_likeness_is_the_place_between_surroundings_and_object():
    reference = look([3, 1], [1, 1])
    assert reference.likeness(reference) == 1.0
    assert look([1, 5], [9, 9]).likeness(reference) == 0.0
    assert look([2, -7], [0, 0]).likeness(reference) == 0.5
    assert look([-1, 0], [0, 0]).likeness(reference) == -1.0


def test_nothing_can_be_said_of_an_object_that_looks_like_its_surroundings():
    assert look([5, 5], [0, 0]).likeness(look([2, 2], [2, 2])) == 1.0


def embedding_of(features, box, input_shape, plane_shape):
    return ImageEmbedding(plane_shape, (TileEmbedding(features, box, input_shape),), "test")


@given(st.integers(0, 20), st.integers(0, 30), st.integers(2, 20), st.integers(2, 20))
def test_features_are_taken_under_the_mask_and_beside_it(y, x, height, width):
    """A plane of 40 x 60 in a model of 64 pixels with cells of 4, so a third of the embedding is padding."""
    mask = np.zeros((40, 60), bool)
    mask[y : y + height, x : x + width] = True
    features = np.full((2, 16, 16), np.nan, np.float32)
    valid = features[:, :11, :16]
    centres = [(np.arange(n) + 0.5) * 4 / scale - 0.5 for n, scale in ((11, 43 / 40), (16, 64 / 60))]
    rows, cols = (np.clip(np.rint(c).astype(int), 0, s - 1) for c, s in zip(centres, mask.shape))
    valid[0], valid[1] = mask[np.ix_(rows, cols)], 7
    found = look_of(embedding_of(features, (0, 0, 40, 60), (43, 64), (40, 60)), Region.from_mask(mask))
    if mask[np.ix_(rows, cols)].any():
        assert found.inside.tolist() == [1, 7]
    assert found.around.tolist() == [0, 7]


def test_a_mask_smaller_than_a_cell_takes_the_nearest_cell():
    mask = np.zeros((40, 40), bool)
    mask[20, 12] = True
    features = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    found = look_of(embedding_of(features, (0, 0, 40, 40), (40, 40), (40, 40)), Region.from_mask(mask))
    assert found.inside.tolist() == [9]


def test_a_mask_that_fills_the_plane_has_no_surroundings():
    whole = embedding_of(np.ones((1, 4, 4), np.float32), (0, 0, 8, 8), (8, 8), (8, 8))
    assert look_of(whole, Region.from_mask(np.ones((8, 8), bool))) is None


def test_of_several_tiles_the_one_that_holds_the_mask_counts():
    tiles = tuple(
        TileEmbedding(np.full((1, 4, 4), value, np.float32), box, (16, 16))
        for value, box in ((1, (0, 0, 16, 16)), (2, (0, 12, 16, 28)))
    )
    mask = np.zeros((16, 28), bool)
    mask[6:10, 18:22] = True
    found = look_of(ImageEmbedding((16, 28), tiles, "test"), Region.from_mask(mask))
    assert found.inside.tolist() == [2]


SAME = Change(overlap=1.0)


def test_presence_holds_the_estimate_against_that_for_the_seed():
    """By hand: logit(0.5) = 0, so -8.71 * 0.5 + 7.51 + 17.08 - 12.55 = 7.685 for an estimate as high as on the seed plane."""
    reference = Reference(look([1], [0]), 0.5)
    assert reference.presence(0.5, 1.0, SAME) == pytest.approx(1 / (1 + np.exp(-7.685)))
    surer = Reference(look([1], [0]), 0.9)  # where it was sure, 0.5 is little: -8.71 * 0.9 + 12.04 = 4.201
    assert surer.presence(0.5, 1.0, SAME) == pytest.approx(1 / (1 + np.exp(-4.201)))
    assert reference.presence(0.5, 0.0, SAME) == pytest.approx(1 / (1 + np.exp(-7.685 + 7.51)))
    assert reference.presence(1.0, 9.0, SAME) == reference.presence(0.98, 1.5, SAME) < 1


def test_presence_falls_where_the_mask_changes():
    """By hand: 7.685 - 17.08 * 0.5 - 25.47 * 0.2 - 8.27 * 0.4 = -9.257, whether it grows darker or brighter."""
    reference = Reference(look([1], [0]), 0.5)
    for shade in (0.4, -0.4):
        found = reference.presence(0.5, 1.0, Change(overlap=0.5, growth=0.2, shade=shade))
        assert found == pytest.approx(1 / (1 + np.exp(9.257)))


@given(st.floats(0, 1), st.floats(0, 1), st.floats(-2, 3), st.floats(0, 0.2), st.floats(0, 0.5))
def test_presence_rises_with_estimate_and_likeness(own, estimate, likeness, surer, liker):
    reference = Reference(look([1], [0]), own)
    assert reference.presence(estimate, likeness, SAME) <= reference.presence(
        estimate + surer, likeness, SAME
    )
    assert reference.presence(estimate, likeness, SAME) <= reference.presence(
        estimate, likeness + liker, SAME
    )


class Copying(FakePredictor):
    """Answers a mask prompt with itself, whatever the image shows."""

    def predict_many(self, embedding, prompts):
        answers = super().predict_many(embedding, prompts)
        return [self._copied(*pair) for pair in zip(answers, prompts)]

    def _copied(self, answer, prompts):
        if prompts.mask is None:
            return answer
        logits = np.where(prompts.mask, np.float32(9), np.float32(-9))
        return MaskPrediction((MaskCandidate(Region.from_mask(prompts.mask), 0.9, 1.0, logits),))


def carried(image, **settings):
    predictor = Copying()
    encoder = FakeEncoder(ArrayVolume(image), predictor)
    seeds = {1: {6: PromptSet([(20, 20)])}}
    given = PropagationSettings(carry=(Carry.MASK,), **settings)
    return list(propagate_objects(encoder, predictor, seeds, settings=given))


@pytest.fixture
def fading():
    """A bright square in planes 4 to 9 of 16, and in plane 7 only half as bright."""
    image = np.full((16, 40, 40), 30, np.uint8)
    image[4:10, 14:27, 14:27] = 200
    image[7, 14:27, 14:27] = 110
    return image


def test_an_object_ends_where_it_is_seen_no_more(fading):
    steps = carried(fading)
    assert sorted(step.plane_index for step in steps if step.region.area) == [4, 5, 6, 7, 8, 9]
    reasons = {step.plane_index: step.stop_reason for step in steps if step.stop_reason}
    assert reasons == {3: StopReason.UNLIKE, 10: StopReason.UNLIKE}


def test_where_it_looks_less_like_itself_it_is_doubted(fading):
    fading[7, 14:27, 14:27] = 160
    parts = {step.plane_index: dict(step.doubt.parts) for step in carried(fading) if step.region.area}
    assert parts[7][DoubtReason.PRESENCE] > 2 * parts[5][DoubtReason.PRESENCE]
    assert all(DoubtReason.SEED in parts[index] for index in (4, 5, 7, 8, 9))  # it gives 0.9 everywhere
    asked = carried(fading, min_presence=None)
    assert not any(DoubtReason.PRESENCE in dict(step.doubt.parts) for step in asked)


def test_without_the_rule_a_copied_mask_goes_on_to_the_end(fading):
    assert (
        len([step for step in carried(fading, min_likeness=None, min_presence=None) if step.region.area])
        == 16
    )


def test_one_plane_in_which_it_is_not_seen_is_bridged(fading):
    fading[7] = 30
    steps = carried(fading)
    assert sorted(step.plane_index for step in steps if step.region.area) == [4, 5, 6, 7, 8, 9]


class Fading(Copying):
    """As sure of a mask as its place is bright, as a fraction of `unsure`."""

    def __init__(self, unsure):
        super().__init__()
        self.unsure = unsure

    def predict_many(self, embedding, prompts):
        found = super().predict_many(embedding, prompts)
        return [
            replace(
                one,
                candidates=tuple(replace(c, predicted_iou=self._sure(embedding, c)) for c in one.candidates),
            )
            for one in found
        ]

    def _sure(self, embedding, candidate):
        values = embedding.array[0][candidate.region.mask]
        return self.unsure * float(values.mean()) / 200


@pytest.mark.parametrize("unsure", [0.95, 0.6, 0.3])
def test_a_model_that_is_never_sure_carries_as_far_as_one_that_is(fading, unsure):
    fading[7] = fading[6]
    predictor = Fading(unsure)
    seeds = {1: {6: PromptSet([(20, 20)])}}
    settings = PropagationSettings(min_likeness=None)
    encoder = FakeEncoder(ArrayVolume(fading), predictor)
    steps = list(propagate_objects(encoder, predictor, seeds, settings=settings))
    assert sorted(step.plane_index for step in steps if step.region.area) == [4, 5, 6, 7, 8, 9]


def test_behind_a_weak_plane_an_object_has_to_be_there_beyond_doubt(fading):
    """Less bright behind the gap: enough to go on with, not enough to begin again."""
    fading[7:10, 14:27, 14:27] = 158
    assert 9 in [step.plane_index for step in carried(fading) if step.region.area]
    fading[7] = 30
    assert 9 not in [step.plane_index for step in carried(fading) if step.region.area]


def test_a_likeness_above_one_would_end_everything():
    with pytest.raises(PromptError, match=r"min_likeness .* 1\.5"):
        PropagationSettings(min_likeness=1.5)
    with pytest.raises(PromptError, match=r"min_presence .* 1\.0"):
        PropagationSettings(min_presence=1.0)


def test_a_seed_on_the_end_of_an_object_does_not_say_what_it_looks_like(fading):
    """The second click is on a plane where the square is hardly seen; beyond it the mask must not go on."""
    fading[9, 14:27, 14:27] = 101  # just enough for the fake model
    fading[10:] = 70
    predictor = Copying()
    encoder = FakeEncoder(ArrayVolume(fading), predictor)
    seeds = {1: {6: PromptSet([(20, 20)]), 9: PromptSet([(20, 20)])}}
    settings = PropagationSettings(carry=(Carry.MASK,), min_likeness=0.3)
    steps = list(propagate_objects(encoder, predictor, seeds, settings=settings))
    assert max(step.plane_index for step in steps if step.region.area) == 9


def test_a_mask_that_looks_like_the_very_opposite_is_not_there():
    look = Look(np.array([1.0]), np.array([0.0]))
    assert Reference(look).presence(0.5, -1e6, Change(0.0)) == 0.0
