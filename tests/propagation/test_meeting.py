import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_sam.core.planes import Region
from napari_sam.core.results import MaskCandidate
from napari_sam.propagation.meeting import Claim, logits_in, settle

SHAPE = (8, 12)


def claim(object_id, logits):
    logits = np.asarray(logits, np.float32)
    return Claim(object_id, MaskCandidate(Region.from_mask(logits > 0), 0.9, 0.9, logits))


@settings(max_examples=40, deadline=None)
@given(st.lists(hnp.arrays(np.int8, SHAPE, elements=st.integers(-3, 3)), min_size=1, max_size=5))
def test_a_pixel_goes_to_the_highest_logit_then_to_the_smallest_id(maps):
    claims = [claim(i + 1, logits) for i, logits in enumerate(maps)]
    parts = [part.mask for part in settle(claims)]
    stack = np.stack(maps)
    owner = np.where((stack > 0).any(0), stack.argmax(0), -1)
    for i, part in enumerate(parts):
        np.testing.assert_array_equal(part, owner == i)


@settings(deadline=None, max_examples=24)
@given(st.permutations(range(4)))
def test_the_order_of_the_batch_says_nothing(order):
    maps = np.random.default_rng(3).integers(-2, 3, (4, *SHAPE))
    straight = settle([claim(i + 1, maps[i]) for i in range(4)])
    shuffled = settle([claim(i + 1, maps[i]) for i in order])
    for place, i in enumerate(order):
        np.testing.assert_array_equal(shuffled[place].mask, straight[i].mask)


def test_two_directions_of_one_object_do_not_compete():
    maps = np.full((2, *SHAPE), 2.0)
    maps[1] += 1
    parts = settle([claim(4, maps[0]), claim(4, maps[1])])
    assert [part.area for part in parts] == [96, 96]


def test_the_users_plane_of_another_object_is_not_claimed():
    mask = np.zeros(SHAPE, bool)
    mask[:, :5] = True
    parts = settle(
        [claim(1, np.full(SHAPE, 9.0)), claim(2, np.full(SHAPE, 1.0))], [(2, Region.from_mask(mask))]
    )
    np.testing.assert_array_equal(parts[0].mask, ~mask)
    np.testing.assert_array_equal(parts[1].mask, mask)


def test_what_meets_nobody_is_the_same_object():
    logits = np.full(SHAPE, -1.0)
    logits[1:3, 1:3] = 1
    one = claim(1, logits)
    assert settle([one])[0] is one.region


def test_logits_of_a_coarse_map_lie_over_the_plane():
    mask = np.zeros((100, 200), bool)
    mask[10, 10] = True
    coarse = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)  # padded below row 32
    candidate = MaskCandidate(Region.from_mask(mask), 1.0, 1.0, coarse)
    found = logits_in(candidate, (0, 0, 100, 200))
    assert found.shape == (100, 200)
    assert found[0, 0] == coarse[0, 0]
    assert found[99, 199] == coarse[31, 63]
