"""What parts of the recipe are worth: short trainings from nothing that differ in one setting, measured alike.

::

    python benchmarks/ablations.py DATA OUT --steps 1200 --table docs/model-card.md

Each trains the smallest architecture (`micro`) for the same number of steps, so their figures compare with each other and
not with those of the model that ships, which has learned for far longer. What is in OUT already is not trained again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from common import write_table
from napari_sam.cli.volumes import evaluate_volumes
from napari_sam.inference.predictor import load_model
from napari_sam.model.configs import CONFIGS
from napari_sam.training.config import TrainConfig, load_recipe
from napari_sam.training.evaluate import EvaluationLimits, evaluate_sets
from napari_sam.training.packed import find_pairs
from napari_sam.training.run import describe, prepare_data, prepare_machine
from napari_sam.training.trainer import train

UNSEEN = ("fibsem_medulla", "ovule_cells")
SMALLER = 384
VOLUME_OBJECTS = 4
VARIANTS: dict[str, dict[str, object]] = {
    "the recipe": {},
    "no generated crops": {"synthetic": 0.0},
    "no mask of a neighbouring plane as first prompt": {"mask_share": 0.0, "ended_share": 0.0},
    f"planes enlarged to {SMALLER} pixels, not 512": {"model": "micro_smaller", "model_input": SMALLER},
}
CONFIGS["micro_smaller"] = replace(CONFIGS["micro"], name="micro_smaller", image_size=SMALLER)


def recipe(steps: int, threads: int, changes: dict[str, object]) -> TrainConfig:
    """The first stage's recipe, shortened."""
    short = {
        "max_steps": steps,
        "stages": ((0.0, 96, 8),),
        "objects": 3,
        "rounds": (2, 3),
        "warm_start": 0.03,
    }
    return replace(load_recipe("default"), threads=threads, workers=0, **short | changes)


def measure(path: Path, data: Path, limits: EvaluationLimits) -> dict[str, float]:
    """Means over sets, of a part of everything."""
    predictor = load_model(str(path))
    sets = list(evaluate_sets(data, predictor, limits))
    images = [found.miou for found in sets if found.name not in UNSEEN]
    unseen = [found.miou for found in sets if found.name in UNSEEN]
    pairs = [pair for pair in find_pairs(data / "volumes") if not pair[0].name.startswith(UNSEEN)]
    volumes = evaluate_volumes(pairs, predictor, most=VOLUME_OBJECTS)
    return {
        "mIoU@1": float(np.mean([miou["1"] for miou in images])),
        "mIoU@3": float(np.mean([miou["3"] for miou in images])),
        "box": float(np.mean([miou["box"] for miou in images])),
        "kinds never seen, mIoU@3": float(np.mean([miou["3"] for miou in unseen])),
        "whole objects, one click": float(np.mean([found.means[0] for found in volumes])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder that holds train and eval")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--synthetic", type=int, default=800, help="generated planes")
    parser.add_argument("--table", type=Path, help="write the table into this page")
    options = parser.parse_args()
    limits = EvaluationLimits(clicks=3, objects=5, images=4, planes=3)
    rows = []
    for name, changes in VARIANTS.items():
        folder = options.out / name.replace(" ", "-").replace(",", "")
        config = recipe(options.steps, options.threads, changes)
        prepare_machine(config)
        if not (folder / "figures.json").is_file():
            planes = prepare_data(options.data / "train", options.out, options.synthetic, config)
            if not config.synthetic:
                planes = [plane for plane in planes if plane.set_name != "synthetic"]
            for event in train(config, planes, folder):
                if event.kind != "step":
                    print(name, describe(event), flush=True)
            found = measure(folder / "last.safetensors", options.data / "eval", limits)
            (folder / "figures.json").write_text(json.dumps(found))
        rows.append((name, json.loads((folder / "figures.json").read_text())))
        print(rows[-1], flush=True)
    keys = list(rows[0][1])
    lines = ["| | " + " | ".join(keys) + " |", "|---" * (len(keys) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(f"{found[key]:.3f}" for key in keys) + " |" for name, found in rows]
    if options.table:
        write_table(options.table, "ablations", "Ablations", "\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
