"""A plane that was interpolated and is corrected is an anchor: only the planes beside it are interpolated again."""

import numpy as np
import pytest

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.propagation.settings import Between, PropagationSettings
from napari_sam.propagation.shapes import interpolate
from napari_sam.session.marks import Marks
from napari_sam.testing.sessions import Desk

SETTINGS = PropagationSettings(between=Between.INTERPOLATE)
FIRST, LAST, CORRECTED = 2, 10, 6


def disc(cy, cx, radius):
    y, x = np.ogrid[:48, :56]
    return (y - cy) ** 2 + (x - cx) ** 2 <= radius**2


BELOW, ABOVE, DRAWN = disc(20, 20, 6), disc(26, 32, 10), disc(30, 20, 7)


@pytest.fixture
def desk(tmp_path):
    """Two seed planes with nothing to be seen between them, and the shapes between both."""
    image = np.zeros((13, 48, 56), np.uint8)
    image[FIRST][BELOW] = image[LAST][ABOVE] = 200
    desk = Desk(tmp_path / "one")
    desk.open(image)
    desk.session.state.first_plane, desk.session.state.last_plane = FIRST, LAST
    points = [(0, FIRST, 20, 20), (0, LAST, 26, 32)]
    desk.click(Marks(points, [True, True]), PlaneRef(0, FIRST))
    carry(desk)
    yield desk
    assert desk.session.close(timeout=20)
    assert desk.errors == []


def carry(desk):
    """Propagate; the planes that were written."""
    written = set()
    changed = desk.session.labels_changed
    changed.connect(note := lambda change: written.add(change.plane.index))
    desk.session.propagate(SETTINGS)
    desk.settle()
    changed.disconnect(note)
    return written


def paint(desk, index, mask):
    """Make the object's plane this mask, by hand."""
    array = desk.session.hand.editable()
    array[index, 0:48, 0:56] = mask.astype(array.dtype)
    desk.session.hand.finish()


def between(below, above, lower, upper):
    """What interpolation gives for the planes between two."""
    sides = Region.from_mask(below), Region.from_mask(above)
    return [interpolate(*sides, (index - lower) / (upper - lower)).mask for index in range(lower + 1, upper)]


def test_planes_without_evidence_are_interpolated(desk):
    np.testing.assert_array_equal(desk.labels[FIRST + 1 : LAST] == 1, between(BELOW, ABOVE, FIRST, LAST))


def test_a_corrected_plane_stays_and_the_planes_beside_it_follow(desk):
    before = desk.labels
    paint(desk, CORRECTED, DRAWN)
    carry(desk)
    labels = desk.labels == 1
    np.testing.assert_array_equal(labels[CORRECTED], DRAWN)
    np.testing.assert_array_equal(labels[FIRST + 1 : CORRECTED], between(BELOW, DRAWN, FIRST, CORRECTED))
    np.testing.assert_array_equal(labels[CORRECTED + 1 : LAST], between(DRAWN, ABOVE, CORRECTED, LAST))
    np.testing.assert_array_equal(desk.labels[[FIRST, LAST]], before[[FIRST, LAST]])
    assert PlaneRef(0, CORRECTED) in desk.session.record.anchors


def test_a_second_correction_runs_only_between_its_neighbours(desk):
    paint(desk, CORRECTED, DRAWN)
    carry(desk)
    before = desk.labels
    paint(desk, 4, disc(24, 18, 4))
    written = carry(desk)
    assert {3, 5} <= written <= set(range(FIRST, CORRECTED + 1))
    np.testing.assert_array_equal(desk.labels[CORRECTED:], before[CORRECTED:])
    labels = desk.labels == 1
    np.testing.assert_array_equal(labels[4], disc(24, 18, 4))
    np.testing.assert_array_equal(labels[3:4], between(BELOW, disc(24, 18, 4), FIRST, 4))
    np.testing.assert_array_equal(labels[5:6], between(disc(24, 18, 4), DRAWN, 4, CORRECTED))


def test_undo_gives_back_what_was_interpolated_before(desk):
    before = desk.labels
    paint(desk, CORRECTED, DRAWN)
    carry(desk)
    for _ in range(2):
        desk.session.undo()
        desk.settle()
    np.testing.assert_array_equal(desk.labels, before)
