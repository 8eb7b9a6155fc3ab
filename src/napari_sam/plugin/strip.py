"""A strip with one cell a plane: encoded, labelled, on screen."""

from __future__ import annotations

from collections.abc import Iterable

from qtpy.QtCore import QRectF, QSize, Signal
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QSizePolicy, QWidget

EMPTY, ENCODED, LABELLED = QColor("#3b424d"), QColor("#4c9bd6"), QColor("#ffb000")
CURRENT = QColor("#ffffff")


class PlaneStrip(QWidget):  # type: ignore[misc]
    """Planes along the axis that is sliced; a click goes to a plane.

    Attributes
    ----------
    clicked : Signal(int)
        Index of a plane.
    """

    clicked = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "Planes along the axis you slice: blue is encoded (a click answers at once), "
            "orange holds the active object, the white frame is on screen. Click to go to a plane."
        )
        self._size, self._current = 1, 0
        self._encoded: frozenset[int] = frozenset()
        self._labelled: frozenset[int] = frozenset()

    def sizeHint(self) -> QSize:
        """Qt asks for it."""
        return QSize(200, 22)

    def show_planes(self, size: int, current: int, encoded: Iterable[int], labelled: Iterable[int]) -> None:
        """Set everything that is shown."""
        new = (max(1, size), current, frozenset(encoded), frozenset(labelled))
        if new != (self._size, self._current, self._encoded, self._labelled):
            self._size, self._current, self._encoded, self._labelled = new
            self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw at most one cell a pixel column."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), EMPTY)
        for indices, colour, top, share in (
            (self._encoded, ENCODED, 0.0, 1.0),
            (self._labelled, LABELLED, 0.55, 0.45),
        ):
            for index in indices:
                painter.fillRect(self._cell(index, top, share), colour)
        painter.setPen(QPen(CURRENT, 2))
        painter.drawRect(self._cell(self._current, 0.0, 1.0, 3.0).adjusted(1, 1, -1, -1))
        painter.end()

    def mousePressEvent(self, event: object) -> None:
        """Go to the plane under the mouse."""
        x = event.position().x()  # type: ignore[attr-defined]
        self.clicked.emit(max(0, min(self._size - 1, int(x / max(1, self.width()) * self._size))))

    def _cell(self, index: int, top: float, share: float, least: float = 1.0) -> QRectF:
        width = self.width() / self._size
        left, right = round(index * width), round((index + 1) * width)
        gap = 1 if width > 8 else 0
        return QRectF(left, top * self.height(), max(least, right - left - gap), share * self.height())
