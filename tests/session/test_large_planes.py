"""A plane of many tiles is encoded step by step, so that a click on it does not wait for all of them."""

import queue
import threading

import numpy as np

from napari_sam.core.planes import PlaneRef
from napari_sam.session.marks import Marks
from napari_sam.testing.fakes import FakeEncoder
from napari_sam.testing.sessions import Desk, FakeBackend

PLANE = PlaneRef(0, 1)


class TiledEncoder(FakeEncoder):
    """Encodes a plane in five steps; the first waits until it is told to go on."""

    def __init__(self, volume, predictor):
        super().__init__(volume, predictor)
        self.log, self.begun, self.go_on = [], threading.Event(), threading.Event()

    def encode_steps(self, plane, part=None):
        for step in range(5):
            self.log.append((plane.index, step))
            self.begun.set()
            assert self.go_on.wait(20)
            yield
        yield from super().encode_steps(plane, part)

    def embedding(self, plane, prompts=None):
        if prompts:
            self.log.append("click")
        return super().embedding(plane, prompts)


class TiledBackend(FakeBackend):
    def __init__(self):
        super().__init__()
        self._made = queue.SimpleQueue()

    def make_encoder(self, volume, predictor):
        encoder = TiledEncoder(volume, predictor)
        self._made.put(encoder)
        return encoder

    def encoder_when_made(self):
        return self._made.get(timeout=20)


def test_a_click_has_its_turn_between_two_tiles(tmp_path):
    desk = Desk(tmp_path, TiledBackend())
    image = np.zeros((4, 16, 16), np.uint8)
    image[:, 4:9, 4:9] = 200
    desk.open(image)
    desk.session.show(PLANE)
    encoder = desk.backend.encoder_when_made()
    assert encoder.begun.wait(20)
    desk.session.set_marks(Marks(np.array([[0, 1, 6, 6]]), np.array([True])))
    encoder.go_on.set()
    desk.settle()
    assert encoder.log == [(1, 0), "click", (1, 1), (1, 2), (1, 3), (1, 4)]
    assert desk.session.record.pending[PLANE].area == 25
    assert desk.session.encoded == {PLANE}
    assert desk.session.close(timeout=20)


def test_a_plane_that_nobody_wants_is_left_between_two_tiles(tmp_path):
    desk = Desk(tmp_path, TiledBackend())
    desk.open(np.zeros((4, 16, 16), np.uint8))
    desk.session.show(PLANE)
    encoder = desk.backend.encoder_when_made()
    assert encoder.begun.wait(20)
    desk.session.cancel()
    encoder.go_on.set()
    desk.settle()
    assert encoder.log == [(1, 0)]
    assert desk.session.encoded == set()
    assert desk.session.close(timeout=20)
