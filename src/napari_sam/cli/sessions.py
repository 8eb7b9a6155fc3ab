"""``napari-sam sessions``: what was worked on, and mending a damaged journal."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import typer

from napari_sam.errors import SessionError, SessionWarning

Folder = Annotated[Path, typer.Argument(help="Folder of the session.", show_default=False)]


def show(
    root: Annotated[
        Path | None, typer.Argument(help="Folder that holds sessions; your own when left out.")
    ] = None,
) -> None:
    """List sessions, the latest first: when, how much, on which image, and where."""
    from napari_sam.embedding import cache_dir
    from napari_sam.session.finding import list_sessions, session_info

    place = root.expanduser() if root is not None else cache_dir() / "sessions"
    if root is not None and not place.is_dir():
        raise SessionError(f"there is no folder {place}; give one that holds sessions")
    empty = 0
    for folder in list_sessions(place):
        try:
            info = session_info(folder)
        except SessionError as error:
            typer.echo(f"{folder}: {error}")
            continue
        empty += not info.n_steps
        if info.n_steps:
            typer.echo(
                f"{info.modified:%Y-%m-%d %H:%M}  {info.n_objects} objects, {info.n_steps} steps  "
                f"{info.image.name}  {folder}"
            )
    typer.echo(f"{empty} more in {place} in which nothing was done" if empty else f"all of {place}")


def report(session: Folder) -> None:
    """Write session.json: versions, models by hash, contrast, settings; fit to attach to a publication."""
    from napari_sam.session.report import write_report

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SessionWarning)
        typer.echo(f"saved {write_report(session.expanduser())}")


def cut(session: Folder) -> None:
    """Drop a damaged record of the journal and all after it, also from the labels; the old ones stay beside them."""
    from napari_sam.session.cutting import cut_session

    typer.echo(f"kept the first {cut_session(session.expanduser())} records")
