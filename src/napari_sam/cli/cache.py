"""``napari-sam cache``: what the embedding cache holds, and emptying it."""

from __future__ import annotations

from typing import Annotated

import typer

from napari_sam.cli import options as o


def info(cache: o.Cache = None) -> None:
    """Show where the embeddings are, how many, and how large.

    Example:  napari-sam cache info
    """
    from napari_sam.embedding import cache_info

    found = cache_info(cache)
    typer.echo(f"{found.path}")
    typer.echo(f"{found.n_records} embeddings, {size(found.n_bytes)} of at most {size(found.max_bytes)}")
    for model, n_bytes in sorted(found.bytes_by_model.items()):
        typer.echo(f"  {model}: {size(n_bytes)}")


def clear(
    cache: o.Cache = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete all embeddings. They are computed again when they are needed; nothing else is lost.

    Example:  napari-sam cache clear --yes
    """
    from napari_sam.embedding import cache_info, clear_cache

    found = cache_info(cache)
    if not yes:
        typer.confirm(f"Delete {found.n_records} embeddings in {found.path}?", abort=True, err=True)
    typer.echo(f"{size(clear_cache(cache))} freed")


def size(n_bytes: float) -> str:
    """Bytes in words, as "12.3 MB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.0f} bytes" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
