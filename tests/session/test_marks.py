"""Marks in the volume, and what they say about a plane."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sam.core.planes import PlaneRef
from napari_sam.errors import PromptError
from napari_sam.session.marks import (
    Marks,
    ShapeKind,
    ShapeMark,
    marked_planes,
    marks_on_plane,
    marks_space,
    prompts_on_plane,
)
from napari_sam.testing.fakes import ArrayVolume

SHAPE = (2, 8, 12, 16)
VOLUME = ArrayVolume(np.zeros(SHAPE, np.uint8), "TZYX")
coordinates = st.tuples(*(st.floats(0, n - 1) for n in SHAPE))


@given(st.lists(coordinates, min_size=1, max_size=8), st.integers(0, 2), st.integers(0, 1))
def test_every_point_belongs_to_exactly_one_plane_of_its_time(points, axis, time):
    marks = Marks(points, np.ones(len(points), bool))
    planes = marked_planes(marks, PlaneRef(axis, 0, time=time), VOLUME)
    found = sum(len(marks_on_plane(marks, p, marks_space(VOLUME)).points) for p in planes)
    assert found == sum(int(np.floor(p[0] + 0.5)) == time for p in points)


def test_points_of_other_planes_say_nothing():
    marks = Marks([(0, 3, 4, 5), (0, 4, 6, 7)], [True, False])
    prompts = prompts_on_plane(marks, PlaneRef(0, 4), VOLUME)
    np.testing.assert_array_equal(prompts.points_yx, [(6, 7)])
    assert not prompts.polarity.any()
    along_y = prompts_on_plane(marks, PlaneRef(1, 4), VOLUME)
    np.testing.assert_array_equal(along_y.points_yx, [(3, 5)])


def shape(kind, vertices_yx, positive=True):
    return ShapeMark(kind, [(0, 2, y, x) for y, x in vertices_yx], positive)


SQUARE = [(2, 3), (2, 9), (8, 9), (8, 3)]


def test_a_rectangle_is_a_box():
    prompts = prompts_on_plane(Marks(shapes=(shape(ShapeKind.RECTANGLE, SQUARE),)), PlaneRef(0, 2), VOLUME)
    np.testing.assert_array_equal(prompts.box_yxyx, (2, 3, 8, 9))
    assert prompts.mask is None


@pytest.mark.parametrize("kind", [ShapeKind.ELLIPSE, ShapeKind.POLYGON])
def test_ellipse_and_polygon_are_a_box_and_a_mask(kind):
    prompts = prompts_on_plane(Marks(shapes=(shape(kind, SQUARE),)), PlaneRef(0, 2), VOLUME)
    assert prompts.mask[5, 6]
    assert not prompts.mask[1, 1]
    rows, cols = np.nonzero(prompts.mask)
    assert prompts.box_yxyx[0] <= rows.min() + 0.5
    assert prompts.box_yxyx[3] >= cols.max() - 0.5


def test_a_path_is_a_scribble_of_points_with_its_polarity():
    path = shape(ShapeKind.PATH, [(1, 1), (1, 14)], positive=False)
    prompts = prompts_on_plane(Marks(shapes=(path,)), PlaneRef(0, 2), VOLUME)
    assert len(prompts.points_yx) >= 2
    assert not prompts.polarity.any()
    assert (prompts.points_yx[:, 0] == 1).all()


def test_a_polygon_without_pixels_is_refused_with_a_reason():
    tiny = shape(ShapeKind.POLYGON, [(2.1, 2.1), (2.1, 2.2), (2.2, 2.1)])
    with pytest.raises(PromptError, match="covers no pixel"):
        prompts_on_plane(Marks(shapes=(tiny,)), PlaneRef(0, 2), VOLUME)


def test_marks_survive_json_and_know_when_they_only_grew():
    first = Marks([(0, 1, 2, 3)], [True], (shape(ShapeKind.PATH, [(1, 1), (2, 2)]),))
    assert Marks.from_json(first.to_json()).same_as(first)
    more = Marks([(0, 1, 2, 3), (0, 1, 5, 5)], [True, False], first.shapes)
    assert more.extends(first)
    assert not first.extends(more)
    assert not Marks([(0, 1, 2, 4), (0, 1, 5, 5)], [True, False], first.shapes).extends(first)


@pytest.mark.parametrize("bad", [[(0, 1, 2)], [(0, 1, 2, np.nan)]])
def test_marks_that_are_no_places_are_refused(bad):
    with pytest.raises(PromptError):
        Marks(bad, [True])
