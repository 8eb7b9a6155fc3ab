"""From the inference thread to the Qt thread."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from qtpy.QtCore import QObject, Qt, QTimer, Signal


class QtDispatcher(QObject):  # type: ignore[misc]
    """Runs functions on the thread that made it, in order, as its event loop gets to them.

    Calling it is safe on any thread and returns at once.
    """

    called = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.called.connect(self._run, Qt.ConnectionType.QueuedConnection)

    def __call__(self, function: Callable[[], None]) -> None:
        """Have a function run soon."""
        self.called.emit(function)

    def _run(self, function: Callable[[], None]) -> None:
        function()


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
