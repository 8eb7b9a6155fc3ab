"""A picture of curves over a count, such as mIoU over the number of clicks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from napari_sam.errors import DependencyError, ExportError


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
    try:
        figure.savefig(Path(path).expanduser(), dpi=150)
    except (OSError, ValueError) as error:  # ValueError: an ending that matplotlib does not know
        raise ExportError(f"cannot write the picture {path}: {error}; give a .png, .svg or .pdf") from error


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
