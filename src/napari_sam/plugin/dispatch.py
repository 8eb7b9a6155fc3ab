"""From the inference thread to the Qt thread."""

from __future__ import annotations

from collections.abc import Callable

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


class Soon(QTimer):  # type: ignore[misc]
    """Runs one function once, a moment after the last or first of many calls.

    Parameters
    ----------
    function : callable
        What to run.
    milliseconds : int
        After the first call; further calls until then change nothing.
    """

    def __init__(self, function: Callable[[], None], milliseconds: int = 0) -> None:
        super().__init__()
        self.setSingleShot(True)
        self.setInterval(milliseconds)
        self.timeout.connect(function)

    def __call__(self, event: object = None) -> None:
        """Ask for a run."""
        if not self.isActive():
            self.start()
