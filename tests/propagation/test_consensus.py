"""Three directions vote: what each finds alone, what they agree on, and what stays as it is."""

import numpy as np
import pytest

import napari_sam as ns
from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.prompts import PromptSet
from napari_sam.propagation import PropagationSettings, propagate_three_axes
from napari_sam.propagation.consensus import agree
from napari_sam.testing.fakes import ArrayVolume, FakeEncoder, FakePredictor
from napari_sam.testing.phantoms import ball_volume

EXACT = PropagationSettings(min_iou=None, max_area_change=None, min_likeness=None, min_presence=None)


def encoder_of(image):
    predictor = FakePredictor()
    return FakeEncoder(ArrayVolume(image), predictor), predictor


def found(steps, shape, axis=0):
    labels = np.zeros(shape, np.uint16)
    for step in steps:
        if step is not None:
            np.moveaxis(labels, axis, 0)[step.plane_index][step.mask] = step.object_id
    return labels


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_agreement_changes_nothing_that_is_right(axis):
    phantom = ball_volume((20, 40, 60), [(9, 18, 16), (10, 22, 42)], radii=[7.2, 8.4])
    seeds = {}
    for label, centre in ((1, (9, 18, 16)), (2, (10, 22, 42))):
        index, *yx = centre[axis], *[c for i, c in enumerate(centre) if i != axis]
        seeds[label] = {index: PromptSet([yx])}
    steps = propagate_three_axes(*encoder_of(phantom.image), seeds, axis=axis, settings=EXACT)
    np.testing.assert_array_equal(found(steps, phantom.labels.shape, axis), phantom.labels)


def test_an_early_end_is_outvoted():
    phantom = ball_volume((24, 40, 40), radii=9.0)
    agreed = phantom.labels.copy()
    agreed[15:] = 0
    masks = {1: {i: Region.from_mask(agreed[i]) for i in range(24) if agreed[i].any()}}
    for step in agree(*encoder_of(phantom.image), masks, PlaneRef(0, 0), EXACT):
        if step is not None:
            agreed[step.plane_index] = step.mask
    np.testing.assert_array_equal(agreed, phantom.labels)


def test_a_leak_of_one_direction_is_outvoted():
    phantom = ball_volume((20, 40, 60), [(9, 18, 16), (9, 22, 42)], radii=[7.2, 8.4])
    masks = {i: Region.from_mask(phantom.labels[i] == 1) for i in range(2, 17)}
    leak = masks[9].mask
    leak[11:26, 9:24] = True  # its whole bounding box
    masks[9] = Region.from_mask(leak)
    steps = agree(*encoder_of(phantom.image), {1: masks}, PlaneRef(0, 9), EXACT)
    (step,) = [step for step in steps if step is not None]
    assert step.plane_index == 9
    np.testing.assert_array_equal(step.mask, phantom.labels[9] == 1)


def test_planes_of_the_user_stay():
    phantom = ball_volume((20, 40, 40), radii=7.2)
    mine = np.zeros((40, 40), bool)
    mine[18:22, 18:22] = True
    seeds = {1: {9: PromptSet(mask=mine)}}
    steps = list(propagate_three_axes(*encoder_of(phantom.image), seeds, settings=EXACT))
    (seed,) = [step for step in steps if step.plane_index == 9]
    assert seed.is_seed
    np.testing.assert_array_equal(seed.mask, mine)


def test_it_can_be_stopped_on_the_way():
    phantom = ball_volume((20, 40, 40), radii=7.2)
    encoder, predictor = encoder_of(phantom.image)
    masks = {1: {i: Region.from_mask(phantom.labels[i] > 0) for i in range(4, 15)}}
    steps = agree(encoder, predictor, masks, PlaneRef(0, 0), EXACT)
    assert [next(steps) for _ in range(3)] == [None] * 3
    steps.close()
    assert predictor.n_predictions < 8


def test_the_public_door():
    phantom = ball_volume((20, 40, 40), radii=7.2)
    seeds = {9: ns.PromptSet(points_yx=[(20, 20)], positive=[True])}
    steps = ns.propagate(phantom.image, FakePredictor(), seeds, settings=EXACT, three_axes=True)
    np.testing.assert_array_equal(found(steps, phantom.labels.shape), phantom.labels)
