"""``napari-sam models``: which models there are, and fetching one."""

from __future__ import annotations

from typing import Annotated

import typer


def list_when_alone(context: typer.Context) -> None:
    """List the models that can be named, or fetch one.

    Example:  napari-sam models
    """
    if context.invoked_subcommand is None:
        show()


def show() -> None:
    """Show name, size, licence, whether it is on disk, and what it is good for.

    Example:  napari-sam models list
    """
    from napari_sam.cli.cache import size
    from napari_sam.inference.registry import MODELS, is_on_disk

    for name, entry in MODELS.items():
        place = "on disk" if is_on_disk(name) else "to fetch"
        typer.echo(f"{name}  ({size(entry.size)}, {entry.licence}, {place})")
        typer.echo(f"    {entry.good_for}")


def fetch(
    name: Annotated[str, typer.Argument(help="Name from `napari-sam models`.", show_default=False)],
) -> None:
    """Download a model into the user cache and check its hash.

    Example:  napari-sam models fetch vit_b_lm
    """
    from napari_sam.inference.registry import fetch_model

    typer.echo(f"{name} is at {fetch_model(name, progress=True)}")
