"""A mask goes from plane to plane as the image around it moves."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_sam.core.planes import Region
from napari_sam.core.prompts import PromptSet
from napari_sam.core.results import MaskCandidate, MaskPrediction
from napari_sam.propagation import PropagationSettings, propagate_objects
from napari_sam.propagation.motion import (
    MARGIN,
    MOST_PIXELS,
    Outline,
    View,
    followed,
    moved,
    outline_weight,
    shade_change,
)
from napari_sam.testing.fakes import ArrayVolume, FakeEncoder, FakePredictor

RNG = np.random.default_rng(0)
SOIL = ndimage.gaussian_filter(RNG.standard_normal((400, 400)), 3)
SOIL = ((SOIL - SOIL.min()) / np.ptp(SOIL) * 255).astype(np.uint8)
"""Something to hold on to: speckle of about 6 pixels."""


def disc(shape, centre, radius):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def region(mask):
    return Region.from_mask(mask)


def outline_of(mask):
    return Outline.of(region(mask))


def same(one, other):
    return one.iou(other) == 1


def shifted(dy, dx, side=120):
    """The same speckle twice, the second time further down and to the right."""
    return SOIL[100 : 100 + side, 100 : 100 + side], SOIL[
        100 - dy : 100 - dy + side, 100 - dx : 100 - dx + side
    ]


@settings(max_examples=25, deadline=None)
@given(st.integers(-4, 4), st.integers(-4, 4), st.integers(24, 96), st.integers(24, 96))
def test_a_mask_goes_where_the_image_goes(dy, dx, y, x):
    before, after = shifted(dy, dx)
    start = region(disc(before.shape, (y, x), 9))
    found = moved(Outline.of(start), View.of(before, start), after)
    assert found.region.iou(region(disc(before.shape, (y + dy, x + dx), 9))) > 0.8
    assert abs(found.growth) < 0.2


def test_motion_of_less_than_a_pixel_adds_up():
    """0.3 pixels a plane: over 24 planes 7.2, where a mask of whole pixels would not move at all."""
    planes = [
        ndimage.shift(SOIL[:150, :150].astype(np.float32), (0.3 * z, 0), order=3)[20:140, 20:140]
        for z in range(25)
    ]
    outline = outline_of(disc((120, 120), (50, 60), 10))
    for before, after in pairwise(planes):
        outline = moved(outline, View.of(before, outline.region), after).outline
    rows = np.nonzero(outline.region.mask)[0]
    assert rows.mean() == pytest.approx(57.2, abs=0.7)
    assert outline.region.iou(region(disc((120, 120), (57.2, 60), 10))) > 0.85


@given(st.floats(12, 28), st.floats(12, 28), st.floats(4, 9))
def test_an_outline_knows_its_border_to_less_than_a_pixel(y, x, radius):
    rows, cols = np.mgrid[:40, :40]
    depth = radius - np.hypot(rows - y, cols - x)
    found = Outline.where(3 * depth, (0, 0, 40, 40), (40, 40))
    near = np.abs(depth) < 0.5
    np.testing.assert_allclose(found.depth[near], depth[near], atol=0.15)
    assert same(found.region, region(depth > 0))
    np.testing.assert_array_equal(found.within((5, 7, 30, 33)), found.depth[5:30, 7:33])


def test_an_outline_is_far_away_outside_of_its_part_of_the_plane():
    small = outline_of(disc((100, 100), (20, 20), 5))
    whole = small.within((0, 0, 100, 100))
    assert (whole[50:] == whole.min()).all()
    assert same(region(whole > 0), small.region)
    assert (small.within((60, 60, 70, 70)) == whole.min()).all()


def test_an_image_that_stands_still_leaves_the_mask_as_it_is():
    start = region(disc((120, 120), (60, 60), 9))
    image = SOIL[:120, :120]
    found = moved(Outline.of(start), View.of(image, start), image)
    assert same(found.region, start)
    assert found.growth == 0


@pytest.mark.parametrize("brighter", [-60, -25, 25, 60])
def test_a_plane_that_is_brighter_moves_nothing(brighter):
    before, after = (part.astype(np.float32) for part in shifted(2, -1))
    start = region(disc(before.shape, (60, 60), 9))
    found = moved(Outline.of(start), View.of(before, start), after + brighter)
    steady = moved(Outline.of(start), View.of(before, start), after)
    assert found.region.iou(steady.region) > 0.97
    assert found.growth == pytest.approx(steady.growth, abs=0.02)


def test_a_large_plane_says_how_bright_it_is_by_some_of_its_pixels():
    image = np.kron(SOIL, np.ones((3, 3), np.uint8))
    assert View.at(image, (0, 0, 9, 9)).level == pytest.approx(np.median(image), rel=0.02)


def test_a_mask_grows_with_the_image():
    before = SOIL[100:220, 100:220].astype(np.float32)
    grown = ndimage.affine_transform(before, np.diag([1 / 1.2] * 2), [60 - 60 / 1.2] * 2, order=1)
    start = region(disc(before.shape, (60, 60), 15))
    found = moved(Outline.of(start), View.of(before, start), grown)
    assert found.growth == pytest.approx(2 * np.log(1.2), abs=0.1)
    assert found.region.iou(region(disc(before.shape, (60, 60), 18))) > 0.85


def test_shade_is_the_change_of_grey_in_deviations():
    before = SOIL[100:220, 100:220].astype(np.float32)
    first, second = region(disc(before.shape, (60, 60), 9)), region(disc(before.shape, (62, 61), 7))
    view, after = View.of(before, first), np.where(second.mask, 90, before + 5)
    spread = View.at(after, view.box_yxyx).grey.std()
    expected = (90 - before[first.mask].mean() - np.median(after) + np.median(before)) / spread
    assert shade_change(first, view, second, after) == pytest.approx(expected, rel=1e-4)
    assert shade_change(first, view, second, after + 40) == pytest.approx(expected, rel=1e-4)
    assert shade_change(first, view, second, np.full((120, 120), 7)) == 0


@pytest.mark.parametrize("value", [0, 7, np.nan, np.inf])
def test_nothing_can_be_followed_onto_an_empty_plane(value):
    before = SOIL[:80, :80]
    start = region(disc(before.shape, (40, 40), 9))
    found = moved(Outline.of(start), View.of(before, start), np.full((80, 80), value))
    assert same(found.region, start)


def test_channels_are_averaged_and_what_is_not_a_number_is_dark():
    image = np.stack([SOIL[:80, :80].astype(np.float32), np.full((80, 80), np.nan, np.float32)], 2)
    view = View.of(image, region(disc((80, 80), (40, 40), 9)))
    y0, x0, y1, x1 = view.box_yxyx
    np.testing.assert_allclose(view.grey + view.level, SOIL[y0:y1, x0:x1] / 2, rtol=0, atol=1e-4)
    assert view.level == pytest.approx(np.median(SOIL[:80, :80]) / 2)


def test_a_view_ends_with_the_plane():
    start = region(disc((60, 200), (3, 100), 8))
    assert View.of(SOIL[:60, :200], start).box_yxyx == (0, 92 - MARGIN, 12 + MARGIN, 109 + MARGIN)


def test_a_large_object_is_followed_from_further_away():
    wide = np.kron(SOIL, np.ones((3, 3))).astype(np.float32)  # 1200 pixels a side
    before, after = wide[50:1050, 50:1050], wide[42:1042, 56:1056]
    start = region(disc(before.shape, (500, 480), 230))
    view = View.of(before, start)
    assert view.grey.size > MOST_PIXELS
    found = moved(Outline.of(start), view, after)
    assert found.region.iou(region(disc(before.shape, (508, 474), 230))) > 0.97


def answer_of(mask, sure):
    logits = np.where(mask, np.float32(sure), np.float32(-sure))
    return MaskCandidate(region(mask), 0.9, 1.0, logits)


def test_a_sure_answer_counts_more_than_the_outline_and_an_unsure_one_less():
    seen, outline = disc((60, 60), (30, 33), 10), disc((60, 60), (30, 30), 10)
    assert same(followed(answer_of(seen, 9), outline_of(outline), 0.5).region, region(seen))
    assert same(followed(answer_of(seen, 0.01), outline_of(outline), 0.5).region, region(outline))
    between = followed(answer_of(seen, 0.6), outline_of(outline), 0.5).region
    assert region(seen & outline).area < between.area < region(seen | outline).area


def test_an_empty_answer_stays_empty():
    nothing = np.zeros((60, 60), bool)
    assert not followed(answer_of(nothing, 9), outline_of(disc((60, 60), (30, 30), 10)), 0.5).region.area


def test_a_mask_that_fills_the_plane_can_be_followed():
    whole = np.ones((40, 40), bool)
    start = region(whole)
    image = SOIL[:40, :40]
    assert same(moved(Outline.of(start), View.of(image, start), image).region, start)
    assert same(followed(answer_of(whole, 2), Outline.of(start), 0.5).region, start)


def test_an_outline_weighs_more_where_the_model_is_less_sure():
    """By hand: exp(5 * (0.9 - 0.9)) = 1, and e times that for 0.2 less."""
    assert outline_weight(0.9) == 1
    assert outline_weight(0.7) == pytest.approx(np.e)


class Copying(FakePredictor):
    """Answers a mask prompt with itself: it sees nothing."""

    sure = 9.0

    def predict_many(self, embedding, prompts):
        return [self._copied(prompt) for prompt in prompts]

    def _copied(self, prompts):
        return MaskPrediction((answer_of(prompts.mask, self.sure),))


@pytest.mark.parametrize(("follow", "least"), [(True, 0.8), (False, 0.0)])
def test_an_object_that_wanders_is_kept_by_a_model_that_sees_nothing(follow, least):
    """Over 12 planes the image moves by 24 pixels, more than the disc is wide."""
    image = np.stack([SOIL[100:200, 100 - 2 * z : 220 - 2 * z] for z in range(13)])
    predictor = Copying()
    encoder = FakeEncoder(ArrayVolume(image), predictor)
    start = disc((100, 120), (50, 40), 10)
    given = PropagationSettings(follow_motion=follow, min_likeness=None, min_presence=None)
    steps = list(propagate_objects(encoder, predictor, {1: {0: PromptSet(mask=start)}}, settings=given))
    (last,) = [step for step in steps if step.plane_index == 12]
    found = last.region.iou(region(disc((100, 120), (50, 64), 10)))
    assert found >= least
    assert follow or found == 0


class Unsure(Copying):
    """As it, but with so little trust that the outline counts alone."""

    sure = 0.01


def test_an_object_that_creeps_is_kept():
    """Over 24 planes the image moves by 7.2 pixels, in each by less than half of one."""
    soil = SOIL[80:220, 80:220].astype(np.float32)
    image = np.stack([ndimage.shift(soil, (0.3 * z, 0), order=3)[20:120, 20:120] for z in range(25)])
    encoder = FakeEncoder(ArrayVolume(image), Unsure())
    start = disc((100, 100), (50, 40), 10)
    given = PropagationSettings(min_likeness=None, min_presence=None)
    steps = list(
        propagate_objects(encoder, encoder.predictor, {1: {0: PromptSet(mask=start)}}, settings=given)
    )
    (last,) = [step for step in steps if step.plane_index == 24]
    assert last.region.iou(region(disc((100, 100), (57.2, 40), 10))) > 0.8
