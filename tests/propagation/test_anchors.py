"""Which planes a change of anchors affects: against brute force, and against a run from scratch."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sam.core.prompts import PromptSet
from napari_sam.propagation import Gap, PropagationSettings, affected_gaps, propagate_objects
from napari_sam.propagation.anchors import gaps_of
from napari_sam.testing.fakes import ArrayVolume, FakeEncoder, FakePredictor
from napari_sam.testing.phantoms import drifting_disc_volume

ANCHORS = st.dictionaries(st.integers(0, 11), st.integers(0, 2), max_size=5)


def beside(anchors, index):
    """What a plane depends on: the anchors beside it and what they say."""
    below = max((a for a in anchors if a < index), default=None)
    above = min((a for a in anchors if a > index), default=None)
    return [(a, anchors.get(a)) for a in (below, above)]


@settings(max_examples=150, deadline=None)
@given(ANCHORS, ANCHORS, st.integers(0, 5), st.integers(6, 12))
def test_exactly_the_planes_whose_anchors_changed(old, new, first, end):
    found = [i for gap in affected_gaps(old, new) for i in gap.planes(first, end)]
    wanted = [
        i
        for i in range(first, end)
        if new and i not in new and (i in old or not old or beside(old, i) != beside(new, i))
    ]
    assert found == wanted


@settings(deadline=None, max_examples=50)
@given(ANCHORS)
def test_nothing_changed_means_nothing_to_do(anchors):
    assert affected_gaps(anchors, dict(anchors)) == ()


@settings(deadline=None, max_examples=50)
@given(ANCHORS)
def test_gaps_and_anchors_are_all_planes_once(anchors):
    planes = [i for gap in gaps_of(anchors) for i in gap.planes(0, 12)]
    assert sorted([*planes, *anchors]) == (list(range(12)) if anchors else [])


def test_known_changes():
    old = {5: "a", 10: "b", 20: "c"}
    assert affected_gaps(old, old | {10: "new"}) == (Gap(5, 10), Gap(10, 20))
    assert affected_gaps(old, old | {15: "d"}) == (Gap(10, 15), Gap(15, 20))
    assert affected_gaps(old, {5: "a", 20: "c"}) == (Gap(5, 20),)
    assert affected_gaps({}, old) == (Gap(None, 5), Gap(5, 10), Gap(10, 20), Gap(20, None))
    assert affected_gaps(old, {}) == ()


PHANTOM = drifting_disc_volume((12, 40, 64), step_yx=(0.5, 2.0))
SETTINGS = PropagationSettings()


def square(plane, shift):
    mask = np.zeros((40, 64), bool)
    mask[12 + shift : 22 + shift, 14 + 2 * plane : 26 + 2 * plane] = True
    return PromptSet(mask=mask)


def run(anchors, gaps=None):
    predictor = FakePredictor()
    encoder = FakeEncoder(ArrayVolume(PHANTOM.image), predictor)
    seeds = {1: {index: square(index, shift) for index, shift in anchors.items()}}
    wanted = None if gaps is None else {1: gaps}
    steps = propagate_objects(encoder, predictor, seeds, settings=SETTINGS, gaps=wanted)
    return {step.plane_index: step.mask for step in steps}


@settings(max_examples=8, deadline=None)
@given(ANCHORS.filter(bool), ANCHORS.filter(bool))
def test_running_only_the_affected_planes_gives_what_running_all_gives(old, new):
    masks = run(old)
    gaps = affected_gaps(old, new)
    redone = [i for gap in gaps for i in gap.planes(0, 12)]
    kept = {i: mask for i, mask in masks.items() if i not in redone}
    again = run(new, gaps)
    assert set(again) <= {*redone, *new}
    both = kept | again
    wanted = run(new)
    assert set(both) == set(wanted)
    for index, mask in wanted.items():
        np.testing.assert_array_equal(both[index], mask)
