"""A quick look at the held out part of the training data: mIoU after 1 to 5 clicks and with a box.

It shares the click simulation of training, on purpose cheap; figures for people come from
`napari_sam.training.evaluate`, which shares nothing with it.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch
from torch import Tensor

from napari_sam.core.arrays import Array
from napari_sam.model.sam import Sam
from napari_sam.training.augment import normalise, three_channels
from napari_sam.training.clicks import Prompts, correct, pick, tight_boxes, to_points
from napari_sam.training.config import TrainConfig
from napari_sam.training.crops import FILL, MIN_AREA, Square
from napari_sam.training.examples import choose_objects, halve
from napari_sam.training.losses import measured_iou
from napari_sam.training.packed import LabelledPlane
from napari_sam.training.steps import device_of, normalised, seeded

SIZE = 256
CLICKS = 5


def validation_crops(planes: list[LabelledPlane], config: TrainConfig) -> list[tuple[str, Array, Array]]:
    """Fixed crops of held out planes at the scale of inference: set, image (3, S, S), labels (S, S)."""
    rng = np.random.default_rng(config.seed + 1)
    by_set: dict[str, list[LabelledPlane]] = defaultdict(list)
    for plane in planes:
        if plane.held_out:
            by_set[plane.set_name].append(plane)
    crops = []
    for i in range(config.validation_crops if by_set else 0):
        members = by_set[sorted(by_set)[i % len(by_set)]]
        crop = _fixed_crop(members[int(rng.integers(len(members)))], rng, config)
        if np.bincount(crop[2].ravel())[1:].max(initial=0) >= MIN_AREA:
            crops.append(crop)
    return crops


def _fixed_crop(
    plane: LabelledPlane, rng: np.random.Generator, config: TrainConfig
) -> tuple[str, Array, Array]:
    scale = max(1.0, config.model_input / max(plane.labels.shape))
    rows, cols = np.nonzero(plane.labels)
    at = int(rng.integers(len(rows)))
    half = SIZE / scale / 2
    y, x = (
        float(np.clip(c, half, n - half)) if n > 2 * half else n / 2
        for c, n in zip((rows[at], cols[at]), plane.labels.shape, strict=True)
    )
    height, width = plane.labels.shape
    square = Square((height, width), (y, x), np.eye(2) / scale, SIZE)
    image = three_channels(normalise(square.image(plane.image), 0.1, 99.9) * 255)
    image[~square.inside] = FILL
    return plane.set_name, image.transpose(2, 0, 1).astype(np.uint8), square.labels(plane.labels)


@torch.no_grad()
def validate(sam: Sam, crops: list[tuple[str, Array, Array]], config: TrainConfig) -> dict[str, float]:
    """Mean over sets of the mean IoU, for `click1` .. `click5`, `box` and `click1/SET`."""
    sam.eval()
    device = device_of(sam)
    found: dict[str, list[Array]] = defaultdict(list)
    for number, (name, image, labels) in enumerate(crops):
        rng = np.random.default_rng(number)
        objects = choose_objects(labels, 4, rng)
        truth = torch.from_numpy(halve(labels[None] == objects[:, None, None])).to(device).float() / 255
        embedding = sam.encode(normalised(torch.from_numpy(image).to(device)[None], sam))
        curve = torch.cat([click_curve(sam, embedding, truth), _box_iou(sam, embedding, truth)[:, None]], 1)
        found[name].append(curve.mean(0).cpu().numpy())
    per_set = {name: np.mean(values, 0) for name, values in found.items()}
    mean = np.mean(list(per_set.values()), 0) if per_set else np.zeros(CLICKS + 1)
    result = {f"click{i + 1}": float(mean[i]) for i in range(CLICKS)} | {"box": float(mean[CLICKS])}
    return result | {f"click1/{name}": float(values[0]) for name, values in sorted(per_set.items())}


def click_curve(sam: Sam, embedding: Tensor, truth: Tensor) -> Tensor:
    """(N, 5) IoU after each click, each at the deepest pixel of the error."""
    generator, device = seeded(sam, 0), truth.device
    masks = truth > 0.5
    count = len(masks)
    deep = torch.ones(count, dtype=torch.bool, device=device)
    nothing = torch.zeros(count, dtype=torch.long, device=device)
    points = to_points(pick(masks, deep, generator), masks.shape[2])[:, None]
    prompts = Prompts(points, deep.long()[:, None], truth, nothing.bool(), deep)
    curve = []
    for click in range(CLICKS):
        logits, predicted = sam.decode(embedding, prompts.points, prompts.labels, None, _previous(prompts))
        chosen = 1 + predicted[:, 1:].argmax(1) if click == 0 else nothing
        answer = logits[torch.arange(count, device=device), chosen]
        curve.append(measured_iou(answer[:, None], truth, torch.ones_like(truth))[:, 0])
        prompts = correct(prompts, masks, answer, deep, generator)
    return torch.stack(curve, 1)


def _previous(prompts: Prompts) -> Tensor | None:
    return prompts.masks[:, None] if bool(prompts.has_mask.any()) else None


def _box_iou(sam: Sam, embedding: Tensor, truth: Tensor) -> Tensor:
    logits, _ = sam.decode(embedding, boxes=tight_boxes(truth > 0.5))
    return measured_iou(logits[:, :1], truth, torch.ones_like(truth))[:, 0]
