"""The widget that learns from labels, in a real window."""

import os
import threading
import time
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_sam.errors import TrainingError
from napari_sam.inference.registry import model_dir
from napari_sam.plugin import finetune as module
from napari_sam.plugin.finetune import A_FOLDER, LearnWidget, parse_planes
from napari_sam.plugin.learning import LayerPair

pytestmark = pytest.mark.gui


@dataclass
class Event:
    kind: str
    step: int
    fraction: float
    values: dict = field(default_factory=dict)
    path: Path | None = None
    seconds: float = 1.0


class FakeLearning:
    """A run of known events, which waits for `go` before one of them."""

    def __init__(self, events=(), error=None, hold_at=None):
        self.events, self.error, self.hold_at = list(events), error, hold_at
        self.asked, self.threads, self.closed = [], [], False
        self.go = threading.Event()

    def __call__(self, data, **options):
        self.asked.append((data, options))
        self.threads.append(threading.current_thread())
        return self._run()

    def _run(self):
        try:
            for number, event in enumerate(self.events):
                assert number != self.hold_at or self.go.wait(20)
                yield event
            if self.error:
                raise self.error
        except GeneratorExit:
            self.closed = True
            raise


RUN = [
    Event("validation", 0, 0.0, {"figure": 0.4}),
    Event("step", 1, 0.3, {"loss": 2.0}),
    Event("step", 2, 0.6, {"loss": 1.0}),
    Event("validation", 2, 0.6, {"figure": 0.6}),
    Event("saved", 2, 0.6, {"figure": 0.6}, Path("models/mine.safetensors")),
    Event("end", 3, 1.0, {}, Path("models/mine.safetensors")),
]


def labelled(shape=(4, 40, 50)):
    labels = np.zeros(shape, np.uint16)
    labels[..., 5:20, 5:25] = 1
    return (labels > 0).astype(np.uint8) * 200, labels


@pytest.fixture
def open_widget(make_napari_viewer):
    made = []

    def build(learn=None, image=None, labels=None):
        viewer = make_napari_viewer()
        if image is not None:
            viewer.add_image(image, name="image")
        if labels is not None:
            viewer.add_labels(labels, name="labels")
        widget = LearnWidget(viewer, learn)
        viewer.window.add_dock_widget(widget, name="napari-sam: Learn from labels", area="right")
        made.append(widget)
        return widget

    yield build
    for widget in made:
        assert widget.close_down()


def settle(qtbot, widget):
    qtbot.waitUntil(lambda: widget.thread is None, timeout=10000)


def test_it_learns_off_the_window_thread_and_shows_it(open_widget, qtbot):
    learn = FakeLearning(RUN)
    widget = open_widget(learn, *labelled())
    widget.name_line.setText("mine")
    widget.planes_line.setText("0:2")
    widget.start_button.click()
    settle(qtbot, widget)
    data, options = learn.asked[0]
    assert isinstance(data, LayerPair)
    assert (options["model"], options["name"], options["mode"]) == ("default", "mine", "decoder")
    assert options["planes"] == slice(0, 2)
    assert learn.threads[0] is not threading.main_thread()
    assert [v for _, v in widget.plot.ious] == [0.4, 0.6]
    assert len(widget.plot.losses) == 2
    assert widget.progress_bar.value() == 1000
    assert "'mine'" in widget.status.text()
    assert not widget.plot.grab().toImage().isNull()


def test_cancel_keeps_the_best_so_far(open_widget, qtbot):
    learn = FakeLearning([*RUN[:5], replace(RUN[1], step=3), RUN[5]], hold_at=5)
    widget = open_widget(learn, *labelled())
    widget.start()
    assert not widget.start_button.isEnabled()
    qtbot.waitUntil(lambda: widget.saved is not None, timeout=10000)
    widget.cancel_button.click()
    learn.go.set()
    settle(qtbot, widget)
    assert learn.closed
    assert widget.status.text().startswith("Stopped; the best so far is 'mine'")


def test_an_error_is_shown_and_it_can_start_again(open_widget, qtbot, monkeypatch):
    shown = []
    monkeypatch.setattr(module, "show_error", shown.append)
    learn = FakeLearning(RUN[:1], TrainingError("nothing to learn from"))
    widget = open_widget(learn, *labelled())
    widget.start()
    settle(qtbot, widget)
    assert shown == ["nothing to learn from"]
    assert widget.status.text() == "nothing to learn from"
    assert widget.start_button.isEnabled()
    widget.planes_line.setText("a:b")
    widget.start()
    assert "must look like" in shown[-1]
    assert widget.thread is None


def test_what_is_missing_is_said(open_widget, qtbot):
    widget = open_widget(FakeLearning())
    widget.viewer.add_image(labelled()[0], name="image")
    qtbot.waitUntil(lambda: widget.image_box.count() == 2, timeout=5000)
    widget.image_box.setCurrentIndex(0)
    assert widget.blocked == "there is no labels layer"
    assert "no labels layer" in widget.start_button.toolTip()
    widget.viewer.add_labels(labelled()[1])
    qtbot.waitUntil(lambda: widget.blocked is None, timeout=5000)


def test_a_folder_can_be_chosen(open_widget, qtbot, tmp_path, monkeypatch):
    monkeypatch.setattr(module.QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    learn = FakeLearning(RUN)
    widget = open_widget(learn, *labelled())
    widget.image_box.setCurrentIndex(widget.image_box.findData(A_FOLDER))
    assert widget.blocked is None
    widget.start()
    settle(qtbot, widget)
    assert learn.asked[0][0] == tmp_path


def test_the_window_is_never_blocked(open_widget, qtbot):
    learn = FakeLearning(RUN, hold_at=0)
    widget = open_widget(learn, *labelled())
    started = time.monotonic()
    widget.start()
    assert time.monotonic() - started < 0.5
    assert widget.thread.is_alive
    learn.go.set()
    settle(qtbot, widget)


def test_layers_are_read_as_planes():
    image, labels = labelled((2, 4, 40, 50))
    found = LayerPair(image, labels, False, (1, 0, 0, 0)).read()
    assert [(i.shape, one.shape) for i, one in found] == [((4, 40, 50), (4, 40, 50))]
    rgb = np.stack([image[0]] * 3, -1)
    assert LayerPair(rgb, labels[0], True, ()).read()[0][0].shape == (4, 40, 50, 3)
    with pytest.raises(TrainingError, match="belong together"):
        LayerPair(image[0], labels, False, ()).read()


def test_of_a_large_image_only_labelled_planes_are_read(monkeypatch):
    from napari_sam.plugin import learning

    monkeypatch.setattr(learning, "MOST_BYTES", 10)
    image, labels = labelled()
    labels[[0, 2]] = 0

    class Counting:
        shape, dtype, read = image.shape, image.dtype, []

        def __getitem__(self, index):
            self.read.append(index)
            return image[index]

    found = LayerPair(Counting(), labels, False, ()).read()
    assert Counting.read == [1, 3]
    assert [i.shape for i, _ in found] == [(40, 50)] * 2


@pytest.mark.parametrize(
    ("text", "planes"),
    [("", None), ("0:20", slice(0, 20)), ("5:", slice(5, None)), (":9", slice(None, 9)), ("7", slice(7, 8))],
)
def test_planes_are_understood(text, planes):
    assert parse_planes(text) == planes


@pytest.mark.slow
def test_a_real_run_puts_a_model_into_the_list(open_widget, qtbot, tmp_path, monkeypatch):
    import torch

    from napari_sam.inference.registry import user_model_dir
    from napari_sam.model.checkpoints import save_safetensors
    from napari_sam.model.configs import CONFIGS
    from napari_sam.model.sam import build_sam
    from napari_sam.training import finetune as training

    user_model_dir().mkdir(parents=True)
    torch.manual_seed(0)
    save_safetensors(build_sam(CONFIGS["micro_test"]), user_model_dir() / "tiny.safetensors")
    folder = tmp_path / "labels"
    folder.mkdir()
    image, labels = labelled((1, 64, 64))
    tifffile.imwrite(folder / "a_img.tif", image[0])
    tifffile.imwrite(folder / "a_lbl.tif", labels[0])
    settings = training.FinetuneSettings(max_steps=2, crops=1, objects=1, views=1)
    widget = open_widget(lambda data, **_: training.finetune(data, "tiny", name="mine", settings=settings))
    widget.folder = folder
    widget.fill_layers()
    widget.image_box.blockSignals(True)
    widget.image_box.setCurrentIndex(widget.image_box.findData(A_FOLDER))
    monkeypatch.setattr("warnings.warn", lambda *_, **__: None)  # there is one object only, which it says
    widget.start()
    qtbot.waitUntil(lambda: widget.thread is None, timeout=250_000)
    assert widget.saved == user_model_dir() / "mine.safetensors", widget.status.text()
    assert widget.model_box.findData("mine") >= 0


@pytest.mark.slow
@pytest.mark.skipif("NAPARI_SAM_PICTURES" not in os.environ, reason="makes the picture of the documentation")
def test_the_picture_of_learning(make_napari_viewer, qtbot, tmp_path):
    """The model in the package learns from four planes of a real volume, in a real window."""
    from napari_sam.plugin.samples import ovule_nuclei

    image, attributes, _ = ovule_nuclei()[0]
    truth = tifffile.imread(files("napari_sam") / "samples" / "ovule_nuclei_labels.ome.tif")
    few = np.zeros_like(truth)
    middle = len(few) // 2
    for index in (middle - 12, middle - 4, middle, middle + 8):
        few[index] = truth[index]
    viewer = make_napari_viewer(show=True)
    viewer.add_image(image, **attributes)
    viewer.add_labels(few, name="four labelled planes", scale=attributes.get("scale"))
    widget = LearnWidget(viewer)
    viewer.window.add_dock_widget(widget, name="napari-sam: Learn from labels", area="right")
    viewer.window._qt_window.resize(1400, 900)
    viewer.dims.set_current_step(0, middle)
    widget.minutes_box.setValue(float(os.environ.get("NAPARI_SAM_MINUTES", "2")))
    widget.name_line.setText("ovule")
    widget.start()
    qtbot.waitUntil(lambda: widget.thread is None, timeout=3_600_000)
    path = Path(os.environ["NAPARI_SAM_PICTURES"]) / "learn.png"
    viewer.screenshot(str(path), canvas_only=False, flash=False)
    assert widget.close_down()


def test_a_model_that_is_downloaded_first_says_so_and_can_be_cancelled(
    make_napari_viewer, qtbot, remote_model, tmp_path
):
    widget = LearnWidget(make_napari_viewer())
    qtbot.addWidget(widget)
    widget.folder = tmp_path
    widget.fill_layers()
    widget.image_box.setCurrentIndex(widget.image_box.findData(A_FOLDER))
    widget.model_box.setCurrentIndex(widget.model_box.findData("remote"))
    remote_model.go.clear()
    widget.start()
    qtbot.waitUntil(lambda: widget.progress_bar.value() > 450, timeout=20000)
    assert widget.status.text().startswith("Downloading the model ... ")
    assert widget.status.text().endswith(f" of {len(remote_model.content) / 1e6:.1f} MB")
    widget.cancel()
    qtbot.waitUntil(lambda: widget.thread is None, timeout=20000)
    assert "nothing was saved" in widget.status.text()
    assert list(model_dir().iterdir()) == []
