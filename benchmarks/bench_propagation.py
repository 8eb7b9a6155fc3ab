"""Which settings carry objects best: 3D IoU from one click and after one correction, on labelled volumes.

::

    python benchmarks/bench_propagation.py DATA --model default --write

chooses settings on the volumes in DATA/train/volumes: what is carried, then one setting after the other with the
best so far. It reports on DATA/eval/volumes, which nothing was chosen on: the defaults, each kind of prompt
carried alone and mixed, what bridging and filling add, and how well the doubt of a plane tells that it is
wrong. With --only-report nothing is chosen, and the defaults are reported without the mixtures. With --write the
tables go into docs/propagation.md, between their markers. Fails where one correction lowers the mean of the defaults.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from napari_sam.cli.volumes import VolumeTrial, measured_labels, open_pair
from napari_sam.inference.predictor import load_model
from napari_sam.propagation import Carry, Fusion, PropagationSettings, propagate_objects
from napari_sam.training.evaluate import volume_name
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
    "min_likeness": [None, 0.1, 0.2, 0.3],
    "min_presence": [None, 0.3, 0.4, 0.5, 0.6, 0.7],
    "bridge": [0, 1, 2],
    "fill_gaps": [True, False],
    "fusion": list(Fusion),
}
BAD_IOU = 0.7
"""A plane whose mask overlaps less with the truth is wrong: what doubt should tell."""
PAGE = Path(__file__).resolve().parents[1] / "docs" / "propagation.md"


@dataclass(frozen=True)
class Row:
    """One line of a table: 3D IoU of every volume, from one click and corrected once."""

    what: str
    means: tuple[tuple[float, float], ...]

    @property
    def mean(self) -> float:
        """Over volumes and both tries."""
        return float(np.mean(self.means))

    def text(self) -> str:
        """In markdown."""
        cells = " | ".join(f"{first:.3f}, {second:.3f}" for first, second in self.means)
        columns = np.mean(self.means, axis=0)
        return f"| {self.what} | {cells} | {columns[0]:.3f}, {columns[1]:.3f} |"


class Bench:
    """Volumes that stay encoded while settings change."""

    def __init__(self, folder: Path, model: str, most: int) -> None:
        predictor = load_model(model)
        self.most = most
        self.volumes = {volume_name(pair): open_pair(pair, predictor) for pair in find_pairs(folder)}

    @property
    def header(self) -> str:
        """Of its tables."""
        names = " | ".join(self.volumes)
        return f"| settings | {names} | mean |\n" + "|---" * (len(self.volumes) + 2) + "|"

    def row(self, settings: PropagationSettings, what: str, three_axes: bool = False) -> Row:
        """Measure; prints the row as well."""
        means = [
            VolumeTrial(*v, settings, three_axes).run(name, self.most).means
            for name, v in self.volumes.items()
        ]
        row = Row(what, tuple(means))
        print(row.text(), flush=True)
        return row

    def doubt(self, settings: PropagationSettings) -> str:
        """How well doubt tells wrong planes: area under the ROC curve, and what the upper fifth catches."""
        values, wrong = [], []
        for encoder, predictor, labels in self.volumes.values():
            trial = VolumeTrial(encoder, predictor, labels, settings)
            seeds = {label: trial.first_seed(label) for label in measured_labels(labels, self.most)}
            for step in propagate_objects(encoder, predictor, seeds, settings=settings):
                if step.region.area and not step.is_seed:
                    truth = trial.truth(step.object_id, step.plane_index)
                    shared = np.count_nonzero(step.mask & truth)
                    values.append(step.doubt.value)
                    wrong.append(shared / np.count_nonzero(step.mask | truth) < BAD_IOU)
        return _doubt_text(np.array(values), np.array(wrong))


def _doubt_text(values: np.ndarray, wrong: np.ndarray) -> str:
    n_wrong = int(wrong.sum())
    if not 0 < n_wrong < len(wrong):
        return f"{n_wrong} of {len(wrong)} planes are wrong; doubt cannot be judged."
    pairs = values[wrong][:, None], values[~wrong][None]
    area = float(np.mean(pairs[0] > pairs[1]) + np.mean(pairs[0] == pairs[1]) / 2)
    upper = np.argsort(-values, kind="stable")[: max(1, len(values) // 5)]
    caught = wrong[upper].sum() / n_wrong
    return (
        f"Of {len(values)} propagated planes {n_wrong} overlap less than {BAD_IOU} with the truth. Doubt tells them "
        f"from the others with an area under the ROC curve of {area:.2f}; the most doubtful fifth of the planes "
        f"holds {caught:.0%} of them."
    )


def choose(bench: Bench) -> tuple[PropagationSettings, list[str]]:
    """Greedy search: the mixture, then one setting after the other; the settings and the table."""
    print(bench.header, flush=True)
    rows, best = [], (PropagationSettings(), -1.0)
    for carry in MIXTURES:
        settings = replace(PropagationSettings(), carry=carry)
        rows.append(bench.row(settings, " + ".join(carry)))
        best = max(best, (settings, rows[-1].mean), key=lambda one: one[1])
    for name, values in VARIANTS.items():
        for value in values:
            if getattr(best[0], name) != value:
                settings = replace(best[0], **{name: value})
                rows.append(bench.row(settings, f"{name} {value}"))
                best = max(best, (settings, rows[-1].mean), key=lambda one: one[1])
    return best[0], [bench.header, *(row.text() for row in rows)]


def report(bench: Bench, chosen: PropagationSettings | None) -> tuple[list[str], bool]:
    """What is measured on volumes that nothing was chosen on, and whether a correction lowers the mean of the defaults."""
    print(bench.header, flush=True)
    default = PropagationSettings()
    trials = {"default": default}
    if chosen is not None:
        trials["chosen on the training volumes"] = chosen
        trials |= {" + ".join(carry): replace(default, carry=carry) for carry in MIXTURES}
    fixed = replace(default, min_presence=None, min_predicted_iou=0.5, min_likeness=0.4)
    trials["fixed thresholds, no presence"] = fixed
    trials["no presence, no likeness"] = replace(default, min_presence=None, min_likeness=None)
    trials["motion is not followed"] = replace(default, follow_motion=False)
    trials["neither bridged nor filled in"] = replace(default, bridge=0, fill_gaps=False)
    rows = [bench.row(settings, what) for what, settings in trials.items()]
    rows.insert(1, bench.row(default, "default, along three axes", three_axes=True))
    lowered = [f"`{row.what}`" for row in rows if np.diff(np.mean(row.means, axis=0))[0] < 0]
    said = (
        f"One correction lowers the mean with {', '.join(lowered)}."
        if lowered
        else ("One correction never lowers the mean.")
    )
    lines = [bench.header, *(row.text() for row in rows), "", said, "", bench.doubt(default)]
    return lines, "`default`" in lowered


def difference(settings: PropagationSettings) -> str:
    """Where settings are not the defaults."""
    default = PropagationSettings()
    changed = {f.name: getattr(settings, f.name) for f in fields(settings)}
    return ", ".join(f"{k} = {v}" for k, v in changed.items() if v != getattr(default, k)) or "the defaults"


def write(lines: Iterable[str], name: str) -> None:
    """Put lines between two markers of the page."""
    text = PAGE.read_text(encoding="utf-8")
    first, last = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = text.split(first, 1)
    after = rest.split(last, 1)[1]
    body = "\n".join(lines)
    PAGE.write_text(f"{before}{first}\n\n{body}\n\n{last}{after}", encoding="utf-8")


def main() -> None:
    """Choose, report, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="holds train/volumes and eval/volumes")
    parser.add_argument("--model", default="default")
    parser.add_argument("--objects", type=int, default=12, help="at most so many of a volume, evenly spread")
    parser.add_argument("--only-report", action="store_true", help="do not search")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/propagation.md")
    options = parser.parse_args()
    chosen, table = None, []
    if not options.only_report:
        chosen, table = choose(Bench(options.data / "train" / "volumes", options.model, options.objects))
        print(f"\nchosen: {difference(chosen)}\n")
    found, lowered = report(Bench(options.data / "eval" / "volumes", options.model, options.objects), chosen)
    command = f"python benchmarks/bench_propagation.py DATA --objects {options.objects}"
    command += " --only-report" if options.only_report else ""
    made = (
        f"Made by `{command} --write`. Each cell is the mean 3D IoU from one click, and after one correction."
    )
    tables = {"reported": [made, "", *found]}
    if table:
        tables["measured"] = [made, "", f"Best: {difference(chosen)}.", "", *table]
    for name, lines in tables.items():
        print("\n".join(lines))
        if options.write:
            write(lines, name)
    if lowered:
        raise SystemExit("one correction lowers the mean with the default settings")


if __name__ == "__main__":
    main()
