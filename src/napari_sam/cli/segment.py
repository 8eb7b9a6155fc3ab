"""``napari-sam segment``: prompts in, labels out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sam.cli import options as o
from napari_sam.errors import ExportError

if TYPE_CHECKING:
    from napari_sam.cli.jobs import Job, Journey
    from napari_sam.cli.prompts import PromptFile
    from napari_sam.core.results import PropagationStep
    from napari_sam.io.volume import Volume


def segment(  # noqa: PLR0913 - a command's parameters are its options
    volume: o.VolumePath,
    prompts: Annotated[Path, typer.Option(help="JSON file of prompts, see docs/headless.md.")],
    output: Annotated[
        Path, typer.Option(help="Labels to write: NAME.ome.zarr, NAME.tif, or IMAGE.ome.zarr/labels/NAME.")
    ],
    propagate: Annotated[
        bool, typer.Option("--propagate", help="Carry the objects to the other planes.")
    ] = False,
    three_axes: o.ThreeAxes = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    model: o.Model = "default",
    cache: o.Cache = None,
    axes: o.Axes = None,
    channel: o.Channel = None,
    strict: o.Strict = False,
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    object_diameter: o.ObjectDiameter = None,
    scheduler: o.Scheduler = None,
) -> None:
    """Segment the objects that a prompts file describes, and save their labels.

    Embeddings are kept: a run that was interrupted and is started again encodes only what is missing.

    Example:  napari-sam segment brain.ome.zarr --prompts clicks.json --output nuclei.ome.zarr --propagate

    The smallest prompts file:  {"objects": [{"id": 1, "prompts": [{"plane": 12, "positive": [[40, 55]]}]}]}
    """
    from napari_sam.cli.jobs import make_job
    from napari_sam.cli.labelling import create_partial, fill, partial_path
    from napari_sam.cli.prompts import read_prompts
    from napari_sam.core.models import ModelSpec

    output = output.expanduser()
    check_output(output, overwrite, volume.expanduser())
    if three_axes and not propagate:
        raise typer.BadParameter("--three-axes says how objects are carried; add --propagate")
    with o.open_input(volume, axes, channel, strict) as source:
        asked = read_prompts(prompts, source)
        check_level(output, asked.level)
        check_ids(output, max(asked.seeds))
        spec = ModelSpec(model, device, dtype, object_diameter)
        job = replace(make_job(source, axes, spec, cache, asked.time), channel=channel, strict=strict)
        labels = create_partial(output, source, asked.planes[0], max(asked.seeds))
        steps = o.progress(
            _steps(job, asked, _journey(asked, propagate, three_axes), scheduler), None, "segment", "mask"
        )
        try:
            tally = fill(labels, steps)
        except KeyboardInterrupt:
            typer.echo(
                f"the masks so far are in {partial_path(output)}. A second run begins the masks anew and "
                "replaces these, but encodes only what is missing",
                err=True,
            )
            raise
        written = save(labels, output, source, asked, overwrite)
    rmtree(partial_path(output))
    for one in asked.objects:
        typer.echo(tally.describe(one.object_id, one.name))
    typer.echo(f"saved {written}")


def check_output(output: Path, overwrite: bool, volume: Path) -> None:
    """Refuse before any work is done what could not be saved after it."""
    from napari_sam.io.save import check_target

    check_target(output, overwrite, str(volume))


def check_level(output: Path, level: int) -> None:
    """Refuse labels of a coarser level that would have to join an image."""
    from napari_sam.io.save import SaveOptions, joined_image

    if level and joined_image(output, SaveOptions()):
        raise ExportError(
            f"labels that join an image are of level 0, the prompts of level {level}; save under another name"
        )


def check_ids(output: Path, largest: int) -> None:
    """Refuse before any work is done an id that the format of the output cannot hold."""
    from napari_sam.io.save import TIFF_SUFFIXES

    if largest >= 2**32 and output.suffix.lower() in TIFF_SUFFIXES:
        raise ExportError(
            f"id {largest} needs more than the 32 bits of {output.name}; name it .ome.zarr, or renumber"
        )


def save(labels: Any, output: Path, volume: Volume, asked: PromptFile, overwrite: bool) -> Path:
    """Save the finished labels, with the objects' names; gives the path written."""
    from napari_sam.core.spaces import level_geometry
    from napari_sam.io.label_source import own_axes
    from napari_sam.io.save import save_labels

    places = level_geometry(volume, asked.level)
    places |= own_axes(volume, 3, places["spacing_zyx"])
    names = {one.object_id: {"name": one.name} for one in asked.objects if one.name}
    return save_labels(labels, output, overwrite=overwrite, properties=names or None, **places)


def _journey(asked: PromptFile, propagate: bool, three_axes: bool) -> Journey | None:
    from napari_sam.cli.jobs import Journey

    return Journey(asked.planes[0].at(0), asked.seeds, asked.settings, three_axes) if propagate else None


def _steps(
    job: Job, asked: PromptFile, journey: Journey | None, scheduler: str | None
) -> Iterator[PropagationStep]:
    from napari_sam.cli.cluster import map_on_cluster
    from napari_sam.cli.jobs import segment_plane, travel, travelled

    if journey is not None:
        if not scheduler:
            return travel(job, journey)
        # together on one worker, since objects that meet share planes out; `embed` spreads the planes
        lists = map_on_cluster(scheduler, partial(travelled, job), [journey])
    else:
        work = [(plane, asked.in_plane(plane.index)) for plane in asked.planes]
        function = partial(segment_plane, job)
        lists = map_on_cluster(scheduler, function, work) if scheduler else map(function, work)
    return chain.from_iterable(lists)
