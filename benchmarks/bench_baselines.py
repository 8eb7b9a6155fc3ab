"""What a user could do without a model, in the same table: the same objects, the same protocol of clicks.

::

    python benchmarks/bench_baselines.py DATA/eval --model default --images 5 --objects 10

* **otsu**: Otsu's threshold; the connected component at each positive click, on the click's side of the
  threshold, without the components at negative clicks. In a box: Otsu's threshold of the box, its largest
  component on the side that the middle of the box is on.
* **watershed**, **random walker** (scikit-image): markers at the clicks, the border of the image as background;
  in a box: a marker in its middle, everything outside as background.

Larger planes are shrunk to 512 pixels for the watershed and to 256 for the random walker, which is solved by
conjugate gradients and still takes most of the time; `--methods otsu watershed` leaves it out.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.filters import gaussian, sobel, threshold_otsu
from skimage.segmentation import random_walker, watershed
from skimage.transform import resize

from common import write_table
from napari_sam.core.planes import Region
from napari_sam.core.prompts import PromptSet
from napari_sam.core.results import ImageEmbedding, MaskCandidate, MaskPrediction, TileEmbedding
from napari_sam.inference.predictor import load_model
from napari_sam.training.evaluate import Evaluation, EvaluationLimits, evaluate_sets

MARKER_RADIUS = 2
Method = Callable[[np.ndarray, PromptSet], np.ndarray]


def otsu(grey: np.ndarray, prompts: PromptSet) -> np.ndarray:
    if prompts.box_yxyx is not None:
        return otsu_in_box(grey, prompts)
    high = grey > threshold(grey)
    parts = np.where(high, ndimage.label(high)[0], -ndimage.label(~high)[0])
    at = [parts[tuple(np.round(yx).astype(int))] for yx in prompts.points_yx]
    wanted = {part for part, positive in zip(at, prompts.polarity) if positive}
    return np.isin(
        parts, list(wanted - {part for part, positive in zip(at, prompts.polarity) if not positive})
    )


def otsu_in_box(grey: np.ndarray, prompts: PromptSet) -> np.ndarray:
    y0, x0, y1, x1 = np.clip(np.round(prompts.box_yxyx + 0.5), 0, [*grey.shape, *grey.shape]).astype(int)
    part = grey[y0:y1, x0:x1]
    high = part > threshold(part)
    height, width = part.shape
    middle = high[height // 4 : height - height // 4, width // 4 : width - width // 4]
    side = high if middle.mean() >= 0.5 else ~high
    parts, count = ndimage.label(side)
    mask = np.zeros(grey.shape, bool)
    if count:
        largest = np.bincount(parts.ravel())[1:].argmax() + 1
        mask[y0:y1, x0:x1] = ndimage.binary_fill_holes(parts == largest)
    return mask


def threshold(grey: np.ndarray) -> float:
    return float(threshold_otsu(grey)) if grey.size and np.ptp(grey) > 0 else float("inf")


def markers(shape: tuple[int, int], prompts: PromptSet, scale: float) -> np.ndarray:
    """1 the object, 2 background, 0 unknown."""
    found = np.zeros(shape, np.int32)
    found[[0, -1]] = 2
    found[:, [0, -1]] = 2
    clicks = list(zip(prompts.points_yx * scale, prompts.polarity))
    if prompts.box_yxyx is not None:
        box = np.clip(np.round((prompts.box_yxyx + 0.5) * scale), 0, [*shape, *shape]).astype(int)
        inside = np.zeros(shape, bool)
        inside[box[0] : max(box[2], box[0] + 1), box[1] : max(box[3], box[1] + 1)] = True
        found[~inside] = 2
        clicks.append((np.array([box[0] + box[2] - 1, box[1] + box[3] - 1]) / 2, True))
    rows, cols = np.indices(shape)
    for (y, x), positive in clicks:
        near = (rows - y) ** 2 + (cols - x) ** 2 <= MARKER_RADIUS**2 * max(scale, 0.25)
        found[near] = 1 if positive else 2
    return found


def by_watershed(grey: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    return watershed(sobel(gaussian(grey, 1)), seeds) == 1


def by_random_walker(grey: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    if np.ptp(grey) == 0 or not (seeds == 1).any() or not (seeds == 0).any():
        return seeds == 1
    scaled = (grey - grey.min()) / max(float(np.ptp(grey)), 1e-6)
    return random_walker(scaled, seeds, beta=1000, mode="cg_j", tol=1e-3, prob_tol=0.1) == 1


def from_markers(segment: Callable[[np.ndarray, np.ndarray], np.ndarray], longest: int) -> Method:
    """A method of markers, on planes that are shrunk to `longest` pixels."""

    def method(grey: np.ndarray, prompts: PromptSet) -> np.ndarray:
        scale = min(1.0, longest / max(grey.shape))
        shape = tuple(max(3, round(side * scale)) for side in grey.shape)
        small = grey if scale == 1 else resize(grey, shape, anti_aliasing=True)
        mask = segment(small, markers(shape, prompts, scale))
        return mask if scale == 1 else resize(mask.astype(float), grey.shape, order=1) > 0.5

    return method


KEYS = ("1", "3", "5", "box")
METHODS: dict[str, Method] = {
    "otsu": otsu,
    "watershed": from_markers(by_watershed, 512),
    "random walker": from_markers(by_random_walker, 256),
}


class Baseline:
    """A method behind the same door as a model."""

    digest = "no model"

    def __init__(self, method: Method) -> None:
        self.method = method

    def encode(self, image: np.ndarray) -> ImageEmbedding:
        grey = image.astype(np.float32) if image.ndim == 2 else image[..., :3].mean(2, dtype=np.float32)
        tile = TileEmbedding(grey[None], (0, 0, *grey.shape), grey.shape)
        return ImageEmbedding(grey.shape, (tile,), self.digest)

    def predict(self, embedding: ImageEmbedding, prompts: PromptSet) -> MaskPrediction:
        mask = self.method(embedding.array[0], prompts)
        nothing = np.zeros((1, 1), np.float32)
        return MaskPrediction((MaskCandidate(Region.from_mask(mask), 1.0, 1.0, nothing),))

    def predict_many(self, embedding: ImageEmbedding, prompts: Sequence[PromptSet]) -> list[MaskPrediction]:
        return [self.predict(embedding, replace(one, low_res_logits=None)) for one in prompts]


def table(results: dict[str, Evaluation]) -> str:
    """A row for each set; for each figure a column for each method."""
    columns = [(f"@{key}" if key.isdigit() else key, key, name) for key in KEYS for name in results]
    head = [f"{figure}, {name}" for figure, _, name in columns]
    lines = ["| set | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    first = next(iter(results.values()))
    for i, one in enumerate(first.sets):
        cells = [f"{results[name].sets[i].miou[key]:.3f}" for _, key, name in columns]
        lines.append(f"| {one.name} | " + " | ".join(cells) + " |")
    cells = [f"{results[name].mean[key]:.3f}" for _, key, name in columns]
    return "\n".join([*lines, "| **mean** | " + " | ".join(cells) + " |"])


def beaten(results: dict[str, Evaluation], model: str) -> str:
    """Where the model does not come first."""
    first = results[model]
    lost = [
        f"{one.name} ({name}, {key})"
        for name, found in results.items()
        for one, other in zip(first.sets, found.sets, strict=True)
        for key in KEYS
        if other.miou[key] > one.miou[key]
    ]
    return f"Better than the model: {', '.join(lost)}." if lost else "The model is the best on every set."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--images", type=int, default=0, help="of a set; 0 for all")
    parser.add_argument("--planes", type=int, default=-1, help="of a volume; as --images when left out")
    parser.add_argument("--objects", type=int, default=0, help="of an image; 0 for all")
    parser.add_argument("--clicks", type=int, default=5)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--table", type=Path, help="write the table into this page")
    options = parser.parse_args()
    planes = options.images if options.planes < 0 else options.planes
    limits = EvaluationLimits(options.clicks, options.objects, options.images, planes)
    predictors = {options.model: load_model(options.model)}
    predictors |= {name: Baseline(METHODS[name]) for name in options.methods}
    results = {
        name: Evaluation(tuple(evaluate_sets(options.folder, one, limits)), limits)
        for name, one in predictors.items()
    }
    part = f"--images {options.images} --objects {options.objects} --planes {planes}"
    command = f"`python benchmarks/bench_baselines.py DATA/eval {part}`"
    found = f"{table(results)}\n\n{beaten(results, options.model)}"
    text = f"mIoU after clicks and with a box ({command}).\n\n{found}"
    if options.table:
        write_table(options.table, "baselines", "Beside what needs no model", text)
    print(text)


if __name__ == "__main__":
    main()
