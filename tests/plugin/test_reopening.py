"""Going on with earlier work: offered, never forced."""

import numpy as np
import pytest
import tifffile

from napari_sam.plugin import SegmentWidget
from napari_sam.plugin.reopening import interrupted_text
from napari_sam.session.recovery import Interrupted
from napari_sam.testing.phantoms import ball_volume

pytestmark = pytest.mark.gui
PHANTOM = ball_volume((12, 40, 44), [(6, 20, 22)], 7.0)
CENTRE = (6, 20, 22)


def work(widget, wait):
    """Keep one object, and paint a little by hand."""
    widget.viewer.dims.set_point(0, 6)
    widget.controller.use_tool("points")
    widget.controller.layers.points.add(CENTRE)
    wait(widget)
    widget.session.commit()
    wait(widget)
    layer = widget.controller.layers.labels
    layer.selected_label = 5
    layer.brush_size = 4
    layer.paint((2, 10, 10), 5)
    wait(widget)


def second(viewer, wait, first, backend):
    """Close a widget as if the program had been killed, and open another one."""
    labels = np.asarray(first.session.labels.array[:])
    first.session.journal.close()
    first.controller.close()
    widget = SegmentWidget(viewer, backend)
    viewer.window.add_dock_widget(widget, name="again")
    wait(widget)
    return widget, labels


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_SAM_CACHE", str(tmp_path / "cache"))


def test_earlier_work_is_offered_and_comes_back(cache, segment, wait, backend):
    widget = segment(PHANTOM.image, name="cells")
    assert not widget.offer.isVisibleTo(widget)
    work(widget, wait)
    assert widget.session.history.next_undo.title == "edit by hand"
    again, labels = second(widget.viewer, wait, widget, backend)
    assert again.offer.isVisibleTo(again)
    assert "1 object" in again.offer.label.text()
    begun = again.session.folder
    again.offer.accept_button.click()
    wait(again)
    assert not again.offer.isVisibleTo(again)
    session, layers = again.session, again.controller.layers
    np.testing.assert_array_equal(session.labels.array[:], labels)
    np.testing.assert_array_equal(layers.points.data, [CENTRE])
    np.testing.assert_array_equal(np.asarray(layers.labels.data), labels)
    assert not begun.exists()  # nothing had been done in it
    session.undo()
    session.undo()
    wait(again)
    assert not np.asarray(session.labels.array[:]).any()
    assert session.marks.points.tolist() == [[0, *CENTRE]]
    assert again.session.close(timeout=10)


def test_who_does_not_want_it_begins_anew_and_the_earlier_work_stays(cache, segment, wait, backend):
    widget = segment(PHANTOM.image, name="cells")
    work(widget, wait)
    folder = widget.session.folder
    again, _ = second(widget.viewer, wait, widget, backend)
    again.offer.refuse_button.click()
    assert not again.offer.isVisibleTo(again)
    assert not np.asarray(again.session.labels.array[:]).any()
    assert (folder / "labels.zarr").exists()
    assert again.session.close(timeout=10)


def test_a_session_folder_opens_its_image_file(cache, segment, wait, backend, tmp_path):
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, PHANTOM.image)
    widget = segment()
    widget.viewer.open(path)
    wait(widget)
    work(widget, wait)
    folder = widget.session.folder
    viewer = widget.viewer
    again, labels = second(viewer, wait, widget, backend)
    viewer.layers.clear()
    wait(again)
    again.controller.open_session(folder)
    wait(again)
    assert again.session.folder == folder
    np.testing.assert_array_equal(again.session.labels.array[:], labels)
    assert again.session.close(timeout=10)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            Interrupted("Propagate", (3,)),
            "The propagation of object 3 was interrupted: do it again to finish it",
        ),
        (Interrupted("Propagate", (1, 2)), "of objects 1, 2 was interrupted: do it again to finish them"),
        (Interrupted("Refine", (4,)), "The refinement of object 4 was interrupted"),
        (Interrupted("AgreeAlongAxes", (4,)), "Carrying object 4 along all three axes was interrupted"),
        (Interrupted("TakeLabels"), "taken back: press Objects from labels again"),
        (Interrupted("ImportLabels"), "taken back: press Use selected layer again"),
    ],
)
def test_what_was_interrupted_is_said_with_its_objects(found, words):
    assert words in interrupted_text(found)
