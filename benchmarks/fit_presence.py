"""When has a carried object ended? Fit and judge the rule that says so (`propagation/appearance.py`).

::

    python benchmarks/fit_presence.py DATA

carries labelled objects of the training volumes, and of generated ones, with all stop rules off until they are
surely lost. For every plane it notes how sure the model is of the mask, how sure it was of the seed's mask carried onto
its own plane, how much the mask looks like the object, the overlap with the plane before, the motion from there, and what of the
mask lies on the object. The constants are those that make the 3D IoU largest. Then, with each volume left out of the
fit in turn, it prints the mean 3D IoU that stopping by the rule gives, beside fixed thresholds and beside the best place to stop that there is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from napari_sam.cli.volumes import measured_labels, open_pair
from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.prompts import PromptSet
from napari_sam.core.protocols import Predictor
from napari_sam.core.results import MaskCandidate
from napari_sam.inference.encode import CachedEncoder
from napari_sam.inference.predict import predict_plane
from napari_sam.inference.predictor import load_model
from napari_sam.io.volume import open_volume
from napari_sam.propagation.appearance import BIAS, WEIGHTS, Change, Look, Reference, look_of
from napari_sam.propagation.carry import carried_prompts, widened_box
from napari_sam.propagation.fronts import closest
from napari_sam.propagation.motion import Outline, View, followed, moved, outline_weight, shade_change
from napari_sam.propagation.settings import PropagationSettings
from napari_sam.training import synthetic
from napari_sam.training.packed import find_pairs
from napari_sam.training.protocol import first_click, iou

GENERATED = (
    ("neurites", 1), ("neurites", 2), ("neurites", 5), ("cells", 3), ("cells", 6),
    ("blobs", 4), ("blobs", 7), ("organelles", 8), ("vesicles", 9),
)  # fmt: skip
LONG = (
    ("neurites", 20), ("neurites", 21), ("neurites", 22), ("neurites", 30), ("neurites", 31), ("cells", 24),
    ("cells", 34), ("blobs", 35), ("rods", 36), ("organelles", 28), ("organelles", 37),
)  # fmt: skip
"""Generated as well, but deeper and changing slowly from plane to plane: objects last for twenty to forty planes,
as they do where planes are as near to each other as pixels."""
MADE = {f"{kind} {seed}" for kind, seed in (*GENERATED, *LONG)}
SLOW, STILL, LONG_DEPTH = (0.01, 0.03), 0.001, 44
DEPTH, SIZE = 30, 256
LOST, LOST_FOR = 0.3, 5
"""An object is surely lost after so many planes in a row with less than this share of the mask on it."""
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
DECAY = 1e-4
"""Keeps the weights small."""
SETTINGS = PropagationSettings()
SHIPPED = "the constants that ship"
Volume = tuple[str, CachedEncoder, np.ndarray]


@dataclass(frozen=True)
class Visit:
    """One plane that an object was carried to."""

    estimate: float
    likeness: float
    evidence: tuple[float, ...]
    """See `Reference.evidence`."""
    goes_on: bool
    """The rules on area, overlap and likeness do not hold."""
    shared: int
    area: int


@dataclass(frozen=True)
class Trip:
    """An object carried both ways from its middle plane."""

    volume: str
    truth: int
    shared: int
    area: int
    ways: tuple[list[Visit], ...]

    @property
    def is_real(self) -> bool:
        return self.volume not in MADE

    def iou(self, shared: int, area: int) -> float:
        shared, area = shared + self.shared, area + self.area
        return shared / (self.truth + area - shared)

    def stopped(self, ended: Callable[[Visit], bool]) -> float:
        """3D IoU if each way stops at the first plane where the object seems to have ended."""
        shared = area = 0
        for visits in self.ways:
            for one in visits:
                if ended(one):
                    break
                shared, area = shared + one.shared, area + one.area
        return self.iou(shared, area)

    @property
    def best(self) -> float:
        """The same if it stopped where that is best."""
        sums = [np.cumsum([(0, 0), *((v.shared, v.area) for v in visits)], axis=0) for visits in self.ways]
        return max(self.iou(*(a + b).tolist()) for a in sums[0] for b in sums[1])


def volumes(folder: Path, model: Predictor) -> Iterator[Volume]:
    """The training volumes, then the generated ones."""
    for pair in find_pairs(folder / "train" / "volumes"):
        encoder, _, labels = open_pair(pair, model)
        yield pair[0].stem.removesuffix("_img"), encoder, labels
    synthetic.PLANES = DEPTH
    for kind, seed in (*GENERATED, *LONG):
        if (kind, seed) in LONG:
            synthetic.APART, synthetic.TURN, synthetic.PLANES = SLOW, STILL, LONG_DEPTH
        rng = np.random.default_rng(seed)
        image, labels = getattr(synthetic, kind)(SIZE, rng)
        image = image + rng.uniform(0, 0.06) * rng.standard_normal(image.shape, dtype=np.float32)
        image = (np.clip(image, 0, 1) * 255).astype(np.uint8)
        yield f"{kind} {seed}", CachedEncoder(open_volume(image, axes="ZYX"), model), labels


def trip(volume: Volume, label: int) -> Trip:
    """Carry one object from a click; where the click fails, from its true mask."""
    name, encoder, labels = volume
    there = labels == label
    middle = int(there.sum((1, 2)).argmax())
    click = PromptSet(np.array([first_click(there[middle]).yx], float))
    (answer,) = predict_plane(encoder, PlaneRef(0, middle), [click])
    region = answer.region if iou(answer.mask, there[middle]) >= 0.5 else Region.from_mask(there[middle])
    look, itself = _look(encoder, middle, region), _carried(encoder, middle, region)
    reference = Reference(look, itself.predicted_iou)
    ways = tuple(visits(encoder, there, middle, region, reference, way) for way in (1, -1))
    shared = int(np.count_nonzero(region.mask & there[middle]))
    return Trip(name, int(there.sum()), shared, region.area, ways)


def visits(
    encoder: CachedEncoder, there: np.ndarray, index: int, region: Region, reference: Reference, way: int
) -> list[Visit]:
    found, lost = [], 0
    weight = outline_weight(reference.predicted_iou)
    view, outline = View.of(encoder.pixels(PlaneRef(0, index)), region), Outline.of(region)
    while 0 <= (index := index + way) < len(there) and lost < LOST_FOR:
        image = encoder.pixels(PlaneRef(0, index))
        motion = moved(outline, view, image)
        answer = _carried(encoder, index, motion.region)
        before, outline = region, followed(answer, motion.outline or outline, weight)
        region = outline.region
        if not region.area:
            break
        shade = shade_change(before, view, region, image)
        look, view = _look(encoder, index, region), View.of(image, region)
        likeness = 1.0 if look is None or reference.look is None else look.likeness(reference.look)
        evidence = reference.evidence(
            answer.predicted_iou, likeness, Change(before.iou(region), motion.growth, shade)
        )
        goes_on = likeness >= SETTINGS.min_likeness and SETTINGS.stop_rule(before, region, 1.0) is None
        shared = int(np.count_nonzero(region.mask & there[index]))
        found.append(Visit(answer.predicted_iou, likeness, evidence, goes_on, shared, region.area))
        lost = lost + 1 if shared < LOST * region.area else 0
    return found


def _carried(encoder: CachedEncoder, index: int, region: Region) -> MaskCandidate:
    (answer,) = predict_plane(encoder, PlaneRef(0, index), [carried_prompts(region, SETTINGS)])
    return closest(answer, region)


def _look(encoder: CachedEncoder, index: int, region: Region) -> Look | None:
    around = PromptSet(box_yxyx=widened_box(region, 0.0))
    return look_of(encoder.embedding(PlaneRef(0, index), [around]), region)


def fit(trips: list[Trip]) -> np.ndarray:
    """Weights of the parts of the evidence, and the bias, that give the largest 3D IoU.

    Every volume counts the same, but real ones as much together as all that are generated.

    A way goes on to the next plane with the probability that presence gives, so that voxels found and voxels shared are
    expectations, and the IoU of these has a gradient.
    """
    names = [one.volume for one in trips]
    real = {one.volume for one in trips if one.is_real}
    halves = {True: len(real), False: len(set(names)) - len(real)}
    share = torch.tensor(
        [0.5 / halves[one.is_real] / names.count(one.volume) for one in trips], dtype=torch.float64
    )
    truth, shared, area = torch.tensor(
        [(one.truth, one.shared, one.area) for one in trips], dtype=torch.float64
    ).unbind(1)
    ways = [(number, way) for number, one in enumerate(trips) for way in one.ways if way]
    owner = torch.tensor([number for number, _ in ways])
    x = _padded([[one.evidence for one in way] for _, way in ways])
    counts = _padded([[(one.shared, one.area) for one in way] for _, way in ways])
    allowed = _padded([[(one.goes_on,) for one in way] for _, way in ways])[..., 0].cumprod(1)
    there = torch.cat([torch.tensor([one.evidence for one in way]) for _, way in ways]).double()
    mean, spread = there.mean(0), there.std(0)
    theta = torch.zeros(x.shape[2] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([theta], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        goes_on = torch.nn.functional.logsigmoid((x - mean) / spread @ theta[:-1] + theta[-1])
        reached = goes_on.cumsum(1).exp() * allowed
        sums = torch.zeros(len(trips), 2, dtype=torch.float64)
        sums = sums.index_add(0, owner, (reached[..., None] * counts).sum(1))
        both, found = shared + sums[:, 0], area + sums[:, 1]
        total = DECAY * (theta[:-1] ** 2).sum() - (both / (truth + found - both) * share).sum()
        total.backward()
        return total

    optimizer.step(loss)
    scaled = theta.detach()[:-1] / spread
    return torch.cat([scaled, theta.detach()[-1:] - (scaled * mean).sum()]).numpy()


def _padded(ways: list[list[tuple[float, ...]]]) -> torch.Tensor:
    """(ways, planes, values) float64, zeros behind the end of a way."""
    rows = [torch.tensor(way, dtype=torch.float64) for way in ways]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def by_presence(weights: np.ndarray, least: float) -> Callable[[Visit], bool]:
    limit = np.log(least / (1 - least))
    return lambda one: not one.goes_on or float(weights[:-1] @ one.evidence + weights[-1]) < limit


def by_thresholds(one: Visit) -> bool:
    return not one.goes_on or one.estimate < 0.5 or one.likeness < 0.4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with train/volumes")
    parser.add_argument("--model", default="default")
    parser.add_argument("--objects", type=int, default=20, help="of each volume, evenly spread")
    options = parser.parse_args()
    trips: list[Trip] = []
    for volume in volumes(options.folder, load_model(options.model)):
        trips += [trip(volume, label) for label in measured_labels(volume[2], options.objects)]
    names = list(dict.fromkeys(one.volume for one in trips))
    rows: dict[str, list[float]] = {"estimate < 0.5 or likeness < 0.4": [], "best place": []}
    rows |= {SHIPPED: []} | {f"presence < {least}": [] for least in THRESHOLDS}
    shipped = by_presence(np.array([*WEIGHTS, BIAS]), SETTINGS.min_presence)
    for name in names:
        own, others = ([one for one in trips if (one.volume == name) == same] for same in (True, False))
        weights = fit(others)
        rows["estimate < 0.5 or likeness < 0.4"].append(np.mean([o.stopped(by_thresholds) for o in own]))
        rows["best place"].append(np.mean([one.best for one in own]))
        rows[SHIPPED].append(np.mean([one.stopped(shipped) for one in own]))
        for least in THRESHOLDS:
            figures = [one.stopped(by_presence(weights, least)) for one in own]
            rows[f"presence < {least}"].append(np.mean(figures))
    print("| stops where | " + " | ".join([*names, "mean"]) + " |\n" + "|---" * (len(names) + 2) + "|")
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(f"{v:.3f}" for v in [*values, np.mean(values)]) + " |")
    print(
        "\nlogit of the estimate, estimate on the seed plane, likeness, overlap, growth, shade, bias:",
        fit(trips).round(2).tolist(),
    )


if __name__ == "__main__":
    main()
