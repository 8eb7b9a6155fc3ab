"""Shapes, gradients and batches of whole models."""

import pytest
import torch

from napari_sam.model.configs import CONFIGS
from napari_sam.model.sam import build_sam


def image_for(config, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, config.image_size, config.image_size, generator=generator)


def some_prompts(config, batch=3):
    generator = torch.Generator().manual_seed(1)
    size = config.mask_size
    return {
        "points": torch.rand(batch, 2, 2, generator=generator) * config.image_size,
        "labels": torch.tensor([[1, 0]]).expand(batch, -1),
        "boxes": torch.tensor([[4.0, 5.0, 30.0, 40.0]]).expand(batch, -1),
        "masks": torch.randn(batch, 1, size, size, generator=generator),
    }


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_shapes_of_every_configuration(name):
    config = CONFIGS[name]
    with torch.device("meta"):
        sam = build_sam(config)
        embedding = sam.encode(torch.empty(1, 3, config.image_size, config.image_size))
        sparse = torch.empty(2, 3, config.prompt_dim)
        dense = sam.prompt_encoder.no_mask(2)
        logits, iou = sam.mask_decoder.predict_masks(embedding, sam.prompt_encoder.dense_pe(), sparse, dense)
    assert embedding.shape == (1, config.prompt_dim, config.grid, config.grid)
    assert logits.shape == (2, 4, config.mask_size, config.mask_size)
    assert iou.shape == (2, 4)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("vit_b", 93.7),
        ("vit_l", 312.3),
        ("vit_h", 641.1),
        ("vit_t", 9.8),
        ("micro", 5.7),
        ("small", 10.1),
        ("medium", 11.6),
    ],
)
def test_number_of_parameters(name, millions):
    with torch.device("meta"):
        count = sum(p.numel() for p in build_sam(CONFIGS[name]).parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.05)


def test_micro_answers_at_stride_two():
    config = CONFIGS["micro"]
    assert (config.stride, config.grid, config.mask_size) == (8, 64, 256)


@pytest.mark.parametrize("size", [(64, 96), (32, 32), (128, 64)])
def test_pyramid_takes_any_multiple_of_32(drawn, size):
    sam = drawn("micro_test")
    embedding = sam.encode(torch.zeros(1, 3, *size))
    assert embedding.shape[2:] == (size[0] // 8, size[1] // 8)
    logits, _ = sam.decode(embedding, torch.tensor([[[5.0, 6.0]]]), torch.tensor([[1]]))
    assert logits.shape[2:] == (size[0] // 2, size[1] // 2)


def test_gradients_reach_every_parameter(small_config):
    torch.manual_seed(0)
    sam = build_sam(small_config)
    prompts = some_prompts(small_config)
    embedding = sam.encode(image_for(small_config, 3))
    points = {key: prompts[key] for key in ("points", "labels")}
    outputs = [*sam.decode(embedding, **prompts), *sam.decode(embedding, **points)]
    sum(output.square().mean() for output in outputs).backward()
    without = [name for name, p in sam.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_one_embedding_serves_a_batch_of_prompts(drawn, small_config):
    sam, prompts = drawn(small_config.name), some_prompts(small_config)
    with torch.inference_mode():
        embedding = sam.encode(image_for(small_config))
        shared = sam.decode(embedding, **prompts)
        repeated = sam.decode(embedding.repeat_interleave(3, 0), **prompts)
        single = [
            sam.decode(embedding, **{key: value[i : i + 1] for key, value in prompts.items()})
            for i in range(3)
        ]
    for i in (0, 1):
        torch.testing.assert_close(shared[i], repeated[i], atol=3e-5, rtol=1e-5)
        torch.testing.assert_close(shared[i], torch.cat([one[i] for one in single]), atol=3e-5, rtol=1e-5)


def test_shared_embedding_without_masks_equals_repeated(drawn, small_config):
    sam, prompts = drawn(small_config.name), some_prompts(small_config)
    del prompts["masks"]
    with torch.inference_mode():
        embedding = sam.encode(image_for(small_config))
        shared = sam.decode(embedding, **prompts)
        repeated = sam.decode(embedding.repeat(3, 1, 1, 1), **prompts)
    torch.testing.assert_close(shared[0], repeated[0], atol=3e-5, rtol=1e-5)


def test_each_prompt_may_have_its_own_embedding(drawn):
    config = CONFIGS["micro_test"]
    sam, prompts = drawn("micro_test"), some_prompts(config, 2)
    with torch.inference_mode():
        embeddings = sam.encode(image_for(config, 2))
        both, _ = sam.decode(embeddings, **prompts)
        second, _ = sam.decode(embeddings[1:], **{key: value[1:] for key, value in prompts.items()})
    torch.testing.assert_close(both[1:], second, atol=3e-5, rtol=1e-5)
    assert not torch.allclose(both[0], both[1], atol=1e-2)


def test_multimask_keeps_the_other_outputs(drawn, small_config):
    sam = drawn(small_config.name)
    with torch.inference_mode():
        embedding = sam.encode(image_for(small_config))
        sparse, dense = sam.prompt_encoder(torch.tensor([[[9.0, 9.0]]]), torch.tensor([[1]]))
        arguments = (embedding, sam.prompt_encoder.dense_pe(), sparse, dense)
        logits, iou = sam.mask_decoder.predict_masks(*arguments)
        three, three_iou = sam.mask_decoder(*arguments, True)
        one, one_iou = sam.mask_decoder(*arguments, False)
    assert torch.equal(three, logits[:, 1:])
    assert torch.equal(three_iou, iou[:, 1:])
    assert torch.equal(one, logits[:, :1])
    assert torch.equal(one_iou, iou[:, :1])
