"""A real viewer with the widget docked and a predictor whose masks are known to the pixel."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from napari_sam.core.protocols import VolumeLike
from napari_sam.session.engine import ModelInfo
from napari_sam.testing.fakes import FakeEncoder, FakePredictor


class FakeBackend:
    """Hands the fake predictor to the session instead of loading networks."""

    def __init__(self, predictor: FakePredictor | None = None) -> None:
        self.predictor = predictor or FakePredictor()

    def models(self) -> tuple[ModelInfo, ...]:
        return (
            ModelInfo("default", 9_000_000, "BSD-3-Clause", True, "Small and fast; comes with the program."),
            ModelInfo("large", 375_000_000, "Apache-2.0", False, "Slower."),
        )

    def load_model(self, spec: object) -> FakePredictor:
        return self.predictor

    def make_encoder(self, volume: VolumeLike, predictor: FakePredictor) -> FakeEncoder:
        return FakeEncoder(volume, predictor)


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def wait(qtbot: Any) -> Callable[[Any], None]:
    """Wait until everything asked for is done and shown."""

    def until_settled(widget: Any) -> None:
        for _ in range(3):
            qtbot.wait(20)
            qtbot.waitUntil(lambda: not widget.session.is_busy, timeout=120000)

    return until_settled


@pytest.fixture
def segment(
    make_napari_viewer: Any, wait: Callable[[Any], None], backend: FakeBackend
) -> Iterator[Callable[..., Any]]:
    """Open the widget in a new viewer; the image is added first if one is given."""
    from napari_sam.plugin import SegmentWidget

    made = []

    def build(image: np.ndarray | None = None, *, show: bool = False, **kwargs: Any) -> SegmentWidget:
        viewer = make_napari_viewer(show=show)
        if image is not None:
            viewer.add_image(image, **kwargs)
        widget = SegmentWidget(viewer, backend)
        viewer.window.add_dock_widget(widget, name="napari-sam: Segment", area="right")
        made.append(widget)
        wait(widget)
        return widget

    yield build
    for widget in made:
        assert widget.session.close(timeout=10)
