"""Planes that are missing or blurred, objects that meet, and what a run says about itself."""

import numpy as np
import pytest

from napari_sam.core.prompts import PromptSet
from napari_sam.core.results import DoubtReason, Stop, StopReason
from napari_sam.errors import PromptError
from napari_sam.propagation import Between, PropagationSettings, propagate_objects
from napari_sam.testing.fakes import ArrayVolume, FakeEncoder, FakePredictor
from napari_sam.testing.phantoms import ball_volume, drifting_disc_volume

DISC = drifting_disc_volume(step_yx=(0.0, 1.0))
CLICK = {1: {8: PromptSet([(30, 32)])}}


def run(image, seeds, **kwargs):
    predictor = FakePredictor()
    settings = PropagationSettings(**kwargs)
    steps = propagate_objects(FakeEncoder(ArrayVolume(image), predictor), predictor, seeds, settings=settings)
    return {(step.object_id, step.plane_index): step for step in steps}


def planes(found):
    return sorted(index for (_, index), step in found.items() if step.region.area)


@pytest.mark.parametrize("grey", [0, 200], ids=["missing", "washed out"])
def test_one_bad_plane_is_filled_in(grey):
    image = DISC.image.copy()
    image[11] = grey
    found = run(image, CLICK)
    assert planes(found) == list(range(16))
    step = found[1, 11]
    assert step.region.iou(type(step.region).from_mask(DISC.labels[11])) > 0.8
    assert step.doubt.reasons == (DoubtReason.FILLED,)
    assert found[1, 12].doubt.value < 0.3
    assert not [s for s in found.values() if s.stops and s.plane_index not in (0, 15)]


def test_more_bad_planes_than_are_bridged_end_the_object():
    image = DISC.image.copy()
    image[11:13] = 0
    found = run(image, CLICK)
    assert planes(found) == list(range(11))
    assert found[1, 11].stops == (Stop(1, StopReason.EMPTY),)
    assert planes(run(image, CLICK, bridge=2)) == list(range(16))
    assert planes(run(image, CLICK, bridge=0)) == list(range(11))


def test_something_else_behind_the_end_is_not_the_object():
    image = np.zeros_like(DISC.image)
    image[:11] = DISC.image[:11]
    image[12:, 22:30, 36:60] = 200  # overlaps the object's last mask, but is something else
    found = run(image, CLICK, max_area_change=None)
    assert planes(found) == list(range(11))


def test_planes_between_two_seeds_that_none_reaches_are_filled_in():
    image = DISC.image.copy()
    image[4:10] = 0
    seeds = {1: {2: PromptSet([(30, 26)]), 12: PromptSet([(30, 36)])}}
    found = run(image, seeds)
    assert planes(found) == list(range(16))
    for index in range(4, 10):
        assert found[1, index].region.iou(type(found[1, 2].region).from_mask(DISC.labels[index])) > 0.8
        assert DoubtReason.FILLED in found[1, index].doubt.reasons
    assert found[1, 4].stops == (Stop(1, StopReason.EMPTY),)
    assert found[1, 9].stops == (Stop(-1, StopReason.EMPTY),)
    assert found[1, 4].stop_reason is None
    assert 6 not in planes(run(image, seeds, fill_gaps=False))


def test_interpolation_is_snapped_to_the_image():
    seeds = {1: {2: PromptSet([(30, 26)]), 12: PromptSet([(30, 36)])}}
    found = run(DISC.image, seeds, between=Between.INTERPOLATE)
    assert planes(found) == list(range(16))
    for index in range(16):
        np.testing.assert_array_equal(found[1, index].mask, DISC.labels[index] > 0)
    blank = DISC.image.copy()
    blank[3:12] = 0
    plain = run(blank, seeds, between=Between.INTERPOLATE)
    assert plain[1, 7].doubt.value > found[1, 7].doubt.value > 0


def test_one_direction_that_ended_early_is_told():
    image = DISC.image.copy()
    image[5:7] = 0
    seeds = {1: {3: PromptSet([(30, 27)]), 12: PromptSet([(30, 36)])}}
    found = run(image, seeds, bridge=0)
    stops = {index: step.stops for (_, index), step in found.items() if step.stops}
    assert stops[5] == (Stop(1, StopReason.EMPTY),)
    assert stops[6] == (Stop(-1, StopReason.EMPTY),)


def test_every_direction_says_why_it_ended():
    phantom = ball_volume((24, 40, 40), [(12, 20, 20)], radii=5.0)
    found = run(
        phantom.image, {1: {12: PromptSet([(20, 20)])}}, min_iou=None, max_area_change=None, min_presence=None
    )
    stops = {(index, one.direction): one.reason for (_, index), step in found.items() for one in step.stops}
    assert stops == {(6, -1): StopReason.EMPTY, (18, 1): StopReason.EMPTY}


def test_a_seed_at_the_end_and_an_empty_one():
    at_end = run(DISC.image, {1: {0: PromptSet([(30, 24)])}})
    assert at_end[1, 0].stops == (Stop(-1, StopReason.RANGE_END),)
    empty = run(DISC.image, {1: {6: PromptSet([(0, 0)])}})
    assert {stop.direction for stop in empty[1, 6].stops} == {1, -1}


def test_objects_that_meet_share_the_plane_out():
    """Two discs that touch are one component for the fake: it answers both with both, at equal logits."""
    image = np.full((9, 40, 60), 20, np.uint8)
    left, right = np.zeros((2, 40, 60), bool)
    left[10:30, 10:30] = right[10:30, 30:50] = True
    for z in range(9):
        image[z][left | right] = 200
    image[:, :, 29:31][image[:, :, 29:31] > 0] = 200
    seeds = {1: {4: PromptSet(mask=left)}, 2: {4: PromptSet(mask=right)}}
    found = run(image, seeds, min_iou=None, bridge=0)
    for index in range(9):
        masks = [found[oid, index].mask for oid in (1, 2) if (oid, index) in found]
        assert np.sum(masks, axis=0).max() == 1
    np.testing.assert_array_equal(found[1, 4].mask, left)
    alone = run(image, seeds, min_iou=None, part_by_logit=False)
    np.testing.assert_array_equal(alone[1, 5].mask, alone[2, 5].mask)


def test_settings_that_make_no_sense_are_named():
    with pytest.raises(PromptError, match="bridge"):
        PropagationSettings(bridge=-1)
    with pytest.raises(ValueError, match="guess"):
        PropagationSettings(between="guess")
