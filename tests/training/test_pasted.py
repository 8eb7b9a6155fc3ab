"""Organelles of real planes in generated cells."""

from dataclasses import replace

import numpy as np
import pytest

from napari_sam.errors import TrainingError
from napari_sam.training.packed import LabelledPlane
from napari_sam.training.pasted import PASTED, Donor, find_donors, paste, paste_planes
from napari_sam.training.synthetic import PLANES

BRIGHT = 200


def volume():
    """Two planes with a bright ellipse inside, one at the border and a small one."""
    y, x = np.mgrid[:120, :120]
    labels = np.zeros((120, 120), np.uint16)
    labels[(y - 50) ** 2 / 900 + (x - 60) ** 2 / 225 < 1] = 1
    labels[100:120, :60] = 2
    labels[5:9, 5:9] = 3
    image = np.where(labels > 0, BRIGHT, 20).astype(np.uint8)
    return [
        LabelledPlane("organelles", np.roll(image, i, 0), np.roll(labels, i, 0), volume=0, index=i)
        for i in range(2)
    ]


def test_whole_objects_are_cut_out_with_a_plane_nearby():
    donors = find_donors(volume())
    assert len(donors) == 2
    for donor in donors:
        assert donor.images.shape == donor.masks.shape
        assert (donor.images[donor.masks] == np.float32(BRIGHT / 255)).all()
        assert not np.array_equal(*donor.masks), "the neighbour's own mask"
    (alone,) = find_donors(volume()[:1])
    np.testing.assert_array_equal(*alone.masks)


def test_pasted_organelles_look_like_themselves_and_have_exact_labels():
    disc = np.hypot(*np.mgrid[-20:21, -20:21]) < 18
    donor = Donor(np.ones((2, *disc.shape), np.float32), np.stack([disc, disc]))
    found = 0
    for seed in range(6):
        image, labels = paste(192, [donor], np.random.default_rng(seed))
        again = paste(192, [donor], np.random.default_rng(seed))
        np.testing.assert_array_equal(image, again[0])
        assert image.shape == labels.shape == (PLANES, 192, 192)
        assert image.min() >= 0
        assert image.max() <= 255
        for number in np.unique(labels[0])[1:]:
            inside = labels[0] == number
            if image[0][inside].mean() > 0.75 * 255 and inside.sum() > 100:
                found += 1
    assert found > 3


def test_planes_are_the_same_whatever_the_number_of_processes():
    held_out = [replace(one, held_out=True) for one in volume()]
    with pytest.raises(TrainingError, match="no whole object to paste"):
        paste_planes(held_out, 2, 0, size=96)
    alone, shared = (paste_planes(volume(), 4, 3, workers, 160) for workers in (0, 2))
    assert {plane.set_name for plane in alone} == {PASTED}
    for a, b in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(a.image, b.image)
        np.testing.assert_array_equal(a.labels, b.labels)
