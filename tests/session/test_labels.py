"""Writing objects under a policy, and taking it back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.results import LabelEdit
from napari_sam.session.labels import (
    LabelArray,
    LabelDelta,
    apply_edit,
    blocks_of,
    impose,
    restore_many,
)
from napari_sam.session.state import OverlapPolicy

SHAPE = (3, 5, 6)
masks = hnp.arrays(bool, SHAPE[1:])
label_planes = hnp.arrays(np.uint32, SHAPE[1:], elements=st.integers(0, 3))
PLANE = PlaneRef(0, 1)


def restore(labels, delta, *, forward=False):
    """One change alone."""
    (change,) = restore_many(labels, [delta], [lambda _: None], forward=forward)
    return change


def array_of(plane):
    array = np.zeros(SHAPE, np.uint32)
    array[1] = plane
    return LabelArray(array)


@settings(deadline=None)
@given(label_planes, masks, st.sampled_from(OverlapPolicy))
def test_an_edit_writes_where_the_policy_lets_it_and_nowhere_else(plane, mask, policy):
    labels = array_of(plane)
    apply_edit(labels, LabelEdit(PLANE, Region.from_mask(mask), 2), policy)
    protected = (plane != 0) & (policy is OverlapPolicy.BACKGROUND_ONLY)
    np.testing.assert_array_equal(labels.array[1], np.where(mask & ~protected, 2, plane))
    assert not labels.array[[0, 2]].any()


@settings(deadline=None)
@given(label_planes, masks, masks, st.sampled_from(OverlapPolicy))
def test_undo_brings_back_every_voxel_and_redo_the_edit(plane, mask, replaced, policy):
    labels = array_of(plane)
    edit = LabelEdit(PLANE, Region.from_mask(mask), 2)
    delta, change = apply_edit(labels, edit, policy, Region.from_mask(replaced))
    written = labels.array.copy()
    y0, x0, y1, x1 = change.box_yxyx
    np.testing.assert_array_equal(change.values, written[1, y0:y1, x0:x1])
    restore(labels, delta)
    np.testing.assert_array_equal(labels.array[1], plane)
    restore(labels, delta, forward=True)
    np.testing.assert_array_equal(labels.array, written)


def test_a_new_mask_of_an_object_clears_its_old_one_but_not_its_neighbours():
    plane = np.zeros(SHAPE[1:], np.uint32)
    plane[0] = 2
    plane[1] = 7
    labels = array_of(plane)
    old = np.zeros(SHAPE[1:], bool)
    old[:2] = True
    new = np.zeros(SHAPE[1:], bool)
    new[3] = True
    edit = LabelEdit(PLANE, Region.from_mask(new), 2)
    apply_edit(labels, edit, OverlapPolicy.BACKGROUND_ONLY, Region.from_mask(old))
    assert (labels.array[1, 0] == 0).all()
    assert (labels.array[1, 1] == 7).all()
    assert (labels.array[1, 3] == 2).all()


def test_what_was_painted_since_stays_when_an_edit_is_undone():
    labels = array_of(np.zeros(SHAPE[1:], np.uint32))
    edit = LabelEdit(PLANE, Region.from_mask(np.ones(SHAPE[1:], bool)), 2)
    delta, _ = apply_edit(labels, edit, OverlapPolicy.OVERWRITE)
    labels.array[1, 2] = 9
    restore(labels, delta)
    assert (labels.array[1, 2] == 9).all()
    assert not np.delete(labels.array[1], 2, axis=0).any()


@pytest.mark.parametrize(
    ("ndim", "plane", "expected"),
    [
        (2, PlaneRef(0, 0), (slice(1, 2), slice(3, 4))),
        (3, PlaneRef(1, 5), (slice(1, 2), 5, slice(3, 4))),
        (4, PlaneRef(2, 5, time=3), (3, slice(1, 2), slice(3, 4), 5)),
    ],
)
def test_a_plane_is_found_in_arrays_of_any_dimension(ndim, plane, expected):
    assert LabelArray(np.zeros((1,) * ndim, np.uint8)).index(plane, (1, 3, 2, 4)) == expected


def test_a_delta_of_a_large_object_is_small():
    array = np.zeros((1, 1000, 1000), np.uint32)
    edit = LabelEdit(PlaneRef(0, 0), Region.from_mask(np.ones((1000, 1000), bool)), 2)
    delta, _ = apply_edit(LabelArray(array), edit, OverlapPolicy.OVERWRITE)
    assert delta.nbytes < 100_000


@settings(deadline=None)
@given(st.data(), st.integers(0, 2), st.booleans())
def test_many_changes_restored_at_once_are_as_one_after_the_other(data, axis, forward):
    shape = (3, 5, 6)
    plane_shape = shape[:axis] + shape[axis + 1 :]
    array = data.draw(hnp.arrays(np.uint16, shape, elements=st.integers(0, 3)))
    labels, deltas = LabelArray(array), []
    for _ in range(data.draw(st.integers(1, 5))):
        plane = PlaneRef(axis, data.draw(st.integers(0, shape[axis] - 1)))
        mask = data.draw(hnp.arrays(bool, plane_shape))
        edit = LabelEdit(plane, Region.from_mask(mask), data.draw(st.integers(1, 3)))
        deltas.append(apply_edit(labels, edit, OverlapPolicy.OVERWRITE)[0])
    ordered = deltas if forward else deltas[::-1]
    one, many = LabelArray(array.copy()), LabelArray(array.copy())
    told = []
    changes = [restore(one, delta, forward=forward) for delta in ordered]
    runs = list(blocks_of(ordered))
    assert [d for run in runs for d in run] == ordered
    found = [c for run in runs for c in restore_many(many, run, [told.append] * len(run), forward=forward)]
    np.testing.assert_array_equal(many.array, one.array)
    again = LabelArray(array.copy())
    for delta in told:
        impose(again, delta)
    np.testing.assert_array_equal(again.array, one.array)
    assert len(told) == len(found) == len(changes)
    for change, expected in zip(found, changes, strict=True):
        np.testing.assert_array_equal(change.values, expected.values)


def test_what_is_restored_at_once_is_bounded():
    def change(z, side):
        return LabelDelta(PlaneRef(0, z), (0, 0, side, side), "<u2", b"")

    assert [len(run) for run in blocks_of([change(z, 10) for z in range(100)])] == [32, 32, 32, 4]
    assert [len(run) for run in blocks_of([change(z, 4096) for z in range(3)])] == [1, 1, 1]
    assert [len(run) for run in blocks_of([change(0, 9), change(90, 9), change(91, 9)])] == [1, 2]
    assert list(blocks_of([])) == []
