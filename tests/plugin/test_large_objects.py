"""Objects of a million pixels are shown in bands, so that the window stays alive."""

import time
from itertools import pairwise

import numpy as np
import pytest

from napari_sam.plugin.partial import MOST_PIXELS, bands
from napari_sam.testing.phantoms import discs_plane

pytestmark = pytest.mark.gui


def test_bands_cover_the_box_once():
    box = (3, 5, 1003, 1005)
    cut = list(bands(box))
    assert (cut[0][0], cut[-1][2]) == (3, 1003)
    assert all(a[2] == b[0] for a, b in pairwise(cut))
    assert max((b[2] - b[0]) * (b[3] - b[1]) for b in cut) <= MOST_PIXELS
    assert list(bands((2, 2, 4, 4))) == [(2, 2, 4, 4)]
    assert list(bands((2, 2, 2, 2))) == []


def test_a_large_object_is_shown_whole_in_several_turns(segment, wait, qtbot):
    phantom = discs_plane((1200, 1200), [(600, 600)], 550.0)
    widget = segment(phantom.image, name="large")
    layers, durations = widget.controller.layers, []
    draw = layers.draw_band

    def timed():
        start = time.perf_counter()
        draw()
        durations.append(time.perf_counter() - start)

    layers.draw_band = timed
    shown = phantom.labels > 0
    layers.points.add([600, 600])
    wait(widget)
    qtbot.waitUntil(lambda: np.array_equal(layers.preview._slice.image.raw > 0, shown), timeout=5000)
    widget.session.commit()
    wait(widget)
    qtbot.waitUntil(lambda: np.array_equal(layers.labels._slice.image.raw == 1, shown), timeout=5000)
    assert len(durations) > 16
    assert np.median(durations) < 0.05
