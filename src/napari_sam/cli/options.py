"""Options that several commands share, and what they become."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from napari_sam.errors import VolumeError

if TYPE_CHECKING:
    from napari_sam.core.protocols import EmbeddingStore
    from napari_sam.io.volume import MissingChunks, Volume

Item = TypeVar("Item")

MEMORY_TIER_BYTES = 32 << 20
"""Small on purpose: a command visits a plane once, and its memory must not grow with their number."""

VolumePath = Annotated[Path, typer.Argument(help="OME-Zarr, zarr, TIFF or OME-TIFF.", show_default=False)]
Model = Annotated[str, typer.Option(help="Name from `napari-sam models`, or a checkpoint file.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
ObjectDiameter = Annotated[
    float | None,
    typer.Option(help="About how many pixels objects measure across, where they are small or very large."),
]
ThreeAxes = Annotated[
    bool,
    typer.Option(
        "--three-axes",
        help="Carry objects along all three axes and let them vote: slower, for isotropic volumes.",
    ),
]
Axis = Annotated[str, typer.Option(help="Planes are perpendicular to it: 0 or z, 1 or y, 2 or x.")]
Axes = Annotated[
    str | None,
    typer.Option(
        help="The file's axes, as ZYX or TCZYX, when it does not say itself; with :T behind them, or only :T, "
        "objects are tracked through time."
    ),
]
Channel = Annotated[
    int | None,
    typer.Option(min=0, help="Which channel the model sees, counted from 0; all mixed when left out."),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Stop where a zarr has chunks that are not stored, as of a copy that is not complete; else a warning "
        "says so, and they read as background.",
    ),
]
Cache = Annotated[
    Path | None, typer.Option(help="Folder that embeddings are kept in; your user cache when left out.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(help="Address of a dask.distributed scheduler, as tcp://host:8786; runs there."),
]


def parse_axis(text: str) -> int:
    """0, 1 or 2 from a digit or letter."""
    axes = {"0": 0, "1": 1, "2": 2, "z": 0, "y": 1, "x": 2}
    if text.lower() not in axes:
        raise typer.BadParameter(f"--axis must be 0, 1, 2, z, y or x, got {text!r}")
    return axes[text.lower()]


def parse_planes(text: str | None, n_planes: int) -> range:
    """Planes a to b - 1 from "a:b"; either may be left out; all for None."""
    first, colon, end = (text or ":").partition(":")
    try:
        start, stop = int(first or 0), int(end) if end else n_planes
    except ValueError as error:
        raise typer.BadParameter(f"--planes must look like 10:20, 10: or :20, got {text!r}") from error
    if not colon:
        stop = start + 1
    if not 0 <= start < stop <= n_planes:
        raise VolumeError(f"planes {text} do not exist; the volume has {n_planes}, counted from 0")
    return range(start, stop)


def open_input(path: Path, axes: str | None, channel: int | None = None, strict: bool = False) -> Volume:
    """Open a volume, or one channel of it, by its absolute path, so that other processes find it too.

    Raises
    ------
    VolumeError
        It cannot be read, or has no such channel.
    """
    from napari_sam.io.volume import open_volume

    missing: MissingChunks = "error" if strict else "warn"
    volume = open_volume(path.expanduser().absolute(), axes=axes, missing_chunks=missing)
    if channel is None:
        return volume
    if not 0 <= channel < volume.n_channels:
        raise VolumeError(
            f"{path.name} has no channel {channel}; it has {volume.n_channels}, counted from 0 "
            "(if it should have more, name its axes with --axes, as in CZYX)"
        )
    return volume.subset(channels=channel)


def open_store(cache: Path | None, must_keep: bool = False) -> EmbeddingStore:
    """The lasting store with little memory in front; what it cannot keep is a warning, or an error."""
    from napari_sam.embedding import MemoryStore, TieredStore, default_store

    return TieredStore(MemoryStore(MEMORY_TIER_BYTES), default_store(cache, must_keep=must_keep).disk)


def progress(items: Iterable[Item], total: int | None, what: str, unit: str = "plane") -> Iterator[Item]:
    """Yield the items with a bar on stderr where that is a terminal; closes a generator it leaves early."""
    from tqdm import tqdm

    bar = tqdm(items, total=total, desc=what, unit=unit, disable=None, leave=False)
    try:
        yield from bar
    finally:
        bar.close()
        close = getattr(items, "close", None)
        if close is not None:
            close()
