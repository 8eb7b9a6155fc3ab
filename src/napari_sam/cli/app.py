"""Puts the commands together and turns errors into exit codes.

0 done, 1 a named error (one line on stderr), 2 wrong usage, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TextIO

import typer

import napari_sam
from napari_sam.cli import (
    cache,
    demo,
    embed,
    evaluate,
    export,
    finetune,
    models,
    replay,
    segment,
    sessions,
    train,
)
from napari_sam.core.namesake import check_no_namesake
from napari_sam.errors import JobCancelled, NapariSamError, NapariSamWarning

OK, FAILED, STOPPED = 0, 1, 130

app = typer.Typer(
    name="napari-sam",
    help="Segment objects in 3D image volumes with the Segment Anything Model, without a window.\n\n"
    "Start with: napari-sam demo",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def one_line(message: object) -> str:
    """The text of an error or warning without line breaks."""
    return " ".join(str(message).split())


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """The same command, with named errors and Ctrl-C turned into exit codes."""

    @wraps(command)
    def run_command(*args: Any, **kwargs: Any) -> None:
        try:
            check_no_namesake()
            command(*args, **kwargs)
        except (KeyboardInterrupt, JobCancelled):
            typer.echo("stopped", err=True)
            raise typer.Exit(STOPPED) from None
        except NapariSamError as error:
            typer.echo(f"{type(error).__name__}: {one_line(error)}", err=True)
            raise typer.Exit(FAILED) from None

    return run_command


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(napari_sam.__version__)
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show it."),
) -> None:
    """Options that stand before any command."""


models_app = typer.Typer(help="List models, or fetch one.", rich_markup_mode=None)
models_app.callback(invoke_without_command=True)(guarded(models.list_when_alone))
models_app.command("list")(guarded(models.show))
models_app.command()(guarded(models.fetch))

cache_app = typer.Typer(
    help="Show or empty the cache of embeddings.", no_args_is_help=True, rich_markup_mode=None
)
cache_app.command()(guarded(cache.info))
cache_app.command()(guarded(cache.clear))

sessions_app = typer.Typer(
    help="List what was worked on, or mend it.", no_args_is_help=True, rich_markup_mode=None
)
sessions_app.command("list")(guarded(sessions.show))
sessions_app.command()(guarded(sessions.report))
sessions_app.command()(guarded(sessions.cut))

for _command in (
    demo.demo,
    embed.embed,
    segment.segment,
    export.export,
    evaluate.evaluate,
    replay.replay,
    train.train,
    finetune.finetune,
):
    app.command()(guarded(_command))
app.add_typer(models_app, name="models")
app.add_typer(cache_app, name="cache")
app.add_typer(sessions_app, name="sessions")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; arguments are those of the process when left out."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            app(arguments)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else OK
    return OK


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Ours in one line; those of libraries in Python's usual form."""
    if issubclass(category, NapariSamWarning):
        typer.echo(f"{category.__name__}: {one_line(message)}", err=True)
    else:
        typer.echo(warnings.formatwarning(message, category, filename, lineno, line), err=True, nl=False)
