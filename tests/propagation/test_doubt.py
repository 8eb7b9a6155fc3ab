import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.results import Doubt, DoubtReason, PropagationStep
from napari_sam.propagation.doubt import Spacing, filled_doubt, fused_doubt, step_doubt
from napari_sam.testing.fakes import ArrayVolume


def disc(radius, centre=(60, 60)):
    rows, columns = np.ogrid[:120, :120]
    return Region.from_mask((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2)


def doubt(previous, region, quality=0.95, stability=0.95, spacing=None, n_planes=1, **on_object):
    return step_doubt(previous, region, quality, stability, spacing or Spacing(), n_planes, **on_object)


def test_a_steady_object_is_not_doubted():
    assert doubt(disc(20), disc(20)).value == 0
    assert doubt(disc(20), disc(20.6, (60.4, 60))).value < 0.1


@pytest.mark.parametrize(
    ("region", "reason"),
    [
        (disc(20, (60, 76)), DoubtReason.CENTROID),
        (disc(38), DoubtReason.AREA),
        (disc(8), DoubtReason.AREA),
        (disc(20, (60, 90)), DoubtReason.OVERLAP),
    ],
)
def test_jumps_are_named(region, reason):
    found = doubt(disc(20), region)
    assert found.value > 0.5
    assert reason in found.reasons


def test_the_models_own_doubt_is_named():
    assert doubt(disc(20), disc(20), quality=0.55).reasons == (DoubtReason.PREDICTED_IOU,)
    assert doubt(disc(20), disc(20), stability=0.1).reasons == (DoubtReason.STABILITY,)
    assert doubt(disc(20), disc(20), presence=0.6).reasons == (DoubtReason.PRESENCE,)
    odds_of_16 = doubt(disc(20), disc(20), presence=16 / 17)  # softened to 2
    assert odds_of_16.value == pytest.approx(1 / 3)
    assert doubt(disc(20), disc(20), presence=0.0).value == pytest.approx(0.95)
    assert doubt(disc(20), disc(20), seed_iou=0.7).reasons == (DoubtReason.SEED,)
    assert doubt(disc(20), disc(20), seed_iou=0.95).value == 0


def test_thick_planes_may_change_more():
    thin, thick = Spacing(1, 1, 1), Spacing(6, 1, 1)
    assert doubt(disc(20), disc(14), spacing=thin).value > doubt(disc(20), disc(14), spacing=thick).value
    assert doubt(disc(20), disc(14), spacing=thick).value < 0.05
    assert doubt(disc(20), disc(20, (60, 65)), spacing=thick).value == 0
    assert doubt(disc(20), disc(16)).value > doubt(disc(20), disc(16), n_planes=4).value


@settings(deadline=None, max_examples=10)
@given(st.floats(0.1, 10))
def test_the_unit_does_not_matter(unit):
    previous, region = disc(18), disc(12, (66, 60))
    in_pixels = doubt(previous, region, spacing=Spacing(2, 1, 1))
    assert doubt(previous, region, spacing=Spacing(2 * unit, unit, unit)).value == pytest.approx(
        in_pixels.value
    )


@settings(deadline=None, max_examples=10)
@given(st.dictionaries(st.sampled_from(list(DoubtReason)), st.floats(0, 1)))
def test_one_number_from_all_reasons(parts):
    found = Doubt.of(parts)
    assert 0 <= found.value <= 1
    assert found.value >= max(parts.values(), default=0) - 1e-9
    assert [part for _, part in found.parts] == sorted((p for p in parts.values() if p > 0), reverse=True)


def test_agreement_takes_doubt_away_and_disagreement_adds_it():
    doubtful = doubt(disc(20), disc(20), quality=0.6)
    steps = [
        PropagationStep(1, PlaneRef(0, 3), region, 0.6, 1.0, doubt=one)
        for region, one in ((disc(20), doubtful), (disc(20), Doubt()), (disc(20, (60, 80)), doubtful))
    ]
    assert fused_doubt(steps[0], steps[1]).value == 0
    assert fused_doubt(steps[0], steps[0]).value == doubtful.value
    assert fused_doubt(steps[0], steps[2]).reasons[0] is DoubtReason.DISAGREEMENT


def test_filled_planes_are_doubtful():
    assert 0 < filled_doubt(True).value < filled_doubt(False).value
    assert filled_doubt(True).reasons == (DoubtReason.FILLED,)


def test_spacing_follows_axis_and_level():
    image = np.zeros((8, 16, 32))
    volume = ArrayVolume(image, levels=[image[:, ::2, ::4]], spacing_zyx=(5.0, 2.0, 1.0))
    assert Spacing.of(volume, PlaneRef(0, 1)) == Spacing(5.0, 2.0, 1.0)
    assert Spacing.of(volume, PlaneRef(1, 1)) == Spacing(2.0, 5.0, 1.0)
    assert Spacing.of(volume, PlaneRef(2, 1, 1)) == Spacing(4.0, 5.0, 4.0)
