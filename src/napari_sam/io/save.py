"""`save_labels`: labels into files that other programs read.

The file name decides the format: ``.ome.zarr`` or ``.zarr`` is OME-Zarr, ``.ome.tif`` is OME-TIFF, ``.tif``
is a stack for ImageJ, or OME-TIFF where ImageJ cannot hold the ids. Labels are read and written plane by
plane, and put in place only when they are complete.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import LocalStore

from napari_sam.core.protocols import VolumeLike
from napari_sam.errors import ExportError, InputWarning
from napari_sam.io.label_source import LabelSource, label_source, reads_from
from napari_sam.io.readers.ome_zarr import attributes_at, is_label_image, is_series, is_zarr
from napari_sam.io.save_tiff import is_own_tiff, iter_save_tiff
from napari_sam.io.save_zarr import (
    image_label_entry,
    iter_save_zarr,
    list_label,
    listed_labels,
    plan_alone,
    plan_inside,
)
from napari_sam.io.units import parse_unit

TIFF_SUFFIXES = (".tif", ".tiff", ".tf2", ".tf8", ".btf")
VERSIONS = ("0.4", "0.5")

Progress = Generator[tuple[int, int], None, Path]


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """How labels are saved; see `save_labels`."""

    spacing_zyx: Sequence[float] | None = None
    translate_zyx: Sequence[float] | None = None
    unit: str | None = None
    overwrite: bool = False
    properties: Mapping[int, Mapping[str, Any]] | None = None
    colors: Mapping[int, Sequence[float]] | None = None
    ome_zarr_version: str = "0.5"
    name: str | None = None
    into_image: bool = False
    axes: str | None = None
    time_step: float | None = None


def save_labels(  # noqa: PLR0913  (the one public door; inside, the options travel as one value)
    labels: Any,
    path: str | Path,
    like: VolumeLike | None = None,
    *,
    spacing_zyx: Sequence[float] | None = None,
    translate_zyx: Sequence[float] | None = None,
    unit: str | None = None,
    overwrite: bool = False,
    properties: Mapping[int, Mapping[str, Any]] | None = None,
    colors: Mapping[int, Sequence[float]] | None = None,
    ome_zarr_version: str = "0.5",
    name: str | None = None,
    into_image: bool = False,
    axes: str | None = None,
    time_step: float | None = None,
) -> Path:
    """Save labels as OME-Zarr, OME-TIFF or TIFF, by the ending of the file name.

    Parameters
    ----------
    labels : array or Volume
        Integer labels, 0 is background: numpy, dask or zarr with axes YX, ZYX or TZYX unless `axes` says
        otherwise, or an opened volume.
        Never held in memory whole.
    path : path
        Ends in .ome.zarr, .zarr, .ome.tif, .ome.tiff, .tif or .tiff. With `into_image`, an OME-Zarr image.
    like : VolumeLike, optional
        The image the labels were made on: gives voxel size, translation and unit, and must fit in shape.
    spacing_zyx, translate_zyx : (float, float, float), optional
        Voxel size and centre of the first voxel; win over `like`.
    unit : str, optional
        Of both, such as "micrometer"; wins over `like`.
    overwrite : bool
        Replace labels that are there. An image is never replaced.
    properties : mapping of int to mapping, optional
        Values of each object.
    colors : mapping of int to RGB or RGBA, optional
        Colour of each object, kept in OME-Zarr: integers 0 to 255, or real numbers 0 to 1.
    ome_zarr_version : {"0.5", "0.4"}
        Of a label image of its own; inside an image, the image's version is used.
    name : str, optional
        Of the label image; by default the file's, or "labels" inside an image.
    into_image : bool
        Write to the ``labels/<name>`` group of the OME-Zarr image at `path`.
    axes : str, optional
        What the dimensions of an array mean, such as "TYX".
    time_step : float, optional
        Interval between time points; wins over `like`.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    ExportError
        If `path` exists, cannot be written, or has an unknown ending; if these are no labels or do not fit.
        What was there before is unchanged.
    """
    options = SaveOptions(
        spacing_zyx,
        translate_zyx,
        unit,
        overwrite,
        properties,
        colors,
        ome_zarr_version,
        name,
        into_image,
        axes,
        time_step,
    )
    steps = iter_save_labels(labels, path, like, options)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Path = end.value
            return result


def iter_save_labels(
    labels: Any, path: str | Path, like: VolumeLike | None = None, options: SaveOptions | None = None
) -> Progress:
    """Save labels step by step: yields (done, total) after each plane, returns the path written.

    Closing the generator cancels: what was begun is removed, what was there before stays. Parameters and
    errors are those of `save_labels`; they are checked before the first step.
    """
    options = options or SaveOptions()
    target = Path(path).expanduser()
    source = source_of(labels, like, options)
    if options.ome_zarr_version not in VERSIONS:
        raise ExportError(f"OME-Zarr {options.ome_zarr_version!r} is not written; choose '0.5' or '0.4'")
    joined = joined_image(target, options)
    if joined is not None:
        return (yield from _save_inside(source, *joined, options))
    check_target(target, options.overwrite, source.volume.source, like.source if like is not None else None)
    if _is_tiff(target):
        _warn_of_loss(source, options)
        yield from iter_save_tiff(source, target, options.name or _stem(target), options.properties or {})
    else:
        entry = image_label_entry(options.properties, options.colors)
        plan = plan_alone(source, options.ome_zarr_version, options.name or _stem(target), entry)
        yield from iter_save_zarr(source, target, plan)
    return target


def source_of(labels: Any, like: VolumeLike | None, options: SaveOptions) -> LabelSource:
    """Look at labels as the options say where they lie; errors as `label_source`."""
    return label_source(
        labels,
        like,
        options.axes,
        spacing_zyx=options.spacing_zyx,
        translate_zyx=options.translate_zyx,
        unit=None if options.unit is None else parse_unit(options.unit),
        time_step=options.time_step,
    )


def _is_tiff(target: Path) -> bool:
    return target.name.lower().endswith(TIFF_SUFFIXES)


def _stem(target: Path) -> str:
    return re.sub(r"(\.ome)?\.[^.]+$", "", target.name, flags=re.IGNORECASE) or "labels"


def joined_image(target: Path, options: SaveOptions) -> tuple[Path, str] | None:
    """The image that labels join and their name in it, if they do: asked for, or because `target` is in its labels.

    Raises
    ------
    ExportError
        If they cannot.
    """
    image = target if options.into_image else target.parent.parent
    if not options.into_image and not (target.parent.name == "labels" and is_zarr(image)):
        return None
    name = options.name or ("labels" if options.into_image else target.name)
    if not re.fullmatch(r"[\w][\w .-]*", name):
        raise ExportError(f"{name!r} is no name for a label image; use letters, digits, '_', '-' and '.'")
    if image.is_file():
        raise ExportError(f"{image} is a file, and labels join an image in a folder; unpack a zip first")
    image = image / "0" if is_series(attributes_at(image)) else image
    if "multiscales" not in attributes_at(image):
        raise ExportError(f"{image} is not an OME-Zarr image that labels can join; check the path")
    return image, name


def _check_inside(image: Path, name: str, overwrite: bool, *read: str | None) -> Path:
    place = image / "labels" / name
    if (place.exists() or name in listed_labels(image)) and not overwrite:
        raise ExportError(
            f"{place} exists; choose another name, or allow to overwrite it (overwrite=True, --overwrite)"
        )
    if any(reads_from(source, place) for source in read):
        raise ExportError(f"{place} is being read from; save the labels under another name")
    return place


def _save_inside(source: LabelSource, image: Path, name: str, options: SaveOptions) -> Progress:
    place = _check_inside(image, name, options.overwrite, source.volume.source)
    group = zarr.open_group(LocalStore(image, read_only=True), mode="r")
    plan = plan_inside(source, group, name, image_label_entry(options.properties, options.colors))
    made = _make_folder(place.parent)
    try:
        yield from iter_save_zarr(source, place, plan)
        list_label(image, name, plan.version)
    finally:
        if made and not any(place.parent.iterdir()):
            place.parent.rmdir()
    return place


def _make_folder(folder: Path) -> bool:
    """Make a folder if it is not there; say whether it was made."""
    if folder.is_dir():
        return False
    try:
        folder.mkdir()
    except OSError as error:
        raise ExportError(f"cannot write to {folder.parent}: {error}; choose another place") from error
    return True


def check_target(target: Path, overwrite: bool, *read: str | None) -> None:
    """Raise ExportError if labels cannot be saved at `target`.

    Parameters
    ----------
    target : Path
        As `save_labels` takes it.
    overwrite : bool
        Whether labels that are there may be replaced.
    *read : str, optional
        Sources of the volumes that the labels are made from, which are never replaced.
    """
    joined = joined_image(target, SaveOptions())
    if joined is not None:
        _check_inside(*joined, overwrite, *read)
        return
    name = target.name.lower()
    if not (_is_tiff(target) or name.endswith(".zarr")):
        raise ExportError(f"cannot tell a format from {target.name!r}; end it in .ome.zarr, .ome.tif or .tif")
    if not target.parent.is_dir():
        raise ExportError(f"there is no folder {target.parent}; make it first")
    if any(reads_from(source, target) for source in read):
        raise ExportError(f"{target} is being read from; save the labels under another name")
    if not target.exists():
        return
    if not overwrite:
        raise ExportError(
            f"{target} exists; choose another name, or allow to overwrite it (overwrite=True, --overwrite)"
        )
    _check_replaceable(target)


def _check_replaceable(target: Path) -> None:
    """Refuse to replace what does not say of itself that it is labels: it may be somebody's only image."""
    if _is_tiff(target) != target.is_file():
        raise ExportError(
            f"{target} is a {'file' if target.is_file() else 'folder'}, not what would be written"
        )
    if target.is_dir() and not is_zarr(target):
        raise ExportError(
            f"{target} is a folder without zarr metadata; it is not replaced, choose another name"
        )
    is_ours = is_own_tiff(target) if target.is_file() else is_label_image(target)
    if is_ours:
        return
    if "multiscales" in attributes_at(target):
        raise ExportError(
            f"{target} is an image, not labels; save as {target / 'labels' / 'NAME'} (or into_image=True), "
            "to put the labels into it"
        )
    raise ExportError(
        f"{target} does not say that it holds labels of ours and may be an image, which is never replaced; "
        "choose another name, or delete it yourself"
    )


def _warn_of_loss(source: LabelSource, options: SaveOptions) -> None:
    """Say what a TIFF has no place for."""
    lost = ["colors"] * bool(options.colors) + ["translation"] * any(source.translate_zyx)
    if lost:
        warnings.warn(
            f"a TIFF has no place for {', '.join(lost)}; save as .ome.zarr to keep them",
            InputWarning,
            stacklevel=4,
        )
