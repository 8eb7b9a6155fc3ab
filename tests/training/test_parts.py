"""The parts of labelled objects in a plane, and their numbers in the next one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from napari_sam.training.own import own_planes
from napari_sam.training.parts import connected_parts


def cut_twice():
    """A neurite that runs below the plane in the middle, and one that comes up beside it."""
    planes = np.zeros((3, 12, 30), int)
    planes[0, 2:10, 2:28] = 7
    planes[1:, 2:10, 2:10] = planes[1:, 2:10, 20:28] = 7
    planes[2, 4:8, 12:18] = 3
    return planes


def test_a_part_keeps_the_number_of_the_one_that_it_overlaps_most():
    planes = cut_twice()
    planes[1, 2:10, 9] = 0  # the left part is the smaller one
    first, second, third = connected_parts(planes)
    whole = first[5, 5]
    assert second[5, 25] == whole != second[5, 5]
    assert third[5, 25] == whole
    assert third[5, 5] == second[5, 5]
    assert third[5, 15] not in (0, whole, third[5, 5])
    for parts, labels in zip((first, second, third), planes, strict=True):
        np.testing.assert_array_equal(parts > 0, labels > 0)


@given(arrays(np.uint8, (3, 6, 7), elements=st.integers(0, 2)))
def test_parts_hang_together_and_belong_to_one_object(planes):
    for parts, labels in zip(connected_parts(planes), planes, strict=True):
        np.testing.assert_array_equal(parts > 0, labels > 0)
        for number in np.unique(parts[parts > 0]):
            assert ndimage.label(parts == number)[1] == 1
            assert len(np.unique(labels[parts == number])) == 1


def test_a_number_that_has_ended_is_not_given_again():
    planes = np.zeros((3, 4, 12), int)
    planes[:, :, 0:3] = 1
    planes[0, :, 4:7], planes[2, :, 8:11] = 2, 3
    first, _, third = connected_parts(planes)
    assert third[0, 0] == first[0, 0]
    assert third[0, 9] not in first


def test_parts_are_objects_for_a_model_whose_answers_hang_together():
    labels = cut_twice()
    image = np.zeros(labels.shape, np.uint8)
    whole, split = (own_planes([(image, labels)], connected=connected) for connected in (False, True))
    assert [len(np.unique(plane.labels)) - 1 for plane in whole] == [1, 1, 2]
    assert [len(np.unique(plane.labels)) - 1 for plane in split] == [1, 2, 3]
    assert [(p.volume, p.index) for p in split] == [(0, 0), (0, 1), (0, 2)]
