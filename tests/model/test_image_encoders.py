"""The image encoders by themselves."""

import pytest
import torch

from napari_sam.model.configs import CONFIGS, ViTConfig
from napari_sam.model.image_encoder_vit import RelPosAttention
from napari_sam.model.layers import LayerNorm2d, join_windows, split_windows
from napari_sam.model.sam import build_sam


def attention_pair(dim, heads, size):
    torch.manual_seed(0)
    fast = RelPosAttention(dim, heads, size, "fast").eval()
    for table in (fast.rel_pos_h, fast.rel_pos_w):
        torch.nn.init.normal_(table)
    explicit = RelPosAttention(dim, heads, size, "explicit").eval()
    explicit.load_state_dict(fast.state_dict())
    return fast, explicit


@pytest.mark.parametrize(("batch", "size"), [(1, 24), (5, 14), (2, 3)])
def test_fast_attention_equals_the_formula(batch, size):
    fast, explicit = attention_pair(64, 4, size)
    x = torch.randn(batch, size, size, 64)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), explicit(x), atol=1e-5, rtol=1e-5)


def test_fast_attention_has_the_gradients_of_the_formula():
    fast, explicit = attention_pair(32, 2, 6)
    x = torch.randn(3, 6, 6, 32)
    for attention in (fast, explicit):
        attention(x).square().sum().backward()
    for ours, theirs in zip(fast.parameters(), explicit.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-3, rtol=1e-4)


def test_position_bias_is_taken_from_the_unscaled_query():
    """Against the definition, one query and key at a time."""
    size, dim = 3, 4
    _, attention = attention_pair(dim, 1, size)
    x = torch.randn(1, size, size, dim)
    with torch.inference_mode():
        q, k, v = attention.qkv(x).view(size * size, 3, dim).unbind(1)
        scores = torch.zeros(size * size, size * size)
        for i in range(size * size):
            for j in range(size * size):
                dy, dx = i // size - j // size, i % size - j % size
                bias = q[i] @ attention.rel_pos_h[dy + size - 1] + q[i] @ attention.rel_pos_w[dx + size - 1]
                scores[i, j] = q[i] @ k[j] / dim**0.5 + bias
        expected = attention.proj(scores.softmax(-1) @ v).view(1, size, size, dim)
        torch.testing.assert_close(attention(x), expected, atol=1e-5, rtol=1e-5)


def test_both_attention_paths_give_the_same_embedding(drawn):
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        fast = drawn("vit_test", attention="fast").encode(image)
        explicit = drawn("vit_test", attention="explicit").encode(image)
    torch.testing.assert_close(fast, explicit, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("height", "width", "window"), [(64, 64, 14), (7, 5, 3), (6, 6, 3), (2, 2, 4)])
def test_windows_come_back_together(height, width, window):
    x = torch.randn(2, height, width, 3)
    windows = split_windows(x, window)
    rows, cols = -(-height // window), -(-width // window)
    assert windows.shape == (2 * rows * cols, window, window, 3)
    assert windows.sum() == pytest.approx(float(x.sum()), abs=1e-2)
    assert torch.equal(join_windows(windows, height, width), x)


def test_windows_are_filled_up_as_told():
    windows = split_windows(torch.zeros(1, 2, 2, 2), 3, torch.tensor([5.0, 7.0]))
    assert windows[0, :, :, 0].tolist() == [[0, 0, 5], [0, 0, 5], [5, 5, 5]]
    assert windows[0, 2, 2].tolist() == [5, 7]


def test_layer_norm_works_on_channels():
    norm = LayerNorm2d(5)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 5, 3, 4)
    centred = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    expected = centred * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected, atol=1e-5, rtol=1e-5)


def test_windowed_and_global_blocks_are_where_the_configuration_says():
    for name in ("vit_b", "vit_l", "vit_h"):
        config = CONFIGS[name]
        assert isinstance(config.encoder, ViTConfig)
        with torch.device("meta"):
            blocks = build_sam(config).image_encoder.blocks
        assert (
            tuple(i for i, block in enumerate(blocks) if block.attn.size == config.grid)
            == config.encoder.global_blocks
        )


def test_pyramid_is_equivariant_to_shifts_inside(drawn):
    """A shift by whole cells of the coarsest level, undone by the origin, shifts the embedding."""
    sam = drawn("micro_test")
    image = torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        whole = sam.encode(image)
        shifted = sam.image_encoder(image.roll((32, 64), (2, 3)), origin=(-4, -8))
        elsewhere = sam.image_encoder(image, origin=(1, 0))
    assert not torch.allclose(whole, elsewhere, atol=0.1)
    inner = slice(28, 36)
    moved = shifted[:, :, 32:40, 36:44]
    torch.testing.assert_close(whole[:, :, inner, inner], moved, atol=1e-4, rtol=1e-4)
