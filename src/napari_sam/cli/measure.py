"""Measure a model by the protocol: planes by clicks and boxes, volumes by propagation from one click."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_sam.cli.volumes import MIN_PLANES, VolumeResult, evaluate_volumes, measured_labels
from napari_sam.core.protocols import Predictor
from napari_sam.errors import InputWarning
from napari_sam.training.curves import draw_curves
from napari_sam.training.evaluate import (
    IMAGES,
    PLANES,
    Evaluation,
    EvaluationLimits,
    SetResult,
    check_pairs,
    evaluate_sets,
    is_volume,
    labelled_sets,
    read_pair,
    volume_name,
)

_SETS = {IMAGES: "sets of images", PLANES: "planes of volumes"}


@dataclass(frozen=True, slots=True)
class Measurement:
    """All figures of a model on a folder.

    Parameters
    ----------
    planes : Evaluation
        mIoU by number of clicks and with a box, NoC@85, share of clicks that made it worse.
    volumes : tuple of VolumeResult
        3D IoU of whole objects, from one click and after one correction.
    """

    planes: Evaluation
    volumes: tuple[VolumeResult, ...] = field(default=())

    @property
    def groups(self) -> dict[str, dict[str, float]]:
        """Means over sets of "images", over "planes" of volumes, and over volumes of their whole "objects"."""
        found = self.planes.groups
        if self.volumes:
            one_click, corrected = np.mean([one.means for one in self.volumes], axis=0).tolist()
            found["objects"] = {"one_click": one_click, "corrected": corrected}
        return found

    def table(self) -> str:
        """The means of the groups and of all sets, one below the other, for people."""
        counts = Counter(one.group for one in self.planes.sets)
        means = {f"{_SETS[name]} ({counts[name]})": value for name, value in self.planes.groups.items()}
        if len(means) > 1:
            means[f"all sets ({len(self.planes.sets)})"] = self.planes.mean
        lines = [f"{'mean of':<24}" + "".join(f"{key:>8}" for key in self.planes.mean)]
        lines += [f"{name:<24}" + "".join(f"{v:>8.3f}" for v in row.values()) for name, row in means.items()]
        whole = self.groups.get("objects")
        if whole is not None:
            figures = f"  one click {whole['one_click']:.3f}  corrected once {whole['corrected']:.3f}"
            lines.append(f"{f'whole objects ({len(self.volumes)})':<24}{figures}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data, for JSON."""
        return {
            **self.planes.to_dict(),
            "groups": self.groups,
            "volumes": [asdict(one) | _means(one) for one in self.volumes],
        }

    def plot(self, path: str | Path) -> None:
        """Draw mIoU against the number of clicks, one line for each set and the mean, see `draw_curves`."""
        curves = {one.name: one.curve for one in self.planes.sets}
        draw_curves(curves, path, ylabel="mIoU")


def _means(result: VolumeResult) -> dict[str, float]:
    first, second = result.means
    return {"mean_one_click": first, "mean_corrected": second}


def evaluate(
    folder: str | Path,
    model: str | Path | Predictor = "default",
    *,
    limits: EvaluationLimits | None = None,
    volume_objects: int = 0,
) -> Measurement:
    """Click and box every labelled object of a folder and measure the model's default answers.

    Parameters
    ----------
    folder : path
        Images `NAME_img.png|tif` with labels `NAME_lbl.tif`, planes or ZYX volumes, in the folder itself or
        in its subfolders, each of which is a set. Means are over the objects of an image, then over images,
        then over sets; each volume is a set.
    model : str, Path or predictor
        Name, checkpoint file, or what `load_model` returned.
    limits : EvaluationLimits, optional
        What to leave out; nothing by default.
    volume_objects : int
        Most objects, evenly spread, that are carried through each volume; 0 for all, -1 for none.

    Raises
    ------
    TrainingError
        There is nothing to measure, or labels do not fit their image.

    Examples
    --------
    >>> found = evaluate("labelled", "default")
    >>> found.planes.mean["3"], found.volumes[0].means
    """
    from napari_sam.inference.predictor import load_model

    folder = Path(folder).expanduser()
    check_pairs(folder)
    predictor = load_model(model) if isinstance(model, (str, Path)) else model
    limits = limits or EvaluationLimits()
    results = list(measure(folder, predictor, limits, volume_objects))
    return gather(results, limits)


def gather(results: list[SetResult | VolumeResult], limits: EvaluationLimits) -> Measurement:
    """Put what `measure` yielded together."""
    planes = Evaluation(tuple(one for one in results if isinstance(one, SetResult)), limits)
    return Measurement(planes, tuple(one for one in results if isinstance(one, VolumeResult)))


def measure(
    folder: Path, predictor: Predictor, limits: EvaluationLimits, volume_objects: int = 0
) -> Iterator[SetResult | VolumeResult]:
    """One result after the other, as they are done: first all planes, then whole objects of volumes.

    Raises
    ------
    TrainingError
        There is nothing to measure, or labels do not fit their image.
    """
    done = Evaluation(())
    for result in evaluate_sets(folder, predictor, limits):
        done = Evaluation((*done.sets, result), limits)
        yield result
    done.need_results(folder)
    pairs = [pair for _, found in labelled_sets(folder) for pair in found if is_volume(pair)]
    for pair in pairs if volume_objects >= 0 else []:
        _, labels = read_pair(pair)
        if measured_labels(labels):
            yield from evaluate_volumes([pair], predictor, most=volume_objects)
        else:
            message = f"{volume_name(pair)} has no object over {MIN_PLANES} planes; it is measured by planes"
            warnings.warn(message, InputWarning, stacklevel=2)
