"""Propagation with a predictor that knows the truth: everything is exact and counted."""

import numpy as np
import pytest

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.prompts import PromptSet
from napari_sam.core.results import MaskCandidate, MaskPrediction, StopReason
from napari_sam.errors import PromptError
from napari_sam.propagation import Carry, Direction, Fusion, PropagationSettings, propagate_objects
from napari_sam.testing.fakes import ArrayVolume, CountingVolume, FakeEncoder, FakePredictor
from napari_sam.testing.phantoms import ball_volume, drifting_disc_volume

TO_THE_END = PropagationSettings(
    min_iou=None, max_area_change=None, min_presence=None, bridge=0, fill_gaps=False
)


def run(image, seeds, predictor=None, **kwargs):
    predictor = predictor or FakePredictor()
    return list(propagate_objects(FakeEncoder(ArrayVolume(image), predictor), predictor, seeds, **kwargs))


def assemble(steps, shape, axis=0):
    labels = np.zeros(shape, np.uint16)
    for step in steps:
        section = labels[(slice(None),) * axis + (step.plane_index,)]
        section[step.mask] = step.object_id
    return labels


def click_at(labels, label=1, axis=0):
    """A click on the object in its middle plane: {plane: PromptSet}."""
    centre = np.argwhere(labels == label).mean(axis=0).round().astype(int)
    return {int(centre[axis]): PromptSet([np.delete(centre, axis)])}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (3, 1, 1), (1, 1, 2)])
@pytest.mark.parametrize("carry", [(Carry.MASK,), (Carry.BOX,), (Carry.POINTS,), (Carry.BOX, Carry.POINT)])
def test_one_click_finds_the_whole_ball(axis, spacing, carry):
    phantom = ball_volume((24, 40, 48), radii=10.3, spacing_zyx=spacing)
    settings = PropagationSettings(carry=carry, min_iou=None, max_area_change=None, min_presence=None)
    steps = run(phantom.image, {1: click_at(phantom.labels, axis=axis)}, axis=axis, settings=settings)
    np.testing.assert_array_equal(assemble(steps, phantom.labels.shape, axis), phantom.labels)


def test_default_settings_lose_no_more_than_the_poles():
    phantom = ball_volume()
    steps = run(phantom.image, {1: click_at(phantom.labels)})
    found = assemble(steps, phantom.labels.shape)
    assert (found & phantom.labels).sum() / phantom.labels.sum() > 0.97


def test_a_single_point_that_stays_ambiguous_keeps_the_same_answer():
    phantom = drifting_disc_volume(step_yx=(0.0, 1.0))
    settings = PropagationSettings(carry=(Carry.POINT,))
    steps = run(phantom.image, {1: {8: PromptSet([(30, 32)])}}, settings=settings)
    np.testing.assert_array_equal(assemble(steps, phantom.labels.shape), phantom.labels)


def test_two_balls_share_one_batch_a_plane():
    phantom = ball_volume((20, 48, 80), [(9, 22, 20), (9, 24, 58)], radii=[7.2, 8.6])
    predictor = FakePredictor()
    seeds = {oid: click_at(phantom.labels, oid) for oid in (1, 2)}
    steps = run(phantom.image, seeds, predictor, settings=TO_THE_END)
    np.testing.assert_array_equal(assemble(steps, phantom.labels.shape), phantom.labels)
    visited = {step.plane_index for step in steps}
    assert (
        predictor.n_batches == len(visited) + 1
    )  # on the seed plane also how sure the model is of carried masks
    assert predictor.n_predictions == len(steps) + 2


def test_steps_go_outward_and_only_visited_planes_are_read():
    phantom = ball_volume((40, 48, 48), radii=5.0)
    volume, predictor = CountingVolume(ArrayVolume(phantom.image)), FakePredictor()
    seeds = {1: click_at(phantom.labels)}
    generator = propagate_objects(FakeEncoder(volume, predictor), predictor, seeds, settings=TO_THE_END)
    assert volume.n_reads == 0
    seed = next(generator)
    assert seed.is_seed
    assert volume.n_reads == predictor.n_encodes == 1
    distances = [abs(step.plane_index - seed.plane_index) for step in generator]
    assert distances == sorted(distances)
    occupied = np.flatnonzero(phantom.labels.any((1, 2)))
    touched = sorted(plane.index for plane in volume.reads)
    assert touched == list(range(occupied[0] - 1, occupied[-1] + 2))
    assert predictor.n_encodes == len(touched)


def test_closing_the_generator_cancels():
    phantom = ball_volume()
    volume, predictor = CountingVolume(ArrayVolume(phantom.image)), FakePredictor()
    generator = propagate_objects(FakeEncoder(volume, predictor), predictor, {1: click_at(phantom.labels)})
    taken = [next(generator) for _ in range(3)]
    generator.close()
    assert volume.n_reads == 3
    found = assemble(taken, phantom.labels.shape)
    assert found.any()
    assert (found <= phantom.labels).all()


def last_steps(steps):
    """Reasons of the ends by plane."""
    return {step.plane_index: step.stop_reason for step in steps if step.stop_reason}


def test_empty_is_reported_on_the_first_plane_that_is_not_part():
    phantom = ball_volume((24, 40, 40), [(12, 20, 20)], radii=5.0)
    steps = run(phantom.image, {1: click_at(phantom.labels)}, settings=TO_THE_END)
    assert last_steps(steps) == {6: StopReason.EMPTY, 18: StopReason.EMPTY}
    assert all(not step.region.area for step in steps if step.stop_reason)


def test_range_end_is_reported_on_the_last_plane_that_is_part():
    phantom = drifting_disc_volume()
    settings = PropagationSettings(plane_range=(4, 11))
    steps = run(phantom.image, {1: {7: PromptSet([(30, 45)])}}, settings=settings)
    assert sorted(step.plane_index for step in steps) == list(range(4, 11))
    assert last_steps(steps) == {4: StopReason.RANGE_END, 10: StopReason.RANGE_END}
    assert all(step.region.area for step in steps)


def test_seed_at_the_edge_says_that_it_is_the_end():
    phantom = drifting_disc_volume()
    steps = run(phantom.image, {1: {0: PromptSet([(30, 24)])}})
    assert steps[0].is_seed
    assert steps[0].stop_reason is StopReason.RANGE_END
    assert len(steps) == 16


@pytest.mark.parametrize(("direction", "expected"), [("forward", range(6, 16)), ("backward", range(7))])
def test_one_direction(direction, expected):
    phantom = drifting_disc_volume()
    settings = PropagationSettings(direction=Direction(direction))
    steps = run(phantom.image, {1: {6: PromptSet([(30, 42)])}}, settings=settings)
    assert sorted(step.plane_index for step in steps) == list(expected)


def test_overlap_rule_stops_a_jump():
    phantom = drifting_disc_volume(step_yx=(0.0, 8.0), shape_zyx=(8, 64, 128))
    steps = run(phantom.image, {1: {3: PromptSet([(30, 48)])}}, settings=PropagationSettings(min_iou=0.6))
    assert last_steps(steps) == {2: StopReason.IOU_DROP, 4: StopReason.IOU_DROP}
    assert all(step.iou_with_previous < 0.6 for step in steps if step.stop_reason)


def test_area_rule_stops_a_leak():
    phantom = drifting_disc_volume(step_yx=(0.0, 0.0))
    image = phantom.image.copy()
    image[10] = 200
    steps = run(image, {1: {6: PromptSet([(30, 24)])}}, settings=PropagationSettings(min_iou=None, bridge=0))
    assert last_steps(steps) == {0: StopReason.RANGE_END, 10: StopReason.AREA_JUMP}


def test_predicted_iou_rule_stops_a_doubtful_answer():
    phantom = drifting_disc_volume()
    predictor = FakePredictor(predicted_iou=0.25)
    settings = PropagationSettings(min_predicted_iou=0.3)
    steps = run(phantom.image, {1: {6: PromptSet([(30, 42)])}}, predictor, settings=settings)
    assert set(last_steps(steps).values()) == {StopReason.LOW_PREDICTED_IOU}
    assert len(steps) == 3


def test_empty_seed_is_reported_and_goes_nowhere():
    phantom = drifting_disc_volume()
    (step,) = run(phantom.image, {1: {6: PromptSet([(0, 0)])}})
    assert step.is_seed
    assert step.stop_reason is StopReason.EMPTY


def test_mask_seed_is_taken_as_it_is():
    phantom = drifting_disc_volume(step_yx=(0.0, 1.0))
    mask = np.zeros((64, 96), bool)
    mask[26:34, 28:36] = True
    predictor = FakePredictor()
    steps = run(phantom.image, {1: {8: PromptSet(mask=mask)}}, predictor, settings=TO_THE_END)
    assert steps[0].predicted_iou == 1.0
    np.testing.assert_array_equal(steps[0].mask, mask)
    np.testing.assert_array_equal(assemble(steps[1:], phantom.labels.shape)[7], phantom.labels[7])
    assert predictor.n_predictions == 15 + 1  # the mask, carried onto its own plane


@pytest.mark.parametrize("fusion", list(Fusion))
def test_between_two_seeds_every_plane_comes_once(fusion):
    phantom = drifting_disc_volume()
    seeds = {1: {3: PromptSet([(30, 33)]), 9: PromptSet([(30, 51)])}}
    steps = run(phantom.image, seeds, settings=PropagationSettings(fusion=fusion))
    np.testing.assert_array_equal(assemble(steps, phantom.labels.shape), phantom.labels)
    assert sorted(step.plane_index for step in steps) == list(range(16))
    assert [step.plane_index for step in steps if step.is_seed] == [3, 9]
    ends = last_steps(steps)
    assert ends == {
        0: StopReason.RANGE_END,
        4: StopReason.SEED_REACHED,
        8: StopReason.SEED_REACHED,
        15: StopReason.RANGE_END,
    }


def test_one_seed_bridges_what_the_other_could_not():
    phantom = drifting_disc_volume(planes=range(5, 16))
    wrong = np.zeros((64, 96), bool)
    wrong[40:44, 2:6] = True
    seeds = {1: {2: PromptSet(mask=wrong), 9: PromptSet([(30, 51)])}}
    steps = run(phantom.image, seeds, settings=TO_THE_END)
    found = assemble(steps, phantom.labels.shape)
    np.testing.assert_array_equal(found[3:], phantom.labels[3:])
    np.testing.assert_array_equal(found[2], wrong)
    planes = [step.plane_index for step in steps]
    assert len(planes) == len(set(planes))


def test_a_gap_between_seeds_stays_free_and_is_reported():
    first, second = drifting_disc_volume(planes=range(4)), drifting_disc_volume(planes=range(10, 16))
    image = np.maximum(first.image, second.image)
    seeds = {1: {2: PromptSet([(30, 30)]), 12: PromptSet([(30, 60)])}}
    steps = run(image, seeds, settings=TO_THE_END)
    assert {4: StopReason.EMPTY, 9: StopReason.EMPTY}.items() <= last_steps(steps).items()
    np.testing.assert_array_equal(
        assemble(steps, first.labels.shape), np.maximum(first.labels, second.labels)
    )


def test_seed_planes_are_not_overwritten_by_the_other_direction():
    phantom = drifting_disc_volume()
    mask = np.zeros((64, 96), bool)
    mask[20:30, 40:60] = True
    steps = run(phantom.image, {1: {3: PromptSet([(30, 33)]), 9: PromptSet(mask=mask)}})
    at_seed = [step for step in steps if step.plane_index == 9]
    assert len(at_seed) == 1
    np.testing.assert_array_equal(at_seed[0].mask, mask)


def test_objects_with_seeds_in_different_planes():
    phantom = ball_volume((30, 48, 80), [(9, 22, 20), (18, 24, 58)], radii=[7.2, 8.6])
    seeds = {5: click_at(phantom.labels, 1), 9: click_at(phantom.labels, 2)}
    steps = run(phantom.image, seeds, settings=TO_THE_END)
    found = assemble(steps, phantom.labels.shape)
    np.testing.assert_array_equal(found == 5, phantom.labels == 1)
    np.testing.assert_array_equal(found == 9, phantom.labels == 2)


def test_multiscale_level_is_respected():
    phantom = ball_volume((24, 64, 64), radii=9.0)
    half = phantom.image[::2, ::2, ::2]
    predictor = FakePredictor()
    volume = ArrayVolume(phantom.image, levels=[half])
    steps = list(
        propagate_objects(
            FakeEncoder(volume, predictor),
            predictor,
            {1: {6: PromptSet([(16, 16)])}},
            level=1,
            settings=TO_THE_END,
        )
    )
    assert all(step.plane.level == 1 for step in steps)
    np.testing.assert_array_equal(assemble(steps, half.shape) > 0, half > 100)


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ({}, "no seed"),
        ({1: {}}, "no seed"),
        ({1: {24: PromptSet([(3, 3)])}}, "outside"),
        ({1: {-1: PromptSet([(3, 3)])}}, "outside"),
        ({1: {3: PromptSet([(64, 3)])}}, "outside"),
        ({0: {3: PromptSet([(3, 3)])}}, "background"),
    ],
)
def test_bad_seeds_are_named_at_the_call(seeds, words):
    predictor = FakePredictor()
    encoder = FakeEncoder(ArrayVolume(ball_volume().image), predictor)
    with pytest.raises(PromptError, match=words):
        propagate_objects(encoder, predictor, seeds)


def test_seed_outside_the_plane_range_is_named():
    with pytest.raises(PromptError, match=r"seed plane 3 .* 5..9"):
        run(
            ball_volume().image,
            {1: {3: PromptSet([(3, 3)])}},
            settings=PropagationSettings(plane_range=(5, 10)),
        )


def test_plane_range_outside_the_volume_is_named():
    with pytest.raises(PromptError, match="outside the volume"):
        run(
            ball_volume().image,
            {1: {3: PromptSet([(3, 3)])}},
            settings=PropagationSettings(plane_range=(50, 60)),
        )


class CarriedMaskPredictor(FakePredictor):
    """Answers with the mask prompt itself where the image is bright, so that each direction keeps its shape."""

    def predict_many(self, embedding, prompts):
        answers = super().predict_many(embedding, prompts)
        return [self._marked(answer, prompt) for answer, prompt in zip(answers, prompts)]

    def _marked(self, answer, prompts):
        if prompts.mask is None:
            return answer
        best = answer.best
        mask = prompts.mask & best.region.mask
        logits = np.where(mask, np.float32(9), np.float32(-9))
        candidate = MaskCandidate(Region.from_mask(mask), 0.9, 1.0, logits)
        return MaskPrediction((candidate,))


@pytest.mark.parametrize(
    ("fusion", "area"),
    [(Fusion.NEARER, (100, 400)), (Fusion.UNION, (400, 400)), (Fusion.INTERSECTION, (100, 100))],
)
def test_fusion_rules(fusion, area):
    image = np.full((12, 40, 40), 200, np.uint8)
    small, large = np.zeros((2, 40, 40), bool)
    small[15:25, 15:25] = True
    large[10:30, 10:30] = True
    settings = PropagationSettings(carry=(Carry.MASK,), fusion=fusion)
    steps = run(
        image,
        {1: {2: PromptSet(mask=small), 9: PromptSet(mask=large)}},
        CarriedMaskPredictor(),
        settings=settings,
    )
    areas = {step.plane_index: step.region.area for step in steps}
    assert (areas[4], areas[7]) == area


def test_blend_changes_shape_gradually():
    image = np.full((12, 40, 40), 200, np.uint8)
    small, large = np.zeros((2, 40, 40), bool)
    small[15:25, 15:25] = True
    large[10:30, 10:30] = True
    settings = PropagationSettings(carry=(Carry.MASK,), fusion=Fusion.BLEND)
    steps = run(
        image,
        {1: {2: PromptSet(mask=small), 9: PromptSet(mask=large)}},
        CarriedMaskPredictor(),
        settings=settings,
    )
    areas = [step.region.area for step in sorted(steps, key=lambda s: s.plane_index)][2:10]
    assert areas == sorted(areas)
    assert len(set(areas)) >= 4


def test_steps_carry_the_plane():
    phantom = ball_volume((24, 40, 48))
    steps = run(phantom.image, {1: click_at(phantom.labels, axis=2)}, axis=2)
    assert steps[0].plane == PlaneRef(2, steps[0].plane_index)
    assert steps[0].mask.shape == (24, 40)
