"""Labels as OME-Zarr 0.4 (zarr v2) or 0.5 (zarr v3), alone or in the ``labels`` group of an image.

Levels take every n-th voxel, or the voxel nearest to the centre, so that no ids are invented. All levels
are written in one pass over the planes of the labels.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numcodecs  # type: ignore[import-untyped]
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.errors import ZarrUserWarning
from zarr.storage import LocalStore

from napari_sam.core.spaces import Level
from napari_sam.errors import ExportError, InputWarning
from napari_sam.io.atomic import replace_text, replacing
from napari_sam.io.label_source import LabelPart, LabelSource
from napari_sam.io.properties import property_rows
from napari_sam.io.readers.ome_zarr import level_transforms, ome_attributes
from napari_sam.io.volume import open_volume

SMALLEST_SIDE = 256
"""Levels are added until no side of a plane is longer than this."""

_CHUNK_SIDE = 1024
_TYPES = {"T": "time", "C": "channel"}
Picks = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]


@dataclass(frozen=True, slots=True, eq=False)
class LabelLevel:
    """One level to be written.

    Parameters
    ----------
    picks : three arrays of int
        Which level-0 voxel each voxel of the level takes, along Z, Y, X.
    scale, translation : list of float
        One number an axis of the file.
    """

    picks: Picks
    scale: list[float]
    translation: list[float]

    def transformations(self) -> list[dict[str, Any]]:
        """As OME-Zarr writes them."""
        return [
            {"type": "scale", "scale": self.scale},
            {"type": "translation", "translation": self.translation},
        ]


@dataclass(frozen=True, slots=True, eq=False)
class ZarrPlan:
    """What is written besides the voxels.

    Parameters
    ----------
    axes : str
        Axes of the file.
    levels : tuple of LabelLevel
        Full resolution first.
    version : str
        "0.4" or "0.5".
    axes_metadata : list of dict
        The ``axes`` entry.
    name : str
        Of the label image.
    image_label : dict
        The ``image-label`` entry: colours, properties, source.
    """

    axes: str
    levels: tuple[LabelLevel, ...]
    version: str
    axes_metadata: list[dict[str, str]]
    name: str
    image_label: dict[str, Any]

    def attributes(self) -> dict[str, Any]:
        """Attributes of the label group, where its version wants them."""
        multiscale: dict[str, Any] = {
            "name": self.name,
            "axes": self.axes_metadata,
            "datasets": [
                {"path": str(i), "coordinateTransformations": level.transformations()}
                for i, level in enumerate(self.levels)
            ],
            "type": "nearest",
        }
        if self.version == "0.4":
            multiscale["version"] = "0.4"
            return {"multiscales": [multiscale], "image-label": {"version": "0.4", **self.image_label}}
        return {"ome": {"version": "0.5", "multiscales": [multiscale], "image-label": self.image_label}}


def plan_alone(source: LabelSource, version: str, name: str, image_label: dict[str, Any]) -> ZarrPlan:
    """A label image of its own, with as many levels as its size asks for."""
    units = {"T": source.time_unit, **dict.fromkeys("ZYX", source.unit)}
    metadata = []
    for letter in source.axes:
        entry = {"name": letter.lower(), "type": _TYPES.get(letter, "space")}
        metadata.append({**entry, "unit": units[letter]} if units[letter] else entry)
    levels = tuple(_strided_level(source, steps) for steps in _level_steps(source))
    return ZarrPlan(source.axes, levels, version, metadata, name, image_label)


def plan_inside(source: LabelSource, image: zarr.Group, name: str, image_label: dict[str, Any]) -> ZarrPlan:
    """A label image beside an image: the same axes, levels and places, one channel.

    Raises
    ------
    ExportError
        If the group is not an image of version 0.4 or 0.5, or of another shape.
    """
    attributes = ome_attributes(image)
    try:
        multiscale = attributes["multiscales"][0]
        version = str(attributes.get("version") or multiscale.get("version") or _format_version(image))
        volume = open_volume(image)
        transforms = level_transforms(multiscale, len(multiscale["axes"]))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ExportError(
            f"{image.store_path} is not an OME-Zarr image that labels can join: {error!r}"
        ) from error
    if version not in ("0.4", "0.5"):
        raise ExportError(f"{image.store_path} is OME-Zarr {version}; labels can join images of 0.4 and 0.5")
    full = (volume.n_time, *volume.shape_zyx())
    if full != source.shape:
        raise ExportError(
            f"labels of shape (T, Z, Y, X) = {source.shape} do not fit the image of shape {full}"
        )
    levels = tuple(
        LabelLevel(_nearest_picks(place, full[1:], volume.shape_zyx(level)), *transforms[level])
        for level, place in enumerate(volume.level_places)
    )
    whole = {**image_label, "source": {"image": "../../"}}
    return ZarrPlan(volume.axes, levels, version, [dict(a) for a in multiscale["axes"]], name, whole)


def _format_version(image: zarr.Group) -> str:
    """Version of an image that does not name one."""
    return "0.4" if image.metadata.zarr_format == 2 else "unknown"


def iter_save_zarr(source: LabelSource, target: Path, plan: ZarrPlan) -> Iterator[tuple[int, int]]:
    """Write labels as OME-Zarr at `target`; yield how many of how many planes are done."""
    with replacing(target) as beside:
        group = _create_group(beside, plan)
        arrays = [_create_array(group, str(i), level, source, plan) for i, level in enumerate(plan.levels)]
        found = False
        for done, part in enumerate(source.parts(), start=1):
            if part.values.any():
                found = True
                for array, level in zip(arrays, plan.levels, strict=True):
                    _write_part(array, level, plan.axes, part)
            yield done, source.n_planes
        if not found:
            warnings.warn("the labels hold no object: every voxel is 0", InputWarning, stacklevel=2)


def list_label(image: Path, name: str, version: str) -> None:
    """Add a label image to the list of an image's labels, and to its consolidated metadata if it has some."""
    labels = image / "labels"
    names = listed_labels(image)
    names = names if name in names else [*names, name]
    if version == "0.4":
        replace_text(labels / ".zattrs", json.dumps({"labels": names}, indent=2))
        replace_text(labels / ".zgroup", json.dumps({"zarr_format": 2}, indent=2))
    else:
        attributes = {"ome": {"version": version, "labels": names}}
        document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
        replace_text(labels / "zarr.json", json.dumps(document, indent=2))
    group = zarr.open_group(LocalStore(image, read_only=True), mode="r")
    if group.metadata.consolidated_metadata is not None:
        with warnings.catch_warnings():
            # The image was consolidated before us; that zarr v3 does not specify this is not news to its owner.
            warnings.simplefilter("ignore", ZarrUserWarning)
            zarr.consolidate_metadata(LocalStore(image))


def listed_labels(image: Path) -> list[str]:
    """Names of the label images of an image."""
    try:
        group = zarr.open_group(LocalStore(image / "labels", read_only=True), mode="r")
    except (FileNotFoundError, ValueError, KeyError):
        return []
    return [str(name) for name in ome_attributes(group).get("labels", [])]


def image_label_entry(
    properties: Mapping[int, Mapping[str, Any]] | None, colors: Mapping[int, Sequence[float]] | None
) -> dict[str, Any]:
    """The ``image-label`` entry for per-object properties and colours.

    Parameters
    ----------
    properties : mapping of int to mapping of str to value
        Values of each object; anything that JSON holds, or numpy scalars.
    colors : mapping of int to sequence of 3 or 4 numbers
        Red, green, blue (alpha): integers 0 to 255, or real numbers 0 to 1.
    """
    entry: dict[str, Any] = {}
    if colors:
        entry["colors"] = [{"label-value": int(i), "rgba": _rgba(i, c)} for i, c in sorted(colors.items())]
    if properties:
        entry["properties"] = property_rows(properties)
    return entry


def _rgba(object_id: int, color: Sequence[float]) -> list[int]:
    values = np.asarray(color)
    if values.shape not in ((3,), (4,)):
        raise ExportError(f"colour {color!r} of object {object_id} must have 3 or 4 numbers")
    whole = values if values.dtype.kind in "ui" else np.rint(values * 255)
    if whole.min() < 0 or whole.max() > 255:
        raise ExportError(f"colour {color!r} of object {object_id} must be integers 0 to 255 or reals 0 to 1")
    return [int(v) for v in whole] + [255] * (4 - len(values))


def _level_steps(source: LabelSource) -> list[tuple[int, int, int]]:
    """Strides of each level: halve the finest axes until planes are small, keeping voxels near to cubes."""
    shape, spacing = np.array(source.shape[1:]), np.array(source.spacing_zyx)
    steps = [np.ones(3, int)]
    while max(-(-shape[1:] // steps[-1][1:])) > SMALLEST_SIDE:
        size = spacing * steps[-1]
        left = -(-shape // steps[-1]) > 1  # what is one voxel long is not halved, however fine it is
        halved = left & (size < 2 * size[1:][left[1:]].min())
        steps.append(steps[-1] * np.where(halved, 2, 1))
    return [(int(z), int(y), int(x)) for z, y, x in steps]


def _strided_level(source: LabelSource, steps: tuple[int, int, int]) -> LabelLevel:
    z, y, x = (np.arange(0, n, step) for n, step in zip(source.shape[1:], steps, strict=True))
    scale = {"T": source.time_step}
    shift = {"T": 0.0}
    for letter, size, start, step in zip("ZYX", source.spacing_zyx, source.translate_zyx, steps, strict=True):
        # A voxel of the level covers `step` voxels and has its centre in the middle of them.
        scale[letter] = size * step
        shift[letter] = start + size * (step - 1) / 2
    return LabelLevel((z, y, x), [scale[a] for a in source.axes], [shift[a] for a in source.axes])


def _nearest_picks(place: Level, fine: Sequence[int], coarse: Sequence[int]) -> Picks:
    """Level-0 voxels nearest to the centres of a level's voxels (the lower of two that are equally near)."""
    centres = place.to_level0(np.repeat(np.arange(max(coarse))[:, None], 3, axis=1)).round(6)
    nearest = np.ceil(centres - 0.5).astype(np.intp).clip(0, np.array(fine) - 1)
    z, y, x = (nearest[:n, axis] for axis, n in enumerate(coarse))
    return z, y, x


def _create_group(path: Path, plan: ZarrPlan) -> zarr.Group:
    zarr_format = 2 if plan.version == "0.4" else 3
    return zarr.create_group(LocalStore(path), zarr_format=zarr_format, attributes=plan.attributes())


def _create_array(
    group: zarr.Group, name: str, level: LabelLevel, source: LabelSource, plan: ZarrPlan
) -> zarr.Array:
    picks = dict(zip("ZYX", (len(p) for p in level.picks), strict=True))
    lengths = {"T": source.shape[0], **picks}
    shape = tuple(lengths.get(letter, 1) for letter in plan.axes)
    chunks = tuple(min(n, _CHUNK_SIDE) if a in "YX" else 1 for a, n in zip(plan.axes, shape, strict=True))
    old = plan.version == "0.4"
    codec = (
        numcodecs.Blosc(cname="zstd", clevel=5, shuffle=1)
        if old
        else BloscCodec(cname="zstd", shuffle="shuffle")
    )
    return group.create_array(
        name,
        shape=shape,
        dtype=source.dtype,
        chunks=chunks,
        compressors=codec,
        fill_value=0,
        chunk_key_encoding={"name": "v2", "separator": "/"} if old else None,
        dimension_names=None if old else [axis["name"] for axis in plan.axes_metadata],
    )


def _write_part(array: zarr.Array, level: LabelLevel, axes: str, part: LabelPart) -> None:
    """Write the voxels that a level takes from what may hold labels in a plane, if it takes any."""
    picked_z, picked_y, picked_x = level.picks
    y0, x0, y1, x1 = part.box_yxyx
    targets, rows, cols = (
        (picked_z == part.z).nonzero()[0],
        _within(picked_y, y0, y1),
        _within(picked_x, x0, x1),
    )
    values = part.values
    if values.shape != (rows.stop - rows.start, cols.stop - cols.start):
        values = values[np.ix_(picked_y[rows] - y0, picked_x[cols] - x0)]
    if axes.index("X") < axes.index("Y"):
        values = values.T
    if values.any():
        for z in targets:
            places = {"T": part.time, "Z": int(z), "Y": rows, "X": cols}
            array[tuple(places.get(letter, 0) for letter in axes)] = values


def _within(picks: NDArray[np.intp], low: int, high: int) -> slice:
    """Which of a level's voxels, whose picks never fall, are taken from `low` to before `high`."""
    first, end = np.searchsorted(picks, [low, high]).tolist()
    return slice(first, end)
