"""Stop rules and settings."""

import pickle

import numpy as np
import pytest

from napari_sam.core.planes import Region
from napari_sam.core.protocols import StopRule
from napari_sam.core.results import StopReason
from napari_sam.errors import PromptError
from napari_sam.propagation import Carry, PropagationSettings
from napari_sam.propagation.carry import carried_prompts, deep_points, widened_box
from napari_sam.propagation.rules import AnyOf, AreaChangeAbove, Empty, OverlapBelow, PredictedIouBelow


def square(y0, x0, side, shape=(40, 50)):
    mask = np.zeros(shape, bool)
    mask[y0 : y0 + side, x0 : x0 + side] = True
    return Region.from_mask(mask)


def test_each_rule_gives_its_reason():
    a, shifted, grown, nothing = square(5, 5, 10), square(10, 5, 10), square(5, 5, 30), square(0, 0, 0)
    assert Empty()(a, nothing, 1.0) is StopReason.EMPTY
    assert Empty()(a, a, 1.0) is None
    assert OverlapBelow(0.34)(a, shifted, 1.0) is StopReason.IOU_DROP
    assert OverlapBelow(0.33)(a, shifted, 1.0) is None
    assert AreaChangeAbove(8.9)(a, grown, 1.0) is StopReason.AREA_JUMP
    assert AreaChangeAbove(8.9)(grown, a, 1.0) is StopReason.AREA_JUMP
    assert AreaChangeAbove(9)(a, grown, 1.0) is None
    assert PredictedIouBelow(0.5)(a, a, 0.49) is StopReason.LOW_PREDICTED_IOU
    assert PredictedIouBelow(0.5)(a, a, 0.5) is None


def test_any_of_gives_the_first_reason():
    rules = AnyOf((PredictedIouBelow(0.5), OverlapBelow(0.5)))
    a, b = square(5, 5, 10), square(20, 20, 10)
    assert rules(a, b, 0.1) is StopReason.LOW_PREDICTED_IOU
    assert rules(a, b, 0.9) is StopReason.IOU_DROP
    assert rules(a, a, 0.9) is None


def test_settings_build_one_rule_and_survive_pickling():
    settings = PropagationSettings(min_iou=None, extra_rules=(OverlapBelow(0.9),))
    rule: StopRule = settings.stop_rule
    a = square(5, 5, 10)
    assert rule(a, square(6, 5, 10), 1.0) is StopReason.IOU_DROP
    assert rule(a, square(0, 0, 0), 1.0) is StopReason.EMPTY
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_settings_take_plain_words():
    settings = PropagationSettings(carry=("box", "point"), direction="forward", fusion="union")
    assert settings.carry == (Carry.BOX, Carry.POINT)
    assert settings.direction.steps == (1,)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"carry": ()}, "carry is empty"),
        ({"box_margin": -0.1}, "negative"),
        ({"max_area_change": 0.5}, "at least 1"),
        ({"plane_range": (4, 4)}, "empty"),
    ],
)
def test_settings_that_make_no_sense(wrong, words):
    with pytest.raises(PromptError, match=words):
        PropagationSettings(**wrong)


def test_widened_box_has_pixel_edges_and_stays_inside():
    assert widened_box(square(10, 20, 10), 0.0).tolist() == [9.5, 19.5, 19.5, 29.5]
    assert widened_box(square(10, 20, 10), 0.2).tolist() == [7.5, 17.5, 21.5, 31.5]
    assert widened_box(square(0, 0, 40), 1.0).tolist() == [-0.5, -0.5, 39.5, 49.5]


def test_deep_points_lie_inside_and_apart():
    region = square(10, 20, 11)
    points = deep_points(region, 3)
    assert points[0].tolist() == [15, 25]
    assert all(region.mask[int(y), int(x)] for y, x in points)
    gaps = [np.hypot(*(points[i] - points[j])) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert min(gaps) > 2
    assert len(deep_points(square(3, 3, 1), 3)) == 1


@pytest.mark.parametrize("carry", [(k,) for k in Carry] + [tuple(Carry)])
def test_what_is_carried(carry):
    region = square(10, 20, 11)
    prompts = carried_prompts(region, PropagationSettings(carry=carry))
    assert (prompts.box_yxyx is not None) == (Carry.BOX in carry)
    assert (prompts.mask is not None) == (Carry.MASK in carry)
    assert len(prompts.points_yx) == (3 if Carry.POINTS in carry else int(Carry.POINT in carry))
    assert prompts.polarity.all()
