"""What is assigned to the array of a Labels layer: written as numpy would, told plane by plane."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_sam.session.hand import EditableLabels
from napari_sam.session.labels import LabelArray, LabelDelta, impose, restore_many

SHAPES = [(6, 7), (3, 6, 7), (2, 3, 6, 7)]


def editable(shape):
    array = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint16)
    told = []
    return array, told, EditableLabels(LabelArray(array), told.append)


@st.composite
def edits(draw):
    shape = draw(st.sampled_from(SHAPES))
    basic = hnp.basic_indices(shape, allow_newaxis=False)
    fancy = st.integers(1, 5).flatmap(
        lambda n: st.tuples(*(hnp.arrays(np.int64, n, elements=st.integers(-s, s - 1)) for s in shape))
    )
    masks = hnp.arrays(bool, shape)
    return shape, draw(st.one_of(basic, fancy, masks)), draw(st.integers(0, 4))


@settings(deadline=None)
@given(edits())
def test_any_index_writes_what_numpy_writes_and_tells_all_of_it(edit):
    shape, index, value = edit
    array, told, target = editable(shape)
    before, wanted = array.copy(), array.copy()
    wanted[index] = value
    target[index] = value
    np.testing.assert_array_equal(array, wanted)
    again = LabelArray(before.copy())
    for delta in told:
        impose(again, LabelDelta.from_json(delta.to_json()))
    np.testing.assert_array_equal(again.array, wanted)
    for delta in told:
        restore_many(again, [delta], [lambda _: None])
    np.testing.assert_array_equal(again.array, before)


def test_one_plane_is_an_array_that_is_read_when_somebody_looks():
    reads = []

    class Counting(np.ndarray):
        def __getitem__(self, index):
            reads.append(index)
            return np.asarray(self)[index]

    array = np.random.default_rng(0).integers(0, 3, (3, 6, 7)).astype(np.uint16)
    plane = EditableLabels(LabelArray(array.view(Counting)), lambda delta: None)[1]
    assert (plane.dtype, plane.shape, plane.ndim, len(plane)) == (np.uint16, (6, 7), 2, 6)
    assert reads == []
    np.testing.assert_array_equal(plane, array[1])
    np.testing.assert_array_equal(plane == 2, array[1] == 2)
    np.testing.assert_array_equal(3 * plane + 1, 3 * array[1] + 1)
    np.testing.assert_array_equal(plane[2:, 3], array[1, 2:, 3])
    assert (plane.max(), plane.sum()) == (array[1].max(), array[1].sum())
    assert set(reads) == {1}
    with pytest.raises(IndexError, match="index 3 is not there"):
        EditableLabels(LabelArray(array), lambda delta: None)[3]


def test_the_number_of_a_painted_object_that_was_deleted_is_not_given_again(desk):
    desk.session.object(1)
    desk.session.hand.editable()[3, 4:8, 4:8] = 1
    desk.session.hand.finish()
    assert not desk.session.record.is_empty
    desk.session.erase_object()
    desk.settle()
    assert desk.session.record.is_empty
    assert desk.session.next_free_id == 2


def test_it_is_told_before_it_is_written():
    array = np.zeros((2, 4, 4), np.uint8)
    seen = []
    target = EditableLabels(LabelArray(array), lambda delta: seen.append(array.copy()))
    target[0, 1:3, 1:3] = 5
    assert len(seen) == 1
    assert not seen[0].any()


def test_nothing_is_told_of_what_does_not_change():
    array, told, target = editable((3, 6, 7))
    target[1] = array[1].copy()
    target[0:0] = 9
    assert told == []


@pytest.mark.parametrize("shape", SHAPES)
def test_reading_is_that_of_the_array(shape):
    array, _, target = editable(shape)
    np.testing.assert_array_equal(np.asarray(target), array)
    np.testing.assert_array_equal(target[0], array[0])
    assert (target.shape, target.ndim, target.dtype) == (array.shape, array.ndim, array.dtype)
