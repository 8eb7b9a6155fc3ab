"""Labels as TIFF: OME-TIFF, or an ImageJ stack where ImageJ can hold the ids. One plane in memory at a time."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from napari_sam.errors import ExportError, InputWarning
from napari_sam.io.atomic import replacing
from napari_sam.io.label_source import LabelSource
from napari_sam.io.labels import smallest_label_dtype
from napari_sam.io.properties import OME, Properties, add_annotations, imagej_properties
from napari_sam.io.units import SECONDS, SYMBOLS, TIME_SYMBOLS

_SOFTWARE = "napari-sam"
_SCHEMA = f"{OME} {OME}/ome.xsd"
_CLASSIC_LIMIT = 2**32 - 2**25
"""Bytes that a TIFF with 32 bit offsets holds, less room for its directories."""


def iter_save_tiff(
    source: LabelSource, path: Path, name: str, properties: Properties
) -> Iterator[tuple[int, int]]:
    """Write labels to a TIFF file, with properties of the objects; yield how many of how many steps are done.

    The planes are read twice: to find the largest id, which decides the type, and to write them.

    Raises
    ------
    ExportError
        If an id needs more than 32 bits or the file cannot be written.
    """
    _warn_of_time(source)
    total = 2 * source.n_planes
    largest = 0
    for done, (_, _, plane) in enumerate(source.planes(), start=1):
        largest = max(largest, int(plane.max()))
        yield done, total
    dtype = _dtype(largest, path)
    big = source.n_planes * source.shape[2] * source.shape[3] * dtype.itemsize > _CLASSIC_LIMIT
    as_ome = ".ome." in path.name.lower() or dtype.itemsize > 2 or big
    if as_ome:
        first: dict[str, Any] = {"description": ome_xml(source, dtype, name, properties).encode("utf-8")}
    else:
        tags = tifffile.imagej_metadata_tag(imagej_properties(properties), "<")
        first = {"description": _imagej_description(source, largest), "extratags": tags}
    with replacing(path) as beside:
        yield from _write(beside, source, dtype, big, first)


def is_own_tiff(path: Path) -> bool:
    """Whether a file is a TIFF that this module wrote."""
    try:
        with tifffile.TiffFile(path) as tif:
            return str(tif.pages.first.software) == _SOFTWARE
    except (tifffile.TiffFileError, struct.error, OSError, ValueError, IndexError):
        return False


def _write(
    beside: Path, source: LabelSource, dtype: np.dtype[Any], big: bool, first: dict[str, Any]
) -> Iterator[tuple[int, int]]:
    """Write the pages; `first` are tags of the first one alone."""
    with tifffile.TiffWriter(beside, bigtiff=big, byteorder="<") as tif:
        for written, (_, _, plane) in enumerate(source.planes()):
            tif.write(
                plane.astype(dtype),
                photometric="minisblack",
                compression="zlib",
                metadata=None,
                contiguous=False,
                software=_SOFTWARE,
                **_resolution(source),
                **(first if written == 0 else {}),
            )
            yield source.n_planes + written + 1, 2 * source.n_planes


def _dtype(largest: int, path: Path) -> np.dtype[Any]:
    dtype = smallest_label_dtype(largest)
    if dtype.itemsize > 4:
        raise ExportError(
            f"label {largest} needs more than the 32 bits of {path.name}; save as .ome.zarr, or renumber"
        )
    if largest == 0:
        warnings.warn("the labels hold no object: every voxel is 0", InputWarning, stacklevel=2)
    return dtype


def _warn_of_time(source: LabelSource) -> None:
    if source.shape[0] > 1 and source.time_step != 1.0 and source.time_unit not in SECONDS:
        warnings.warn(
            f"a TIFF has no place for a time step of {source.time_step} {source.time_unit or 'of no unit'}; "
            "save as .ome.zarr to keep it",
            InputWarning,
            stacklevel=4,
        )


def _resolution(source: LabelSource) -> dict[str, Any]:
    """Tags that count pixels per unit, as ImageJ and viewers without OME read them."""
    _, y, x = source.spacing_zyx
    return {"resolution": (1 / x, 1 / y), "resolutionunit": "NONE"}


def _imagej_description(source: LabelSource, largest: int) -> str:
    n_time, n_z = source.shape[:2]
    lines = ["ImageJ=1.11a", f"images={n_time * n_z}"]
    lines += [f"slices={n_z}"] * (n_z > 1) + [f"frames={n_time}"] * (n_time > 1)
    lines += ["hyperstack=true"] * (n_time > 1) + ["mode=grayscale"] * (n_time > 1)
    if source.unit:
        lines.append(f"unit={'um' if source.unit == 'micrometer' else source.unit}")
    lines.append(f"spacing={source.spacing_zyx[0]!r}")
    if source.time_unit in SECONDS:  # ImageJ's own unit of time is the second
        lines.append(f"finterval={float(source.time_step * SECONDS[source.time_unit])!r}")
    lines += ["loop=false", "min=0.0", f"max={float(max(largest, 1))}"]
    return "\n".join(lines) + "\n"


def ome_xml(source: LabelSource, dtype: np.dtype[Any], name: str, properties: Properties) -> str:
    """OME-XML (schema 2016-06) of one image whose planes follow each other, Z fastest, then T."""
    n_time, n_z, n_y, n_x = source.shape
    sizes = dict(zip("ZYX", source.spacing_zyx, strict=True))
    pixels = {
        "ID": "Pixels:0",
        "DimensionOrder": "XYZTC",
        "Type": dtype.name,
        "SizeX": str(n_x),
        "SizeY": str(n_y),
        "SizeZ": str(n_z),
        "SizeC": "1",
        "SizeT": str(n_time),
        **{f"PhysicalSize{a}": repr(sizes[a]) for a in "XYZ"},
        **{f"PhysicalSize{a}Unit": SYMBOLS.get(source.unit, "pixel") for a in "XYZ"},
    }
    if source.time_unit in SECONDS:
        unit = TIME_SYMBOLS[source.time_unit]
        pixels.update(TimeIncrement=repr(float(source.time_step)), TimeIncrementUnit=unit)
    root = ElementTree.Element(
        "OME",
        {
            "xmlns": OME,
            "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
            "xsi:schemaLocation": _SCHEMA,
            "Creator": _SOFTWARE,
        },
    )
    image = ElementTree.SubElement(root, "Image", {"ID": "Image:0", "Name": name})
    element = ElementTree.SubElement(image, "Pixels", pixels)
    ElementTree.SubElement(
        element, "Channel", {"ID": "Channel:0:0", "SamplesPerPixel": "1", "Name": "labels"}
    )
    ElementTree.SubElement(element, "TiffData", {"IFD": "0", "PlaneCount": str(source.n_planes)})
    add_annotations(root, image, properties)
    return '<?xml version="1.0" encoding="UTF-8"?>' + ElementTree.tostring(root, encoding="unicode")
