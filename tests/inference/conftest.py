"""Tiny seeded models, and a network that segments by threshold."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_sam.core.results import ImageEmbedding, TileEmbedding
from napari_sam.inference.tiles import overview, plan_tiles
from napari_sam.model.checkpoints import save_safetensors
from napari_sam.model.configs import CONFIGS
from napari_sam.model.sam import build_sam


def write_model(folder, config="micro_test", seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sam = build_sam(CONFIGS[config]).eval()
    path = folder / f"{config}-{seed}.safetensors"
    save_safetensors(sam, path, torch.float32)
    return path


@pytest.fixture(scope="session")
def model_path(tmp_path_factory):
    """A checkpoint of the tiny pyramid."""
    return write_model(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def predictor(model_path):
    """A tiny predictor with random weights, input 64."""
    from napari_sam.inference.predictor import load_model

    return load_model(model_path, device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def make_model(tmp_path_factory):
    """`make_model(config, seed)` writes a tiny checkpoint."""
    folder = tmp_path_factory.mktemp("more_weights")
    return lambda config="micro_test", seed=0: write_model(folder, config, seed)


class ThresholdNet:
    """Stands in for the decoder: bright components under the prompts, at the decoder's resolution.

    The "embedding" of a tile is its image, sampled at the mask size.
    """

    def __init__(self, image_size=64, mask_size=16):
        self.config = SimpleNamespace(
            image_size=image_size, mask_size=mask_size, connected=False, multimask=True
        )
        self.prompt_encoder = SimpleNamespace(no_mask_embed=torch.nn.Embedding(1, 1))
        self.calls = []

    def embed(self, image, boxes=None):
        shape = image.shape
        plan = plan_tiles(shape, self.config.image_size)
        if boxes is None:
            boxes = plan if len(plan) == 1 else sorted((*plan, overview(shape)))
        tiles = tuple(self.tile(image, box) for box in boxes)
        return ImageEmbedding(shape, tiles, "threshold")

    def tile(self, image, box):
        y0, x0, y1, x1 = box
        size, m = self.config.image_size, self.config.mask_size
        scale = size / max(y1 - y0, x1 - x0)
        shape = (int((y1 - y0) * scale + 0.5), int((x1 - x0) * scale + 0.5))
        at = (np.arange(m) + 0.5) * size / m
        rows = np.clip((at / scale).astype(int), 0, y1 - y0 - 1)
        cols = np.clip((at / scale).astype(int), 0, x1 - x0 - 1)
        sampled = image[y0:y1, x0:x1][np.ix_(rows, cols)].astype(np.float32)
        sampled[at >= shape[0]] = 0
        sampled[:, at >= shape[1]] = 0
        return TileEmbedding(sampled[None], box, shape)

    def decode(self, embedding, points=None, labels=None, boxes=None, masks=None):
        count = next(len(v) for v in (points, boxes, masks) if v is not None)
        self.calls.append(count)
        image = embedding[0, 0].numpy()
        components, _ = ndimage.label(image > 0.5)
        cell = self.config.image_size // self.config.mask_size
        logits = np.full((count, 4, *image.shape), -10.0, np.float32)
        for i in range(count):
            hit = np.zeros(image.shape, bool)
            if points is not None:
                at = np.clip((points[i][labels[i] == 1].numpy() / cell).astype(int), 0, image.shape[0] - 1)
                hit |= np.isin(components, components[at[:, 1], at[:, 0]]) & (components > 0)
            elif boxes is not None:
                x0, y0, x1, y1 = (boxes[i].numpy() / cell).round().astype(int)
                hit[max(y0, 0) : y1, max(x0, 0) : x1] = (components > 0)[max(y0, 0) : y1, max(x0, 0) : x1]
            elif masks is not None:
                hit |= np.isin(components, components[masks[i, 0].numpy() > 0]) & (components > 0)
            logits[i, :, hit] = 10.0
        return torch.from_numpy(logits), torch.tensor([[0.7, 0.6, 0.9, 0.8]]).repeat(count, 1)


@pytest.fixture
def threshold_net():
    return ThresholdNet()
