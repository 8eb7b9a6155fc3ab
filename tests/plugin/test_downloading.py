"""Choosing a model that must be downloaded: its bytes are shown, and Cancel goes back to the model before."""

import pytest

from napari_sam.inference.registry import is_on_disk, model_dir
from napari_sam.plugin import SegmentWidget
from napari_sam.session.engine import SamBackend
from napari_sam.testing.phantoms import ball_volume

pytestmark = pytest.mark.gui


@pytest.fixture
def widget(make_napari_viewer, wait, remote_model):
    viewer = make_napari_viewer()
    viewer.add_image(ball_volume((6, 48, 64), [(3, 24, 32)], 8.0).image, name="ball")
    made = SegmentWidget(viewer, SamBackend())
    viewer.window.add_dock_widget(made, name="napari-sam: Segment", area="right")
    made.session.state.idle_reach = 0
    viewer.dims.set_point(0, 3)
    wait(made)
    yield made
    remote_model.go.set()
    assert made.session.close(timeout=20)


def choose(widget, name):
    widget.model_box.setCurrentIndex(widget.model_box.findData(name))


def wait_for_half(widget, qtbot):
    """Until about half has come; the server sends no more then, or hardly."""
    bar = widget.progress_bar
    qtbot.waitUntil(lambda: widget.session.progress.is_fetching and bar.value() > 5000, timeout=20000)


def test_bytes_are_shown_and_labels_are_written_meanwhile(widget, qtbot, wait, remote_model):
    session = widget.session
    assert "is downloaded when chosen" not in widget.model_label.text()
    widget.controller.layers.points.add((3, 24, 32))
    wait(widget)
    remote_model.go.clear()
    choose(widget, "remote")
    wait_for_half(widget, qtbot)
    assert widget.progress_row.isVisibleTo(widget)
    assert widget.progress_bar.maximum() == len(remote_model.content) // 1000
    assert widget.progress_bar.text().endswith(f" of {len(remote_model.content) / 1e6:.1f} MB")
    assert "Downloading the model (" in widget.status.text()
    assert "is downloaded when chosen" in widget.model_label.text()

    session.commit()
    qtbot.waitUntil(lambda: bool(session.record.written), timeout=20000)
    assert session.progress.is_fetching

    remote_model.go.set()
    wait(widget)
    widget.refresh()
    assert session.state.model.name == "remote"
    assert is_on_disk("remote")
    assert not widget.progress_row.isVisibleTo(widget)
    assert "on disk" in widget.model_label.text()
    widget.controller.layers.points.add((3, 25, 33))
    wait(widget)
    assert session.shown_prediction is not None


def test_cancel_goes_back_to_the_model_before(widget, qtbot, wait, remote_model):
    session = widget.session
    remote_model.go.clear()
    choose(widget, "remote")
    wait_for_half(widget, qtbot)
    widget.cancel_button.click()
    wait(widget)
    widget.refresh()
    assert session.state.model.name == "default"
    assert widget.model_box.currentData() == "default"
    assert session.model_error is None
    assert list(model_dir().iterdir()) == []
    widget.controller.layers.points.add((3, 24, 32))
    wait(widget)
    assert session.shown_prediction is not None

    remote_model.go.set()
    choose(widget, "remote")
    wait(widget)
    assert session.state.model.name == "remote"
    assert is_on_disk("remote")


def test_another_choice_gives_the_download_up(widget, qtbot, wait, remote_model):
    remote_model.go.clear()
    choose(widget, "remote")
    wait_for_half(widget, qtbot)
    choose(widget, "default")
    wait(widget)
    assert widget.session.state.model.name == "default"
    assert list(model_dir().iterdir()) == []


def test_another_image_does_not_give_the_download_up(widget, qtbot, wait, remote_model):
    remote_model.go.clear()
    choose(widget, "remote")
    wait_for_half(widget, qtbot)
    widget.viewer.layers.remove("ball")
    widget.viewer.add_image(ball_volume((6, 48, 64), [(3, 24, 32)], 8.0).image, name="another")
    qtbot.waitUntil(lambda: widget.session.labels is not None, timeout=20000)
    assert widget.session.progress.is_fetching
    remote_model.go.set()
    wait(widget)
    assert widget.session.state.model.name == "remote"
    assert is_on_disk("remote")
