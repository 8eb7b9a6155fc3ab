"""``napari-sam export``: labels from one format into another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_sam.cli import options as o


def export(
    labels: Annotated[Path, typer.Argument(help="Labels: OME-Zarr, zarr or TIFF.", show_default=False)],
    output: Annotated[
        Path, typer.Argument(help="NAME.ome.zarr, .zarr, .ome.tif or .tif.", show_default=False)
    ],
    like: Annotated[
        Path | None, typer.Option(help="Image the labels belong to; gives voxel size and unit.")
    ] = None,
    axes: o.Axes = None,
    ome_zarr_version: Annotated[str, typer.Option(help="0.5 or 0.4.")] = "0.5",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
) -> None:
    """Convert labels between OME-Zarr and TIFF, plane by plane; voxel size and unit go along.

    Example:  napari-sam export nuclei.ome.zarr nuclei.ome.tif
    """
    from napari_sam.io.save import SaveOptions, iter_save_labels
    from napari_sam.io.volume import open_volume

    image = None if like is None else open_volume(like.expanduser().absolute())
    options = SaveOptions(overwrite=overwrite, ome_zarr_version=ome_zarr_version)
    # Labels leave out chunks that are background all over.
    with open_volume(labels.expanduser().absolute(), axes, missing_chunks="fill") as source:
        steps = iter_save_labels(source, output.expanduser(), image, options)
        for _ in o.progress(steps, source.n_time * source.shape_zyx()[0], "export"):
            pass
    typer.echo(f"saved {output}")
