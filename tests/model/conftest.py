"""Small models whose weights are the same on every machine."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

from napari_sam.model.configs import CONFIGS, SamConfig
from napari_sam.model.sam import Sam, build_sam

SMALL = ("vit_test", "tiny_vit_test", "micro_test")


def draw(sam: Sam, seed: int = 0) -> Sam:
    """Fill every tensor from numpy's generator, whose stream does not change between versions."""
    rng = np.random.default_rng(seed)
    for name, tensor in sam.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.from_numpy(rng.standard_normal(tuple(tensor.shape)).astype(np.float32))
        if name.endswith("running_var"):
            noise = 0.5 + noise.abs()
        elif tensor.ndim == 1:
            noise = 0.2 * noise + (1.0 if name.endswith("weight") else 0.0)
        elif not re.search(r"(_embed(dings)?(\.\d)?|_tokens?|_matrix)(\.weight)?$", name):
            noise = noise * tensor[0].numel() ** -0.5
        tensor.copy_(noise)
    return sam


@pytest.fixture
def drawn() -> Callable[..., Sam]:
    """Function from the name of a small configuration to a model in eval mode."""

    def make(name: str, **options: str) -> Sam:
        return draw(build_sam(CONFIGS[name], **options)).eval()

    return make


@pytest.fixture(params=SMALL)
def small_config(request: pytest.FixtureRequest) -> SamConfig:
    return CONFIGS[request.param]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
