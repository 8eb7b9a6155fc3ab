"""TIFF, OME-TIFF, ImageJ TIFF and what else tifffile knows, seen as zarr arrays: only what is asked for is read."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tifffile
import zarr

from napari_sam.errors import VolumeError
from napari_sam.io.axes import size_of
from napari_sam.io.readers.pixels import Pixels
from napari_sam.io.units import parse_unit, unit_ratio

SUFFIXES = (".tif", ".tiff", ".btf", ".tf8", ".ome.tf2", ".lsm", ".stk", ".flex", ".qptiff", ".svs", ".ndpi")


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
    """
    tif = _open(path)
    try:
        image = _series(tif, path, series)
        stores = [image.aszarr(level=level) for level in range(len(image.levels))]
        levels = tuple(zarr.open_array(store, mode="r") for store in stores)
        known = _geometry(tif, image, series)
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
    return image


def _check_complete(image: Any, tif: Any, path: Path) -> None:
    """Refuse a file that ends before its data or lacks planes that its metadata promise."""
    promised, found = (tif.imagej_metadata or {}).get("images", 0), len(image.pages)
    if image.kind != "imagej" and promised > found:
        raise VolumeError(f"{path} is incomplete: it has {found} of {promised} planes; copy the file again")
    if image.kind not in ("imagej", "shaped") and _next_page_offset(tif) > tif.filehandle.size:
        raise VolumeError(f"{path} is cut off after {len(tif.pages)} pages; copy the file again")
    end = _end_of_pages(image, path) if image.dataoffset is None else image.dataoffset + image.nbytes
    size = tif.filehandle.size
    if end > size and len(tif.series) == 1:
        raise VolumeError(
            f"{path} is cut off: it has {size} bytes, its data end at {end}; copy the file again"
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


def _end_of_pages(image: Any, path: Path) -> int:
    """Where the first and the last page end in the file, the greater of both."""
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
    ends = [
        offset + count
        for page in (pages[0], pages[-1])
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)
    ]
    return max(ends, default=0)


def _geometry(tif: Any, image: Any, series: int) -> dict[str, Any]:
    """Keyword arguments of `Pixels` that the file's metadata give."""
    if tif.is_ome and tif.ome_metadata:
        return _ome_geometry(tif.ome_metadata, series)
    if tif.is_imagej:
        return _imagej_geometry(tif)
    if tif.is_lsm:
        return _lsm_geometry(tif.lsm_metadata or {})
    return {}


def _ome_geometry(xml: str, series: int) -> dict[str, Any]:
    images = tifffile.xml2dict(xml).get("OME", {}).get("Image", [])
    images = images if isinstance(images, list) else [images]
    pixels = images[series].get("Pixels", {}) if series < len(images) else {}
    if "PhysicalSizeX" not in pixels and "PhysicalSizeY" not in pixels:
        return {}
    # OME-XML leaves the unit out where it is the default, which is the micrometer.
    units = {a: parse_unit(pixels.get(f"PhysicalSize{a}Unit", "µm")) for a in "ZYX"}
    unit = units["X"]
    sizes = [float(pixels.get(f"PhysicalSize{a}", 1.0)) * unit_ratio(units[a], unit) for a in "ZYX"]
    known: dict[str, Any] = {"spacing_zyx": tuple(sizes), "unit": unit}
    if "TimeIncrement" in pixels:
        known["time_step"] = float(pixels["TimeIncrement"])
        known["time_unit"] = {"s": "second", "ms": "millisecond", "min": "minute", "h": "hour"}.get(
            str(pixels.get("TimeIncrementUnit", "s")), ""
        )
    return known


def _imagej_geometry(tif: Any) -> dict[str, Any]:
    metadata: Mapping[str, Any] = tif.imagej_metadata or {}
    tags = tif.pages[0].tags
    unit = parse_unit(metadata.get("unit"))
    y, x = (_pixel_size(tags.get(name)) for name in ("YResolution", "XResolution"))
    if not unit and y == x == 1.0 and "spacing" not in metadata:
        return {}
    known: dict[str, Any] = {"spacing_zyx": (float(metadata.get("spacing", 1.0)), y, x), "unit": unit}
    if metadata.get("finterval"):
        known.update(time_step=float(metadata["finterval"]), time_unit="second")
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
