"""What goes wrong is said, with the remedy, and work goes on."""

import pytest
from napari.utils.notifications import notification_manager

from napari_sam.core.models import ModelSpec
from napari_sam.errors import DeviceMemoryError, DownloadError
from napari_sam.testing.phantoms import ball_volume

pytestmark = pytest.mark.gui


@pytest.fixture
def messages():
    seen = []

    def note(notification):
        seen.append((notification.severity.value, notification.message))

    notification_manager.notification_ready.connect(note)
    yield seen
    notification_manager.notification_ready.disconnect(note)


def test_an_error_on_the_inference_thread_becomes_a_notification(segment, wait, backend, messages):
    widget = segment(ball_volume().image)
    widget.viewer.dims.set_point(0, 12)
    wait(widget)
    backend.predictor.error = DeviceMemoryError("out of memory; choose a smaller model")
    widget.controller.layers.points.add([12, 31, 39])
    wait(widget)
    assert ("error", "out of memory; choose a smaller model") in messages
    widget.controller.layers.points.add([12, 32, 40])
    wait(widget)
    assert widget.session.record.pending


def test_a_model_that_cannot_be_loaded_is_named_in_the_status(segment, wait, backend, messages):
    def load(spec):
        raise DownloadError("no network; put the file into the folder 'models'")

    backend.load_model = load
    widget = segment(ball_volume().image)
    wait(widget)
    assert "no network; put the file into the folder 'models'" in widget.status.text()
    assert any("no network" in message for _, message in messages)


def test_a_point_beside_the_image_is_explained(segment, wait):
    widget = segment(ball_volume().image)
    widget.viewer.dims.set_point(0, 12)
    widget.controller.layers.points.add([12, -30, 5])
    wait(widget)
    assert "outside the image" in widget.status.text()


def test_a_file_that_exists_is_not_replaced_unasked(segment, wait, messages, tmp_path):
    widget = segment(ball_volume().image)
    (tmp_path / "labels.ome.tif").write_bytes(b"mine")
    widget.session.save(tmp_path / "labels.ome.tif")
    wait(widget)
    assert (tmp_path / "labels.ome.tif").read_bytes() == b"mine"
    assert any("exists" in message for _, message in messages)


def test_models_are_listed_with_what_they_cost(segment, wait, backend):
    widget = segment()
    assert [widget.model_box.itemText(i) for i in range(widget.model_box.count())] == [
        "default",
        "large",
        "a checkpoint file ...",
    ]
    assert widget.model_label.text() == "9 MB, BSD-3-Clause, on disk. Small and fast; comes with the program."
    loaded = []
    backend.load_model = lambda spec: loaded.append(spec) or backend.predictor
    widget.model_box.setCurrentText("large")
    widget.device_box.setCurrentIndex(1)
    wait(widget)
    assert "is downloaded when chosen" in widget.model_label.text()
    assert (loaded[-1].name, loaded[-1].device) == ("large", "cpu")
    widget.size_box.setValue(12)
    wait(widget)
    assert loaded[-1] == ModelSpec("large", "cpu", object_diameter=12)
    widget.size_box.setValue(0)
    wait(widget)
    assert loaded[-1].object_diameter is None


def test_a_checkpoint_file_may_be_chosen(segment, wait, backend, monkeypatch, tmp_path):
    widget = segment()
    path = str(tmp_path / "mine.pth")
    monkeypatch.setattr("napari_sam.plugin.widget.QFileDialog.getOpenFileName", lambda *a: (path, ""))
    widget.model_box.setCurrentIndex(2)
    wait(widget)
    assert widget.session.state.model.name == path
    assert widget.model_box.currentText() == "mine.pth"
    monkeypatch.setattr("napari_sam.plugin.widget.QFileDialog.getOpenFileName", lambda *a: ("", ""))
    widget.model_box.setCurrentIndex(3)
    wait(widget)
    assert widget.session.state.model.name == path
    assert widget.model_box.currentText() == "mine.pth"
