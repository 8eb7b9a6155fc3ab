"""Planes looked at from afar: what is read, what is encoded, and that nothing shifts."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from napari_sam.core.contrast import Contrast
from napari_sam.core.planes import PlaneRef
from napari_sam.core.prompts import PromptSet
from napari_sam.core.results import ImageEmbedding
from napari_sam.core.spaces import ModelSpace, VolumeSpace
from napari_sam.inference.averaging import averaged, evenly
from napari_sam.inference.decoding import answer_plane
from napari_sam.inference.encode import CachedEncoder
from napari_sam.inference.levels import Source, scale_of, source_of
from napari_sam.inference.predict import predict_plane
from napari_sam.inference.sight import Sight, answered, answers
from napari_sam.inference.tiles import LARGE, SMALL, closest_scale, fitting_scale, plan_tiles, size_of
from napari_sam.testing.fakes import ArrayVolume, CountingVolume, FakePredictor, FakeStore
from napari_sam.testing.phantoms import discs_plane

FACTORS = [(2, 4), (3, 9), (4,), (2, 8), ()]


def shrunk(image, factor):
    """Means of blocks, what is left over at the end dropped, along the last two axes."""
    height, width = (n // factor * factor for n in image.shape[-2:])
    cut = image[..., :height, :width]
    blocks = cut.reshape(*cut.shape[:-2], height // factor, factor, width // factor, factor)
    return blocks.mean((-3, -1))


def pyramid(image, factors):
    return ArrayVolume(image[None], levels=[shrunk(image, f)[None] for f in factors])


# Geometry


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.integers(1, 40),
    st.integers(1, 40),
    st.floats(-3, 95),
    st.floats(0.01, 60),
)
def test_means_of_rectangles_are_integrals(shape, n_rows, n_cols, start, length):
    """Compared with the integral of the image, which is exact for pieces of constant value."""
    image = np.random.default_rng(0).integers(0, 255, shape).astype(np.float64)
    rows = np.linspace(0, shape[0], n_rows + 1)
    cols = np.linspace(start, start + length, n_cols + 1)
    found = averaged(image, rows, cols)
    for i, j in itertools.product(range(n_rows), range(n_cols)):
        if not (cols[j] >= 0 and cols[j + 1] <= shape[1]):
            continue
        wanted = _integral(image, rows[i : i + 2], cols[j : j + 2])
        assert found[i, j] == pytest.approx(wanted, rel=1e-4, abs=1e-3)


def _integral(image, rows, cols):
    weights = [
        np.clip(np.minimum(edges[1], np.arange(n) + 1) - np.maximum(edges[0], np.arange(n)), 0, None)
        for edges, n in zip((rows, cols), image.shape, strict=True)
    ]
    return (weights[0] @ image @ weights[1]) / ((rows[1] - rows[0]) * (cols[1] - cols[0]))


@settings(deadline=None)
@given(st.sampled_from(FACTORS), st.sampled_from([1, 2, 4, 8]), st.integers(40, 130), st.integers(40, 130))
def test_what_is_encoded_lies_where_the_plane_says(factors, scale, height, width):
    """On a ramp every encoded pixel must have the value of the plane at the middle of what it stands for."""
    rows, cols = np.mgrid[:height, :width].astype(np.float64)
    volume = pyramid(3 * rows + 7 * cols, factors)
    guessed = [scale_of(volume, PlaneRef(0, 0), level) for level in range(volume.n_levels)]
    assume(guessed == [1, *factors])  # of few pixels a level might as well be of another factor
    source = source_of(volume, PlaneRef(0, 0), scale)
    read = volume.read_plane(source.plane)
    for box in plan_tiles((height, width), 16, scale=scale):
        (y0, x0, y1, x1), edges = source.window(box), source.edges(box)
        found = averaged(read[y0:y1, x0:x1], edges[0] - y0, edges[1] - x0)
        assert found.shape == source.encoded_shape(box)
        middles = [
            low + (np.arange(m) + 0.5) * (high - low) / m - 0.5
            for low, high, m in zip(box[:2], box[2:], found.shape, strict=True)
        ]
        wanted = 3 * middles[0][:, None] + 7 * middles[1]
        whole = [
            (edges[i][:-1] >= 0) & (edges[i][1:] <= read.shape[i] + 1e-9) for i in (0, 1)
        ]  # beyond the last pixel of a level nothing is known
        smooth = [w & _over_whole_pixels(e) for w, e in zip(whole, edges, strict=True)]
        inside = np.ix_(*smooth)
        np.testing.assert_allclose(found[inside], wanted[inside], rtol=1e-5, atol=1e-3)


def _over_whole_pixels(edges):
    """Means over parts of pixels are those of a staircase, not of the ramp."""
    whole = np.abs(edges - np.rint(edges)) < 1e-6
    return whole[:-1] & whole[1:]


@settings(deadline=None)
@given(
    st.integers(0, 2),
    st.integers(0, 7),
    st.sampled_from([(1, 2, 2), (2, 2, 2), (1, 4, 4), (4, 3, 3)]),
    st.sampled_from([2, 3, 4, 8]),
    st.data(),
)
def test_points_go_to_the_level_that_is_read_and_back(axis, index, factor, scale, data):
    shape = (8, 48, 36)
    levels = [np.zeros([max(1, n // f) for n, f in zip(shape, factor, strict=True)])]
    volume = ArrayVolume(np.zeros(shape), levels=levels)
    plane = PlaneRef(axis, index)
    source = source_of(volume, plane, scale)
    point = np.array([data.draw(st.floats(-0.5, n - 0.51)) for n in volume.plane_shape(axis)])
    there = (point - source.offset_yx) / source.factor_yx
    np.testing.assert_allclose(there * source.factor_yx + source.offset_yx, point, atol=1e-9)
    zyx = np.insert(point, axis, index)[None]
    by_space = VolumeSpace.of(volume).levels[source.plane.level].from_level0(zyx)
    np.testing.assert_allclose(np.delete(by_space[0], axis), there, atol=1e-9)
    assert source.shape == volume.plane_shape(axis, source.plane.level)
    assert 0 <= source.plane.index < volume.shape_zyx(source.plane.level)[axis]


@settings(deadline=None)
@given(st.sampled_from([2, 4, 8]), st.integers(20, 200), st.integers(20, 200), st.data())
def test_prompts_go_into_the_pixel_that_shows_what_they_are_on(scale, height, width, data):
    """Plane to model, and back, for tiles whose image is as large as the model's input."""
    source = source_of(ArrayVolume(np.zeros((1, height, width))), PlaneRef(0, 0), scale)
    boxes = plan_tiles((height, width), 16, scale=scale)
    box = data.draw(st.sampled_from(boxes))
    space = ModelSpace(box, source.encoded_shape(box))
    y, x = (data.draw(st.integers(low, high - 1)) for low, high in zip(box[:2], box[2:], strict=True))
    found = space.to_model([(y, x)])
    np.testing.assert_allclose(space.to_plane(found), [(y, x)], atol=1e-9)
    for at, edges, value in zip((0, 1), source.edges(box), (y, x), strict=True):
        pixel = int(np.searchsorted(edges, value + 0.5, side="right")) - 1
        centre = (
            found[0, 1 - at] + space.scale_yx[at] / 2
        )  # of the plane's pixel, from the edge of the model's
        assert pixel == int(centre + 1e-9)


@settings(deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([2, 3, 8]))
def test_tiles_of_a_scale_cover_the_plane_and_begin_between_its_pixels(height, width, scale):
    boxes = plan_tiles((height, width), 32, scale=scale)
    covered = np.zeros((height, width), int)
    for y0, x0, y1, x1 in boxes:
        assert y0 % scale == x0 % scale == 0
        assert y0 < y1 <= height
        assert x0 < x1 <= width
        covered[y0:y1, x0:x1] += 1
    assert covered.min() >= 1
    if len(boxes) > 1:
        assert max(max(b[2] - b[0], b[3] - b[1]) for b in boxes) <= 32 * scale


# Which scale


def test_the_level_nearest_to_the_scale_is_read():
    volume = pyramid(np.zeros((256, 256)), [4, 16])
    read = {scale: source_of(volume, PlaneRef(0, 0), scale).plane.level for scale in (1, 2, 4, 8, 16, 64)}
    assert read == {1: 0, 2: 0, 4: 1, 8: 1, 16: 2, 64: 2}
    assert [scale_of(volume, PlaneRef(0, 0), level) for level in range(3)] == [1, 4, 16]
    assert source_of(volume, PlaneRef(0, 0), 8).step_yx == (8, 8)
    assert source_of(volume, PlaneRef(0, 0, level=1), 4).plane.level == 2


def test_an_axis_that_a_level_keeps_is_not_shrunk_with_the_other():
    image = np.zeros((32, 40, 64))
    volume = ArrayVolume(image, levels=[image[:, ::4, ::4]])
    source = source_of(volume, PlaneRef(1, 17), 4)
    assert source.plane == PlaneRef(1, 4, level=1)
    assert source.step_yx == (1, 4)
    assert source.encoded_shape((0, 0, 32, 64)) == (32, 16)


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(1, 20000), st.integers(1, 20000), st.floats(0, 20000))
def test_the_scale_suits_the_plane_and_the_object(shown, height, width, diameter):
    shape, tile = (height, width), 512
    scale = fitting_scale(2**shown, shape, tile)
    assert scale == 1 or (max(shape) > 1.25 * tile * scale / 2 and min(shape) >= tile * scale / 8)
    suits = fitting_scale(2**shown, shape, tile, (diameter, diameter))
    coarsest = fitting_scale(1 << 20, shape, tile)
    assert 1 <= suits <= coarsest
    assert suits == 1 or diameter >= SMALL * tile * suits
    assert suits == coarsest or diameter <= LARGE * tile * suits
    assert fitting_scale(suits, shape, tile, (diameter, diameter)) == suits


@pytest.mark.parametrize(
    ("shape", "scale"),
    [
        ((700, 512), 0.5),
        ((400, 512), 0.5),
        ((512, 641), 0.5),
        ((250, 250), 0.25),  # enlarged to the input anyhow
        ((20, 100), 0.125),
        ((30, 30), 1),  # tiles of 16 pixels
        ((3000, 3000), 1),  # a mask prompt of 36 million cells
    ],
)
def test_closely_a_tile_shows_about_half_as_much(shape, scale):
    assert closest_scale(shape, 512) == scale
    if scale < 1:
        side = max(y1 - y0 for y0, _, y1, _ in plan_tiles(shape, 512, scale=scale))
        assert 0.3 * min(512, max(shape)) <= max(side, round(512 * scale)) <= 0.7 * min(512, max(shape))


@given(st.integers(0, 4), st.integers(20, 3000), st.integers(20, 3000), st.floats(1, 500))
def test_only_what_is_small_at_full_resolution_is_enlarged(shown, height, width, diameter):
    shape, size = (height, width), (diameter, diameter)
    plain = fitting_scale(2**shown, shape, 512, size)
    found = fitting_scale(2**shown, shape, 512, size, 0.25)
    is_small = diameter < SMALL * min(512, max(shape))
    assert (found == 0.25) == (plain == 1 and is_small)
    assert fitting_scale(0.25, shape, 512, size) >= 1, "nobody else looks so closely"


@pytest.mark.parametrize(
    ("prompts", "size"),
    [
        (PromptSet([(3, 4)]), (0, np.inf)),
        (PromptSet([(3, 4), (19, 8)]), (8, np.inf)),
        (PromptSet(box_yxyx=(0, 0, 16, 4)), (8, 8)),
        (PromptSet([(2, 2)], box_yxyx=(0, 0, 16, 4)), (8, 8)),
    ],
)
def test_what_prompts_say_about_the_size(prompts, size):
    assert size_of(prompts) == size


# Encoding


def test_scale_one_is_what_it_always_was():
    image = np.random.default_rng(0).integers(0, 4000, (3, 40, 50), np.uint16)
    assert source_of(ArrayVolume(image), PlaneRef(0, 1), 1) == Source(PlaneRef(0, 1), (40, 50))
    encoder = CachedEncoder(ArrayVolume(image), FakePredictor(tile_size=16))
    assert encoder.at(1) is encoder


@pytest.mark.parametrize("factors", [(2, 4), ()])
def test_a_plane_is_encoded_once_a_scale(factors):
    image = np.random.default_rng(0).integers(0, 255, (128, 96)).astype(np.float32)
    volume = CountingVolume(pyramid(image, factors))
    predictor, store = FakePredictor(tile_size=32), FakeStore()
    encoder = CachedEncoder(volume, predictor, store, Contrast((0,), (255,)))
    plane, seen = PlaneRef(0, 0), {}
    for scale in (1, 2, 4):
        predictor.reset_counts()
        volume.reset()
        seen[scale] = encoder.at(scale).embedding(plane)
        assert predictor.n_encodes == len(seen[scale].tiles)
        assert encoder.at(scale).is_cached(plane)
        list(encoder.at(scale).encode_steps(plane))
        encoder.at(scale).embedding(plane, [PromptSet([(9, 9)])])
        assert predictor.n_encodes == len(seen[scale].tiles)
        level = scale // 2 if factors else 0
        assert {read.level for read in volume.reads} == {level}
    assert [seen[scale].tile_size for scale in (1, 2, 4)] == [32, 64, 128]
    assert [seen[scale].scale for scale in (1, 2, 4)] == [1, 2, 4]
    assert len(seen[4].tiles) == 1
    assert len(store.records) == sum(len(one.tiles) for one in seen.values())


class Closer(FakePredictor):
    """Looks at small objects enlarged."""

    looks_closer = True


def discs():
    """A plane of 200 x 300 with discs of 5, 30 and 6 pixels across; tiles of 128 show it, closely of 64."""
    return discs_plane((200, 300), [(30, 40), (110, 150), (150, 250)], [2.5, 15, 3])


def test_small_objects_are_looked_at_enlarged_and_large_ones_are_not():
    phantom = discs()
    predictor, plane = Closer(tile_size=128), PlaneRef(0, 0)
    encoder = CachedEncoder(ArrayVolume(phantom.image[None]), predictor)
    free = [Sight(is_fixed=False)] * 3
    clicks = [PromptSet([point]) for point in ((30, 40), (110, 150), (150, 250))]
    found = answers(encoder, plane, clicks, free)
    assert [one.scale for one in found] == [0.5, 1, 0.5]
    for number, one in enumerate(found, 1):
        np.testing.assert_array_equal(one.mask, phantom.labels == number)
    several = [
        PromptSet([one.points_yx[0], one.points_yx[0] + 1, (90, 90)], [True, True, False]) for one in clicks
    ]
    assert [one.scale for one in answers(encoder, plane, several, free)] == [0.5, 1, 0.5], (
        "more points say no more"
    )
    assert answered(encoder, plane, PromptSet([(30, 40)], [False]), free[0]).scale == 1, "nothing was found"
    boxes = [PromptSet(box_yxyx=np.array(one.region.box_yxyx) - 0.5) for one in found]
    predictor.reset_counts()
    assert [one.scale for one in answers(encoder, plane, boxes, free)] == [0.5, 1, 0.5]
    assert predictor.n_predictions == 3, "a box says how large its object is"
    assert answered(encoder, plane, clicks[0], Sight()).scale == 1, "the user said so"
    predictor.looks_closer = False
    assert [one.scale for one in answers(encoder, plane, clicks, free)] == [1, 1, 1]


def test_a_correction_stays_as_close_as_the_answer():
    phantom = discs()
    encoder = CachedEncoder(ArrayVolume(phantom.image[None]), Closer(tile_size=128))
    first = answered(encoder, PlaneRef(0, 0), PromptSet([(30, 40)]), Sight(is_fixed=False))
    more = PromptSet([(30, 40), (110, 150)], low_res_logits=first.low_res_logits)
    second = answered(encoder, PlaneRef(0, 0), more, Sight(first.scale))
    assert (first.scale, second.scale) == (0.5, 0.5)
    np.testing.assert_array_equal(second.mask, np.isin(phantom.labels, [1, 2]))


def test_tiles_seen_closely_are_kept_like_any_other():
    """A small tile is the same at any scale that enlarges it, so it is found again."""
    predictor, store = Closer(tile_size=128), FakeStore()
    encoder = CachedEncoder(ArrayVolume(discs().image[None]), predictor, store)
    click = PromptSet([(30, 40)])
    for _ in range(2):
        answered(encoder, PlaneRef(0, 0), click, Sight(is_fixed=False))
    assert predictor.n_encodes == len(store.records)
    assert {key.scale for key in store.records} == {1}


def test_the_same_tile_of_two_levels_is_not_mixed_up():
    image = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.float32)
    encoder = CachedEncoder(pyramid(image, [2]), FakePredictor(tile_size=32), FakeStore())
    encoder.at(2).embedding(PlaneRef(0, 0))
    encoder.embedding(PlaneRef(0, 0, level=1))
    assert len(encoder.digests) == len(set(encoder.digests.values())) == 1, "the same pixels of level 1"
    assert len(encoder.store.records) == 2, "as two tiles, of another plane each"


def test_planes_that_one_coarse_plane_shows_share_its_embedding():
    image = np.random.default_rng(0).integers(0, 255, (4, 64, 64)).astype(np.uint8)
    volume = ArrayVolume(image, levels=[image[::2, ::2, ::2]])
    predictor = FakePredictor(tile_size=32)
    encoder = CachedEncoder(volume, predictor).at(2)
    for index in range(4):
        encoder.embedding(PlaneRef(0, index))
    assert predictor.n_encodes == 2


@pytest.mark.parametrize("scale", [2, 4])
def test_a_mask_of_a_coarse_level_is_in_pixels_of_the_plane(scale):
    phantom = discs_plane((160, 200), [(70, 90)], 40.0)
    volume = CountingVolume(pyramid(phantom.image.astype(np.float32), [2, 4]))
    encoder = CachedEncoder(volume, FakePredictor(tile_size=64), contrast=Contrast((0,), (255,)))
    (answer,) = predict_plane(encoder.at(scale), PlaneRef(0, 0), [PromptSet([(70, 90)])])
    truth = phantom.labels > 0
    found = answer.mask
    assert found.shape == truth.shape
    assert (found & truth).sum() / (found | truth).sum() > 0.9
    assert not any(read.level == 0 for read in volume.reads)


@pytest.mark.parametrize("scale", [2, 4])
def test_a_disc_over_tile_borders_is_one_smooth_mask(threshold_net, scale):
    """The network answers at a cell of 4 x scale pixels; its outline between them is not a staircase."""
    shape, tile = (400, 400), 64
    y, x = np.mgrid[:400, :400]
    inside = np.hypot(y - 200, x - 190) < 90
    embedding = _soft_embedding(threshold_net, inside, tile, scale)
    assert len(embedding.tiles) > 2
    (answer,) = answer_plane(threshold_net, embedding, [PromptSet([(200, 190)])])
    found = answer.mask
    assert (found & inside).sum() / (found | inside).sum() > 0.93
    assert found.shape == shape
    heights = np.diff(np.flatnonzero(np.diff(found.sum(1))))
    assert np.median(heights) < 2 * scale, "rows come in steps as high as the network's cells"


def _soft_embedding(net, inside, tile, scale):
    plan = plan_tiles(inside.shape, tile, scale=scale)
    tiles = tuple(net.tile(inside.astype(np.float32), box) for box in plan)
    return ImageEmbedding(inside.shape, tiles, "threshold", tile * scale, scale)


def test_edges_share_out_an_image():
    rows, cols = evenly((10, 3), 4)
    assert rows.tolist() == [0, 5, 10]
    assert cols.tolist() == [0, 3]
