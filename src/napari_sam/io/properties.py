"""What a file of labels says about its objects, beside the voxels: name, class, state, scores.

OME-Zarr keeps it as JSON under ``image-label`` (`save_zarr`). OME-TIFF keeps a map annotation an object, which other
programs show; an ImageJ TIFF keeps the rows of the OME-Zarr as one of the image's properties.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
import zarr

from napari_sam.io.readers.ome_zarr import is_zarr, ome_attributes
from napari_sam.io.readers.tiff import SUFFIXES

Properties = Mapping[int, Mapping[str, Any]]
"""Values of each object by its label."""

OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
NAMESPACE = "napari-sam-volumes/objects"
"""Of our annotations, among those of others."""
LABEL = "label-value"
"""Key of the label itself, as OME-Zarr calls it."""


def property_rows(properties: Properties) -> list[dict[str, Any]]:
    """A row an object, by label, that JSON can hold; what it cannot hold becomes text."""
    return [
        {LABEL: int(label), **{str(k): _plain(v) for k, v in values.items()}}
        for label, values in sorted(properties.items())
    ]


def add_annotations(root: ElementTree.Element, image: ElementTree.Element, properties: Properties) -> None:
    """Add an annotation an object to OME-XML, of which nothing comes after the `Pixels` of its one image yet."""
    if not properties:
        return
    annotations = ElementTree.SubElement(root, "StructuredAnnotations")
    for row in property_rows(properties):
        name = f"Annotation:{row[LABEL]}"
        ElementTree.SubElement(image, "AnnotationRef", {"ID": name})
        one = ElementTree.SubElement(annotations, "MapAnnotation", {"ID": name, "Namespace": NAMESPACE})
        value = ElementTree.SubElement(one, "Value")
        for key, held in row.items():
            ElementTree.SubElement(value, "M", {"K": key}).text = _text(held)


def imagej_properties(properties: Properties) -> dict[str, Any]:
    """ImageJ metadata, as `tifffile.imagej_metadata_tag` takes them."""
    return {"Properties": {NAMESPACE: json.dumps(property_rows(properties))}} if properties else {}


def read_properties(source: str | Path | None) -> dict[int, dict[str, Any]]:
    """What an OME-Zarr label image, or a TIFF of ours, says about its objects; nothing for other files.

    Parameters
    ----------
    source : path, optional
        Of the file.

    Returns
    -------
    dict of int to dict
        Values by label.
    """
    path = Path(source) if source is not None else None
    if path is None:
        rows = []
    elif is_zarr(path):
        rows = _zarr_rows(path, "properties")
    else:
        rows = _tiff_rows(path) if path.name.lower().endswith(SUFFIXES) else []
    return {
        row[LABEL]: {k: v for k, v in row.items() if k != LABEL}
        for row in rows
        if isinstance(row, dict) and isinstance(row.get(LABEL), int)
    }


def read_colors(source: str | Path | None) -> dict[int, list[int]]:
    """Colour (RGBA, 0 to 255) of each object by label, as an OME-Zarr label image has it; nothing for other files."""
    path = Path(source) if source is not None else None
    rows = _zarr_rows(path, "colors") if path is not None and is_zarr(path) else []
    colors = {row.get(LABEL): row.get("rgba") for row in rows if isinstance(row, dict)}
    return {i: rgba for i, rgba in colors.items() if isinstance(i, int) and isinstance(rgba, list)}


def _zarr_rows(path: Path, name: str) -> list[Any]:
    node = zarr.open(str(path), mode="r")
    entry = ome_attributes(node).get("image-label") if isinstance(node, zarr.Group) else None
    rows = entry.get(name) if isinstance(entry, dict) else None
    return rows if isinstance(rows, list) else []


def _tiff_rows(path: Path) -> list[Any]:
    with tifffile.TiffFile(path) as tif:
        if tif.is_ome and tif.ome_metadata:
            return _annotated(ElementTree.fromstring(tif.ome_metadata))
        held = (tif.imagej_metadata or {}).get("Properties", {}).get(NAMESPACE)
    rows = json.loads(held) if held else []
    return rows if isinstance(rows, list) else []


def _annotated(root: ElementTree.Element) -> list[dict[str, Any]]:
    own = root.iterfind(f"{{{OME}}}StructuredAnnotations/{{{OME}}}MapAnnotation[@Namespace='{NAMESPACE}']")
    return [
        {entry.get("K", ""): _value(entry.text or "") for entry in one.iter(f"{{{OME}}}M")} for one in own
    ]


def _text(value: Any) -> str:
    """A value for people: JSON, but text as it is unless it could be taken for something else."""
    if isinstance(value, str) and value.isprintable() and value and _value(value) is value:
        return value
    return json.dumps(value)


def _value(text: str) -> Any:
    """The value that `_text` wrote."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _plain(value: Any) -> Any:
    plain = value.item() if isinstance(value, np.generic) else value
    try:
        json.dumps(plain, allow_nan=False)
    except (TypeError, ValueError):
        return str(plain)
    return plain
