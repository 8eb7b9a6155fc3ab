"""TIFF, OME-TIFF, ImageJ TIFF and what else tifffile knows, seen as zarr arrays: only what is asked for is read."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tifffile
import zarr

from napari_sam.errors import InputWarning, VolumeError
from napari_sam.io.axes import size_of
from napari_sam.io.readers.pixels import Pixels
from napari_sam.io.units import parse_time_unit, parse_unit, unit_ratio

SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".tf2", ".lsm", ".stk", ".flex", ".qptiff", ".svs", ".ndpi")

_PICTURE_FIRST = ("lsm", "svs", "ndpi", "qpi")
"""Kinds of files whose first image is the picture; the others are thumbnails, labels and overviews of it."""


def read_tiff(path: Path, series: int = 0) -> Pixels:
    """Open one image series of a TIFF file.

    Parameters
    ----------
    path : Path
        The file.
    series : int
        Which image of the file.

    Raises
    ------
    VolumeError
        If the file is not a TIFF, is cut off, or has no such series.

    Warns
    -----
    InputWarning
        If the file holds other images as well, is one part of a set that another file describes, or leaves out a
        voxel size.
    """
    tif = _open(path)
    try:
        image = _series(tif, path, series)
        stores = [image.aszarr(level=level) for level in range(len(image.levels))]
        levels = tuple(zarr.open_array(store, mode="r") for store in stores)
        known = _geometry(tif, path, series)
    except BaseException:
        tif.close()
        raise
    rgb = True if size_of("S", image.axes, image.shape) in (3, 4) else None

    def close() -> None:
        for store in stores:
            store.close()
        tif.close()

    return Pixels(levels, axes=image.axes, source=str(path), rgb=rgb, close=close, **known)


def _open(path: Path) -> Any:
    try:
        return tifffile.TiffFile(path)
    except (tifffile.TiffFileError, struct.error, OSError, ValueError) as error:
        raise VolumeError(f"{path} is named like a TIFF but cannot be read as one: {error}") from error


def _series(tif: Any, path: Path, series: int) -> Any:
    try:
        images = tif.series
    except (
        tifffile.TiffFileError,
        struct.error,
        OSError,
        ValueError,
        IndexError,
        KeyError,
        TypeError,
    ) as error:
        raise VolumeError(f"{path} cannot be read as a TIFF: {error}; the file may be cut off") from error
    if not 0 <= series < len(images):
        raise VolumeError(f"{path} holds {len(images)} images, there is no number {series}")
    image = images[series]
    _check_complete(image, tif, path)
    if len(images) > 1 and image.kind not in _PICTURE_FIRST:
        _warn_of_others(images, path, series)
    return image


def _warn_of_others(images: Sequence[Any], path: Path, series: int) -> None:
    names = [f"{i} ({one.axes} {one.shape} {one.name!r})" for i, one in enumerate(images)]
    chosen = names.pop(series)
    warnings.warn(
        f"{path} holds {len(images)} images: {chosen} is opened, not {', '.join(names)}; "
        "to work on another one, save it as a file of its own",
        InputWarning,
        stacklevel=2,
    )


def _check_complete(image: Any, tif: Any, path: Path) -> None:
    """Refuse a file that ends before its data or lacks planes that its metadata promise."""
    promised, found = (tif.imagej_metadata or {}).get("images", 0), len(image.pages)
    if image.kind != "imagej" and promised > found:
        raise VolumeError(f"{path} is incomplete: it has {found} of {promised} planes; copy the file again")
    if image.kind not in ("imagej", "shaped") and _next_page_offset(tif) > tif.filehandle.size:
        raise VolumeError(f"{path} is cut off after {len(tif.pages)} pages; copy the file again")
    if image.kind == "ome" or image.dataoffset is None:
        ends = _ends_of_pages(image, path)
    else:
        ends = [(tif.filehandle, image.dataoffset + image.nbytes)]
    for file, end in ends:
        if end > file.size and len(tif.series) == 1:
            raise VolumeError(
                f"{file.path} is cut off: it has {file.size} bytes, its data end at {end}; copy the file again"
            )


def _next_page_offset(tif: Any) -> int:
    """Where the last page that was found says that another one begins; 0 for the true last one."""
    layout, file = tif.tiff, tif.filehandle
    start = tif.pages[-1].offset
    with file.lock:
        file.seek(start)
        (count,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
        file.seek(start + layout.tagnosize + count * layout.tagsize)
        (offset,) = struct.unpack(layout.offsetformat, file.read(layout.offsetsize))
    return int(offset)


def _ends_of_pages(image: Any, path: Path) -> list[tuple[Any, int]]:
    """Where the first page, and the last one of each file that holds some, end in their file."""
    try:
        # Only OME-XML can promise planes that are elsewhere; looking at every page is slow.
        pages = list(image.pages) if image.kind == "ome" else [image.pages[0], image.pages[-1]]
    except IndexError as error:
        raise VolumeError(f"{path} is incomplete: {error}; copy the file again") from error
    absent = sum(page is None for page in pages)
    if absent:
        raise VolumeError(
            f"{path} is incomplete: {absent} of {len(pages)} planes are absent; copy the file again"
        )
    last = {id(page.parent): page for page in pages}
    return [
        (page.parent.filehandle, offset + count)
        for page in (pages[0], *last.values())
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)
    ]


def _geometry(tif: Any, path: Path, series: int) -> dict[str, Any]:
    """Keyword arguments of `Pixels` that the file's metadata give."""
    if tif.is_ome and tif.ome_metadata:
        return _ome_geometry(tif.ome_metadata, path, series)
    if tif.is_imagej:
        return _imagej_geometry(tif)
    if tif.is_lsm:
        return _lsm_geometry(tif.lsm_metadata or {})
    return {}


def _ome_geometry(xml: str, path: Path, series: int) -> dict[str, Any]:
    ome = tifffile.xml2dict(xml).get("OME", {})
    if "BinaryOnly" in ome:
        _warn_of_part(path, str(ome["BinaryOnly"].get("MetadataFile", "another file")))
    images = ome.get("Image", [])
    images = images if isinstance(images, list) else [images]
    pixels = images[series].get("Pixels", {}) if series < len(images) else {}
    known = _ome_spacing(pixels, path)
    if "TimeIncrement" in pixels:
        known["time_step"] = float(pixels["TimeIncrement"])
        known["time_unit"] = parse_time_unit(pixels.get("TimeIncrementUnit", "s"))
    return known


def _ome_spacing(pixels: Mapping[str, Any], path: Path) -> dict[str, Any]:
    sizes = {a: float(pixels[f"PhysicalSize{a}"]) for a in "ZYX" if f"PhysicalSize{a}" in pixels}
    if "X" not in sizes and "Y" not in sizes:
        return {}
    # OME-XML leaves the unit out where it is the default, which is the micrometer.
    units = {a: parse_unit(pixels.get(f"PhysicalSize{a}Unit", "µm")) for a in sizes}
    unit = units["X" if "X" in sizes else "Y"]
    absent = [a for a in "ZYX" if a not in sizes and int(pixels.get(f"Size{a}", 1)) > 1]
    if absent:
        warnings.warn(
            f"{path} does not say how large voxels are along {', '.join(absent)}; "
            f"1 {unit or 'pixel'} is used: give the voxel size if you know it",
            InputWarning,
            stacklevel=2,
        )
    spacing = tuple(sizes[a] * unit_ratio(units[a], unit) if a in sizes else 1.0 for a in "ZYX")
    return {"spacing_zyx": spacing, "unit": unit}


def _warn_of_part(path: Path, name: str) -> None:
    is_tiff = name.lower().endswith(SUFFIXES)
    remedy = f"open {name}" if is_tiff else "convert the set to one OME-TIFF or OME-Zarr"
    warnings.warn(
        f"{path} is one part of the images that {name} describes: it opens with its own planes alone and without "
        f"a voxel size; to see all of them, {remedy}",
        InputWarning,
        stacklevel=2,
    )


def _imagej_geometry(tif: Any) -> dict[str, Any]:
    metadata: Mapping[str, Any] = tif.imagej_metadata or {}
    tags = tif.pages[0].tags
    unit = parse_unit(metadata.get("unit"))
    y, x = (_pixel_size(tags.get(name)) for name in ("YResolution", "XResolution"))
    known: dict[str, Any] = {}
    if unit or not y == x == 1.0 or "spacing" in metadata:
        known.update(spacing_zyx=(float(metadata.get("spacing", 1.0)), y, x), unit=unit)
    if metadata.get("finterval"):
        time_unit = parse_time_unit(metadata.get("tunit", "s"))
        known.update(time_step=float(metadata["finterval"]), time_unit=time_unit)
    return known


def _pixel_size(tag: Any) -> float:
    """Size of a pixel from a resolution tag, which counts pixels per unit."""
    count, per = tag.value if tag is not None else (1, 1)
    return float(per) / float(count) if count and per else 1.0


def _lsm_geometry(metadata: Mapping[str, Any]) -> dict[str, Any]:
    sizes = [float(metadata.get(f"VoxelSize{a}", 0.0)) * 1e6 for a in "ZYX"]
    if not sizes[1] or not sizes[2]:
        return {}
    return {"spacing_zyx": (sizes[0] or 1.0, sizes[1], sizes[2]), "unit": "micrometer"}
