"""From the inference thread to the Qt thread."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Lock

from qtpy.QtCore import QObject, Qt, QTimer, Signal

TURN_S = 0.01
"""Seconds."""


class QtDispatcher(QObject):  # type: ignore[misc]
    """Runs functions on the thread that made it, in order, as its event loop gets to them.

    Calling it is safe on any thread and returns at once. However many functions wait, the event loop has a turn for the
    mouse, the keyboard and the screen after every `TURN_S` of them.
    """

    called = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._waiting: deque[Callable[[], None]] = deque()
        self._lock = Lock()
        self._is_woken = False
        self.called.connect(self._run, Qt.ConnectionType.QueuedConnection)

    def __call__(self, function: Callable[[], None]) -> None:
        """Have a function run soon."""
        with self._lock:
            self._waiting.append(function)
            wake, self._is_woken = not self._is_woken, True
        if wake:
            self.called.emit()

    def _run(self) -> None:
        end = time.monotonic() + TURN_S
        try:
            while self._waiting and time.monotonic() < end:
                self._waiting.popleft()()
        finally:
            with self._lock:
                self._is_woken = bool(self._waiting)
            if self._is_woken:
                QTimer.singleShot(0, self._run)


class Soon:
    """Runs one function once, a moment after the first of many calls.

    Parameters
    ----------
    function : callable
        What to run.
    milliseconds : int
        After the first call; further calls until then change nothing.
    """

    def __init__(self, function: Callable[[], None], milliseconds: int = 0) -> None:
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(milliseconds)
        self._timer.timeout.connect(function)

    def __call__(self, event: object = None) -> None:
        """Ask for a run."""
        if not self._timer.isActive():
            self._timer.start()

    def stop(self) -> None:
        """Forget what was asked for."""
        with suppress(RuntimeError):  # at exit, Qt may have deleted the timer before us
            self._timer.stop()
