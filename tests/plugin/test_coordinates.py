"""The mask lands where the user clicked: any transform, level, slicing axis and axis order."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Points

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.plugin.layers import SessionLayers
from napari_sam.plugin.space import LayerFrame, open_layer
from napari_sam.session.marks import prompts_on_plane
from napari_sam.session.preview import PreviewArray

# a layer is first sliced along its first axes, before the viewer's order reaches it
pytestmark = pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")

SIZES = {"T": 3, "C": 2, "Z": 8, "Y": 12, "X": 16}


@st.composite
def transforms(draw, ndim, shown):
    """Keyword arguments of a layer: any scale and translation, rotated and sheared in the plane that is shown."""
    unit = 10.0 ** draw(st.integers(-3, 5))  # metres or picometres: people have both
    scale = [unit * draw(st.floats(0.2, 5.0)) for _ in range(ndim)]
    translate = [unit * draw(st.floats(-20, 20)) for _ in range(ndim)]
    turn = np.deg2rad(draw(st.floats(-80, 80)))
    rotate, affine = np.eye(ndim), np.eye(ndim + 1)
    rotate[np.ix_(shown, shown)] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine[shown[0], shown[1]] = draw(st.floats(-0.5, 0.5))
    affine[:-1, -1] = unit * draw(st.floats(-5, 5))
    return {"scale": scale, "translate": translate, "rotate": rotate, "affine": affine}


def desk(axes, order, level, **transform):
    """A viewer with one image whose dimensions mean `axes`, sliced so that `order` ends in what is shown."""
    shape = [SIZES[a] for a in axes]
    data = np.zeros(shape, np.uint8)
    pyramid = [data, data[tuple(slice(None, None, 2 if a in "ZYX" else 1) for a in axes)]]
    viewer = ViewerModel()
    image = viewer.add_image(pyramid if level else data, multiscale=bool(level), **transform)
    viewer.dims.order = order
    volume = open_layer(image, axes)
    layers = SessionLayers(viewer, image, LayerFrame.of(image, axes, volume), lambda: None)
    layers.make_prompts()
    return viewer, layers, volume


def plane_of(letter, voxel, level):
    index = int(np.floor((voxel[letter] + 0.5) / (2 if level else 1)))
    return PlaneRef("ZYX".index(letter), index, level, voxel.get("T", 0))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_click_becomes_a_prompt_on_the_voxel_that_was_clicked(data):
    axes = data.draw(st.sampled_from(["ZYX", "TZYX", "CZYX", "XZY", "TCZYX"]))
    level = data.draw(st.integers(0, 1))
    shown = data.draw(st.permutations("ZYX"))[1:]
    order = [i for i, a in enumerate(axes) if a not in shown] + [axes.index(a) for a in shown]
    voxel = {a: data.draw(st.integers(0, SIZES[a] - 1)) for a in axes}
    viewer, layers, volume = desk(axes, order, level, **data.draw(transforms(len(axes), order[-2:])))
    position = np.array([voxel[a] for a in axes], float)
    world = layers.frame.world.to_world(position[None])[0]

    viewer.dims.set_point(range(viewer.dims.ndim), world)
    view = layers.frame.view(viewer.dims, level)
    sliced = next(a for a in "ZYX" if a not in shown)
    assert view == plane_of(sliced, voxel, level)

    layers.points.add(layers.points.world_to_data(world))
    prompts = prompts_on_plane(layers.read_marks(), view, volume)
    rows_cols = [(voxel[a] + 0.5) / (2 if level else 1) - 0.5 for a in "ZYX" if a != sliced]
    np.testing.assert_allclose(prompts.points_yx, [rows_cols], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_mask_is_shown_on_the_pixel_that_it_covers(data):
    level, axis = data.draw(st.integers(0, 1)), data.draw(st.integers(0, 2))
    order = [axis, *(i for i in range(3) if i != axis)]
    _, layers, volume = desk("ZYX", order, level, **data.draw(transforms(3, order[1:])))
    shape = volume.shape_zyx(level)
    voxel = [data.draw(st.integers(0, n - 1)) for n in shape]
    preview = PreviewArray((1, *shape))
    mask = np.zeros(volume.plane_shape(axis, level), bool)
    mask[tuple(v for i, v in enumerate(voxel) if i != axis)] = True
    plane = PlaneRef(axis, voxel[axis], level)
    preview.set(plane, Region.from_mask(mask))
    layers.make_preview(preview, level)

    data0 = layers.frame.volume.to_data(np.argwhere(mask), plane)
    world = layers.frame.world.to_world(data0)[0]
    landed = np.round(layers.preview.world_to_data(world)).astype(int)
    assert layers.preview.data[tuple(landed)] == 1
    assert np.asarray(layers.preview.data[:]).sum() == 1


@pytest.mark.parametrize("ndim", [2, 3])
def test_points_of_a_layer_with_another_transform_land_on_the_same_spot(ndim):
    viewer, layers, _ = desk("ZYX", (0, 1, 2), 0, scale=(2.0, 0.5, 0.5), translate=(1, 2, 3))
    world = layers.frame.world.to_world([[5.0, 6.0, 7.0]])[0]
    viewer.dims.set_point(range(3), world)
    other = Points(ndim=ndim, scale=[3.0] * ndim, translate=[-7.0] * ndim)
    other.add(other.world_to_data(world[-ndim:]))
    layers.adopt_points(other)
    np.testing.assert_allclose(layers.read_marks().points, [[0, 5, 6, 7]], atol=1e-9)


def test_marks_written_to_the_layers_come_back_the_same():
    viewer, layers, _ = desk(
        "TCZYX", (0, 1, 2, 3, 4), 0, scale=(1, 1, 2.0, 0.5, 0.5), translate=(0, 0, 1, 2, 3)
    )
    viewer.dims.set_point(range(5), layers.frame.world.to_world([[1, 1, 3, 6, 7.0]])[0])
    layers.points.add([1, 1, 3, 6, 7])
    layers.set_polarity(False)
    layers.points.add([1, 1, 4, 2, 2])
    layers.shapes.add_rectangles([[1, 1, 3, 2, 2], [1, 1, 3, 2, 9], [1, 1, 3, 8, 9], [1, 1, 3, 8, 2]])
    layers.shapes.add_paths([[1, 1, 3, 2, 2], [1, 1, 3, 2, 9]])
    before = layers.read_marks()
    assert before.positive.tolist() == [True, False]
    layers.write_marks(type(before)(), np.zeros(5))
    assert layers.read_marks().is_empty
    layers.write_marks(before, layers.frame.position(viewer.dims))
    assert layers.read_marks().same_as(before)
    assert layers.points.data[0].tolist() == [1, 1, 3, 6, 7]


def test_a_rotation_out_of_the_plane_is_refused_with_a_reason():
    affine = np.eye(4)
    affine[1, 0] = 0.3
    viewer, layers, _ = desk("ZYX", (2, 0, 1), 0, affine=affine)
    assert isinstance(layers.frame.view(viewer.dims, 0), PlaneRef)
    viewer.dims.order = (0, 1, 2)
    assert "out of the plane" in layers.frame.view(viewer.dims, 0).reason
