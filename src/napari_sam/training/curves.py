"""Pictures of curves: over a count, such as mIoU over the number of clicks, and of a training run."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter1d

from napari_sam.errors import DependencyError, ExportError, InputWarning
from napari_sam.io.atomic import check_new

SMOOTHED = 0.02
"""Share of a run that a thick line is the running mean of."""
NO_LOSS = ("rate", "norm")
"""Values of a step that are neither a loss nor an IoU."""

Event = dict[str, Any]


def draw_curves(
    curves: Mapping[str, Sequence[float]], path: str | Path, *, xlabel: str = "clicks", ylabel: str = "mIoU"
) -> None:
    """Draw one thin line for each curve, and their mean as a thick one.

    Parameters
    ----------
    curves : mapping of str to sequence of float
        Values at 1, 2, 3 ... by name; all of one length, values between 0 and 1.
    path : path
        PNG, SVG or PDF by its ending; replaced where it exists.
    xlabel, ylabel : str
        What the axes say.

    Raises
    ------
    DependencyError
        matplotlib is not installed.
    ExportError
        There is nothing to draw, or the file cannot be written.
    """
    figure_module = need_matplotlib()
    values = {name: np.asarray(curve, float) for name, curve in curves.items() if len(curve)}
    if not values:
        raise ExportError(f"there is no curve to draw in {path}; measure at least one set")
    figure = figure_module.Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, curve in values.items():
        axes.plot(np.arange(1, len(curve) + 1), curve, linewidth=1, label=name)
    if len(values) > 1:
        mean = np.mean(list(values.values()), axis=0)
        axes.plot(np.arange(1, len(mean) + 1), mean, linewidth=3, color="black", label="mean of sets")
    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, 1))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    _save(figure, path)


def draw_run(log: Path, path: Path) -> None:
    """Draw losses, IoU by round and validation figures of a training run over the hours it took.

    Parameters
    ----------
    log : Path
        `log.jsonl` of the run; of steps that a resumed run took again the last ones count.
    path : Path
        PNG, SVG or PDF by its ending; replaced where it exists.

    Raises
    ------
    DependencyError
        matplotlib is not installed.
    ExportError
        The picture cannot be written.
    FileNotFoundError
        There is no such log.

    Warns
    -----
    InputWarning
        A line of the log is damaged, as after a crash; it is left out.
    """
    figure_module = need_matplotlib()
    events = _read_events(log)
    steps, validations = ([e for e in events if e["kind"] == kind] for kind in ("step", "validation"))
    figure = figure_module.Figure(figsize=(8, 9), layout="constrained")
    losses, ious, figures = figure.subplots(3, sharex=True)
    _draw_values(losses, steps, lambda name: not name.startswith("iou") and name not in NO_LOSS, SMOOTHED)
    losses.set(ylabel="loss", yscale="log")
    _draw_values(ious, steps, lambda name: name.startswith("iou"), SMOOTHED)
    ious.set(ylabel="IoU by round")
    _draw_values(figures, validations, lambda name: "/" not in name)
    figures.set(ylabel="held out", xlabel="hours")
    for axes in (losses, ious, figures):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="small", ncols=3)
    _save(figure, path)


def _read_events(log: Path) -> list[Event]:
    """Events by their step, the last one of each kind."""
    found: dict[tuple[int, str], Event] = {}
    for number, line in enumerate(log.read_text().splitlines(), 1):
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            warnings.warn(f"line {number} of {log} is damaged; it is left out", InputWarning, stacklevel=3)
            continue
        found[event["step"], event["kind"]] = event
    return [found[key] for key in sorted(found)]


def _draw_values(axes: Any, events: list[Event], wanted: Callable[[str], bool], smoothed: float = 0) -> None:
    """One line for each wanted value; of many noisy ones their running mean over it."""
    width = max(1, round(smoothed * len(events)))
    for name in dict.fromkeys(name for event in events for name in event["values"] if wanted(name)):
        known = [event for event in events if name in event["values"]]
        hours = np.array([event["seconds"] for event in known]) / 3600
        values = np.array([event["values"][name] for event in known])
        (line,) = axes.plot(hours, uniform_filter1d(values, width, mode="nearest"), linewidth=2, label=name)
        if width > 1:
            axes.plot(hours, values, linewidth=0.5, alpha=0.4, color=line.get_color())


def _save(figure: Any, path: str | Path) -> None:
    try:
        figure.savefig(Path(path).expanduser(), dpi=150)
    except (OSError, ValueError) as error:  # ValueError: an ending that matplotlib does not know
        raise ExportError(f"cannot write the picture {path}: {error}; give a .png, .svg or .pdf") from error


def check_picture(path: Path) -> None:
    """Raise before long work what drawing to this file would raise after it."""
    known = need_matplotlib().Figure().canvas.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in known:
        raise ExportError(f"cannot draw {path}: no picture ends so; give a .png, .svg or .pdf")
    check_new(path, overwrite=True)


def need_matplotlib() -> ModuleType:
    """`matplotlib.figure`, or a DependencyError that says how to get it."""
    try:
        from matplotlib import figure
    except ImportError as error:
        raise DependencyError(
            "pictures need matplotlib, which is not installed: pip install matplotlib, or install this "
            'package with its extra "train"'
        ) from error
    module: ModuleType = figure
    return module
