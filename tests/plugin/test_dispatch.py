"""The window has a turn however many answers wait."""

import threading
import time

import numpy as np
import pytest
from qtpy.QtCore import QTimer

from napari_sam.core.planes import PlaneRef
from napari_sam.plugin.dispatch import QtDispatcher

pytestmark = pytest.mark.gui


def test_functions_run_in_order_and_others_have_a_turn_between_them(qtbot):
    dispatch, done, turns = QtDispatcher(), [], []
    timer = QTimer()
    timer.timeout.connect(lambda: turns.append(len(done)))
    timer.start(0)

    def run(number):
        time.sleep(0.001)
        done.append(number)

    thread = threading.Thread(target=lambda: [dispatch(lambda n=n: run(n)) for n in range(300)])
    thread.start()
    thread.join()
    qtbot.waitUntil(lambda: len(done) == 300, timeout=60000)
    timer.stop()
    assert done == list(range(300))
    between = [n for n in turns if 0 < n < 300]
    assert len(set(between)) >= 5


def test_an_error_does_not_keep_back_what_comes_after_it(qtbot):
    dispatch, done = QtDispatcher(), []

    def fail():
        raise ValueError("no")

    with qtbot.capture_exceptions() as caught:
        dispatch(fail)
        dispatch(lambda: done.append(1))
        qtbot.waitUntil(lambda: bool(done), timeout=60000)
    assert [str(error) for _, error, _ in caught] == ["no"]


def test_the_window_shows_what_is_left_of_many_objects(segment, wait):
    labels = np.zeros((3, 80, 80), np.uint32)
    for number in range(100):
        y, x = (8 * i for i in divmod(number, 10))
        labels[:, y : y + 7, x : x + 7] = number + 1
    widget = segment(np.zeros(labels.shape, np.uint8), name="cells")
    session, layers = widget.session, widget.controller.layers
    widget.viewer.dims.set_point(0, 1)
    widget.controller.adopt(widget.viewer.add_labels(labels, name="theirs"))
    wait(widget)
    session.editing.take_labels()
    wait(widget)
    session.editing.delete(range(1, 51))
    wait(widget)
    left = np.where(labels > 50, labels, 0)
    np.testing.assert_array_equal(layers.labels._slice.image.raw, left[1])
    assert widget.object_list.table.rowCount() == 50 + (session.record.is_empty)
    session.undo()
    wait(widget)
    np.testing.assert_array_equal(layers.labels._slice.image.raw, labels[1])
    assert isinstance(session.view, PlaneRef)
