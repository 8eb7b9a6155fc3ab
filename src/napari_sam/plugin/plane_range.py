"""Two boxes for the planes that a propagation may reach."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtWidgets import QLabel, QSpinBox, QWidget

from napari_sam.plugin.parts import quiet, row


class PlaneRange:
    """The first and the last plane.

    Parameters
    ----------
    changed : callable
        Called when either is another one, by the user or by `show_axis`.
    """

    def __init__(self, changed: Callable[[], Any]) -> None:
        self._changed, self._axis = changed, None
        self.first, self.last = QSpinBox(), QSpinBox()
        for box in (self.first, self.last):
            box.setKeyboardTracking(False)
            box.valueChanged.connect(changed)
        self.widget: QWidget = row(self.first, QLabel("to"), self.last)

    def show_axis(self, axis: Any, size: int) -> None:
        """Begin with all planes of an axis, where it is another one than before; `axis` is all that tells it apart."""
        if axis == self._axis:
            return
        self._axis = axis
        for box in (self.first, self.last):
            with quiet(box):
                box.setRange(0, size - 1)
        self.show(0, size - 1)

    def show(self, first: int | None, last: int | None) -> None:
        """Put in these; None leaves what is there."""
        for box, value in ((self.first, first), (self.last, last)):
            if value is not None:
                with quiet(box):
                    box.setValue(value)
        self._changed()
