"""Sessions without a window for tests: with a predictor that is known to the pixel, driven by hand.

>>> import tempfile
>>> desk = Desk(tempfile.mkdtemp())
>>> desk.open(np.zeros((4, 16, 16), np.uint8))
>>> desk.session.labels.array.shape
(4, 16, 16)
>>> desk.session.close(timeout=10)
True
"""

from __future__ import annotations

import queue
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from napari_sam.core.arrays import Array
from napari_sam.core.models import ModelSpec
from napari_sam.core.planes import PlaneRef
from napari_sam.core.protocols import Predictor, VolumeLike
from napari_sam.session.codec import encode
from napari_sam.session.engine import ModelInfo
from napari_sam.session.marks import Marks
from napari_sam.session.session import Session
from napari_sam.session.state import OverlapPolicy
from napari_sam.testing.fakes import ArrayVolume, FakeEncoder, FakePredictor


class FakeBackend:
    """Hands a fake predictor to the session instead of loading networks."""

    def __init__(self, predictor: FakePredictor | None = None) -> None:
        self.predictor = predictor or FakePredictor()

    def models(self) -> tuple[ModelInfo, ...]:
        """One model."""
        return (ModelInfo("default"),)

    def load_model(self, spec: ModelSpec) -> FakePredictor:
        """The fake, whatever is asked for."""
        return self.predictor

    def make_encoder(self, volume: VolumeLike, predictor: Predictor) -> FakeEncoder:
        """Encoder without a store."""
        return FakeEncoder(volume, predictor)


def session_state(session: Session) -> dict[str, Any]:
    """What must survive: labels plane by plane, marks, scores, undo and redo, settings."""
    assert session.labels is not None
    labels = np.asarray(session.labels.array[:])
    records = session.objects.items()
    return {
        "planes": [zlib.crc32(np.ascontiguousarray(plane).data) for plane in labels],
        "marks": {str(i): r.marks.to_json() for i, r in records if not r.marks.is_empty},
        "undo": len(session.history),
        "redo": session.history.next_redo is not None,
        "written": {str(i): sorted(p.index for p in r.written) for i, r in records if r.written},
        "scores": {str(i): encode(dict(sorted(r.scores.items()))) for i, r in records if r.scores},
        "policy": str(session.state.policy),
        "object": session.state.object_id,
        "made": {str(i): encode(dict(r.made_with)) for i, r in records if r.made_with},
    }


class Desk:
    """A session, its backend, and an event loop that turns when it is told to.

    Parameters
    ----------
    folder : path
        Of the session.
    backend : Backend, optional
        A fake by default.
    """

    def __init__(self, folder: str | Path, backend: Any = None) -> None:
        self.backend = backend or FakeBackend()
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.session = Session(self.backend, self._queue.put, folder)
        self.errors: list[Exception] = []
        self.session.failed.connect(self.errors.append)
        self.session.state.idle_reach = 0
        self.session.load_model()

    def open(self, image: Array) -> None:
        """Begin a session on an image."""
        self.session.use_volume(ArrayVolume(image))
        self.settle()

    def reopen(self, folder: str | Path, image: Array) -> None:
        """Go on with an earlier session."""
        self.session.reopen(folder, ArrayVolume(image))
        self.settle()

    def click(self, marks: Marks, plane: PlaneRef) -> None:
        """Show a plane and set the marks of the active object."""
        self.session.show(plane)
        self.session.set_marks(marks)
        self.settle()

    def step(self, timeout: float = 0.05) -> None:
        """Let one event in, if one comes."""
        with suppress(queue.Empty):
            self._queue.get(timeout=timeout)()

    def settle(self, timeout: float = 60.0) -> None:
        """Let events in until nothing runs."""
        end = time.monotonic() + timeout
        while self.session.is_busy:
            if time.monotonic() > end:
                raise TimeoutError("the session did not come to rest")
            self.step()

    @property
    def labels(self) -> Array:
        """All labels."""
        assert self.session.labels is not None
        return np.asarray(self.session.labels.array[:])

    def state(self) -> dict[str, Any]:
        """What must survive."""
        return session_state(self.session)


class Script:
    """A session as a user might have it, the same for the same seed.

    Parameters
    ----------
    desk : Desk
        Where it happens.
    centres : list of (z, y, x)
        Of bright balls in the image.
    seed : int
        Of the choices.
    """

    def __init__(self, desk: Desk, centres: list[tuple[int, int, int]], seed: int) -> None:
        self.desk, self.centres = desk, centres
        self._random = np.random.default_rng(seed)

    def step(self, *, settle: bool = True) -> str:
        """Do one thing and, unless told otherwise, wait until it is done; returns what it was."""
        weights = {
            "click": 6,
            "keep": 4,
            "propagate": 3,
            "undo": 4,
            "redo": 2,
            "paint": 3,
            "delete": 1,
            "other": 3,
        }
        names, share = list(weights), np.array(list(weights.values()), float)
        name = str(self._random.choice(names, p=share / share.sum()))
        getattr(self, f"_{name}")()
        if settle:
            self.desk.settle()
        return name

    def _click(self) -> None:
        z, y, x = self.centres[self._random.integers(len(self.centres))]
        plane = PlaneRef(0, int(z + self._random.integers(-2, 3)))
        marks = self.desk.session.marks
        points = [*marks.points.tolist(), [0, plane.index, y, x]]
        positive = [*marks.positive.tolist(), bool(self._random.random() < 0.8)]
        self.desk.click(Marks(np.array(points), np.array(positive)), plane)

    def _keep(self) -> None:
        self.desk.session.commit()

    def _propagate(self) -> None:
        self.desk.session.propagate()

    def _undo(self) -> None:
        self.desk.session.undo()

    def _redo(self) -> None:
        self.desk.session.redo()

    def _paint(self) -> None:
        array = self.desk.session.hand.editable()
        z, y, x = (int(self._random.integers(size - 4)) for size in array.shape)
        array[z, y : y + 4, x : x + 4] = int(self._random.integers(4))
        self.desk.session.hand.finish()

    def _delete(self) -> None:
        self.desk.session.erase_object()

    def _other(self) -> None:
        session = self.desk.session
        session.state.policy = list(OverlapPolicy)[self._random.integers(2)]
        if self._random.random() < 0.5:
            session.next_object()
        else:
            session.state.object_id = int(self._random.integers(1, 5))
