"""``napari-sam train``: learn a model from labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def train(
    data: Annotated[
        Path, typer.Argument(help="Folder of sets of NAME_img.png|tif with NAME_lbl.tif.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Argument(help="Folder of the run; an earlier run in it goes on.", show_default=False)
    ],
    recipe: Annotated[str, typer.Option(help="Name of a recipe, or a JSON file.")] = "default",
    hours: Annotated[float | None, typer.Option(help="Time to spend, instead of the recipe's.")] = None,
    synthetic: Annotated[int, typer.Option(help="Number of generated images to add.")] = 2000,
) -> None:
    """Train a small SAM-family model from nothing, and write it to OUTPUT/best.safetensors.

    Stop it whenever you like and run it again to go on from the last checkpoint.

    Example:  napari-sam train labelled/ runs/mine --hours 8
    """
    from dataclasses import replace

    from napari_sam.training.config import load_recipe
    from napari_sam.training.run import describe, prepare_data, prepare_machine
    from napari_sam.training.trainer import train as run

    config = load_recipe(recipe)
    config = replace(config, hours=hours) if hours else config
    prepare_machine(config)
    planes = prepare_data(data.expanduser(), output.expanduser(), synthetic, config)
    for event in run(config, planes, output.expanduser()):
        typer.echo(describe(event))
    typer.echo(f"saved {output / 'best.safetensors'}")
