"""``napari-sam train``: learn a model from labelled images."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from napari_sam.errors import TrainingError


def train(
    data: Annotated[
        Path, typer.Argument(help="Folder of sets of NAME_img.png|tif with NAME_lbl.tif.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Argument(help="Folder of the run; an earlier run in it goes on.", show_default=False)
    ],
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a recipe, or a JSON file; of several, each starts from what the one before it found. "
            "By default those of the model in the package.",
            show_default=False,
        ),
    ] = None,
    hours: Annotated[
        float | None, typer.Option(help="Time to spend on each, instead of the recipe's.", show_default=False)
    ] = None,
    synthetic: Annotated[int, typer.Option(help="Number of generated images to add.")] = 1600,
) -> None:
    """Train a small SAM-family model from nothing, and write it to OUTPUT/RECIPE/best.safetensors.

    Stop it whenever you like and run it again to go on from the last checkpoint. Losses and held-out figures
    are drawn in loss.png beside it, where matplotlib is installed.

    Example:  napari-sam train labelled/ runs/mine --hours 8
    """
    from dataclasses import replace

    from napari_sam.training.config import STAGES, load_recipe
    from napari_sam.training.curves import draw_run
    from napari_sam.training.run import average_weights, describe, prepare_data, prepare_machine
    from napari_sam.training.trainer import train as run

    if output.expanduser().is_file():
        raise TrainingError(f"{output} is a file; give a folder")
    names = recipe or list(STAGES)
    configs = [load_recipe(name) for name in names]  # all are read before hours are spent on the first
    draws, found = _can_draw(), ""
    for name, config in zip(names, configs, strict=True):
        config = replace(config, start=config.start or found)
        if hours is not None:
            config = replace(config, hours=hours, max_steps=0)
        folder = output.expanduser() / Path(name).stem
        prepare_machine(config)
        planes = prepare_data(data.expanduser(), output.expanduser(), synthetic, config)
        folders = [folder / str(number) for number in range(config.runs)] if config.runs > 1 else [folder]
        for number, own in enumerate(folders):
            for event in run(replace(config, seed=config.seed + number, runs=1), planes, own):
                typer.echo(describe(event))
                if draws and event.kind in ("validation", "end"):
                    draw_run(own / "log.jsonl", own / "loss.png")
        best = folder / "best.safetensors"
        if config.runs > 1:
            average_weights([own / best.name for own in folders], best)
        found = str(best)
        typer.echo(f"saved {found}")


def _can_draw() -> bool:
    """Whether there is matplotlib; a warning, before hours of training, says what is missing."""
    from napari_sam.errors import DependencyError, FallbackWarning
    from napari_sam.training.curves import need_matplotlib

    try:
        need_matplotlib()
    except DependencyError as error:
        warnings.warn(f"the run is not drawn: {error}", FallbackWarning, stacklevel=2)
        return False
    return True
