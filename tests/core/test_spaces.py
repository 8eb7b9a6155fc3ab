"""Coordinates: there and back, membership, levels, tiles, and the arithmetic of SAM."""

import pickle

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_sam.core.planes import PlaneRef
from napari_sam.core.prompts import PromptSet
from napari_sam.core.spaces import (
    LayerSpace,
    Level,
    ModelSpace,
    VolumeSpace,
    layer_affine,
    level_geometry,
    nearest_index,
    resized_shape,
)
from napari_sam.errors import SpaceError
from napari_sam.testing.fakes import ArrayVolume, FakeEncoder, FakePredictor
from napari_sam.testing.phantoms import ball_volume

finite = st.floats(-1e4, 1e4, allow_nan=False, width=64)


def rotation(ndim: int, seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(ndim, ndim)))
    return q * np.sign(np.diag(r))


@st.composite
def layers(draw, ndim=None) -> LayerSpace:
    """Any layer a viewer can show: anisotropic or mirrored, rotated, sheared, moved, and an affine on top."""
    n = draw(st.integers(1, 5)) if ndim is None else ndim
    seed = draw(st.integers(0, 2**16))
    size = st.floats(1e-2, 1e2) | st.floats(-1e2, -1e-2)
    scale = draw(st.lists(size, min_size=n, max_size=n))
    translate = draw(st.lists(st.floats(-1e3, 1e3), min_size=n, max_size=n))
    shear = draw(arrays(float, n * (n - 1) // 2, elements=st.floats(-1, 1)))
    extra = np.eye(n + 1)
    extra[:n, :n] = rotation(n, seed + 1) * draw(st.floats(0.1, 10))
    extra[:n, n] = draw(st.floats(-100, 100))
    matrix = layer_affine(scale, translate, rotation(n, seed), shear, extra)
    assume(np.linalg.cond(matrix[:n, :n]) < 1e5)  # beyond that float64 itself loses the 1e-6
    return LayerSpace(matrix, n)


@st.composite
def volume_spaces(draw) -> VolumeSpace:
    """Axes in any order, some of them absent, extra ones beside them, several levels."""
    shape = tuple(draw(st.lists(st.integers(1, 40), min_size=3, max_size=3)))
    has_z, has_time = draw(st.booleans()), draw(st.booleans())
    ndim = 2 + has_z + has_time + draw(st.integers(0, 1))
    free = list(draw(st.permutations(range(ndim))))
    axes = (free.pop() if has_z else None, free.pop(), free.pop())
    shape = shape if has_z else (1, *shape[1:])
    factors = draw(st.lists(st.integers(1, 4), min_size=3, max_size=3))
    smaller = tuple(-(-n // f) for n, f in zip(shape, factors))
    time_axis, n_time = (free.pop(), 5) if has_time else (None, 1)
    return VolumeSpace((shape, smaller), axes, ndim, time_axis, n_time)


# membership


@given(finite)
@example(0.49999999999999994)
@example(-1e-300)
@example(-0.5)
def test_a_voxel_covers_the_half_open_interval_around_its_centre(coordinate) -> None:
    index = int(nearest_index(coordinate))
    # offsets from the whole part are exact in floating point, sums with 0.5 are not
    below = np.floor(coordinate)
    assert index - below == (1 if coordinate - below >= 0.5 else 0)


def test_halves_go_up() -> None:
    assert nearest_index([-1.5, -0.5, 0.5, 1.5, 2.5]).tolist() == [-1, 0, 1, 2, 3]


# world and data


@given(layers(), st.data())
def test_world_and_data_are_there_and_back(layer, data) -> None:
    points = data.draw(arrays(float, (4, layer.ndim), elements=st.floats(-2000, 2000)))
    assert np.abs(layer.to_data(layer.to_world(points)) - points).max() < 1e-6


@given(layers(3), arrays(float, (2, 3), elements=st.floats(-100, 100)), arrays(float, (2, 2)))
def test_a_viewer_may_have_more_dimensions_than_the_layer(layer, points, more) -> None:
    wide = np.concatenate([np.nan_to_num(more), layer.to_world(points)], axis=1)
    np.testing.assert_array_equal(layer.to_data(wide), layer.to_data(wide[:, 2:]))


def test_the_order_of_transforms_is_napari_s() -> None:
    transforms = pytest.importorskip("napari.utils.transforms")
    rng = np.random.default_rng(4)
    for ndim in (2, 3, 4):
        parts = {
            "scale": rng.uniform(0.2, 3, ndim),
            "translate": rng.normal(size=ndim),
            "rotate": rotation(ndim, 7),
            "shear": rng.normal(size=ndim * (ndim - 1) // 2),
        }
        theirs = transforms.Affine(**parts, ndim=ndim)
        np.testing.assert_allclose(layer_affine(**parts), theirs.affine_matrix, atol=1e-12)
        outer = transforms.Affine(linear_matrix=rotation(ndim, 8), translate=rng.normal(size=ndim), ndim=ndim)
        np.testing.assert_allclose(
            layer_affine(**parts, affine=outer.affine_matrix),
            outer.affine_matrix @ theirs.affine_matrix,
            atol=1e-12,
        )


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([1.0, 0.0, 1.0]),
        [[1, 2, 0], [2, 4, 0], [0, 0, 1]],
        np.diag([1.0, np.nan, 1.0]),
        [[1, 0, 0], [0, 1, 0], [0, 1, 1]],
        np.eye(4),
        np.eye(3)[:2],
    ],
    ids=["no scale", "flat", "nan", "projective", "too large", "not square"],
)
def test_transforms_that_cannot_be_used_are_refused(affine) -> None:
    with pytest.raises(SpaceError):
        LayerSpace(affine, 2)


def test_nanometres_beside_metres_are_fine() -> None:
    layer = LayerSpace(np.diag([1.0, 1e-9, 1e-9, 1.0]))
    np.testing.assert_allclose(layer.to_data([[2.0, 5e-9, 7e-9]]), [[2, 5, 7]])


def test_points_of_the_wrong_width_are_refused() -> None:
    with pytest.raises(SpaceError, match="points_world"):
        LayerSpace.identity(3).to_data([[1.0, 2.0]])


# levels


@given(st.integers(1, 64), st.integers(1, 64), st.floats(-1, 100))
def test_an_averaged_level_keeps_the_edge_of_the_volume(factor, voxel, x0) -> None:
    level = Level.averaged((factor, 1, 1))
    got = level.from_level0(np.array([[x0, 0, 0]]))[0, 0]
    np.testing.assert_allclose(got, (x0 + 0.5) / factor - 0.5, atol=1e-12)
    blocks = np.arange(factor * voxel, factor * (voxel + 1))
    assert (
        nearest_index(level.from_level0(np.stack([blocks, 0 * blocks, 0 * blocks], 1))[:, 0]) == voxel
    ).all()


@given(st.integers(1, 3000), st.integers(1, 16), st.booleans())
def test_whole_factors_are_found_from_shapes(n, factor, round_up) -> None:
    smaller = max(-(-n // factor) if round_up else n // factor, 1)
    found = Level.from_shapes((n, n, n), (smaller,) * 3).factor_zyx[0]
    # a short axis may be explained by several factors, a long one only by the true one
    assert -(-n // found) == smaller or n // found == smaller or found == n / smaller
    assume(n > 2 * factor**2)
    assert found == factor


def test_a_translated_level_follows_its_metadata() -> None:
    level = Level.from_physical((2, 0.5, 0.5), (10, 0, 1), (2, 1.0, 2.0), (10, 0.25, 1))
    assert level.factor_zyx == (1, 2, 4)
    assert level.offset_zyx == (0, 0.5, 0)
    assert Level.averaged((1, 2, 1)).offset_zyx == (0, 0.5, 0)


@given(st.lists(st.floats(1, 16), min_size=3, max_size=3), st.lists(finite, min_size=6, max_size=6))
def test_levels_are_there_and_back(factor, numbers) -> None:
    level, points = Level(tuple(factor), tuple(numbers[:3])), np.array([numbers[3:]])
    assert np.abs(level.from_level0(level.to_level0(points)) - points).max() < 1e-6


@pytest.mark.parametrize("factor", [(0, 1, 1), (1, -2, 1), (1, 1, np.nan)])
def test_factors_must_be_positive(factor) -> None:
    with pytest.raises(SpaceError, match="positive"):
        Level(factor)


# data and plane


@given(volume_spaces(), st.integers(0, 2), st.integers(0, 1), st.data())
def test_data_and_plane_are_there_and_back(space, axis, level, data) -> None:
    index = data.draw(st.integers(0, space.shapes_zyx[level][axis] - 1))
    plane = PlaneRef(axis, index, level, data.draw(st.integers(0, space.n_time - 1)))
    rows = [i for i in range(3) if i != axis]
    height, width = (space.shapes_zyx[level][i] for i in rows)
    points = data.draw(arrays(float, (3, 2), elements=st.floats(-0.49, 0.49)))
    points += [[data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))]]
    for column, i in enumerate(rows):  # an absent axis has one voxel, in the middle of which everything lies
        if space.zyx_axes[i] is None:
            points[:, column] = 0
    if space.zyx_axes[axis] is None:
        assume(index == 0)
    there = space.to_data(points, plane)
    assert there.shape == (3, space.ndim)
    assert np.abs(space.to_plane(there, plane) - points).max() < 1e-6
    assert space.belongs(there, plane).all()


def landing(space, point, axis, level=0):
    """The plane that a point belongs to and the point in it, as `session.marks` finds them."""
    index = int(nearest_index(space.to_zyx(point, level)[0, axis]))
    plane = PlaneRef(axis, index, level, int(space.time_of(point)[0]))
    (point_yx,) = space.to_plane(point, plane).tolist()
    return plane, tuple(point_yx)


@given(volume_spaces(), st.integers(0, 2), st.integers(0, 1), st.data())
def test_every_voxel_belongs_to_one_plane_and_is_found_in_it(space, axis, level, data) -> None:
    tzyx = [data.draw(st.integers(0, n - 1)) for n in (space.n_time, *space.shape_zyx)]
    jitter = data.draw(st.floats(-0.499, 0.499))
    point = np.zeros((1, space.ndim))
    for value, at in zip(tzyx, (space.time_axis, *space.zyx_axes)):
        if at is not None:
            point[0, at] = value + jitter
    plane, point_yx = landing(space, point, axis, level)
    assert space.belongs(point, plane).all()
    assert (plane.axis, plane.level, plane.time) == (axis, level, tzyx[0])
    last = space.shapes_zyx[level][axis] - 1
    assert plane.index == min(tzyx[1 + axis] // round(space.levels[level].factor_zyx[axis]), last)
    np.testing.assert_allclose(space.to_plane(point, plane), [point_yx])
    PromptSet([point_yx]).check_inside(tuple(n for i, n in enumerate(space.shapes_zyx[level]) if i != axis))
    neighbours = [plane.at(i) for i in (plane.index - 1, plane.index + 1) if i >= 0]
    assert not any(space.belongs(point, other).any() for other in neighbours)


def test_what_an_upper_level_lost_goes_to_its_last_voxel() -> None:
    space = VolumeSpace(((5, 5, 5), (2, 2, 2)))
    plane, point_yx = landing(space, [[4, 4, 0]], 0, 1)
    assert plane == PlaneRef(0, 1, 1)
    PromptSet([point_yx]).check_inside((2, 2))


def test_axes_beside_the_volume_are_filled_as_asked() -> None:
    space = VolumeSpace(((3, 40, 50),), (1, 2, 3), 4)
    np.testing.assert_array_equal(space.to_data([(7, 8)], PlaneRef(0, 2), (5, 0, 0, 0)), [(5, 2, 7, 8)])


@pytest.mark.parametrize(
    "arguments",
    [
        (((3, 4, 5),), (0, 1, 1)),
        (((3, 4, 5),), (0, 1, 3)),
        (((3, 4, 5),), (0, 1, 2), 3, 2),
        (((3, 4, 5),), (0, 1, 2), 3, None, 1, (Level((2, 2, 2)),)),
        (((3, 4, 5),), (0, 1, 2), 3, None, 1, (Level(), Level())),
    ],
)
def test_axes_and_levels_that_do_not_fit_are_refused(arguments) -> None:
    with pytest.raises(SpaceError):
        VolumeSpace(*arguments)


def test_a_space_of_a_volume_knows_its_levels() -> None:
    image = np.zeros((2, 6, 9, 11))
    volume = ArrayVolume(image, "TZYX", levels=[image[:, ::1, ::2, ::2]])
    space = VolumeSpace.of(volume, (1, 2, 3), 4, 0)
    assert space.levels[1].factor_zyx == (1, 2, 2)
    assert (space.n_time, space.shape_zyx) == (2, (6, 9, 11))


# plane and model


@st.composite
def tiles(draw) -> ModelSpace:
    y0, x0 = draw(st.integers(0, 5000)), draw(st.integers(0, 5000))
    shape = draw(st.integers(1, 3000)), draw(st.integers(1, 3000))
    return ModelSpace(
        (y0, x0, y0 + shape[0], x0 + shape[1]), resized_shape(shape, draw(st.sampled_from([256, 1024])))
    )


@given(tiles(), arrays(float, (3, 2), elements=st.floats(-1e4, 1e4)))
def test_plane_and_model_are_there_and_back(space, points) -> None:
    assert np.abs(space.to_plane(space.to_model(points)) - points).max() < 1e-6


@given(st.integers(1, 4000), st.integers(1, 4000), st.data())
def test_a_click_on_a_whole_pixel_is_scaled_exactly_as_published(height, width, data) -> None:
    """Each coordinate times new size over old size, x first; new size int(side * scale + 0.5)."""
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    scale = 1024 * 1.0 / max(height, width)
    new_h, new_w = max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)
    assert resized_shape((height, width), 1024) == (new_h, new_w)
    got = ModelSpace((0, 0, height, width), (new_h, new_w)).to_model([(y, x)])
    assert got.tolist() == [[x * (new_w / width), y * (new_h / height)]]


def test_the_half_pixel_of_sam() -> None:
    """After the prompt encoder's + 0.5 a click lies (s - 1) / 2 model pixels before the centre it meant."""
    space = ModelSpace((0, 0, 128, 128), (1024, 1024))
    clicked = space.to_model([(10, 20)])[0] + 0.5
    centre = np.array([20 + 0.5, 10 + 0.5]) * 8
    np.testing.assert_allclose(centre - clicked, (8 - 1) / 2)


@pytest.mark.parametrize(
    ("box", "shape"), [((0, 0, 0, 5), (1, 1)), ((0, 5, 5, 5), (1, 1)), ((0, 0, 5, 5), (0, 5))]
)
def test_empty_tiles_are_refused(box, shape) -> None:
    with pytest.raises(SpaceError, match="empty"):
        ModelSpace(box, shape)


def test_spaces_are_values() -> None:
    layer = LayerSpace(np.diag([2.0, 3.0, 1.0]))
    again = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(again.affine, layer.affine)
    assert not again.affine.flags.writeable
    space = VolumeSpace(((3, 4, 5), (3, 2, 2)))
    assert pickle.loads(pickle.dumps(space)) == space


# all of it


@given(layers(3), st.permutations(range(3)), st.integers(0, 2), st.data())
def test_a_click_in_the_world_gives_the_mask_of_what_was_clicked(layer, order, axis, data) -> None:
    """A ball, its axes in any order in a layer with any transform, clicked anywhere on it in the world."""
    truth = ball_volume((14, 18, 22), radii=5.2)
    space = VolumeSpace((truth.image.shape,), tuple(order), 3)
    voxels = np.argwhere(truth.labels)
    voxel = voxels[data.draw(st.integers(0, len(voxels) - 1))]
    point_data = np.empty((1, 3))
    point_data[0, list(order)] = voxel
    point_world = layer.to_world(point_data)

    plane, point_yx = landing(space, layer.to_data(point_world), axis)
    assert plane.index == voxel[axis]
    encoder = FakeEncoder(ArrayVolume(truth.image), FakePredictor())
    mask = encoder.predictor.predict(encoder.embedding(plane), PromptSet([point_yx])).mask
    np.testing.assert_array_equal(mask, truth.labels.take(plane.index, axis) == 1)

    centre_yx = np.argwhere(mask).mean(axis=0, keepdims=True)
    back = layer.to_data(layer.to_world(space.to_data(centre_yx, plane)))[0, list(order)]
    middle = (np.array(truth.image.shape) - 1) / 2
    middle[axis] = plane.index
    np.testing.assert_allclose(back, middle, atol=1e-6)


@given(
    st.tuples(*[st.sampled_from([1, 2, 4])] * 3),
    st.tuples(*[st.floats(0.1, 9.0)] * 3),
    st.tuples(*[st.floats(-9.0, 9.0)] * 3),
)
def test_the_first_voxel_of_a_level_begins_where_that_of_level_0_begins(factor, spacing, translate):
    fine = np.zeros((8, 8, 8), np.uint8)
    coarse = fine[:: factor[0], :: factor[1], :: factor[2]]
    volume = ArrayVolume(
        fine, levels=[coarse], spacing_zyx=spacing, translate_zyx=translate, unit="micrometer"
    )
    found = level_geometry(volume, 1)
    np.testing.assert_allclose(found["spacing_zyx"], np.multiply(spacing, factor))
    edge = np.subtract(found["translate_zyx"], np.divide(found["spacing_zyx"], 2))
    np.testing.assert_allclose(edge, np.subtract(translate, np.divide(spacing, 2)), atol=1e-9)
    assert found["unit"] == "micrometer"
