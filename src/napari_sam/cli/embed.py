"""``napari-sam embed``: encode planes ahead of time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from napari_sam.cli import options as o

if TYPE_CHECKING:
    from napari_sam.cli.jobs import Job
    from napari_sam.core.planes import PlaneRef


def embed(  # noqa: PLR0913 - a command's parameters are its options
    volume: o.VolumePath,
    model: o.Model = "default",
    axis: o.Axis = "0",
    planes: Annotated[str | None, typer.Option(help="a:b for planes a to b - 1; all when left out.")] = None,
    cache: o.Cache = None,
    axes: o.Axes = None,
    channel: o.Channel = None,
    strict: o.Strict = False,
    level: Annotated[int, typer.Option(help="Multiscale level; 0 is full resolution.")] = 0,
    time: Annotated[int, typer.Option(min=0, help="Time point.")] = 0,
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    object_diameter: o.ObjectDiameter = None,
    scheduler: o.Scheduler = None,
) -> None:
    """Encode the planes of a volume and keep their embeddings, so that prompts are answered at once.

    Planes that were encoded before are skipped: stop it whenever you like and run it again to go on.

    Example:  napari-sam embed brain.ome.zarr --axis z --planes 100:200
    """
    from napari_sam.cli.jobs import make_job
    from napari_sam.core.models import ModelSpec
    from napari_sam.core.planes import PlaneRef

    along = o.parse_axis(axis)
    with o.open_input(volume, axes, channel, strict) as source:
        wanted = o.parse_planes(planes, source.shape_zyx(level)[along])
        spec = ModelSpec(model, device, dtype, object_diameter)
        job = make_job(source, axes, spec, cache, time)
    job = replace(job, channel=channel, strict=strict, must_keep=True)
    refs = [PlaneRef(along, index, level, time) for index in wanted]
    started, n_found = perf_counter(), 0
    for was_there in o.progress(_embedded(job, refs, scheduler), len(refs), "embed"):
        n_found += was_there
    seconds = perf_counter() - started
    typer.echo(
        f"{len(refs)} planes are embedded: {len(refs) - n_found} now, {n_found} before ({seconds:.1f} s)"
    )


def _embedded(job: Job, planes: Iterable[PlaneRef], scheduler: str | None) -> Iterator[bool]:
    """Whether each plane was there already, as they are done."""
    from napari_sam.cli.jobs import embed_plane, open_encoder

    if scheduler:
        from napari_sam.cli.cluster import map_on_cluster

        return map_on_cluster(scheduler, partial(embed_plane, job), planes)
    from napari_sam.inference.precompute import precompute

    return (event.from_cache for event in precompute(open_encoder(job), planes))
