"""A user's round: label some planes, let a model learn from them, go on with the better model."""

from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch

from napari_sam.inference.predictor import SamPredictor
from napari_sam.inference.registry import user_model_dir
from napari_sam.model.checkpoints import save_safetensors
from napari_sam.model.configs import CONFIGS
from napari_sam.model.sam import build_sam
from napari_sam.plugin import SegmentWidget
from napari_sam.plugin.finetune import LearnWidget
from napari_sam.session.engine import SamBackend
from napari_sam.training import finetune as training
from napari_sam.training import learner

pytestmark = pytest.mark.gui

SHORT = training.FinetuneSettings(max_steps=4, crops=1, objects=2, views=2, rehearsal=0.0, learning_rate=1e-2)
MIDDLES = {1: (18, 18), 2: (46, 44)}


def squares(planes=4, side=64):
    image = np.random.default_rng(0).normal(40, 5, (planes, side, side))
    for y, x in MIDDLES.values():
        image[:, y - 10 : y + 10, x - 10 : x + 10] += 120
    return image.astype(np.uint8)


@pytest.fixture
def encoded(monkeypatch):
    """The tiles that a predictor's image encoder was given."""
    tiles, encode = [], SamPredictor.encode_tiles

    def noted(self, images):
        tiles.extend(np.asarray(image).tobytes() for image in images)
        return encode(self, images)

    monkeypatch.setattr(SamPredictor, "encode_tiles", noted)
    return tiles


@pytest.fixture
def short_runs(monkeypatch):
    """Learning takes seconds, and every validation is better than the one before."""
    monkeypatch.setattr(training, "FinetuneSettings", lambda mode, minutes: replace(SHORT, mode=mode))
    measure, figures = learner.Validation.measure, count()
    monkeypatch.setattr(
        learner.Validation, "measure", lambda self, sam: measure(self, sam) | {"figure": float(next(figures))}
    )


@pytest.fixture
def open_window(make_napari_viewer, wait, short_runs):
    """Both widgets on an image, with a tiny model of random weights."""
    torch.manual_seed(0)
    user_model_dir().mkdir(parents=True)
    save_safetensors(build_sam(CONFIGS["micro_test"]), user_model_dir() / "tiny.safetensors")
    made = []

    def build(image, level=0, **options):
        viewer = make_napari_viewer()
        layer = viewer.add_image(image, name="squares", **options)
        widget = SegmentWidget(viewer, SamBackend())
        viewer.window.add_dock_widget(widget, name="napari-sam: Segment", area="right")
        widget.session.state.idle_reach = 0
        widget.controller.choose_image(layer, level=level)
        wait(widget)
        choose(widget.model_box, "tiny")
        wait(widget)
        learn = LearnWidget(viewer)
        viewer.window.add_dock_widget(learn, name="napari-sam: Learn from labels", area="right")
        made.append((widget, learn))
        return widget, learn

    yield build
    for widget, learn in made:
        assert learn.close_down()
        assert widget.session.close(timeout=20)


def choose(box, data):
    at = next(i for i in range(box.count()) if box.itemData(i) is data or box.itemData(i) == data)
    box.setCurrentIndex(at)


def label(widget, wait, planes):
    """Paint both objects in some planes of the session's labels."""
    layer = widget.controller.layers.labels
    layer.brush_size = 16
    for plane in planes:
        for number, middle in MIDDLES.items():
            layer.paint((plane, *middle), number)
    wait(widget)
    return layer


def learn_from(learn, labels, qtbot, name):
    choose(learn.model_box, "tiny")
    choose(learn.image_box, learn.viewer.layers["squares"])
    choose(learn.labels_box, labels)
    learn.name_line.setText(name)
    learn.start()
    qtbot.waitUntil(lambda: learn.thread is None, timeout=120_000)


def answer(widget, wait, plane):
    """What the model of the session says to a click in a plane."""
    widget.session.clear_marks()
    widget.viewer.dims.set_point(0, plane)
    widget.controller.layers.points.add((plane, *MIDDLES[1]))
    wait(widget)
    return widget.session.shown_prediction


@pytest.mark.parametrize(("mode", "kept"), [("decoder", True), ("all", False)])
def test_label_learn_and_go_on(open_window, wait, qtbot, encoded, mode, kept):
    widget, learn = open_window(squares())
    before = {plane: answer(widget, wait, plane) for plane in (0, 3)}
    labels = label(widget, wait, (0, 1, 2))
    learn.fill_layers()
    choose(learn.mode_box, mode)
    learn_from(learn, labels, qtbot, "mine")
    assert learn.saved == user_model_dir() / "mine.safetensors", learn.status.text()
    wait(widget)

    seen = set(encoded)
    encoded.clear()
    choose(widget.model_box, "mine")
    wait(widget)
    after = {plane: answer(widget, wait, plane) for plane in (0, 3)}
    assert widget.session.state.model.name == "mine"
    assert seen.isdisjoint(encoded) is kept  # the embeddings of what was seen stay valid for the decoder
    for plane, old in before.items():
        assert after[plane].candidates[0].predicted_iou != old.candidates[0].predicted_iou
    assert (labels.data[0] == 1).any()  # and what was labelled is still there


def test_labels_of_a_coarser_level_are_learned_from(open_window, wait, qtbot):
    fine = np.kron(squares(), np.ones((1, 2, 2), np.uint8))
    widget, learn = open_window([fine, fine[:, ::2, ::2]], level=1, multiscale=True)
    labels = label(widget, wait, (0, 1, 2))
    assert tuple(labels.data.shape) == (4, 64, 64)
    learn.fill_layers()
    learn_from(learn, labels, qtbot, "coarse")
    assert learn.saved == user_model_dir() / "coarse.safetensors", learn.status.text()


def test_labels_that_fit_no_level_say_what_would(open_window, qtbot, monkeypatch):
    from napari_sam.plugin import finetune as module

    shown = []
    monkeypatch.setattr(module, "show_error", shown.append)
    fine = squares()
    _, learn = open_window([fine, fine[:, ::2, ::2]], multiscale=True)
    wrong = learn.viewer.add_labels(np.ones((4, 16, 16), np.uint8), name="wrong")
    learn.fill_layers()
    learn_from(learn, wrong, qtbot, "none")
    assert "of the shape of the image, or of one of its levels" in shown[0]
    assert "(4, 16, 16)" in shown[0]
