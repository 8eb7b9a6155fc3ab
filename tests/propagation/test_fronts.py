"""Choosing among answers by what is known of the object beside them."""

import numpy as np
import pytest

from napari_sam.core.planes import Region
from napari_sam.core.results import MaskCandidate, MaskPrediction
from napari_sam.propagation.fronts import NEAR, fitting


def square(side, at=(10, 10)):
    mask = np.zeros((40, 40), bool)
    mask[at[0] : at[0] + side, at[1] : at[1] + side] = True
    return Region.from_mask(mask)


def answers(*sides, chosen=0):
    """Squares of these sides."""
    logits = np.zeros((2, 2), np.float32)
    return MaskPrediction(tuple(MaskCandidate(square(side), 0.5, 1.0, logits) for side in sides), chosen)


def test_the_answer_most_like_the_nearest_mask_is_chosen():
    given = answers(3, 8, 20, chosen=2)
    assert fitting(given, 7, {9: square(9), 3: square(20), 7 + NEAR: square(3)}).chosen == 1
    assert fitting(given, 7, {9: square(3)}).chosen == 0
    assert fitting(given, 7, {6: square(0), 9: square(3)}).chosen == 0, "an empty one says nothing"


@pytest.mark.parametrize(
    "known", [{}, {7 + NEAR + 1: square(3)}, {8: square(0)}, {8: square(4, at=(34, 34))}]
)
def test_without_a_mask_that_tells_the_default_stays(known):
    given = answers(3, 8, 20, chosen=2)
    assert fitting(given, 7, known) is given
