"""A strip with one cell a plane: encoded, labelled, doubtful, on screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from qtpy.QtCore import QEvent, QRectF, QSize, Signal
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

EMPTY, ENCODED, LABELLED = QColor("#3b424d"), QColor("#4c9bd6"), QColor("#ffb000")
CURRENT = QColor("#ffffff")
CALM, ALARMED = QColor("#ffd866"), QColor("#ff2d55")
LEAST_SHOWN = 0.1
"""Less doubt is not drawn."""


def doubt_colour(doubt: float) -> QColor:
    """From yellow to red."""
    share = min(1.0, max(0.0, doubt))
    pairs = zip(CALM.getRgbF()[:3], ALARMED.getRgbF()[:3])
    return QColor.fromRgbF(*(a + (b - a) * share for a, b in pairs))


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
            "orange holds the active object, yellow to red at the top is doubtful, the white frame is on "
            "screen. Click to go to a plane."
        )
        self._size, self._current = 1, 0
        self._doubts: dict[int, float] = {}
        self.explain: Callable[[int], str] = lambda index: ""
        """Text for the tooltip over a plane; the general one where it is empty."""
        self._encoded: frozenset[int] = frozenset()
        self._labelled: frozenset[int] = frozenset()

    def sizeHint(self) -> QSize:
        """Qt asks for it."""
        return QSize(200, 28)

    def show_planes(
        self,
        size: int,
        current: int,
        encoded: Iterable[int],
        labelled: Iterable[int],
        doubts: Mapping[int, float] | None = None,
    ) -> None:
        """Set everything that is shown; `doubts` are from 0 to 1, by plane."""
        new = (max(1, size), current, frozenset(encoded), frozenset(labelled), dict(doubts or {}))
        if new != (self._size, self._current, self._encoded, self._labelled, self._doubts):
            self._size, self._current, self._encoded, self._labelled, self._doubts = new
            self.update()

    def event(self, event: Any) -> bool:
        """Say over a doubtful plane why it is."""
        if event.type() == QEvent.Type.ToolTip:
            text = self.explain(self.index_at(event.pos().x()))
            QToolTip.showText(event.globalPos(), text or self.toolTip(), self)
            return True
        return bool(super().event(event))

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
        for index, doubt in sorted(self._doubts.items(), key=lambda one: one[1]):
            if doubt >= LEAST_SHOWN:
                painter.fillRect(self._cell(index, 0.0, 0.15 + 0.35 * doubt, 2.0), doubt_colour(doubt))
        painter.setPen(QPen(CURRENT, 2))
        painter.drawRect(self._cell(self._current, 0.0, 1.0, 3.0).adjusted(1, 1, -1, -1))
        painter.end()

    def mousePressEvent(self, event: object) -> None:
        """Go to the plane under the mouse."""
        self.clicked.emit(self.index_at(event.position().x()))  # type: ignore[attr-defined]

    def index_at(self, x: float) -> int:
        """The plane at a place of the strip."""
        return max(0, min(self._size - 1, int(x / max(1, self.width()) * self._size)))

    def _cell(self, index: int, top: float, share: float, least: float = 1.0) -> QRectF:
        width = self.width() / self._size
        left, right = round(index * width), round((index + 1) * width)
        gap = 1 if width > 8 else 0
        return QRectF(left, top * self.height(), max(least, right - left - gap), share * self.height())
