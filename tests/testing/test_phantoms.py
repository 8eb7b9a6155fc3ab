"""Phantoms are what their labels say."""

import numpy as np

from napari_sam.core.planes import PlaneRef
from napari_sam.core.prompts import PromptSet
from napari_sam.testing.fakes import ArrayVolume, FakeEncoder, FakePredictor
from napari_sam.testing.phantoms import Look, ball_volume, discs_plane, drifting_disc_volume


def test_discs_have_their_area_and_place() -> None:
    image, labels = discs_plane(radii=(14, 9))
    assert image.shape == labels.shape == (96, 128)
    assert set(np.unique(labels)) == {0, 1, 2}
    np.testing.assert_allclose(
        [(labels == 1).sum(), (labels == 2).sum()], np.pi * np.square([14, 9]), rtol=0.03
    )
    np.testing.assert_allclose(np.argwhere(labels == 2).mean(0), (62, 90))


def test_balls_are_flat_in_coarse_voxels() -> None:
    labels = ball_volume((11, 41, 41), spacing_zyx=(2, 1, 1), radii=8).labels
    depth, height, width = np.ptp(np.argwhere(labels), axis=0) + 1
    assert (depth, height, width) == (9, 17, 17)


def test_the_fake_predictor_finds_every_plane_of_a_ball() -> None:
    image, labels = ball_volume(look=Look(noise=10, dtype="uint16"))
    encoder = FakeEncoder(ArrayVolume(image), FakePredictor())
    for z in np.flatnonzero(labels.any((1, 2))):
        mask = encoder.predictor.predict(encoder.embedding(PlaneRef(0, int(z))), PromptSet([(32, 40)])).mask
        np.testing.assert_array_equal(mask, labels[z] == 1)


def test_noise_is_seeded_and_stays_within_the_type() -> None:
    look = Look(noise=100, seed=3)
    first, second = discs_plane(look=look).image, discs_plane(look=look).image
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.uint8
    assert discs_plane(look=Look(dtype="float32", foreground=1, background=-1)).image.min() == -1


def test_a_disc_drifts_within_its_planes() -> None:
    labels = drifting_disc_volume(planes=range(3, 9)).labels
    assert np.flatnonzero(labels.any((1, 2))).tolist() == [3, 4, 5, 6, 7, 8]
    np.testing.assert_allclose(np.argwhere(labels[8]).mean(0), (30, 24 + 8 * 3))
