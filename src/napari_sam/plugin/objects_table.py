"""The table of objects: a model that shows thousands of records without copying them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from qtpy.QtCore import QAbstractTableModel, Qt, Signal
from qtpy.QtGui import QBrush, QColor, QFont

from napari_sam.core.results import DOUBTFUL
from napari_sam.plugin.strip import doubt_colour
from napari_sam.session.doubt import describe
from napari_sam.session.objects import ObjectRecord

Index: TypeAlias = Any
"""Qt's QModelIndex or QPersistentModelIndex."""

COLUMNS = ("id", "name", "class", "", "planes", "#", "IoU", "doubt", "state")
ID, NAME, CLASS, COLOUR, PLANES, PROMPTS, IOU, DOUBT, STATE = range(len(COLUMNS))
EDITABLE = {NAME: "name", CLASS: "class_name"}
TIPS = {
    ID: "Label of the object. Click on a row to go on with it: its prompts come back.",
    NAME: "Double click to name it.",
    CLASS: "What kind of thing it is. Double click to write it.",
    COLOUR: "Its colour.",
    PLANES: "First and last plane.",
    PROMPTS: "Points and shapes.",
    IOU: "The model's own estimate, mean over the planes.",
    DOUBT: "The most doubtful plane, from 0 (none) to 1.",
    STATE: "draft, propagated or reviewed.",
}


class ObjectTableModel(QAbstractTableModel):  # type: ignore[misc]
    """Objects as rows; what a row shows is looked up when it is drawn.

    Attributes
    ----------
    edited : Signal(int, str, str)
        Object id, field of its record, what the user wrote.
    """

    edited = Signal(int, str, str)

    def __init__(self, colour_of: Callable[[int], QColor | None] = lambda _: None) -> None:
        super().__init__()
        self._colour_of = colour_of
        self._records: list[ObjectRecord] = []
        self._keys: list[tuple[Any, ...]] = []
        self._active = 0
        self._order: tuple[int, bool] = (ID, False)

    # What is in it

    def show_objects(self, records: Iterable[ObjectRecord], active: ObjectRecord) -> None:
        """Show these objects; empty ones are left out unless active. Costs little if nothing changed."""
        wanted = [r for r in records if r is active or not r.is_empty]
        if len(wanted) != len(self._records) or set(map(id, wanted)) != set(map(id, self._records)):
            self.beginResetModel()
            self._active = active.object_id
            self._records = self._sorted(wanted)
            self._keys = [_key(record) for record in self._records]
            self.endResetModel()
            return
        keys = [_key(record) for record in self._records]
        changed = [i for i, (old, new) in enumerate(zip(self._keys, keys)) if old != new]
        if active.object_id != self._active:
            changed += [
                i for i in (self.row_of(self._active), self.row_of(active.object_id)) if i is not None
            ]
        self._keys, self._active = keys, active.object_id
        if changed:
            last = len(COLUMNS) - 1
            self.dataChanged.emit(self.index(min(changed), 0), self.index(max(changed), last))

    def record_at(self, row: int) -> ObjectRecord:
        """The object of a row."""
        return self._records[row]

    def row_of(self, object_id: int) -> int | None:
        """The row of an object, None if it is not shown."""
        return next((i for i, r in enumerate(self._records) if r.object_id == object_id), None)

    # As Qt asks for it

    def rowCount(self, parent: Index | None = None) -> int:
        """Objects."""
        return 0 if parent is not None and parent.isValid() else len(self._records)

    def columnCount(self, parent: Index | None = None) -> int:
        """Columns."""
        return 0 if parent is not None and parent.isValid() else len(COLUMNS)

    def headerData(self, section: int, orientation: Any, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Names of the columns."""
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return COLUMNS[section]
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.ToolTipRole:
            return TIPS[section]
        return None

    def flags(self, index: Index) -> Any:
        """Name and class can be edited."""
        flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
        return flags | Qt.ItemFlag.ItemIsEditable if index.column() in EDITABLE else flags

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """What a cell shows."""
        record, column = self._records[index.row()], index.column()
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.EditRole):
            return cell_text(record, column)
        if role == Qt.ItemDataRole.ToolTipRole:
            return cell_tip(record, column)
        if role == Qt.ItemDataRole.DecorationRole and column == COLOUR:
            own = record.colour
            return QColor.fromRgbF(*own) if own is not None else self._colour_of(record.object_id)
        if role == Qt.ItemDataRole.BackgroundRole:
            return self._background(record, column)
        if role == Qt.ItemDataRole.FontRole and record.object_id == self._active:
            font = QFont()
            font.setBold(True)
            return font
        return None

    def setData(self, index: Index, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        """Pass on what the user wrote; the session changes the record."""
        field = EDITABLE.get(index.column())
        if field is None or role != Qt.ItemDataRole.EditRole:
            return False
        self.edited.emit(self._records[index.row()].object_id, field, str(value))
        return True

    def sort(self, column: int, order: Any = Qt.SortOrder.AscendingOrder) -> None:
        """Order the rows by a column."""
        self._order = (column, order == Qt.SortOrder.DescendingOrder)
        self.layoutAboutToBeChanged.emit()
        before = [(index, self._records[index.row()]) for index in self.persistentIndexList()]
        self._records = self._sorted(self._records)
        self._keys = [_key(record) for record in self._records]
        rows = {id(record): row for row, record in enumerate(self._records)}
        for index, record in before:
            self.changePersistentIndex(index, self.index(rows[id(record)], index.column()))
        self.layoutChanged.emit()

    # Details

    def _sorted(self, records: Sequence[ObjectRecord]) -> list[ObjectRecord]:
        column, descending = self._order
        by_id = sorted(records, key=lambda record: record.object_id)
        return (
            by_id
            if column == ID and not descending
            else sorted(by_id, key=lambda record: _sort_key(record, column), reverse=descending)
        )

    def _background(self, record: ObjectRecord, column: int) -> QBrush | None:
        doubt = record.summary.doubt
        if column == DOUBT and doubt is not None and doubt >= DOUBTFUL:
            return QBrush(doubt_colour(doubt))
        return None


def cell_text(record: ObjectRecord, column: int) -> str:
    """The text of a cell."""
    summary = record.summary
    match column:
        case 0:
            return str(record.object_id)
        case 1:
            return record.name
        case 2:
            return record.class_name
        case 4:
            return f"{summary.planes[0]}–{summary.planes[1]}" if summary.planes else "not kept yet"
        case 5:
            return str(summary.n_prompts)
        case 6:
            return "" if summary.predicted_iou is None else f"{summary.predicted_iou:.2f}"
        case 7:
            return "" if summary.doubt is None else f"{summary.doubt:.2f}"
        case 8:
            return str(record.state)
    return ""


def cell_tip(record: ObjectRecord, column: int) -> str:
    """What to read over a cell."""
    worst = record.summary.doubtful_plane
    if column == DOUBT and worst is not None and worst in record.scores:
        text = describe(record.scores[worst])
        return f"plane {worst.index}: {text}" if text else "no doubt"
    return TIPS[column]


def _key(record: ObjectRecord) -> tuple[Any, ...]:
    """What a row shows, cheaply: if this is equal, nothing has to be drawn again."""
    own = record.name, record.class_name, record.state, record.colour
    return (id(record.marks), record.version, len(record.written), *own)


def _sort_key(record: ObjectRecord, column: int) -> Any:
    summary = record.summary
    numbers = {
        ID: record.object_id,
        PLANES: summary.planes[0] if summary.planes else -1,
        PROMPTS: summary.n_prompts,
        IOU: -1.0 if summary.predicted_iou is None else summary.predicted_iou,
        DOUBT: -1.0 if summary.doubt is None else summary.doubt,
    }
    return numbers[column] if column in numbers else cell_text(record, column)
