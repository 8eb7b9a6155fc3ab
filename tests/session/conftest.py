"""A session without a window: its events wait in a queue until a test lets them in."""

import queue
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from napari_sam.session.engine import ModelInfo
from napari_sam.session.session import Session
from napari_sam.testing.fakes import ArrayVolume, FakeEncoder, FakePredictor
from napari_sam.testing.phantoms import ball_volume

CENTRE = (12, 32, 40)


class FakeBackend:
    def __init__(self) -> None:
        self.predictor = FakePredictor()

    def models(self) -> tuple[ModelInfo, ...]:
        return (
            ModelInfo("default", 9_000_000, "BSD-3-Clause", True, "Small and fast; comes with the program."),
            ModelInfo("large", 375_000_000, "Apache-2.0", False, "Slower."),
        )

    def load_model(self, spec: Any) -> FakePredictor:
        return self.predictor

    def make_encoder(self, volume: Any, predictor: Any) -> FakeEncoder:
        return FakeEncoder(volume, predictor)


class Desk:
    """A session, its backend, and a hand-driven event loop."""

    def __init__(self, folder: Any) -> None:
        self.backend = FakeBackend()
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.session = Session(self.backend, self._queue.put, folder)
        self.errors: list[Exception] = []
        self.redraws: list[Any] = []
        self.session.failed.connect(self.errors.append)
        self.session.preview_changed.connect(self.redraws.append)
        self.session.state.idle_reach = 0

    def step(self, timeout: float = 0.2) -> bool:
        """Let one event in; False if none came."""
        try:
            self._queue.get(timeout=timeout)()
        except queue.Empty:
            return False
        return True

    def until(self, condition: Callable[[], bool], timeout: float = 120.0) -> None:
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            self.step(0.05)

    def settle(self) -> None:
        self.until(lambda: not self.session.is_busy)


@pytest.fixture
def phantom() -> Any:
    return ball_volume((24, 64, 80), [CENTRE])


@pytest.fixture
def empty_desk(tmp_path: Any) -> Iterator[Desk]:
    """A session without an image."""
    desk = Desk(tmp_path / "session")
    desk.session.load_model()
    yield desk
    assert desk.session.close(timeout=10)


@pytest.fixture
def desk(empty_desk: Desk, phantom: Any) -> Desk:
    """A session on a volume with one ball."""
    empty_desk.session.use_volume(ArrayVolume(phantom.image))
    empty_desk.settle()
    return empty_desk
