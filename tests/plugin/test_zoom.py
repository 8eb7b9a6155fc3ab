"""What the view shows is encoded at the scale at which it is shown."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_sam.core.contrast import Contrast
from napari_sam.core.planes import PlaneRef
from napari_sam.core.spaces import LayerSpace, VolumeSpace, layer_affine
from napari_sam.embedding import MemoryStore
from napari_sam.inference.encode import CachedEncoder
from napari_sam.plugin.space import LayerFrame
from napari_sam.testing.fakes import FakePredictor
from napari_sam.testing.phantoms import ball_volume

pytestmark = pytest.mark.gui

CENTRE = (2, 250, 300)
PHANTOM = ball_volume((4, 512, 640), [CENTRE], 150.0, spacing_zyx=(40.0, 1.0, 1.0))
PYRAMID = [PHANTOM.image[:, ::f, ::f] for f in (1, 2, 4, 8)]
TILE = 64


@pytest.fixture
def backend(backend):
    """Real encoders over a fake network with tiles of 64 pixels."""
    backend.predictor = FakePredictor(tile_size=TILE)
    store = MemoryStore(1 << 30)
    backend.make_encoder = lambda volume, predictor: CachedEncoder(
        volume, predictor, store, Contrast((0,), (255,))
    )
    return backend


def camera_of(widget):
    return getattr(widget.viewer, "scene", widget.viewer).camera


@given(
    st.integers(0, 2),
    st.floats(0.01, 100),
    st.tuples(*[st.floats(0.01, 100)] * 3),
    st.permutations([0, 1, 2]),
    st.integers(0, 1),
)
def test_the_scale_is_that_of_the_screen(axis, zoom, scale, order, level):
    axes = "".join("ZYX"[i] for i in order)
    zyx_axes = tuple(axes.index(letter) for letter in "ZYX")
    volume = VolumeSpace(((16, 32, 64), (16, 16, 32)), zyx_axes)
    frame = LayerFrame(axes, (1, 1, 1), LayerSpace(layer_affine(scale, (3, 4, 5))), volume)
    found = frame.shown_scale(PlaneRef(axis, 0, level), zoom)
    factors = volume.levels[level].factor_zyx
    sides = [scale[axes.index("ZYX"[i])] * factors[i] for i in range(3) if i != axis]
    per_pixel = 1 / (zoom * np.sqrt(np.prod(sides)))  # pixels of the plane in one of the screen
    assert found & (found - 1) == 0
    assert found == 1 or found <= per_pixel * 1.001
    assert 2 * found > per_pixel * 0.999


def test_zooming_out_makes_the_model_look_from_afar(segment, wait, qtbot, backend):
    widget = segment(PYRAMID, name="pyramid", multiscale=True, scale=(2.0, 0.5, 0.5), translate=(1, 7, 9))
    camera, session = camera_of(widget), widget.session
    widget.viewer.dims.set_point(0, 2 * CENTRE[0] + 1)
    camera.zoom = 2 / 16
    qtbot.waitUntil(lambda: session.sight.scale == 8, timeout=5000)
    wait(widget)
    assert PlaneRef(0, 2) in session.encoded
    seen = backend.predictor.n_encodes
    camera.zoom = 2 / 17
    wait(widget)
    assert backend.predictor.n_encodes == seen, "the same scale is not encoded again"
    widget.controller.layers.points.add(list(CENTRE))
    wait(widget)
    assert session.record.scale == 8
    session.commit()
    wait(widget)
    labels = session.labels.array[2] == 1
    truth = PHANTOM.labels[2] == 1
    assert labels.shape == truth.shape
    assert (labels & truth).sum() / (labels | truth).sum() > 0.95
    camera.zoom = 2 * 4
    qtbot.waitUntil(lambda: session.sight.scale == 1, timeout=5000)


def test_only_what_is_seen_of_a_large_plane_is_encoded(segment, wait, qtbot, backend):
    widget = segment(show=True)
    session, camera = widget.session, camera_of(widget)
    session.state.idle_reach = 0
    widget.viewer.add_image(PYRAMID, name="pyramid", multiscale=True)
    wait(widget)
    camera.center, camera.zoom = (0, 140, 200), 10.0  # at the border of the ball
    qtbot.waitUntil(lambda: session.shown.part is not None and session.shown.part[2] < 260, timeout=5000)
    y0, x0, y1, x1 = session.shown.part
    assert 0 <= y0 <= 140 < y1
    assert 0 <= x0 <= 200 < x1
    wait(widget)
    backend.predictor.reset_counts()
    widget.viewer.dims.set_point(0, 0)
    wait(widget)
    seen = session.shown.tiles((512, 640), TILE, 1)
    assert backend.predictor.n_encodes == len(seen) < 20
    assert PlaneRef(0, 0) in session.encoded


def test_a_fixed_level_does_not_follow_the_zoom(segment, wait, qtbot):
    widget = segment(PYRAMID, name="pyramid", multiscale=True)
    widget.level_box.setCurrentIndex(2)
    assert widget.level_box.currentText().startswith("1 (4 x 256 x 320)")
    camera_of(widget).zoom = 1 / 16
    qtbot.wait(300)
    wait(widget)
    assert widget.session.sight.scale == 2
    widget.level_box.setCurrentIndex(0)
    qtbot.waitUntil(lambda: widget.session.sight.scale == 8, timeout=5000)
