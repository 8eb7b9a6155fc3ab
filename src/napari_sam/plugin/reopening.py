"""Going on with earlier work: an offer that waits in the widget, and opening a session folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import Any

from napari.layers import Image
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_sam.errors import SessionError
from napari_sam.plugin.parts import button, row
from napari_sam.plugin.readers import reader_for
from napari_sam.session.finding import SessionInfo, read_beginning
from napari_sam.session.image import ImageRef
from napari_sam.session.recovery import Interrupted


class SessionOffer(QWidget):  # type: ignore[misc]
    """Says that there is earlier work on the image, and takes it up when it is asked to; hidden otherwise.

    Parameters
    ----------
    go_on : callable
        Called with the SessionInfo that is wanted.
    """

    def __init__(self, go_on: Callable[[SessionInfo], None]) -> None:
        super().__init__()
        self._go_on = go_on
        self._info: SessionInfo | None = None
        self.label = QLabel()
        self.label.setWordWrap(True)
        self.accept_button = button(
            "Go on with it", "Bring back its objects, prompts, labels and settings.", self._accept
        )
        self.refuse_button = button("Not now", "Begin anew; the earlier work stays on disk.", self._forget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.label)
        layout.addWidget(row(self.accept_button, self.refuse_button))
        self.setVisible(False)

    def show_sessions(self, infos: Sequence[SessionInfo]) -> None:
        """Offer the latest of these sessions; nothing if there are none."""
        self._info = infos[0] if infos else None
        if self._info is not None:
            self.label.setText(offer_text(self._info, len(infos), datetime.now(UTC)))
        self.setVisible(self._info is not None)

    def _accept(self) -> None:
        info = self._info
        self._forget()
        if info is not None:
            self._go_on(info)

    def _forget(self) -> None:
        self.show_sessions(())


def offer_text(info: SessionInfo, count: int, now: datetime) -> str:
    """What the offer says."""
    objects = f"{info.n_objects} object{'s' if info.n_objects != 1 else ''}"
    more = f" ({count - 1} more in {info.folder.parent})" if count > 1 else ""
    return f"You worked on this image {_ago(now - info.modified)}: {objects}, {info.n_steps} steps{more}."


def interrupted_text(found: Interrupted) -> str:
    """What did not come to its end, and how to finish it."""
    several = len(found.object_ids) > 1
    objects = f"object{'s' if several else ''} {', '.join(map(str, found.object_ids))}"
    finish = f"do it again to finish {'them' if several else 'it'}"
    match found.kind:
        case "Propagate":
            return f"The propagation of {objects} was interrupted: {finish}"
        case "Refine":
            return f"The refinement of {objects} was interrupted: {finish}"
        case "AgreeAlongAxes":
            return f"Carrying {objects} along all three axes was interrupted: {finish}"
        case "TakeLabels":
            return (
                "Making objects from labels was interrupted and taken back: press Objects from labels again"
            )
        case _:
            return "Copying labels was interrupted and taken back: press Use selected layer again"


def find_layer(viewer: Any, folder: str | Path) -> tuple[Image, ImageRef, int]:
    """The image layer that a session is about, opened from its file if it is not in the viewer.

    Returns
    -------
    (Image, ImageRef, int)
        The layer, what the session knows of its image, and the level that it segments.

    Raises
    ------
    SessionError
        The folder holds no session, or its image cannot be found.
    """
    folder = Path(folder)
    story = read_beginning(folder)
    image = story.image
    if image is None:
        raise SessionError(f"there is no session in {folder}; choose a folder that holds a journal.jsonl")
    layer = _matching(viewer.layers, image)
    if layer is None and image.path is not None and Path(image.path).exists():
        layer = _matching(viewer.open(image.path, plugin=reader_for(image.path)), image)
    if layer is None:
        raise SessionError(
            f"open the image of this session first: '{image.name}', {image.path or 'which was not a file'}, "
            f"shape (T, Z, Y, X, C) = {image.shape}"
        )
    return layer, image, int(story.settings.get("level", 0))


def _matching(layers: Sequence[Any], image: ImageRef) -> Image | None:
    images = [layer for layer in layers if isinstance(layer, Image)]
    same_name = [layer for layer in images if layer.name == image.name]
    for layer in [*same_name, *images]:
        shape = layer.data[0].shape if layer.multiscale else layer.data.shape
        if prod(shape) == prod(image.shape):
            return layer
    return None


def _ago(passed: Any) -> str:
    minutes = int(passed.total_seconds() // 60)
    if minutes < 60:
        return f"{max(1, minutes)} min ago"
    hours = minutes // 60
    return f"{hours} h ago" if hours < 48 else f"{hours // 24} days ago"
