"""Which settings carry objects best: 3D IoU from one click in the middle plane, on labelled volumes.

::

    python benchmarks/bench_propagation.py DATA/train/volumes --model default

tries what is carried, then the stop thresholds with the best of these, then fusion, one after the other,
and prints tables. Choose settings on volumes for training, never on those a release is judged by.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_sam.cli.volumes import VolumeTrial, open_pair, volume_name
from napari_sam.inference.predictor import load_model
from napari_sam.propagation import Carry, Fusion, PropagationSettings
from napari_sam.training.packed import find_pairs

MASK, BOX, POINT, POINTS = Carry.MASK, Carry.BOX, Carry.POINT, Carry.POINTS

MIXTURES = [
    (MASK,),
    (BOX,),
    (POINT,),
    (POINTS,),
    (BOX, MASK),
    (POINT, MASK),
    (BOX, POINT),
    (BOX, POINT, MASK),
    (POINTS, MASK),
    (BOX, POINTS, MASK),
]
VARIANTS = {
    "box_margin": [0.0, 0.05, 0.1, 0.2],
    "min_iou": [None, 0.1, 0.3, 0.5, 0.7],
    "max_area_change": [None, 2.0, 3.0, 4.0, 8.0],
    "min_predicted_iou": [None, 0.3, 0.5, 0.6, 0.7],
    "fusion": list(Fusion),
}


class Bench:
    """Volumes that stay encoded while settings change."""

    def __init__(self, folder: Path, model: str, most: int) -> None:
        predictor = load_model(model)
        self.most = most
        self.volumes = {volume_name(pair): open_pair(pair, predictor) for pair in find_pairs(folder)}
        print(
            "| settings | " + " | ".join(f"{name}: 1 click, corrected" for name in self.volumes) + " | mean |"
        )
        print("|---" * (len(self.volumes) + 2) + "|")

    def score(self, settings: PropagationSettings, what: str) -> float:
        """Mean over volumes and both tries; prints one row."""
        means = [VolumeTrial(*v, settings).run(name, self.most).means for name, v in self.volumes.items()]
        mean = float(np.mean(means))
        cells = " | ".join(f"{first:.3f}, {second:.3f}" for first, second in means)
        print(f"| {what} | {cells} | {mean:.3f} |", flush=True)
        return mean


def main() -> None:
    """Greedy search: the mixture, then one setting after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--objects", type=int, default=12)
    options = parser.parse_args()
    bench = Bench(options.folder, options.model, options.objects)
    trials = [PropagationSettings(carry=carry) for carry in MIXTURES]
    best = max(trials, key=lambda s: bench.score(s, " + ".join(s.carry)))
    for name, values in VARIANTS.items():
        variants = [replace(best, **{name: value}) for value in values]
        best = max(variants, key=lambda s: bench.score(s, f"{name} {getattr(s, name)}"))
    print(f"\nbest: {best}")


if __name__ == "__main__":
    main()
