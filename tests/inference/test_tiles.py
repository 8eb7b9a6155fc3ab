"""The plan of tiles, and which tile prompts go to."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sam.core.prompts import PromptSet
from napari_sam.inference.tiles import best_tile, overview, plan_tiles, tile_for, tile_size_for, tiles_for

sizes = st.integers(1, 700)


@given(sizes, sizes, st.sampled_from([64, 96]))
def test_tiles_cover_the_plane_and_overlap_by_a_quarter(height, width, size):
    boxes = plan_tiles((height, width), size)
    covered = np.zeros((height, width), int)
    for y0, x0, y1, x1 in boxes:
        assert 0 <= y0 < y1 <= height
        assert 0 <= x0 < x1 <= width
        covered[y0:y1, x0:x1] += 1
    assert covered.min() >= 1
    assert list(boxes) == sorted(boxes)
    if len(boxes) > 1:
        assert all(b[2] - b[0] == min(size, height) and b[3] - b[1] == min(size, width) for b in boxes)
        for low, high in ((0, 2), (1, 3)):
            spans = sorted({(b[low], b[high]) for b in boxes})
            for (_, end), (start, _) in itertools.pairwise(spans):
                assert end - start >= 0.25 * size - 1


@pytest.mark.parametrize(("shape", "count"), [((64, 64), 1), ((80, 50), 1), ((81, 50), 2), ((81, 81), 4)])
def test_a_little_larger_than_the_input_is_one_tile(shape, count):
    assert len(plan_tiles(shape, 64)) == count


@given(st.floats(0, 199), st.floats(0, 299))
def test_a_point_is_in_its_tile_and_far_from_inner_borders(y, x):
    boxes = plan_tiles((200, 300), 64)
    box = boxes[best_tile(boxes, np.array([y, x, y, x]))]
    assert box[0] - 0.5 <= y <= box[2]
    assert box[1] - 0.5 <= x <= box[3]
    for at, low, high, side in ((y, box[0], box[2], 200), (x, box[1], box[3], 300)):
        assert low == 0 or at - low >= 6
        assert high == side or high - at >= 6


@pytest.mark.parametrize(
    ("diameter", "size"),
    [(None, 512), (25, 512), (150, 512), (19, 256), (3, 256), (170, 1024), (700, 4096)],
)
def test_tiles_suit_the_size_of_objects(diameter, size):
    assert tile_size_for(diameter, 512, 256) == size


def test_what_fits_no_tile_goes_to_the_overview():
    boxes = plan_tiles((200, 300), 64)
    assert tile_for(PromptSet(box_yxyx=(10, 10, 150, 60)), boxes, (200, 300)) == overview((200, 300))
    assert tile_for(PromptSet(box_yxyx=(10, 10, 60, 60)), boxes, (200, 300)) in boxes
    mask = np.zeros((200, 300), bool)
    mask[5:190, 7] = True
    assert tile_for(PromptSet(mask=mask), boxes, (200, 300)) == overview((200, 300))


def test_only_the_tiles_that_prompts_need():
    boxes = plan_tiles((200, 300), 64)
    one = PromptSet([(20, 20)])
    assert len(tiles_for([one], boxes, (200, 300))) == 1
    assert len(tiles_for([one, PromptSet([(21, 22)])], boxes, (200, 300))) == 1
    two = PromptSet([(20, 20), (20, 66)])
    assert len(tiles_for([two], boxes, (200, 300))) >= 1
    far = PromptSet([(20, 20), (120, 220)], [True, False])
    assert tiles_for([far], boxes, (200, 300)) == tiles_for([one], boxes, (200, 300))
