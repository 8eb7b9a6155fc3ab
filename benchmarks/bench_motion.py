"""Does it pay to move a mask with the image before it is carried? IoU with the truth by distance from a true mask.

::

    python benchmarks/bench_motion.py DATA --write

carries labelled objects both ways from their true mask in the middle plane, with nothing that stops them, through the training
volumes, generated ones, and the volumes for measuring. With --write the table goes into docs/propagation.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from common import write_table
from fit_presence import Volume, volumes
from napari_sam.cli.volumes import measured_labels, open_pair
from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.protocols import Predictor
from napari_sam.core.results import MaskCandidate
from napari_sam.inference.encode import CachedEncoder
from napari_sam.inference.predict import predict_plane
from napari_sam.inference.predictor import load_model
from napari_sam.propagation.carry import carried_prompts
from napari_sam.propagation.fronts import closest
from napari_sam.propagation.motion import Outline, View, followed, moved, outline_weight
from napari_sam.propagation.settings import PropagationSettings
from napari_sam.training.evaluate import volume_name
from napari_sam.training.packed import find_pairs

DISTANCES = (1, 2, 3, 5, 8, 12, 20)
GENERATED = 6
"""So many of the generated volumes."""
BRIGHTNESS = 1 + 0.12 * np.random.default_rng(0).standard_normal(1000)
"""Of each plane, where planes are unequal."""
SETTINGS = PropagationSettings()
PAGE = Path(__file__).resolve().parents[1] / "docs" / "propagation.md"
Step = Callable[[CachedEncoder, int, int, Outline, float], Outline]
"""From a plane to another one: the mask there, by the mask here and the estimate on the seed plane."""


def stays(encoder: CachedEncoder, here: int, there: int, outline: Outline, estimate: float) -> Outline:
    return outline


def flow(encoder: CachedEncoder, here: int, there: int, outline: Outline, estimate: float) -> Outline:
    return between(*(encoder.pixels(PlaneRef(0, index)) for index in (here, there)), outline)


def uneven(encoder: CachedEncoder, here: int, there: int, outline: Outline, estimate: float) -> Outline:
    planes = (encoder.pixels(PlaneRef(0, index)) * np.float32(BRIGHTNESS[index]) for index in (here, there))
    return between(*planes, outline)


def between(image: np.ndarray, other: np.ndarray, outline: Outline) -> Outline:
    return moved(outline, View.of(image, outline.region), other).outline or outline


def whole_pixels(encoder: CachedEncoder, here: int, there: int, outline: Outline, estimate: float) -> Outline:
    return Outline.of(flow(encoder, here, there, outline, estimate).region)


def model(encoder: CachedEncoder, here: int, there: int, outline: Outline, estimate: float) -> Outline:
    return Outline.of(answer(encoder, there, outline.region).region)


def weighed(weight: Callable[[float], float]) -> Step:
    def step(encoder: CachedEncoder, here: int, there: int, outline: Outline, estimate: float) -> Outline:
        outline = flow(encoder, here, there, outline, estimate)
        return followed(answer(encoder, there, outline.region), outline, weight(estimate))

    return step


STEPS = {
    "the mask stays": stays,
    "the flow alone": flow,
    "the flow alone, planes brighter or darker by 12 %": uneven,
    "the flow alone, in whole pixels": whole_pixels,
    "the model alone": model,
    "both, the model's outline": weighed(lambda estimate: 0.0),
    "both, a pixel is worth 1": weighed(lambda estimate: 1.0),
    "both, worth more where the model is less sure (default)": weighed(outline_weight),
}


def answer(encoder: CachedEncoder, index: int, region: Region) -> MaskCandidate:
    (prediction,) = predict_plane(encoder, PlaneRef(0, index), [carried_prompts(region, SETTINGS)])
    return closest(prediction, region)


def overlaps(volume: Volume, label: int, step: Step) -> Iterator[float]:
    """IoU at each distance, both ways, while the object goes on."""
    _, encoder, labels = volume
    areas = np.count_nonzero(labels == label, axis=(1, 2))
    middle = int(areas.argmax())
    seed = Region.from_mask(labels[middle] == label)
    estimate = answer(encoder, middle, seed).predicted_iou
    for way in (1, -1):
        outline, index = Outline.of(seed), middle + way
        while 0 <= index < len(areas) and areas[index] and abs(index - middle) <= DISTANCES[-1]:
            found = step(encoder, index - way, index, outline, estimate)
            outline = found if found.region.area else outline
            if abs(index - middle) in DISTANCES:
                yield outline.region.iou(Region.from_mask(labels[index] == label))
            index += way


def all_volumes(folder: Path, predictor: Predictor) -> Iterator[Volume]:
    training = find_pairs(folder / "train" / "volumes")
    yield from islice(volumes(folder, predictor), len(training) + GENERATED)
    for pair in find_pairs(folder / "eval" / "volumes"):
        encoder, _, labels = open_pair(pair, predictor)
        yield volume_name(pair), encoder, labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with train/volumes and eval/volumes")
    parser.add_argument("--model", default="default")
    parser.add_argument("--objects", type=int, default=12, help="of each volume, evenly spread")
    parser.add_argument("--write", action="store_true", help="into docs/propagation.md")
    options = parser.parse_args()
    header, rows = ["carried by"], {name: [name] for name in STEPS}
    for volume in all_volumes(options.folder, load_model(options.model)):
        header.append(volume[0])
        chosen = measured_labels(volume[2], options.objects)
        for name, step in STEPS.items():
            found = [iou for label in chosen for iou in overlaps(volume, label, step)]
            rows[name].append(f"{np.mean(found):.3f}")
        print(volume[0], [row[-1] for row in rows.values()], flush=True)
    lines = [header, ["---"] * len(header), *rows.values()]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    print(text)
    if options.write:
        told = f"Made by `python benchmarks/bench_motion.py DATA --objects {options.objects} --write`."
        write_table(PAGE, "motion", "Motion", f"{told}\n\n{text}")


if __name__ == "__main__":
    main()
