"""Does it pay to look again from other sides where the model is in doubt? mIoU, and the time of the whole measurement.

::

    python benchmarks/bench_sides.py DATA/eval --write

measures the model with one look, with more where it is in doubt (`SamConfig.doubt`), and with more at every prompt. With --write
the table goes into docs/models.md.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from common import write_table
from napari_sam.inference.predictor import load_model
from napari_sam.training.evaluate import EvaluationLimits, evaluate

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"
FIGURES = ("1", "3", "5", "box")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--objects", type=int, default=6)
    parser.add_argument("--planes", type=int, default=6)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    limits = EvaluationLimits(5, given.objects, given.images, given.planes)
    model = load_model(given.model)
    looks = {"one look": 0.0, "in doubt": model.doubt, "always": np.inf}
    found, seconds = {}, {}
    for name, doubt in looks.items():
        model.config = replace(model.config, doubt=doubt)
        begin = time.perf_counter()
        found[name] = evaluate(given.folder, model, limits)
        seconds[name] = time.perf_counter() - begin
    head = [f"{label}, {name}" for label in ("one click", "three", "five", "box") for name in looks]
    rows = [f"| set | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for sets in zip(*(one.sets for one in found.values()), strict=True):
        rows.append(row(sets[0].name, [one.miou for one in sets]))
    rows.append(row("**mean**", [one.mean for one in found.values()]))
    worse = ", ".join(f"{one.mean['worse']:.3f} ({name})" for name, one in found.items())
    times = ", ".join(f"{value / seconds['one look']:.1f} ({name})" for name, value in seconds.items())
    text = (
        "\n".join(rows)
        + f"\n\nShare of clicks that made it worse: {worse}. Time, embeddings included: {times}."
    )
    print(text)
    if given.write:
        write_table(PAGE, "sides", "From several sides", text)


def row(name: str, figures: list[dict[str, float]]) -> str:
    return f"| {name} | " + " | ".join(f"{one[key]:.3f}" for key in FIGURES for one in figures) + " |"


if __name__ == "__main__":
    main()
