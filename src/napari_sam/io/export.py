"""Labels into other formats, tables of measurements, meshes and COCO files: the one place that tells them apart."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_sam.core.protocols import VolumeLike
from napari_sam.io.coco import CocoOptions, iter_save_coco
from napari_sam.io.label_source import LabelSource
from napari_sam.io.measure import iter_save_table
from napari_sam.io.meshes import MeshFormat, MeshOptions, iter_save_mesh
from napari_sam.io.properties import Properties, read_colors, read_properties
from napari_sam.io.save import SaveOptions, iter_save_labels, source_of

Progress = Generator[tuple[int, int], None, Path]

TABLE, COCO = ".csv", ".json"
MESHES = tuple(f".{kind}" for kind in MeshFormat)


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How labels are exported.

    Parameters
    ----------
    save : SaveOptions
        Where the labels lie, what is known about their objects, and whether a file that is there is replaced.
    image : VolumeLike, optional
        Table: the image that intensities are taken from.
    image_level : int
        Its multiscale level that the labels are as large as.
    axis : int
        COCO: the planes are perpendicular to it; 0 is Z, 1 is Y, 2 is X.
    meshes : MeshFormat, optional
        One mesh file an object, into a folder.
    objects : sequence of int, optional
        Meshes of these labels only.
    time : int, optional
        Meshes of this time point; the first when None.
    """

    save: SaveOptions = field(default_factory=SaveOptions)
    image: VolumeLike | None = None
    image_level: int = 0
    axis: int = 0
    meshes: MeshFormat | None = None
    objects: Sequence[int] | None = None
    time: int | None = None


def iter_export(
    labels: Any, path: str | Path, like: VolumeLike | None = None, options: ExportOptions | None = None
) -> Progress:
    """Write labels in the format that the ending of `path` says; yields (done, total), returns the path.

    Parameters
    ----------
    labels, like
        As `napari_sam.save_labels` takes them.
    path : path
        Ends in .csv (measurements), .json (COCO), .obj or .stl (meshes in one file), or as `save_labels` takes it;
        a folder where `options.meshes` says what is in it.
    options : ExportOptions, optional
        What else there is to choose. Properties and colours of the objects are by default those that the labels' own file has.

    Raises
    ------
    ExportError
        `path` exists or cannot be written; these are no labels; the image does not fit them; an object that is asked
        for is not there. What was there before is unchanged.
    """
    options = options or ExportOptions()
    target = Path(path).expanduser()
    source = source_of(labels, like, options.save)
    known = options.save.properties or read_properties(source.volume.source)
    colors = options.save.colors or read_colors(source.volume.source)
    save, ending = replace(options.save, properties=known, colors=colors), target.suffix.lower()
    if options.meshes is not None or ending in MESHES:
        kind = options.meshes or MeshFormat(ending[1:])
        chosen = MeshOptions(options.objects, options.time, kind, save.overwrite)
        return (yield from iter_save_mesh(source, target, options=chosen))
    if ending == COCO:
        return (yield from iter_save_coco(source, target, options=_coco_options(options, known)))
    if ending == TABLE:
        return (yield from _save_table(source, target, options, known))
    return (yield from iter_save_labels(source, target, like if like is not None else options.image, save))


def _save_table(source: LabelSource, target: Path, options: ExportOptions, known: Properties) -> Progress:
    return iter_save_table(
        source,
        target,
        image=options.image,
        image_level=options.image_level,
        properties=known,
        overwrite=options.save.overwrite,
    )


def _coco_options(options: ExportOptions, known: Properties) -> CocoOptions:
    classes, names = (
        {label: str(values[key]) for label, values in known.items() if values.get(key)}
        for key in ("class", "name")
    )
    return CocoOptions(options.axis, classes=classes, names=names, overwrite=options.save.overwrite)
