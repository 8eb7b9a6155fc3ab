"""``napari-sam export``: labels into other formats, tables of measurements, meshes and COCO files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_sam.cli import options as o

if TYPE_CHECKING:
    from napari_sam.io.volume import Volume

MESH_KINDS = ("obj", "stl")


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
    axis: Annotated[str, typer.Option(help="COCO: the planes are perpendicular to it; z, y or x.")] = "z",
    meshes: Annotated[
        str | None, typer.Option(help="obj or stl: one mesh file an object into the folder OUTPUT.")
    ] = None,
    objects: Annotated[
        str | None, typer.Option("--object", help="Meshes of these only: labels with commas, as 3,7.")
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
    from napari_sam.io.volume import open_volume

    like = None if image is None else open_volume(image.expanduser().absolute())
    target, wanted = output.expanduser(), parse_objects(objects)
    kind = parse_meshes(meshes, target)
    # Labels leave out chunks that are background all over.
    with open_volume(labels.expanduser().absolute(), axes, missing_chunks="fill") as source:
        if kind is not None:
            steps = _mesh_steps(source, target, like, (wanted, kind, overwrite))
        elif target.suffix.lower() in (".csv", ".json"):
            steps = _table_steps(source, target, like, (o.parse_axis(axis), overwrite))
        else:
            steps = _label_steps(source, target, like, (ome_zarr_version, overwrite))
        for _ in o.progress(steps, None, "export", "step"):
            pass
    typer.echo(f"saved {output}")


def parse_meshes(meshes: str | None, target: Path) -> str | None:
    """The kind of mesh file that is asked for, None if no meshes are."""
    ending = target.suffix.lower()[1:]
    if meshes is not None and meshes.lower() not in MESH_KINDS:
        raise typer.BadParameter(f"--meshes must be obj or stl, got {meshes!r}")
    if meshes is not None:
        return meshes.lower()
    return ending if ending in MESH_KINDS else None


def parse_objects(text: str | None) -> list[int] | None:
    """Labels from "3,7"; all for None."""
    try:
        return None if text is None else [int(one) for one in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--object must be labels with commas, as 3,7; got {text!r}") from error


def _label_steps(
    source: Volume, target: Path, like: Volume | None, rest: tuple[str, bool]
) -> Iterator[tuple[int, int]]:
    from napari_sam.io.save import SaveOptions, iter_save_labels

    version, overwrite = rest
    return iter_save_labels(source, target, like, SaveOptions(overwrite=overwrite, ome_zarr_version=version))


def _table_steps(
    source: Volume, target: Path, like: Volume | None, rest: tuple[int, bool]
) -> Iterator[tuple[int, int]]:
    from napari_sam.io.coco import CocoOptions, iter_save_coco
    from napari_sam.io.label_source import label_properties
    from napari_sam.io.measure import iter_save_table

    axis, overwrite = rest
    known = label_properties(source)
    if target.suffix.lower() == ".csv":
        return iter_save_table(source, target, image=like, properties=known, overwrite=overwrite)
    texts = {
        key: {label: str(values[key]) for label, values in known.items() if values.get(key)}
        for key in ("class", "name")
    }
    options = CocoOptions(axis, classes=texts["class"], names=texts["name"], overwrite=overwrite)
    return iter_save_coco(source, target, like, options)


def _mesh_steps(
    source: Volume, target: Path, like: Volume | None, rest: tuple[list[int] | None, str, bool]
) -> Iterator[tuple[int, int]]:
    from napari_sam.io.meshes import MeshFormat, MeshOptions, iter_save_mesh

    objects, kind, overwrite = rest
    return iter_save_mesh(source, target, like, MeshOptions(objects, 0, MeshFormat(kind), overwrite))
