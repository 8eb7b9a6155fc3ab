"""``napari-sam replay``: a session once more, without a window."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_sam.errors import SessionError, VolumeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sam.core.models import ModelSpec
    from napari_sam.io.volume import Volume
    from napari_sam.session.engine import Backend
    from napari_sam.session.image import ImageRef
    from napari_sam.session.replay import Replayed


def replay(
    session: Annotated[Path, typer.Argument(help="Folder of the session.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option(help="Folder to make, for labels.zarr and session.json.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(help="The image, where it is not at the place that the session names.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replay though image or weights are not those of the session.")
    ] = False,
) -> None:
    """Do a session again from its journal with the model it names, and compare the labels.

    Identical labels mean that the session can be repeated: on the same machine, at the same precision. Where they are
    not, the planes that differ are listed and the command fails.

    Example:  napari-sam replay nuclei-session --output replayed
    """
    from napari_sam.session.finding import read_beginning
    from napari_sam.session.replay import replay as replay_session

    folder = session.expanduser().absolute()
    reference = read_beginning(folder).image
    if reference is None:
        raise SessionError(f"there is no session in {folder}; name a folder that holds a journal.jsonl")
    with open_image(reference, image) as volume:
        result = replay_session(folder, volume, _backend(), output, force=force)
    for line in describe(result):
        typer.echo(line)
    if output is not None:
        typer.echo(f"saved {output}")
    if not result.is_identical:
        raise typer.Exit(1)


def _backend() -> Backend:
    """The real networks, with a bar for a model that is downloaded."""
    from napari_sam.inference.registry import fetch_model
    from napari_sam.session.engine import SamBackend

    class ShowingBackend(SamBackend):
        def fetch_model(self, spec: ModelSpec) -> Iterator[tuple[int, int]]:
            fetch_model(spec.name, progress=True)
            return iter(())

    return ShowingBackend()


def open_image(reference: ImageRef, path: Path | None = None) -> Volume:
    """Open the image of a session.

    Raises
    ------
    SessionError
        It is not there, or has another shape however its axes are read.
    """
    from napari_sam.io.axes import TRACKING
    from napari_sam.io.volume import open_volume
    from napari_sam.session.image import ImageRef

    place = path or (Path(reference.path) if reference.path else None)
    if place is None or not place.expanduser().exists():
        raise SessionError(
            f"the image '{reference.name}' of the session is not at {place}; name its place with --image"
        )
    for axes in (TRACKING if reference.is_tracked else None, reference.axes):
        try:
            volume = open_volume(place.expanduser().absolute(), axes=axes)
            if reference.channel is not None and volume.n_channels > 1:
                volume = volume.subset(channels=reference.channel)
        except VolumeError:
            continue
        if ImageRef.of(volume).shape == reference.shape:
            return volume
    raise SessionError(
        f"{place} does not have the shape (T, Z, Y, X, C) = {reference.shape} of the session's image; "
        "name the right one with --image"
    )


def describe(result: Replayed) -> list[str]:
    """The outcome in lines for people."""
    from napari_sam.cli.labelling import ranges

    lines = [f"note: {remark}" for remark in result.remarks]
    if result.is_identical:
        return [*lines, f"replayed {result.n_steps} steps: the labels are identical"]
    voxels = sum(result.differing.values())
    planes = ranges(sorted(result.differing))
    return [*lines, f"replayed {result.n_steps} steps: {voxels} voxels differ, in planes {planes}"]
