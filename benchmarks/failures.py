"""A picture of the worst first answers of a model, so that its limits can be seen.

::

    python benchmarks/failures.py DATA/eval docs/images/failures.jpg

clicks objects of every set once, as the protocol does, and shows the two with the lowest IoU of each set, of
two different images where there are as many: the truth outlined in green, the answer in orange, the click, and
the IoU below. The same model and data give the same picture. Only sets that may be redistributed are shown.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_sam.core.prompts import PromptSet
from napari_sam.core.protocols import Predictor
from napari_sam.inference.predictor import load_model
from napari_sam.inference.seen import SeenImage
from napari_sam.training.augment import normalise
from napari_sam.training.curves import need_matplotlib
from napari_sam.training.evaluate import EvaluationLimits, measured_objects, measured_sets
from napari_sam.training.protocol import first_click, iou

SHOWN = (
    "axon_sem",
    "axon_tem",
    "bacteria_colicoords",
    "bbbc039",
    "drosophila_ovary",
    "dsb2018",
    "usiigaci",
    "chloroplast_em_right",
    "ovule_cells",
    "ovule_nuclei_1136",
)
"""Sets under CC0, MIT or BSD licences."""
EACH, IN_A_ROW = 2, 5
AROUND, LEAST_SIDE = 4, 48
"""Side of a crop, in lengths of the object, and at least so many pixels."""
TRUTH, ANSWER, CLICK = "#2ca02c", "#ff7f0e", "#ffffff"
BELOW = {"x": 0.5, "y": -0.03, "ha": "center", "va": "top", "fontsize": 8}


@dataclass(frozen=True, slots=True)
class Failure:
    """A first answer that is far from the truth."""

    set_name: str
    iou: float
    click_yx: tuple[int, int]
    image: np.ndarray
    truth: np.ndarray
    answer: np.ndarray


def worst_of_image(
    name: str, image: np.ndarray, truths: list[np.ndarray], model: Predictor
) -> Failure | None:
    """The object of an image whose first answer is worst."""
    if not truths:
        return None
    clicks = [first_click(truth).yx for truth in truths]
    prompts = [PromptSet(np.array([click], float)) for click in clicks]
    answers = [answer.mask for answer in SeenImage(image, model).ask(prompts)]
    ious = [iou(answer, truth) for answer, truth in zip(answers, truths, strict=True)]
    i = int(np.argmin(ious))
    box = surroundings(truths[i])
    y, x = (click - part.start for click, part in zip(clicks[i], box, strict=True))
    return Failure(name, ious[i], (y, x), image[box], truths[i][box], answers[i][box])


def surroundings(truth: np.ndarray) -> tuple[slice, slice]:
    """A square around an object, moved into the image, or all of an image that is smaller."""
    spans = [np.flatnonzero(truth.any(axis)) for axis in (1, 0)]
    side = max(LEAST_SIDE, AROUND * max(int(span[-1] - span[0]) + 1 for span in spans))
    middles = [int(span[0] + span[-1]) // 2 for span in spans]
    starts = [
        max(0, min(middle - side // 2, length - side))
        for middle, length in zip(middles, truth.shape, strict=True)
    ]
    return tuple(slice(start, start + side) for start in starts)


def find(folder: Path, model: Predictor, limits: EvaluationLimits) -> list[Failure]:
    """The worst of each set, sets one after the other."""
    found = []
    for name, _, images in measured_sets(folder, limits):
        if name not in SHOWN:
            continue
        worst = [
            worst_of_image(name, image, measured_objects(labels, limits), model) for image, labels in images
        ]
        found += sorted((one for one in worst if one), key=lambda one: one.iou)[:EACH]
    return found


def draw(failures: list[Failure], path: Path) -> None:
    """One panel for each."""
    rows = -(-len(failures) // IN_A_ROW)
    figure = need_matplotlib().Figure(figsize=(2 * IN_A_ROW, 2.35 * rows), layout="constrained")
    panels = figure.subplots(rows, IN_A_ROW, squeeze=False).ravel()
    for axes, one in zip(panels, failures, strict=False):
        axes.imshow(normalise(one.image.astype(np.float32), 0.5, 99.5), cmap="gray")
        for mask, colour in ((one.truth, TRUTH), (one.answer, ANSWER)):
            if mask.any() and not mask.all():
                axes.contour(mask, [0.5], colors=colour, linewidths=1.2)
        axes.plot(*one.click_yx[::-1], "o", color=CLICK, markeredgecolor="black", markersize=5)
        axes.text(s=f"{one.set_name}\nIoU {one.iou:.2f}", transform=axes.transAxes, **BELOW)
    for axes in panels:
        axes.set_axis_off()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="of sets, as `napari-sam evaluate` takes it")
    parser.add_argument("picture", type=Path, help=".png, .jpg, .svg or .pdf")
    parser.add_argument("--model", default="default")
    parser.add_argument("--images", type=int, default=6, help="of a set; 0 for all")
    parser.add_argument("--objects", type=int, default=10, help="of an image; 0 for all")
    options = parser.parse_args()
    limits = EvaluationLimits(objects=options.objects, images=options.images, planes=options.images)
    draw(find(options.folder, load_model(options.model), limits), options.picture)


if __name__ == "__main__":
    main()
