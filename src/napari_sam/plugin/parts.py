"""Small pieces that the widget is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_sam.plugin.keys import shown

UNLIMITED = 16777215
"""Qt's own limit of a widget's height."""


def button(text: str, tooltip: str, action: Callable[[], Any], key: str | None = None) -> QPushButton:
    """A button that shows its key; `key` is a name in `KEYS`."""
    made = QPushButton(f"{text}  [{shown(key)}]" if key else text)
    made.setToolTip(f"{tooltip} (key {shown(key)})" if key else tooltip)
    made.setProperty("tip", made.toolTip())
    made.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    made.clicked.connect(lambda *_: action())
    return made


def allow(widget: QPushButton, reason: str | None) -> None:
    """Enable a button, or disable it and let its tooltip say why."""
    widget.setEnabled(reason is None)
    widget.setToolTip(
        widget.property("tip") if reason is None else f"{widget.property('tip')}\n\nNot now: {reason}"
    )


def row(*widgets: QWidget) -> QWidget:
    """Widgets side by side, sharing the width."""
    made = QWidget()
    layout = QHBoxLayout(made)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for widget in widgets:
        layout.addWidget(widget)
    return made


def scrolling(widget: QWidget) -> QVBoxLayout:
    """Give a widget a column that scrolls where the window is too low for it, and return its layout."""
    area, body = QScrollArea(), QWidget()
    area.setWidgetResizable(True)
    area.setFrameShape(QScrollArea.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setWidget(body)
    outer = QVBoxLayout(widget)
    outer.setContentsMargins(0, 0, 0, 0)
    outer.addWidget(area)
    layout = QVBoxLayout(body)
    layout.setContentsMargins(6, 4, 6, 4)
    layout.setSpacing(4)
    return layout


def section(title: str, *widgets: QWidget, expanded: bool = True) -> QCollapsible:
    """A part of the widget that folds away."""
    made = QCollapsible(title)
    body = QWidget()
    layout = QVBoxLayout(body)
    layout.setContentsMargins(2, 0, 2, 2)
    layout.setSpacing(4)
    for widget in widgets:
        layout.addWidget(widget)
    made.setContent(body)
    made.setDuration(0)
    made.layout().setContentsMargins(0, 0, 0, 0)
    made.layout().setSpacing(2)
    made.toggled.connect(lambda open_: body.setMaximumHeight(UNLIMITED if open_ else 0))
    (made.expand if expanded else made.collapse)(animate=False)
    body.setMaximumHeight(
        UNLIMITED if expanded else 0
    )  # its rows come and go; superqt fixes the height it had
    made.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
    return made


class Form(QWidget):  # type: ignore[misc]
    """Labelled rows that can be hidden one by one."""

    def __init__(self) -> None:
        super().__init__()
        self._layout = QFormLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(4)
        self._layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)

    def add(self, label: str, widget: QWidget, tooltip: str = "") -> QWidget:
        """Add a row and return its widget."""
        widget.setToolTip(tooltip)
        self._layout.addRow(label, widget)
        return widget

    def show_row(self, widget: QWidget, visible: bool) -> None:
        """Show or hide the row of a widget."""
        self._layout.setRowVisible(widget, visible)


def choice(changed: Callable[[], Any]) -> QComboBox:
    """A combo box that may be narrower than its texts."""
    made = QComboBox()
    made.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    made.setMinimumContentsLength(8)
    made.currentIndexChanged.connect(lambda *_: changed())
    return made


def fill(box: QComboBox, items: Iterable[tuple[str, Any]], keep: Any = None) -> None:
    """Replace the items of a combo box without saying so; `keep` is chosen if it is among them."""
    with quiet(box):
        box.clear()
        for text, value in items:
            box.addItem(text, value)
        for index in range(box.count()):
            if box.itemData(index) is keep or _equal(box.itemData(index), keep):
                box.setCurrentIndex(index)


@contextmanager
def quiet(widget: QWidget) -> Iterator[None]:
    """Let a widget send no signals."""
    before = widget.blockSignals(True)
    try:
        yield
    finally:
        widget.blockSignals(before)


def _equal(a: Any, b: Any) -> bool:
    plain = (str, int, tuple, type(None))
    return isinstance(a, plain) and isinstance(b, plain) and a == b


def dot(colour: str) -> QIcon:
    """A filled circle."""
    pixmap = QPixmap(24, 24)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setBrush(QColor(colour))
    painter.setPen(QColor("white"))
    painter.drawEllipse(3, 3, 18, 18)
    painter.end()
    return QIcon(pixmap)
