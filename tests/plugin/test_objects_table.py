"""The table of objects and the strip of doubt, alone and in a real window."""

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.results import Doubt, DoubtReason
from napari_sam.plugin.objects_table import CLASS, DOUBT, NAME, PLANES, STATE, ObjectTableModel
from napari_sam.session import objects
from napari_sam.session.marks import Marks
from napari_sam.session.objects import ObjectRecord, ObjectState, PlaneScore
from napari_sam.testing.phantoms import ball_volume

pytestmark = pytest.mark.gui
CENTRES = [(12, 20, 20), (12, 44, 58)]
REGION = Region((8, 8), (1, 1, 3, 3), np.ones((2, 2), bool))


def make_record(object_id, n_planes=3):
    record = ObjectRecord(object_id)
    for index in range(n_planes):
        record.set_written(PlaneRef(0, index), REGION)
        record.set_score(PlaneRef(0, index), PlaneScore(0.8, doubt=Doubt.of({DoubtReason.AREA: index / 10})))
    return record


def cell(model, row, column, role=Qt.ItemDataRole.DisplayRole):
    return model.data(model.index(row, column), role)


def test_thousands_of_rows_are_looked_at_only_when_they_are_drawn(qapp, monkeypatch):
    counted = []
    real = objects.summarise
    monkeypatch.setattr(objects, "summarise", lambda record: counted.append(record) or real(record))
    records = [make_record(i + 1) for i in range(5000)]
    model = ObjectTableModel()
    changes = []
    model.dataChanged.connect(lambda first, last: changes.append((first.row(), last.row())))
    model.show_objects(records, records[0])
    assert model.rowCount() == 5000
    assert not counted
    assert cell(model, 4999, PLANES) == "0–2"
    assert len(counted) == 1
    model.show_objects(records, records[0])
    assert not changes
    records[7].set_written(PlaneRef(0, 9), REGION)
    model.show_objects(records, records[0])
    assert changes == [(7, 7)]
    assert cell(model, 7, PLANES) == "0–9"


def test_cells_say_what_is_known(qapp):
    record = make_record(3)
    record.name, record.class_name, record.state = "left", "cell", ObjectState.REVIEWED
    model = ObjectTableModel()
    model.show_objects([record, ObjectRecord(4)], record)
    assert [cell(model, 0, c) for c in range(9)] == [
        "3",
        "left",
        "cell",
        "",
        "0–2",
        "0",
        "0.80",
        "0.20",
        "reviewed",
    ]
    assert model.rowCount() == 1  # the empty object is left out
    assert "its area jumps" in cell(model, 0, DOUBT, Qt.ItemDataRole.ToolTipRole)


def test_columns_sort_and_keep_their_order(qapp):
    records = [make_record(1, 5), make_record(2, 2), make_record(3, 4)]
    model = ObjectTableModel()
    model.show_objects(records, records[0])
    model.sort(DOUBT, Qt.SortOrder.DescendingOrder)
    assert [model.record_at(row).object_id for row in range(3)] == [1, 3, 2]
    model.show_objects([*records, make_record(4, 9)], records[0])
    assert [model.record_at(row).object_id for row in range(4)] == [4, 1, 3, 2]


@pytest.fixture
def worked(segment, wait):
    """A widget in which two balls were carried through their planes."""
    widget = segment(ball_volume((24, 64, 80), CENTRES, [8.2, 9.2]).image, scale=(2, 1, 1))
    session = widget.session
    for object_id, centre in enumerate(CENTRES, 1):
        session.state.object_id = object_id
        widget.controller.go_to_plane(centre[0])
        session.set_marks(Marks([(0, *centre)], [True]))
        wait(widget)
    session.propagate_objects([1, 2])
    wait(widget)
    widget.refresh()
    return widget


def test_rows_follow_the_session_and_lead_to_the_object(worked, wait):
    table = worked.object_list
    assert table.table.rowCount() == 2
    assert table.selected_ids == [2]
    worked.controller.go_to_plane(0)
    assert worked.session.view.index == 0
    table.selectRow(0)
    table.clicked.emit(table.table.index(0, 0))
    wait(worked)
    assert worked.session.state.object_id == 1
    assert worked.session.view in worked.session.record.written


def test_names_are_edited_in_place_and_undone(worked, wait):
    model = worked.object_list.table
    assert model.flags(model.index(0, NAME)) & Qt.ItemFlag.ItemIsEditable
    assert not model.flags(model.index(0, STATE)) & Qt.ItemFlag.ItemIsEditable
    assert model.setData(model.index(0, NAME), "nucleus")
    assert model.setData(model.index(0, CLASS), "cell")
    assert worked.session.objects[1].name == "nucleus"
    assert worked.session.objects[1].class_name == "cell"
    worked.session.undo()
    wait(worked)
    assert worked.session.objects[1].class_name == ""


def run(table, ids, start):
    """Do what the context menu offers."""
    chosen = [action for text, action in table.actions_for(ids) if text.startswith(start)]
    assert len(chosen) == 1, [text for text, _ in table.actions_for(ids)]
    chosen[0]()


def test_the_menu_merges_splits_reviews_hides_and_deletes(worked, wait):
    table, session = worked.object_list, worked.session
    before = np.asarray(session.labels.array[:])
    run(table, [1, 2], "Merge")
    wait(worked)
    assert set(np.unique(session.labels.array[:])) == {0, 1}
    run(table, [1], "Split into connected")
    wait(worked)
    assert set(np.unique(session.labels.array[:])) == {0, 1, 3}
    np.testing.assert_array_equal(np.asarray(session.labels.array[:]) > 0, before > 0)
    run(table, [1], "Mark as reviewed")
    assert session.objects[1].state is ObjectState.REVIEWED
    run(table, [1], "Hide other")
    assert worked.controller.layers.labels.show_selected_label
    run(table, [1], "Show all")
    assert not worked.controller.layers.labels.show_selected_label
    run(table, [1, 3], "Delete")
    wait(worked)
    assert not np.asarray(session.labels.array[:]).any()


def test_the_menu_offers_what_fits_the_selection(worked):
    table = worked.object_list
    table.selectRow(0)
    one = [action.text() for action in table.make_menu().actions()]
    assert "Rename …" in one
    assert not [text for text in one if text.startswith("Merge")]
    table.selectAll()
    two = [action.text() for action in table.make_menu().actions()]
    assert "Merge into object 1" in two
    assert "Rename …" not in two


def test_the_strip_shows_doubt_and_the_key_leads_to_it(worked, wait, qtbot):
    session, strip = worked.session, worked.strip
    for plane in session.record.written:
        session.record.set_score(plane, PlaneScore())
    for index, amount in ((9, 0.5), (14, 0.8)):
        score = PlaneScore(0.5, doubt=Doubt.of({DoubtReason.CENTROID: amount}))
        session.record.set_score(PlaneRef(0, index), score)
    worked.controller.go_to_plane(12)
    worked.refresh()
    assert worked.doubtful_button.isEnabled()
    canvas = worked.viewer.window._qt_viewer.canvas.native
    qtbot.keyClick(canvas, Qt.Key.Key_J)
    assert session.view.index == 14
    qtbot.keyClick(canvas, Qt.Key.Key_J)
    assert session.view.index == 9
    assert "jumps to the side" in strip.explain(9)
    assert strip.explain(0) == ""
    strip.resize(240, 28)
    picture = strip.grab().toImage()
    x = int((14 + 0.5) / 24 * 240 * picture.width() / 240)
    colour = picture.pixelColor(x, 3)
    assert colour.red() > 200
    assert colour.blue() < 140
    assert picture.pixelColor(int(12.5 / 24 * picture.width()), 3) != colour
