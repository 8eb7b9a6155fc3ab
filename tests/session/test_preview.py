"""Previews as a lazy array."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.session.preview import PreviewArray

SHAPE = (2, 4, 5, 6)


def dense_and_lazy():
    rng = np.random.default_rng(0)
    dense, lazy = np.zeros(SHAPE, np.uint8), PreviewArray(SHAPE)
    for plane in (PlaneRef(0, 1), PlaneRef(0, 3, time=1), PlaneRef(1, 2), PlaneRef(2, 4, time=1)):
        shape = [n for i, n in enumerate(SHAPE[1:]) if i != plane.axis]
        mask = rng.random(shape) > 0.5
        index = [slice(None)] * 3
        index[plane.axis] = plane.index
        dense[(plane.time, *index)] |= mask
        lazy.set(plane, Region.from_mask(mask))
    return dense, lazy


def index_of(size):
    return st.one_of(st.integers(0, size - 1), st.slices(size))


@given(st.tuples(*(index_of(n) for n in SHAPE)))
def test_any_part_reads_as_the_dense_array_would(index):
    dense, lazy = dense_and_lazy()
    np.testing.assert_array_equal(lazy[index], dense[index])


def test_showing_tells_the_box_that_changed():
    _, lazy = dense_and_lazy()
    lazy.clear()
    plane = PlaneRef(0, 2)
    small, large = np.zeros((5, 6), bool), np.zeros((5, 6), bool)
    small[1, 1] = large[3:, 2:] = True
    first = Region.from_mask(small)
    assert [r.box_yxyx for r in lazy.show([plane], {plane: first})] == [(1, 1, 2, 2)]
    assert lazy.show([plane], {plane: first}) == []
    assert [r.box_yxyx for r in lazy.show([plane], {plane: Region.from_mask(large)})] == [(1, 1, 5, 6)]
    assert [r.box_yxyx for r in lazy.show([plane], {})] == [(3, 2, 5, 6)]
    assert not np.asarray(lazy).any()
