"""The promise: no click, encode, propagation or save stalls the window for more than 50 ms.

What napari itself does when a slider moves (it slices every layer at once) and the drawing of the canvas, which on a
machine without a GPU is done by the CPU, are not ours and not measured: the window is not painted, and sliders
move while the meter is paused.
"""

import time
from contextlib import contextmanager

import pytest
from qtpy.QtCore import QTimer

from napari_sam.testing.phantoms import ball_volume

pytestmark = [pytest.mark.gui, pytest.mark.slow]

LIMIT_S = 0.05
ATTEMPTS = 6
"""The machine's own noise (other processes on the same cores) adds stalls that are not ours: the quietest
attempt counts. A stall that the program causes is in every attempt."""


class StallMeter:
    """Longest time between two turns of the event loop, from a timer that wants one every 5 ms."""

    def __init__(self) -> None:
        self.longest, self.during = 0.0, ""
        self.phase = ""
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.timeout.connect(self._tick)
        self._timer.start(5)

    def _tick(self) -> None:
        now = time.perf_counter()
        if now - self._last > self.longest:
            self.longest, self.during = now - self._last, self.phase
        self._last = now

    @contextmanager
    def paused(self):
        self._timer.stop()
        yield
        self._last = time.perf_counter()
        self._timer.start(5)

    def stop(self) -> None:
        self._timer.stop()


def run_scenario(widget, qtbot, wait, path):
    """Click, look elsewhere while it works, keep, propagate, undo, save; returns the longest stall."""
    session, layers, viewer = widget.session, widget.controller.layers, widget.viewer
    depth = session.volume.shape_zyx()[0]
    meter = StallMeter()
    plane = depth // 2
    with meter.paused():
        viewer.dims.set_point(0, plane)
    meter.phase = "click"
    layers.points.add([plane, 127.5, 127.5])
    qtbot.waitUntil(lambda: bool(session.record.pending), timeout=20000)
    meter.phase = "encode"
    with meter.paused():
        viewer.dims.set_point(0, plane + 1)
    qtbot.waitUntil(lambda: session.view in session.encoded, timeout=20000)
    with meter.paused():
        viewer.dims.set_point(0, plane)
    meter.phase = "keep"
    session.commit()
    wait(widget)
    meter.phase = "propagate"
    session.propagate()
    qtbot.waitUntil(lambda: len(session.record.written) > 2, timeout=20000)
    session.cancel()
    wait(widget)
    meter.phase = "undo"
    session.undo()
    wait(widget)
    meter.phase = "save"
    widget.session.save(path)
    wait(widget)
    meter.stop()
    return meter


def test_longest_stall_stays_under_50_ms(segment, qtbot, wait, backend, tmp_path):
    phantom = ball_volume((16, 256, 256), radii=30.0)
    backend.predictor.delay_s = 0.0
    widget = segment(phantom.image, name="balls")
    widget.session.state.idle_reach = 0
    backend.predictor.delay_s = 2.0
    stalls = []
    for attempt in range(ATTEMPTS):
        meter = run_scenario(widget, qtbot, wait, tmp_path / f"{attempt}.ome.zarr")
        stalls.append((meter.longest, meter.during))
        if meter.longest < LIMIT_S:
            break
        widget.controller.choose_image(widget.viewer.layers["balls"])
        wait(widget)
    assert min(stalls)[0] < LIMIT_S, f"longest stalls: {stalls}"
