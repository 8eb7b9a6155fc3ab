"""The list of objects: what each one has, and which is active."""

from __future__ import annotations

from collections.abc import Iterable

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QListWidget, QListWidgetItem

from napari_sam.plugin.parts import quiet
from napari_sam.session.objects import ObjectRecord


class ObjectList(QListWidget):  # type: ignore[misc]
    """Objects by number; a click makes one active.

    Attributes
    ----------
    chosen : Signal(int)
        Object id.
    """

    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.setToolTip("Click on an object to go on with it: its prompts come back.")
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setFixedHeight(64)
        self._shown: tuple[tuple[int, str], ...] = ()
        self.itemClicked.connect(lambda item: self.chosen.emit(item.data(Qt.ItemDataRole.UserRole)))

    def show_objects(self, records: Iterable[ObjectRecord], active: ObjectRecord) -> None:
        """Show these objects; empty ones are left out unless active."""
        rows = tuple((r.object_id, _text(r)) for r in records if r is active or not r.is_empty)
        with quiet(self):
            if rows != self._shown:
                self._shown = rows
                self._fill()
            for index, (object_id, _) in enumerate(rows):
                self.item(index).setSelected(object_id == active.object_id)

    def _fill(self) -> None:
        self.clear()
        for object_id, text in self._shown:
            item = QListWidgetItem(text)
            item.setData(Qt.ItemDataRole.UserRole, object_id)
            self.addItem(item)


def _text(record: ObjectRecord) -> str:
    planes = len(record.written)
    kept = f"{planes} plane{'s' if planes != 1 else ''}" if planes else "not kept yet"
    pending = f", {len(record.pending)} not kept" if planes and record.pending else ""
    return f"{record.object_id}: {kept}{pending}"
