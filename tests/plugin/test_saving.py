"""What the export menu of the window writes, and that the window is free meanwhile."""

import csv
import json
import threading

import dask.array as da
import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_sam.testing.phantoms import ball_volume

pytestmark = pytest.mark.gui

CENTRES = [(4, 12, 14), (5, 28, 34)]
PHANTOM = ball_volume((10, 40, 48), CENTRES, 4.0)
VOXEL = (2.0, 0.5, 0.5)


@pytest.fixture
def chosen(monkeypatch):
    """Answers of the file dialogs: put a path in, see what was asked."""
    answer = {"path": "", "asked": [], "replace": QMessageBox.StandardButton.Yes}

    def ask_file(parent, title, *rest, **options):
        answer["asked"].append(title)
        return str(answer["path"]), ""

    def ask_replace(parent, title, text):
        answer["asked"].append(text)
        return answer["replace"]

    monkeypatch.setattr(QFileDialog, "getSaveFileName", ask_file)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *rest: str(answer["path"]))
    monkeypatch.setattr(QMessageBox, "question", ask_replace)
    return answer


@pytest.fixture
def widget(segment, wait):
    """A window with two balls kept, the first named."""
    widget = segment(PHANTOM.image, name="balls", scale=VOXEL)
    session = widget.session
    for centre in CENTRES:
        widget.viewer.dims.set_point(0, centre[0] * VOXEL[0])
        widget.controller.layers.points.add(centre)
        wait(widget)
        session.propagate()
        wait(widget)
        session.next_object()
        wait(widget)
    session.editing.rename(1, "left")
    session.editing.classify(1, "cell")
    widget.refresh()
    return widget


def actions(widget):
    return {action.text(): action for action in widget.save_buttons.export_button.menu().actions()}


def test_the_menu_says_why_it_cannot_be_used_and_what_it_offers(segment):
    widget = segment(PHANTOM.image, name="balls")
    assert not widget.save_buttons.export_button.isEnabled()
    assert "Not now: no object is kept yet" in widget.save_buttons.export_button.toolTip()
    assert all(action.toolTip() != action.text() for action in actions(widget).values())


def test_a_table_has_names_intensities_and_physical_units(widget, wait, chosen, tmp_path):
    chosen["path"] = tmp_path / "objects"  # the ending is added
    actions(widget)["Table of measurements …"].trigger()
    wait(widget)
    rows = list(csv.DictReader((tmp_path / "objects.csv").read_text().splitlines()))
    counts = np.bincount(np.asarray(widget.session.labels.array[:]).ravel())[1:]
    assert [int(r["voxels"]) for r in rows] == counts.tolist()
    assert [(r["name"], r["class"], r["state"]) for r in rows] == [
        ("left", "cell", "propagated"),
        ("", "", "propagated"),
    ]
    np.testing.assert_allclose([float(r["volume"]) for r in rows], counts * np.prod(VOXEL))
    np.testing.assert_allclose(
        [[float(r[f"centroid_{a}"]) for a in "zyx"] for r in rows], np.multiply(CENTRES, VOXEL)
    )
    assert [float(r["mean_intensity"]) for r in rows] == [200.0, 200.0]


def test_meshes_and_annotations(widget, wait, chosen, tmp_path):
    widget.object_list.selectRow(1)
    chosen["path"] = tmp_path / "one.obj"
    actions(widget)["Meshes of the selected objects …"].trigger()
    wait(widget)
    assert [line for line in (tmp_path / "one.obj").read_text().splitlines() if line[0] == "o"] == [
        "o object_2"
    ]
    chosen["path"] = tmp_path
    actions(widget)["Meshes, one STL file an object …"].trigger()
    wait(widget)
    assert sorted(p.name for p in tmp_path.glob("*.stl")) == ["object_00001.stl", "object_00002.stl"]
    chosen["path"] = tmp_path / "objects.json"
    actions(widget)["COCO annotations …"].trigger()
    wait(widget)
    coco = json.loads((tmp_path / "objects.json").read_text())
    assert [c["name"] for c in coco["categories"]] == ["object", "cell"]
    assert len(coco["images"]) == 10


@pytest.mark.parametrize("axes", ["TZYX", "TZYX, track through T"])
def test_meshes_are_of_the_time_point_on_screen(segment, wait, chosen, tmp_path, axes):
    widget = segment(np.stack([np.zeros_like(PHANTOM.image), PHANTOM.image]), name="movie")
    widget.axes_box.setCurrentText(axes)
    wait(widget)
    z, y, x = CENTRES[0]
    widget.viewer.dims.set_current_step([0, 1], [1, z])
    widget.controller.layers.points.add((1, z, y, x))
    wait(widget)
    widget.session.commit()
    wait(widget)
    chosen["path"] = tmp_path / "a.obj"
    actions(widget)["Meshes in one file …"].trigger()
    wait(widget)
    assert "o object_1" in (tmp_path / "a.obj").read_text()


def test_a_file_is_replaced_only_if_the_user_says_so(widget, wait, chosen, tmp_path):
    chosen["path"] = path = tmp_path / "objects.csv"
    path.write_text("precious")
    chosen["replace"] = QMessageBox.StandardButton.No
    actions(widget)["Table of measurements …"].trigger()
    wait(widget)
    assert path.read_text() == "precious"
    chosen["replace"] = QMessageBox.StandardButton.Yes
    actions(widget)["Table of measurements …"].trigger()
    wait(widget)
    assert path.read_text().startswith("label,")
    assert chosen["asked"].count("objects.csv exists. Replace it?") == 2


def test_the_window_is_free_while_a_table_is_made_and_cancel_leaves_nothing(
    segment, wait, qtbot, chosen, tmp_path
):
    reached, go, readers = threading.Event(), threading.Event(), []
    go.set()

    def gate(block, block_info=None):
        if block_info and block_info[0]["chunk-location"][0] == 7 and not go.is_set():
            readers.append(threading.current_thread())
            reached.set()
            go.wait(60)
        return block

    image = da.from_array(PHANTOM.image, chunks=(1, -1, -1)).map_blocks(gate, dtype=PHANTOM.image.dtype)
    widget = segment(image, name="slow")
    widget.viewer.dims.set_point(0, CENTRES[0][0])
    widget.controller.layers.points.add(CENTRES[0])
    wait(widget)
    widget.session.commit()
    wait(widget)
    widget.session.cancel()
    go.clear()
    chosen["path"] = tmp_path / "objects.csv"
    actions(widget)["Table of measurements …"].trigger()
    qtbot.waitUntil(reached.is_set, timeout=60000)
    qtbot.waitUntil(lambda: widget.progress_bar.value() == 7, timeout=60000)
    assert threading.main_thread() not in readers
    assert "Saving (7 of 10)" in widget.status.text()
    widget.cancel_button.click()
    go.set()
    wait(widget)
    assert list(tmp_path.glob("*.csv*")) == list(tmp_path.glob(".*")) == []
