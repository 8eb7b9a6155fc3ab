"""``napari-sam export``: labels into other formats, tables of measurements, meshes and COCO files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_sam.cli import options as o

if TYPE_CHECKING:
    from napari_sam.io.meshes import MeshFormat


def export(  # noqa: PLR0913  (one parameter an option of the command line)
    labels: Annotated[Path, typer.Argument(help="Labels: OME-Zarr, zarr or TIFF.", show_default=False)],
    output: Annotated[
        Path,
        typer.Argument(
            help="NAME.ome.zarr, .zarr, .ome.tif, .tif; .csv (measurements), .json (COCO), .obj or .stl "
            "(meshes in one file), or with --meshes a folder.",
            show_default=False,
        ),
    ],
    image: Annotated[
        Path | None,
        typer.Option(
            "--image", "--like", help="Image the labels belong to; gives voxel size, unit and intensities."
        ),
    ] = None,
    axes: o.Axes = None,
    axis: Annotated[
        str | None, typer.Option(help="COCO: the planes are perpendicular to it; z (if left out), y or x.")
    ] = None,
    meshes: Annotated[
        str | None, typer.Option(help="obj or stl: one mesh file an object into the folder OUTPUT.")
    ] = None,
    objects: Annotated[
        str | None, typer.Option("--object", help="Meshes of these only: labels with commas, as 3,7.")
    ] = None,
    time: Annotated[
        int | None, typer.Option(help="Meshes of this time point; of the first when left out.")
    ] = None,
    ome_zarr_version: Annotated[str, typer.Option(help="0.5 or 0.4.")] = "0.5",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
) -> None:
    """Convert labels between OME-Zarr and TIFF, or export measurements, meshes and COCO annotations.

    The ending of OUTPUT says what is written. Planes are read one by one; voxel size and unit go along.

    Example:  napari-sam export nuclei.ome.zarr nuclei.ome.tif

    Example:  napari-sam export nuclei.ome.zarr nuclei.csv --image brain.ome.zarr

    Example:  napari-sam export nuclei.ome.zarr meshes --meshes stl
    """
    from napari_sam.io.export import COCO, MESHES, TABLE, ExportOptions, iter_export
    from napari_sam.io.save import TIFF_SUFFIXES, SaveOptions
    from napari_sam.io.volume import open_volume

    ending = output.suffix.lower()
    if meshes and ending in (*MESHES, TABLE, COCO, ".zarr", *TIFF_SUFFIXES):
        raise typer.BadParameter(f"--meshes fills a folder, but {output.name} names a file; leave one out")
    if axis is not None and ending != COCO:
        raise typer.BadParameter("--axis is for COCO (.json); other formats have no planes of their own")
    if (objects is not None or time is not None) and not (meshes or ending in MESHES):
        raise typer.BadParameter(
            "--object and --time choose what meshes are made of; other formats hold everything"
        )
    like = None if image is None else open_volume(image.expanduser().absolute())
    options = ExportOptions(
        SaveOptions(overwrite=overwrite, ome_zarr_version=ome_zarr_version),
        image=like,
        axis=o.parse_axis(axis or "z"),
        meshes=parse_meshes(meshes),
        objects=parse_objects(objects),
        time=time,
    )
    # Labels leave out chunks that are background all over.
    with open_volume(labels.expanduser().absolute(), axes, missing_chunks="fill") as source:
        for _ in o.progress(iter_export(source, output, like, options), None, "export", "step"):
            pass
    typer.echo(f"saved {output}")


def parse_meshes(text: str | None) -> MeshFormat | None:
    """The kind of mesh file for a folder of them, None if none are asked for."""
    from napari_sam.io.meshes import MeshFormat

    try:
        return None if text is None else MeshFormat(text.lower())
    except ValueError as error:
        raise typer.BadParameter(f"--meshes must be obj or stl, got {text!r}") from error


def parse_objects(text: str | None) -> list[int] | None:
    """Labels from "3,7"; all for None."""
    try:
        return None if text is None else [int(one) for one in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--object must be labels with commas, as 3,7; got {text!r}") from error
