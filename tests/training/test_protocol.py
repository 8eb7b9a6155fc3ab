"""The protocol's clicks on cases worked out by hand."""

import numpy as np
import pytest

from napari_sam.training.protocol import (
    Click,
    first_click,
    iou,
    next_click,
    number_of_clicks,
    share_worse,
    tight_box,
)


def rectangle(shape, y0, x0, y1, x1):
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def l_shape():
    mask = rectangle((12, 12), 1, 1, 10, 4)
    mask[5:10, 1:10] = True
    return mask


def ring():
    mask = rectangle((11, 11), 1, 1, 10, 10)
    mask[4:7, 4:7] = False
    return mask


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (rectangle((9, 9), 2, 2, 7, 7), (4, 4)),  # odd square: its centre
        (
            rectangle((8, 8), 2, 2, 6, 6),
            (3, 3),
        ),  # even square: four pixels are equal, the first in row-major order
        (
            rectangle((6, 20), 1, 2, 4, 15),
            (2, 3),
        ),  # bar 3 high: all of its middle row but the ends, the first
        (l_shape(), (7, 3)),  # 5 high foot: row 7, distance 3 from column 3 on
        (rectangle((5, 5), 0, 0, 5, 5), (2, 2)),  # the edge of the image is a border
    ],
)
def test_first_click_by_hand(mask, expected):
    assert first_click(mask) == Click(expected, True)


def test_first_click_in_a_ring_is_on_the_ring_in_row_major_order():
    # 3 wide: pixels of the middle line are 2 from the border; corners of it farther from the hole
    click = first_click(ring())
    assert ring()[click.yx]
    assert click.yx == (2, 2)


def test_next_click_goes_to_the_larger_error_with_its_polarity():
    truth = rectangle((20, 20), 5, 5, 10, 10)
    spilled = rectangle((20, 20), 5, 5, 10, 17)
    assert next_click(truth, spilled) == Click((7, 12), False)
    assert next_click(truth, np.zeros_like(truth)) == Click((7, 7), True)
    assert next_click(truth, truth) is None


def test_next_click_looks_at_connected_errors_not_at_their_sum():
    truth = rectangle((20, 20), 2, 2, 7, 7)
    answer = np.zeros((20, 20), bool)  # 25 pixels missed in one part; spills of 2 x 16
    answer[10:14, 2:6] = answer[10:14, 12:16] = True
    assert next_click(truth, answer) == Click((4, 4), True)


def test_box_and_iou():
    truth = rectangle((10, 10), 2, 3, 5, 7)
    assert tight_box(truth).tolist() == [1.5, 2.5, 4.5, 6.5]
    assert iou(truth, rectangle((10, 10), 2, 3, 5, 5)) == pytest.approx(0.5)
    assert iou(np.zeros(3, bool), np.zeros(3, bool)) == 1


def test_number_of_clicks_and_never_worse():
    assert number_of_clicks(np.array([0.2, 0.9, 0.7]), 20) == 2
    assert number_of_clicks(np.array([0.2, 0.3]), 20) == 20
    curves = np.array([[0.5, 0.4, 0.6], [0.5, 0.47, 0.5]])
    assert share_worse(curves) == pytest.approx(0.25)
