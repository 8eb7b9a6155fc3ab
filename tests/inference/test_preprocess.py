"""Pixels to tensors, recipe by recipe; a model's answer stays the same when it is fused."""

import numpy as np
import pytest
import torch
from torch import nn

from napari_sam.core.models import InputRecipe
from napari_sam.inference.contrast import estimate_contrast
from napari_sam.inference.fuse import fuse_batch_norm
from napari_sam.inference.preprocess import resize, resized_shape, stretched, to_rgb, to_tensor
from napari_sam.model.configs import CONFIGS
from napari_sam.model.sam import build_sam
from napari_sam.testing.fakes import ArrayVolume, CountingVolume

CONFIG = CONFIGS["vit_test"]
SAM, MICRO, MEDSAM = InputRecipe.SAM, InputRecipe.MICRO_SAM, InputRecipe.MEDSAM


@pytest.mark.parametrize("shape", [(300, 200), (40, 100), (64, 64), (129, 65)])
def test_resizing_is_within_one_grey_level_of_pillow(shape):
    image_module = pytest.importorskip("PIL.Image")
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    new = resized_shape(shape, 64, SAM)
    wanted = np.asarray(image_module.fromarray(rgb).resize(new[::-1], image_module.Resampling.BILINEAR))
    found = resize(torch.from_numpy(rgb).permute(2, 0, 1)[None].float(), new, SAM)[0].permute(1, 2, 0).numpy()
    assert np.abs(found - wanted.astype(float)).max() <= 1


def test_sam_normalises_then_pads_with_zeros():
    tensor = to_tensor(np.full((32, 64, 3), 255, np.uint8), CONFIG, SAM)
    assert tensor.shape == (1, 3, 64, 64)
    assert tensor[0, 0, 0, 0] == pytest.approx((255 - 123.675) / 58.395, abs=1e-4)
    assert not tensor[0, :, 32:].any()


def test_medsam_fills_the_square_from_0_to_1():
    rgb = np.random.default_rng(0).integers(50, 90, (20, 64, 3), np.uint8)
    tensor = to_tensor(rgb, CONFIG, MEDSAM)
    assert (tensor.min(), tensor.max()) == (0, 1)
    assert tensor[0, 0, 32:].std() > 0


def test_micro_sam_stretches_each_channel_and_truncates():
    image = np.array([[0.0, 5.0], [7.5, 10.0]])
    assert stretched(image)[..., 0].tolist() == [[0, 127], [191, 254]]
    two = stretched(np.stack([image, image * 3], axis=2))
    assert two.shape == (2, 2, 3)
    assert not two[..., 2].any()
    assert stretched(np.zeros((3, 3, 7))).shape == (3, 3, 3)
    rgb = to_rgb(np.random.default_rng(0).integers(40, 90, (20, 64, 3), np.uint8))
    assert rgb.max() < 90
    assert torch.equal(to_tensor(rgb, CONFIG, MICRO), to_tensor(stretched(rgb), CONFIG, SAM))


def test_contrast_of_a_long_volume_reads_few_planes():
    volume = CountingVolume(ArrayVolume(np.random.default_rng(0).random((2000, 8, 9))))
    contrast = estimate_contrast(volume)
    assert volume.n_reads <= 8
    assert len({plane.index for plane in volume.reads}) == volume.n_reads
    assert 0 <= contrast.lower[0] < 0.05
    assert 0.95 < contrast.upper[0] <= 1


@pytest.mark.parametrize("array", [np.zeros((1, 4, 4)), np.zeros((2, 4, 4, 3), np.uint8)])
def test_contrast_of_tiny_volumes(array):
    axes = "ZYX" if array.ndim == 3 else "ZYXC"
    volume = ArrayVolume(array, axes, is_rgb=array.ndim == 4)
    assert estimate_contrast(volume).apply(array[0]).shape == (4, 4, 3)


@pytest.mark.parametrize("name", ["micro_test", "tiny_vit_test"])
def test_fusing_changes_nothing_but_the_number_of_layers(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sam = build_sam(CONFIGS[name]).eval()
        for module in sam.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 2)
        images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        before = sam.encode(images)
        n_norms = sum(isinstance(m, nn.BatchNorm2d) for m in sam.modules())
        assert fuse_batch_norm(sam.image_encoder.requires_grad_(False)) == n_norms > 0
        assert not any(isinstance(m, nn.BatchNorm2d) for m in sam.modules())
        torch.testing.assert_close(sam.encode(images), before, atol=1e-4, rtol=1e-4)
