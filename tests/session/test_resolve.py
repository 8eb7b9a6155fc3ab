"""From wishes to orders, without pixels."""

import numpy as np
import pytest

from napari_sam.core.planes import PlaneRef
from napari_sam.session.marks import Marks
from napari_sam.session.resolve import Blocked, Snapshot, planes_around, resolve
from napari_sam.session.state import SessionState
from napari_sam.testing.fakes import ArrayVolume, CountingVolume


class HugeVolume(ArrayVolume):
    """Says that it is large; holds nothing."""

    def shape_zyx(self, level=0):
        return 10, 30_000, 30_000


VOLUME = CountingVolume(ArrayVolume(np.zeros((9, 12, 16), np.uint8)))


HERE = PlaneRef(0, 4)


def at(*points, view=HERE):
    return Snapshot(view, Marks([(0, *p) for p in points], [True] * len(points)))


def test_nothing_can_run_without_an_image_or_a_plane():
    assert "Choose an image" in resolve(SessionState(), None, at()).reason
    blocked = Blocked("because")
    assert resolve(SessionState(), VOLUME, Snapshot(blocked)) is blocked


@pytest.mark.parametrize(
    ("volume", "view", "reason"),
    [
        (VOLUME, PlaneRef(0, 9), "outside the image"),
        (VOLUME, PlaneRef(0, 4, time=1), "outside the image"),
        (HugeVolume(np.zeros((1, 2, 2))), PlaneRef(0, 1), "too large to edit"),
        (ArrayVolume(np.zeros((5, 1, 7))), PlaneRef(0, 1), "is a line"),
    ],
)
def test_planes_that_cannot_be_segmented_say_why(volume, view, reason):
    assert reason in resolve(SessionState(), volume, at(view=view)).reason


def test_marks_are_sorted_into_planes_and_no_pixel_is_read():
    resolved = resolve(SessionState(), VOLUME, at((4, 5, 5), (4.4, 6, 6), (7, 1, 1)))
    assert [(p.index, len(m.points)) for p, m in resolved.marks.items()] == [(4, 2), (7, 1)]
    assert resolved.propagate_blocked is None
    assert VOLUME.n_reads == 0


def test_a_point_beside_the_image_blocks_its_plane_only():
    resolved = resolve(SessionState(), VOLUME, at((4, 50, 5), (7, 1, 1)))
    assert "outside the image" in resolved.marks_blocked.reason
    assert [p.index for p in resolved.marks] == [7]
    assert resolved.propagate_blocked is None


@pytest.mark.parametrize(
    ("state", "points", "reason"),
    [
        ({}, [], "Click on the object"),
        ({"first_plane": 5}, [(4, 5, 5)], "widen the range"),
        ({"first_plane": 5, "last_plane": 2}, [(4, 5, 5)], "range is empty"),
    ],
)
def test_propagation_says_why_it_cannot_start(state, points, reason):
    assert reason in resolve(SessionState(**state), VOLUME, at(*points)).propagate_blocked.reason


def test_a_single_plane_has_nothing_to_propagate_to():
    flat = ArrayVolume(np.zeros((12, 16), np.uint8))
    assert (
        "only one plane"
        in resolve(SessionState(), flat, at((0, 5, 5), view=PlaneRef(0, 0))).propagate_blocked.reason
    )


def test_neighbours_come_nearest_first():
    assert [p.index for p in planes_around(PlaneRef(0, 1), 5, 2)] == [1, 0, 2, 3]
    assert [p.index for p in planes_around(PlaneRef(0, 4), 5, None)] == [4, 3, 2, 1, 0]
