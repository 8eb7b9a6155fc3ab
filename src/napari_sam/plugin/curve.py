"""A small live plot: the loss going down, the IoU of validations going up."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QPointF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

BACKGROUND, LOSS, IOU, TEXT = QColor("#262930"), QColor("#4c9bd6"), QColor("#ffb000"), QColor("#d6d0ce")
MOST_POINTS = 2000
MARGIN = 4

Point = tuple[float, float]


class CurvePlot(QWidget):  # type: ignore[misc]
    """Loss (blue, from 0 to its largest value) and IoU on what was kept out (orange, 0 to 1) over the run."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip("Blue: loss. Orange: mean IoU on the labels that were kept out, from 0 to 1.")
        self.losses: list[Point] = []
        self.ious: list[Point] = []

    def sizeHint(self) -> QSize:
        """Qt asks for it."""
        return QSize(200, 120)

    def clear(self) -> None:
        """Start again."""
        self.losses, self.ious = [], []
        self.update()

    def add_loss(self, fraction: float, value: float) -> None:
        """Add a step, smoothed."""
        if self.losses:
            value = 0.8 * self.losses[-1][1] + 0.2 * value
        self.losses.append((fraction, value))
        if len(self.losses) > MOST_POINTS:
            self.losses = self.losses[::2]
        self.update()

    def add_iou(self, fraction: float, value: float) -> None:
        """Add a validation."""
        self.ious.append((fraction, value))
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw both curves and the last values."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.fillRect(self.rect(), BACKGROUND)
        top = max((value for _, value in self.losses), default=1.0) or 1.0
        self._draw(painter, [(x, y / top) for x, y in self.losses], LOSS, 1.5)
        self._draw(painter, self.ious, IOU, 2.5)
        for number, (name, points, colour) in enumerate(
            (("loss", self.losses, LOSS), ("IoU", self.ious, IOU))
        ):
            painter.setPen(colour if points else TEXT)
            text = f"{name} {points[-1][1]:.3f}" if points else name
            painter.drawText(QPointF(2 * MARGIN + 90 * number, 16), text)
        painter.end()

    def _draw(self, painter: QPainter, points: Sequence[Point], colour: QColor, width: float) -> None:
        painter.setPen(QPen(colour, width))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        places = [self._place(x, y) for x, y in points]
        painter.drawPolyline(QPolygonF(places))
        if width > 2:
            painter.setBrush(colour)
            for place in places:
                painter.drawEllipse(place, 2.5, 2.5)

    def _place(self, x: float, y: float) -> QPointF:
        width, height = self.width() - 2 * MARGIN, self.height() - 2 * MARGIN - 18
        return QPointF(MARGIN + x * width, MARGIN + 18 + (1 - min(max(y, 0), 1)) * height)
