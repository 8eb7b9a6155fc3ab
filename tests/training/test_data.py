"""Reading folders, packing, crops, augmentation, generated pictures, examples."""

import numpy as np
import pytest
import tifffile

from napari_sam.errors import InputWarning, TrainingError
from napari_sam.training.augment import augment
from napari_sam.training.config import TrainConfig, load_recipe
from napari_sam.training.crops import CropSampler, Square, _find_objects
from napari_sam.training.examples import choose_objects, dense_targets, distort, halve, make_batch
from napari_sam.training.packed import LabelledPlane, read_folder, read_packed, to_uint8, write_packed
from napari_sam.training.synthetic import GENERATORS, PLANES, _with_tubes, generate, generate_planes


def disc_plane(size=96, radius=12, number=1, set_name="discs", **kwargs):
    yy, xx = np.mgrid[:size, :size]
    labels = (((yy - size / 2) ** 2 + (xx - size / 2) ** 2) < radius**2).astype(np.uint16) * number
    return LabelledPlane(set_name, (labels > 0).astype(np.uint8) * 180 + 20, labels, **kwargs)


def write(folder, name, image, labels):
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / f"{name}_img.tif", image)
    tifffile.imwrite(folder / f"{name}_lbl.tif", labels)


def test_folder_to_packed_and_back(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(10):
        write(
            tmp_path / "a",
            f"{i:04}",
            rng.integers(0, 60000, (20, 30)).astype(np.uint16),
            np.eye(20, 30, dtype=np.uint16),
        )
    labels = np.ones((24, 24, 24), np.uint16)
    write(tmp_path / "volumes", "v", rng.integers(0, 255, labels.shape).astype(np.uint8), labels)
    planes = read_folder(tmp_path, validation=0.1)
    assert sum(p.held_out for p in planes if p.set_name == "a") == 1
    kept = {(p.volume, p.index) for p in planes if p.volume >= 0 and not p.held_out}
    out = {(p.volume, p.index) for p in planes if p.volume >= 0 and p.held_out}
    assert out
    assert all((v, i + 1) not in kept and (v, i - 1) not in kept for v, i in out)  # a gap between both
    write_packed(planes, tmp_path / "packed.npz")
    for plane, again in zip(planes, read_packed(tmp_path / "packed.npz"), strict=True):
        assert (
            np.abs(plane.image.astype(int) - again.image).mean() < 4
        )  # noise is the worst that JPEG can meet
        assert np.array_equal(plane.labels, again.labels)
        assert (plane.set_name, plane.volume, plane.index, plane.held_out) == (
            again.set_name,
            again.volume,
            again.index,
            again.held_out,
        )


def test_a_single_image_is_trained_on(tmp_path):
    write(tmp_path, "0000", np.zeros((8, 8), np.uint8), np.ones((8, 8), np.uint8))
    assert [plane.held_out for plane in read_folder(tmp_path)] == [False]


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (np.zeros((8, 8), np.uint8), "empty"),
        (-np.ones((8, 8), np.int16), "empty"),
        (np.ones((8, 9), np.uint8), "do not fit"),
    ],
)
def test_what_cannot_be_learned_from_is_left_out_with_a_reason(tmp_path, labels, why):
    write(tmp_path, "0000", np.zeros((8, 8), np.uint8), labels)
    with pytest.warns(InputWarning, match=why), pytest.raises(TrainingError, match="learned from"):
        read_folder(tmp_path)


def test_large_labels_are_numbered_anew_alike_in_all_planes_of_a_volume(tmp_path):
    labels = np.zeros((5, 16, 16), np.int32)
    labels[:, :4], labels[2, 4:], labels[:, :, 0] = 70_000, 80_000, -1
    write(tmp_path / "volumes", "v", np.zeros(labels.shape, np.uint8), labels)
    planes = read_folder(tmp_path, validation=0)
    assert [np.unique(plane.labels).tolist() for plane in planes] == [
        [0, 1],
        [0, 1],
        [0, 1, 2],
        [0, 1],
        [0, 1],
    ]


def test_empty_or_missing_folder_is_an_error(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(TrainingError):
            read_folder(folder)


def test_to_uint8_ignores_nan_and_stretches():
    image = np.linspace(-5, 900, 400).reshape(20, 20)
    image[3, 3] = np.nan
    out = to_uint8(image)
    assert out.dtype == np.uint8
    assert (out.min(), out.max()) == (0, 255)


def test_crop_maps_pixels_exactly():
    image = np.arange(64, dtype=np.float32).reshape(8, 8)
    # a crop of even size is centred between pixels; centre 3.5 is the identity
    same = Square((8, 8), (3.5, 3.5), np.eye(2), 8)
    np.testing.assert_allclose(same.image(image), image, atol=1e-4)
    assert same.inside.all()
    labels = (image > 30).astype(np.uint16) * 7
    assert np.array_equal(same.labels(labels), labels)
    assert np.array_equal(Square((8, 8), (3.5, 3.5), np.eye(2) / 2, 16).labels(labels)[::2, ::2], labels)


def test_a_crop_that_lies_beside_the_plane_holds_nothing():
    beside = Square((8, 8), (40.0, -40.0), np.eye(2), 8)
    assert not beside.inside.any()
    assert not beside.labels(np.ones((8, 8), np.uint16)).any()


def test_crops_lie_around_the_objects_that_are_large_enough():
    labels = np.zeros((40, 60), np.uint16)
    labels[2:12, 3:23], labels[30:32, 50:52], labels[20, 20] = 3, 7, 9
    found = _find_objects(labels)
    assert found.middles.tolist() == [[6.5, 12.5]]
    assert found.areas.tolist() == [200]
    assert _find_objects(np.zeros((40, 60), np.uint16)).middles.tolist() == [[20, 30]]


def test_crops_are_the_same_for_the_same_seed_and_hold_objects():
    planes = [disc_plane(), disc_plane(200, 30)]
    config = TrainConfig(ended_share=0)
    sampler = CropSampler(planes, config)
    a, b, c = (make_batch(sampler, config, step, 64, 3) for step in (5, 5, 6))
    assert np.array_equal(a.images, b.images)
    assert np.array_equal(a.masks, b.masks)
    assert not np.array_equal(a.images, c.images)
    assert a.images.shape == (3, 3, 64, 64)
    assert a.masks.shape == a.rough.shape == (3, config.objects, 32, 32)
    assert a.dense.shape == (3, 6, 32, 32)
    assert (a.masks.max((2, 3)) > 127).all()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_some_objects_are_prompted_by_a_mask(share):
    config = TrainConfig(ended_share=0, mask_share=share)
    batch = make_batch(CropSampler([disc_plane()], config), config, 0, 64, 50)
    assert batch.rough.any((2, 3)).mean() == pytest.approx(share, abs=0.1)


def test_neighbouring_planes_become_rough_masks():
    planes = [disc_plane(radius=12 + i, volume=0, index=i) for i in range(5)]
    sampler = CropSampler(planes, TrainConfig())
    crops = [sampler.draw(np.random.default_rng(i), 64) for i in range(20)]
    assert any(
        crop.neighbour is not None and not np.array_equal(crop.neighbour, crop.labels) for crop in crops
    )


@pytest.mark.parametrize("with_neighbours", [True, False])
def test_objects_that_have_ended_are_shown_by_a_mask_where_nothing_is(with_neighbours):
    planes = [disc_plane(192, radius=9, volume=0 if with_neighbours else i, index=i) for i in range(5)]
    config = TrainConfig(ended_share=1)
    batch = make_batch(CropSampler(planes, config), config, 0, 96, 8)
    ended = ~batch.masks.any((2, 3))
    assert ended.mean() > 0.3
    assert batch.rough[ended].any((1, 2)).all()


def test_an_object_of_one_pixel_is_still_an_example():
    labels = np.zeros((32, 32), np.int32)
    labels[10, 10] = 4
    assert choose_objects(labels, 3, np.random.default_rng(0)).tolist() == [4, 4, 4]
    assert halve(labels[None] == 4).max() == 63
    assert distort((labels == 4)[::2, ::2], np.random.default_rng(0)).any()


def test_dense_targets_of_a_square():
    labels = np.zeros((12, 12), np.int32)
    labels[3:8, 3:8] = 2
    foreground, border, depth, off_y, _, diameter = dense_targets(labels).astype(float)
    assert diameter[5, 5] == 5
    assert diameter[0, 0] == 0
    assert foreground.sum() == 25
    assert border.sum() == 16
    assert depth[5, 5] == 1
    assert off_y[3, 5] == pytest.approx(2 / 5, abs=1e-3)
    assert off_y[0, 0] == 0


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
def test_augmented_images_stay_in_range(shape):
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    for seed in range(40):
        out = augment(image, np.random.default_rng(seed))
        assert out.shape == (40, 50, 3)
        assert out.min() >= 0
        assert out.max() <= 255.001
        assert np.isfinite(out).all()


def test_mild_changes_keep_the_order_of_grey_values():
    image = np.linspace(40, 200, 2000).reshape(40, 50).astype(np.float32)
    for seed in range(20):
        out = augment(image, np.random.default_rng(seed), mild=True)
        assert out.shape == (40, 50, 3)
        assert (out[..., 0] == out[..., 2]).all()
        assert (np.diff(out[..., 0].ravel()) >= 0).all()
        assert 70 < out.mean() < 185


@pytest.mark.parametrize("make", [make for make, _ in GENERATORS])
def test_generated_pictures_repeat_and_show_their_objects(make):
    (image, labels), (again, _) = (make(96, np.random.default_rng(2)) for _ in range(2))
    assert np.array_equal(image, again)
    assert image.shape == labels.shape == (PLANES, 96, 96)
    assert np.isfinite(image).all()
    kept = np.intersect1d(labels[0], labels[1])
    assert len(kept) > 1  # objects go on in the next plane
    overlaps = [(labels[0] == n)[labels[1] == n].mean() for n in kept if n]
    assert np.mean(overlaps) > 0.4


def test_generated_planes_know_their_neighbours_whoever_makes_them():
    planes = generate_planes(5, seed=1, size=64)
    assert [p.index for p in planes if p.volume == 1] == [0, 1]
    for one, other in zip(planes, generate_planes(5, seed=1, size=64, workers=2), strict=True):
        assert np.array_equal(one.image, other.image)
        assert (one.volume, one.index) == (other.volume, other.index)


def test_generate_gives_grey_values():
    image, labels = generate(96, np.random.default_rng(4))
    assert image.dtype == np.float32
    assert labels.dtype == np.int32
    assert 0 <= image.min() <= image.max() <= 255


def test_recipe_reads_back_and_refuses_what_it_does_not_know(tmp_path):
    config = load_recipe("default")
    assert TrainConfig.from_json(config.to_json()) == config
    with pytest.raises(TrainingError, match="speed"):
        TrainConfig.from_json('{"speed": 3}')
    with pytest.raises(TrainingError, match="no recipe"):
        load_recipe(str(tmp_path / "none.json"))
    with pytest.raises(TrainingError, match="multiples of 32"):
        TrainConfig(stages=((0.0, 100, 2),))


def test_thin_processes_lie_inside_of_others_in_some_tissues():
    thick = np.zeros((PLANES, 128, 128), np.int64)
    tissues = [_with_tubes(thick, np.random.default_rng(seed)) for seed in range(20)]
    assert any(not tissue.any() for tissue in tissues)
    thin = np.concatenate([np.bincount(tissue[0].ravel())[1:] for tissue in tissues])
    thin = thin[thin > 0]
    assert len(thin) > 20
    assert thin.max() < np.pi * 60**2
    assert np.median(thin) < 1000
