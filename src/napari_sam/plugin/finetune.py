"""The dock widget `napari-sam: Learn from labels`: a model gets better at the images of its user."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDoubleSpinBox, QFileDialog, QLabel, QLineEdit, QProgressBar, QWidget

from napari_sam.errors import NapariSamError, TrainingError
from napari_sam.plugin.curve import CurvePlot
from napari_sam.plugin.dispatch import QtDispatcher, Soon
from napari_sam.plugin.learning import Events, LayerPair, LearningThread, Report, level_of
from napari_sam.plugin.parts import Form, allow, button, choice, fill, row, scrolling, section
from napari_sam.plugin.widget import SegmentWidget

if TYPE_CHECKING:
    from napari.viewer import Viewer

A_FOLDER = "a folder"
MODES = (
    ("mask decoder (quick)", "decoder"),
    ("decoder and encoder", "all"),
    ("low-rank adapters", "lora"),
)

Learn = Callable[..., Events]


class LearnWidget(QWidget):  # type: ignore[misc]
    """Fine-tune a model on labelled planes.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer whose layers it offers.
    learn : callable, optional
        Takes what `training.finetune.finetune` takes; a fake in tests.
    """

    def __init__(self, napari_viewer: Viewer, learn: Learn | None = None) -> None:
        super().__init__()
        self.viewer, self._learn = napari_viewer, learn or _finetune
        self.folder: Path | None = None
        self.thread: LearningThread | None = None
        self.saved: Path | None = None
        self._dispatch = QtDispatcher()
        self._fill_soon = Soon(self.fill_layers)
        self._build()
        events = napari_viewer.layers.events
        self._followed: tuple[Any, ...] = (events.inserted, events.removed, events.reordered, events.renamed)
        for event in self._followed:
            event.connect(self._fill_soon)
        self.fill_layers()
        self.fill_models()

    # Building

    def _build(self) -> None:
        self.setMinimumWidth(330)
        layout = scrolling(self)
        self.status = QLabel("Label a few objects in a few planes, then let a model learn from them.")
        self.status.setWordWrap(True)
        self.status.setMinimumHeight(54)
        self.status.setStyleSheet(
            "QLabel {border: 1px solid #4c9bd6; border-radius: 4px; padding: 5px; font-weight: 600;}"
        )
        layout.addWidget(self.status)
        layout.addWidget(section("Labels", self._data_form()))
        layout.addWidget(section("Model", self._model_form()))
        self.start_button = button("Start", "Learn from the labels.", self.start)
        self.cancel_button = button("Cancel", "Stop; the best so far is kept.", self.cancel)
        layout.addWidget(row(self.start_button, self.cancel_button))
        self.progress_bar = QProgressBar()
        self.progress_bar.setRange(0, 1000)
        self.progress_bar.setFormat("%p%")
        layout.addWidget(self.progress_bar)
        self.plot = CurvePlot()
        layout.addWidget(self.plot)
        layout.addStretch(1)
        layout.setAlignment(Qt.AlignmentFlag.AlignTop)

    def _data_form(self) -> Form:
        form = Form()
        self.image_box, self.labels_box = choice(self._choose_image), choice(self.refresh)
        self.planes_line = QLineEdit()
        self.planes_line.setPlaceholderText("all that hold a label")
        form.add("Image", self.image_box, "What the labels belong to: a layer, or a folder of files.")
        form.add("Labels", self.labels_box, "Whole objects, each with its own number; 0 teaches nothing.")
        form.add("Planes", self.planes_line, "Which planes are labelled, such as 0:20.")
        return form

    def _model_form(self) -> Form:
        form = Form()
        self.model_box, self.mode_box = choice(self.refresh), choice(self.refresh)
        fill(self.mode_box, MODES, "decoder")
        self.minutes_box = QDoubleSpinBox()
        self.minutes_box.setRange(0.1, 24 * 60)
        self.minutes_box.setValue(10)
        self.name_line = QLineEdit()
        self.name_line.setPlaceholderText("made of model and data")
        form.add("Start from", self.model_box, "The model that goes on learning. It is not changed itself.")
        form.add(
            "Learns",
            self.mode_box,
            "The decoder is quick and keeps embeddings valid; the encoder learns more.",
        )
        form.add("Minutes", self.minutes_box, "Time to spend.")
        form.add("Name", self.name_line, "Of the new model.")
        return form

    # What is chosen

    def fill_layers(self) -> None:
        """Offer the layers of the viewer."""
        layers = list(self.viewer.layers)
        images = [(one.name, one) for one in layers if isinstance(one, Image)]
        labels = [(one.name, one) for one in layers if isinstance(one, Labels)]
        folder = self.folder.name if self.folder is not None else "a folder of files ..."
        chosen = self.image_box.currentData()
        keep = None if chosen == A_FOLDER and self.folder is None else chosen
        fill(self.image_box, [*images, (folder, A_FOLDER)], keep)
        fill(self.labels_box, labels, self.labels_box.currentData())
        self.refresh()

    def fill_models(self) -> None:
        """Offer every model that has a name, those of the user too."""
        from napari_sam.inference.registry import MODELS

        fill(self.model_box, [(name, name) for name in MODELS], self.model_box.currentData() or "default")

    def _choose_image(self) -> None:
        if self.image_box.currentData() == A_FOLDER:
            chosen = QFileDialog.getExistingDirectory(self, "Folder of NAME_img.tif with NAME_lbl.tif")
            self.folder = Path(chosen) if chosen else None
            self.fill_layers()
        self.refresh()

    @property
    def blocked(self) -> str | None:
        """Why it cannot start now."""
        if self.thread is not None:
            return "it is learning already"
        if self.image_box.currentData() == A_FOLDER:
            return None if self.folder is not None else "choose a folder"
        if self.image_box.currentData() is None:
            return "there is no image layer"
        return None if self.labels_box.currentData() is not None else "there is no labels layer"

    def refresh(self) -> None:
        """Show what can be pressed."""
        allow(self.start_button, self.blocked)
        allow(self.cancel_button, None if self.thread is not None else "nothing is running")
        self.labels_box.setEnabled(self.image_box.currentData() != A_FOLDER)

    # Running

    def start(self) -> None:
        """Begin to learn, on a thread of its own."""
        if self.blocked:
            return
        try:
            planes = parse_planes(self.planes_line.text())
        except TrainingError as error:
            show_error(str(error))
            return
        self.saved = None
        self.plot.clear()
        self.progress_bar.setValue(0)
        self.status.setText("Reading the labels ...")
        data = self._data()
        options = {
            "model": self.model_box.currentData(),
            "name": self.name_line.text().strip(),
            "planes": planes,
            "mode": self.mode_box.currentData(),
            "minutes": self.minutes_box.value(),
        }
        self.thread = LearningThread(lambda report: self._learn(data, progress=report, **options), self._tell)
        self.refresh()

    def _data(self) -> LayerPair | Path:
        if self.image_box.currentData() == A_FOLDER and self.folder is not None:
            return self.folder
        image, labels = self.image_box.currentData(), self.labels_box.currentData()
        steps = tuple(int(step) for step in self.viewer.dims.current_step)
        offset = self.viewer.dims.ndim - labels.ndim
        numbers = labels.data[0] if labels.multiscale else labels.data
        pixels = level_of(image.data, numbers, image.rgb) if image.multiscale else image.data
        return LayerPair(pixels, numbers, bool(image.rgb), steps[offset:])

    def cancel(self) -> None:
        """Stop after the step it is at."""
        if self.thread is not None:
            self.thread.cancel()
            self.status.setText("Stopping ...")

    def closeEvent(self, event: Any) -> None:
        """Stop with the window; the best so far stays."""
        self.close_down()
        super().closeEvent(event)

    def close_down(self, timeout: float = 10.0) -> bool:
        """Stop and wait; whether it has ended."""
        for followed in self._followed:
            followed.disconnect(self._fill_soon)
        self._followed = ()
        self._fill_soon.stop()
        thread = self.thread
        if thread is None:
            return True
        thread.cancel()
        return thread.join(timeout)

    # What happens

    def _tell(self, what: str, value: Any) -> None:
        self._dispatch(lambda: self._show(what, value))

    def _show(self, what: str, value: Any) -> None:
        if what == "event":
            self._show_event(value)
            return
        if what == "fetching":
            self._show_fetching(*value)
            return
        self.thread = None
        if what == "failed":
            self._show_error(value)
        else:
            self._show_end(what)
        self.refresh()

    def _show_event(self, event: Any) -> None:
        self.progress_bar.setValue(round(1000 * event.fraction))
        if event.kind == "step":
            self.plot.add_loss(event.fraction, event.values["loss"])
        if event.kind == "validation":
            self.plot.add_iou(event.fraction, event.values["figure"])
        self.saved = event.path or self.saved
        doing = {"encoding": "Encoding the labelled planes", "validation": "Checking on what was kept out"}
        self.status.setText(
            f"{doing.get(event.kind, 'Learning')} ... step {event.step}, {event.seconds:.0f} s"
        )

    def _show_fetching(self, done: int, total: int) -> None:
        self.progress_bar.setValue(round(1000 * done / total) if total else 0)
        of = f" of {total / 1e6:.1f}" if total else ""
        self.status.setText(f"Downloading the model ... {done / 1e6:.1f}{of} MB")

    def _show_end(self, what: str) -> None:
        if self.saved is None:
            self.status.setText("Stopped before anything better was found; nothing was saved.")
            return
        self.progress_bar.setValue(1000)
        stopped = "Stopped; the best so far" if what == "cancelled" else "Done. The new model"
        self.status.setText(f"{stopped} is {self.saved.stem!r}, now in the list of models.")
        show_info(f"the model {self.saved.stem!r} was saved at {self.saved}")
        self.fill_models()
        for widget in self.viewer.window.dock_widgets.values():
            if isinstance(widget, SegmentWidget):
                widget.session.list_models()

    def _show_error(self, error: Exception) -> None:
        message = str(error) if isinstance(error, NapariSamError) else f"{type(error).__name__}: {error}"
        self.status.setText(message)
        show_error(message)


def parse_planes(text: str) -> slice | None:
    """0:20, 5:, :20 or a single plane; None for nothing."""
    if not text.strip():
        return None
    first, colon, end = text.partition(":")
    try:
        start, stop = (int(part) if part.strip() else None for part in (first, end))
    except ValueError as error:
        raise TrainingError(f"planes must look like 0:20, 5:, :20 or 7, got {text!r}") from error
    return slice(start, stop) if colon else slice(start, (start or 0) + 1)


def _finetune(
    data: LayerPair | Path, *, model: str, mode: str, minutes: float, progress: Report, **options: Any
) -> Events:
    """The real thing; torch is imported when it is first used."""
    from napari_sam.inference.registry import fetch_model
    from napari_sam.training.finetune import FinetuneSettings, finetune

    fetch_model(model, progress)
    pairs = data.read() if isinstance(data, LayerPair) else data
    return finetune(pairs, model, settings=FinetuneSettings(mode=mode, minutes=minutes), **options)
