"""Outputs of small models with fixed weights, as they were when they agreed with the reference packages.

After a change that is meant to alter them: NAPARI_SAM_WRITE_GOLDEN=1 pytest tests/model/test_golden.py
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).with_name("golden")


def numbers(sam):
    """Embedding and answers of one model for fixed inputs."""
    config, rng = sam.config, np.random.default_rng(7)

    def tensor(*shape):
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    image = tensor(1, 3, config.image_size, config.image_size)
    masks = tensor(1, 1, config.mask_size, config.mask_size)
    points = {"points": torch.tensor([[[10.0, 20.0], [40.0, 33.0]]]), "labels": torch.tensor([[1, 0]])}
    box = {"boxes": torch.tensor([[5.0, 8.0, 50.0, 44.0]])}
    cases = {"points": points, "box": box, "mask": {"masks": masks}, "all": {**points, **box, "masks": masks}}
    with torch.inference_mode():
        embedding = sam.encode(image)
        found = {"embedding": embedding}
        for name, prompts in cases.items():
            found[f"{name}_logits"], found[f"{name}_iou"] = sam.decode(embedding, **prompts)
    return {name: value.numpy() for name, value in found.items()}


def test_numbers_are_what_they_were(drawn, small_config):
    path = FOLDER / f"{small_config.name}.npz"
    found = numbers(drawn(small_config.name))
    if os.environ.get("NAPARI_SAM_WRITE_GOLDEN"):
        np.savez_compressed(path, **found)
        pytest.skip(f"wrote {path.name}")
    with np.load(path) as golden:
        assert set(golden) == set(found)
        for name in golden:
            np.testing.assert_allclose(found[name], golden[name], atol=2e-4, rtol=1e-3, err_msg=name)


def test_golden_numbers_are_not_trivial(small_config):
    with np.load(FOLDER / f"{small_config.name}.npz") as golden:
        for name in golden:
            assert golden[name].std() > 0.05, name
        assert np.abs(golden["points_logits"] - golden["all_logits"]).max() > 0.1
