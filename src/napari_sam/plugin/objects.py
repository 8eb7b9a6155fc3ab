"""The list of objects with what can be done to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QItemSelectionModel, QPoint, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QColorDialog, QHeaderView, QMenu, QTableView

from napari_sam.plugin.objects_table import (
    CLASS,
    COLOUR,
    DOUBT,
    ID,
    IOU,
    NAME,
    PLANES,
    PROMPTS,
    ObjectTableModel,
)
from napari_sam.plugin.parts import quiet
from napari_sam.session.objects import ObjectRecord, ObjectState

if TYPE_CHECKING:
    from napari_sam.plugin.controller import SegmentController

ROW_HEIGHT = 20
WIDTHS = {ID: 28, NAME: 50, CLASS: 42, COLOUR: 20, PLANES: 50, PROMPTS: 22, IOU: 40, DOUBT: 46}


class ObjectTable(QTableView):  # type: ignore[misc]
    """Objects as rows; a click makes one active and goes to it, a right click offers what can be done.

    Parameters
    ----------
    controller : SegmentController
        Whose session it shows.

    Attributes
    ----------
    chosen : Signal(int)
        Object id.
    """

    chosen = Signal(int)

    def __init__(self, controller: SegmentController) -> None:
        super().__init__()
        self.controller = controller
        self.table = ObjectTableModel(self._colour)
        self.setModel(self.table)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked)
        self.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.setSortingEnabled(True)
        self.sortByColumn(ID, Qt.SortOrder.AscendingOrder)
        self.setMinimumHeight(7 * ROW_HEIGHT)
        self._shape_headers()
        self.clicked.connect(self._click)
        self.customContextMenuRequested.connect(self._open_menu)
        self.table.edited.connect(self._edit)

    def _shape_headers(self) -> None:
        vertical, horizontal = self.verticalHeader(), self.horizontalHeader()
        vertical.hide()
        vertical.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        vertical.setDefaultSectionSize(ROW_HEIGHT)
        horizontal.setStretchLastSection(True)
        horizontal.setMinimumSectionSize(16)
        for column, width in WIDTHS.items():
            self.setColumnWidth(column, width)

    # Showing

    def show_objects(self, records: Iterable[ObjectRecord], active: ObjectRecord) -> None:
        """Show these objects; empty ones are left out unless active."""
        self.table.show_objects(records, active)
        if len(self.selected_ids) < 2 and self.selected_ids != [active.object_id]:
            self._select(active.object_id)

    @property
    def selected_ids(self) -> list[int]:
        """Objects whose rows are selected, from top to bottom."""
        rows = sorted(index.row() for index in self.selectionModel().selectedRows())
        return [self.table.record_at(row).object_id for row in rows]

    def _select(self, object_id: int) -> None:
        row = self.table.row_of(object_id)
        if row is not None and self.state() != QAbstractItemView.State.EditingState:
            flags = QItemSelectionModel.SelectionFlag
            with quiet(self):
                self.selectionModel().select(self.table.index(row, 0), flags.ClearAndSelect | flags.Rows)
            self.scrollTo(self.table.index(row, 0))

    def _colour(self, object_id: int) -> QColor | None:
        layers = self.controller.layers
        if layers is None or layers.labels is None:
            return None
        colour = layers.labels.get_color(object_id)
        return QColor.fromRgbF(*map(float, colour[:3])) if colour is not None else None

    # What the user does

    def _click(self, index: Any) -> None:
        if len(self.selected_ids) == 1:
            self.chosen.emit(self.table.record_at(index.row()).object_id)

    def _edit(self, object_id: int, field: str, text: str) -> None:
        editing = self.controller.session.editing
        {"name": editing.rename, "class_name": editing.classify}[field](object_id, text)

    def _open_menu(self, at: QPoint) -> None:
        menu = self.make_menu()
        menu.exec(self.viewport().mapToGlobal(at))
        menu.deleteLater()

    def make_menu(self) -> QMenu:
        """What can be done to the selected objects."""
        ids = self.selected_ids
        menu = QMenu(self)
        for text, action in self.actions_for(ids):
            menu.addAction(text, action)
        if len(ids) == 1:
            for text, column in (("Rename …", NAME), ("Set class …", CLASS)):
                menu.addAction(text, lambda column=column: self._begin_edit(ids[0], column))
            menu.addAction("Set colour …", lambda: self._choose_colour(ids[0]))
        return menu

    def actions_for(self, ids: list[int]) -> list[tuple[str, Callable[[], Any]]]:
        """Texts and functions for objects, without dialogs."""
        session, editing = self.controller.session, self.controller.session.editing
        found = [session.objects[i] for i in ids if i in session.objects]
        if not found:
            return []
        count = f"{len(found)} objects" if len(found) > 1 else f"object {found[0].object_id}"
        reviewed = all(record.state is ObjectState.REVIEWED for record in found)
        actions: list[tuple[str, Callable[[], Any]]] = [
            (
                "Mark as not reviewed" if reviewed else "Mark as reviewed",
                lambda: _each(ids, partial(editing.mark_reviewed, reviewed=not reviewed)),
            ),
            (f"Propagate {count}", lambda: session.propagate_objects(ids)),
            (f"Refine {count} with the model", lambda: _each(ids, editing.refine)),
            (f"Carry {count} along all three axes", lambda: _each(ids, editing.agree_along_axes)),
        ]
        if len(found) > 1:
            actions.append((f"Merge into object {ids[0]}", lambda: editing.merge(ids[0], ids[1:])))
        else:
            actions += [
                ("Split into connected parts", lambda: editing.split_components(ids[0])),
                ("Split by points (+ stays, − leaves)", lambda: editing.split_by_marks(ids[0])),
            ]
        shown = self.controller.shows_only_active
        actions.append(("Show all objects" if shown else "Hide other objects", self.controller.toggle_others))
        actions.append((f"Delete {count}", lambda: editing.delete(ids)))
        return actions

    def _begin_edit(self, object_id: int, column: int) -> None:
        row = self.table.row_of(object_id)
        if row is not None:
            self.edit(self.table.index(row, column))

    def _choose_colour(self, object_id: int) -> None:
        chosen = QColorDialog.getColor(parent=self)
        if chosen.isValid():
            self.controller.session.editing.colour(object_id, chosen.getRgbF()[:3])


def _each(object_ids: Iterable[int], do: Callable[[int], None]) -> None:
    for object_id in object_ids:
        do(object_id)
