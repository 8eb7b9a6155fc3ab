"""Zarr arrays and OME-Zarr images, versions 0.1 to 0.5, on disk, in a zip file or already opened."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import zarr
from zarr.core.sync import sync
from zarr.storage import LocalStore, WrapperStore, ZipStore

from napari_sam.errors import VolumeError
from napari_sam.io.axes import SPATIAL, UNKNOWN, letter_of, shape_zyx
from napari_sam.io.readers.pixels import Pixels, Triple
from napari_sam.io.readers.places import level_places
from napari_sam.io.units import parse_unit, unit_ratio

GEOMETRY_ATTRIBUTE = "napari_sam"
"""Attribute of an array of ours that holds its spacing, translation and unit."""

_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")


class WatchingStore(WrapperStore[Any]):  # type: ignore[misc]  # zarr is not followed by mypy
    """A store that remembers which chunks were asked for and not found.

    Zarr reads an absent chunk as the fill value. That is right for sparse arrays and wrong for half-copied
    ones, and only the person who made the file knows which it is, so the absence is at least noticed.
    """

    def __init__(self, store: Any, absent: dict[str, None] | None = None) -> None:
        super().__init__(store)
        self._absent: dict[str, None] = {} if absent is None else absent

    def _with_store(self, store: Any) -> WatchingStore:
        return type(self)(store, self._absent)

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Value of a key, None when absent."""
        value = await self._store.get(key, prototype, byte_range)
        if value is None and not key.endswith(_METADATA):
            self._absent[key] = None
        return value

    def take_absent(self) -> list[str]:
        """Names of the chunks that were found absent since the last call."""
        names = list(self._absent)
        for name in names:
            self._absent.pop(name, None)
        return names


def is_zarr(path: Path) -> bool:
    """Whether `path` is a folder with zarr metadata, or a zip file named like one."""
    if path.is_dir():
        return any((path / name).is_file() for name in _METADATA)
    return path.is_file() and path.name.lower().endswith((".zarr.zip", ".ozx", ".zip"))


def read_zarr_path(path: Path) -> Pixels:
    """Open a zarr array or OME-Zarr image at a path.

    Raises
    ------
    VolumeError
        If there is no zarr there, or a group that holds no single image.
    """
    if path.is_dir() and not is_zarr(path):
        raise VolumeError(
            f"{path} is a folder without zarr metadata; pass the folder that holds zarr.json or .zgroup"
        )
    try:
        if path.is_file():
            _check_zip(path)
        store = LocalStore(path, read_only=True) if path.is_dir() else ZipStore(path, mode="r")
        pixels = read_zarr(zarr.open(store, mode="r"), str(path))
    except VolumeError:
        raise
    except (OSError, ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
        raise VolumeError(f"cannot open the zarr {path}: {error}; the copy may be incomplete") from error
    return replace(pixels, close=store.close)


def _check_zip(path: Path) -> None:
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
    if not set(names) & set(_METADATA):
        raise VolumeError(
            f"{path} has no zarr metadata at its top ({', '.join(names[:3]) or 'it is empty'}); "
            "zip what is in the folder of the zarr, not the folder itself"
        )


def read_zarr(node: zarr.Array | zarr.Group, source: str | None = None) -> Pixels:
    """Turn an opened zarr array or group into `Pixels`."""
    node = watched(node)
    source = source or local_path(node)
    if isinstance(node, zarr.Array):
        return _pixels([node], source, axes=_named_axes(node), **_own_geometry(node))
    attributes = ome_attributes(node)
    if "multiscales" in attributes:
        return _read_multiscale(node, attributes["multiscales"][0], source)
    if is_series(attributes) and "0" in node:
        return read_zarr(node["0"], source)
    return _read_single(node, attributes, source)


def watched(node: Any) -> Any:
    """The same node, read only, over a store that notices absent chunks."""
    if isinstance(node.store, WatchingStore):
        return node
    store = WatchingStore(_read_only(node.store))
    kind = zarr.Array if isinstance(node, zarr.Array) else zarr.Group
    opener = zarr.open_array if kind is zarr.Array else zarr.open_group
    return opener(store, path=node.path, mode="r", zarr_format=node.metadata.zarr_format)


def _read_only(store: Any) -> Any:
    try:
        return store if store.read_only else store.with_read_only(True)
    except NotImplementedError:
        return store


def ome_attributes(node: zarr.Array | zarr.Group) -> dict[str, Any]:
    """OME metadata of a node, wherever its version keeps them."""
    attributes: dict[str, Any] = node.attrs.asdict()
    nested = attributes.get("ome")
    return {**attributes, **nested} if isinstance(nested, Mapping) else attributes


def attributes_at(path: Path) -> dict[str, Any]:
    """OME metadata of the zarr in a folder; none if there is no zarr that can be opened."""
    try:
        return ome_attributes(zarr.open(LocalStore(path, read_only=True), mode="r"))
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def is_series(attributes: Mapping[str, Any]) -> bool:
    """Whether a group is what bioformats2raw makes of a file: a folder of images, of which the first is opened."""
    return "bioformats2raw.layout" in attributes and "multiscales" not in attributes


def is_label_image(path: Path) -> bool:
    """Whether a folder is an OME-Zarr, or an array of ours, that says of itself that it holds labels."""
    return path.is_dir() and not {"image-label", GEOMETRY_ATTRIBUTE}.isdisjoint(attributes_at(path))


def local_path(node: Any) -> str | None:
    """Path on this machine that `node` can be reopened from, None for one in memory or far away."""
    store = node.store
    while isinstance(store, WrapperStore):
        store = store._store
    if isinstance(store, LocalStore):
        return str(Path(store.root) / node.path)
    return None


def _read_single(group: zarr.Group, attributes: Mapping[str, Any], source: str | None) -> Pixels:
    for kind, place in (("well", "0"), ("plate", "A/1/0")):
        if kind in attributes:
            raise VolumeError(
                f"{source} is a {kind} of many images; pass the path of one, such as {source}/{place}"
            )
    names = sorted(group.array_keys())
    if len(names) == 1:
        return _pixels([group[names[0]]], source, axes=_named_axes(group[names[0]]))
    found = f"it holds the arrays {names}" if names else "it holds no array"
    inner = sorted(group.group_keys())
    groups = f" and the groups {inner}" if inner else ""
    raise VolumeError(
        f"{source or 'this zarr group'} is not an OME-Zarr image: {found}{groups}; pass one of them"
    )


def _named_axes(array: zarr.Array) -> str | None:
    """Axes from the names that zarr v3 or xarray keep with an array, if they tell where Y and X are."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.asdict().get("_ARRAY_DIMENSIONS")
    letters = "".join(letter_of(name) for name in names or ())
    return letters if {"Y", "X"} <= set(letters) else None


def _own_geometry(array: zarr.Array) -> dict[str, Any]:
    """What `io.labels.create_labels` keeps with its arrays."""
    stored = array.attrs.asdict().get(GEOMETRY_ATTRIBUTE)
    if not isinstance(stored, Mapping):
        return {}
    triples = {name: tuple(stored[name]) for name in ("spacing_zyx", "translate_zyx")}
    return {**triples, "unit": parse_unit(stored.get("unit"))}


def _pixels(levels: Sequence[zarr.Array], source: str | None, **known: Any) -> Pixels:
    store = levels[0].store
    return Pixels(
        tuple(levels),
        source=source,
        missing=store.take_absent,
        has_data=lambda: any(has_chunks(level) for level in levels),
        **known,
    )


def has_chunks(array: zarr.Array) -> bool:
    """Whether at least one chunk of `array` is stored; stops looking at the first."""

    async def look() -> bool:
        async for key in array.store.list_prefix(array.path):
            if not key.endswith(_METADATA):
                return True
        return False

    return bool(sync(look()))


def _read_multiscale(group: zarr.Group, multiscale: Mapping[str, Any], source: str | None) -> Pixels:
    datasets = multiscale.get("datasets") or []
    try:
        levels = [group[str(dataset["path"])] for dataset in datasets]
    except KeyError as error:
        raise VolumeError(
            f"{source} lists a level {error} that is not there; the copy may be incomplete"
        ) from error
    if not levels:
        raise VolumeError(f"{source} is an OME-Zarr image that lists no level; the copy may be incomplete")
    axes, units = _ome_axes(multiscale.get("axes"), levels[0].ndim)
    return _pixels(levels, source, axes=axes, **_geometry(multiscale, axes, units, levels))


def _ome_axes(axes: Any, ndim: int) -> tuple[str, list[str]]:
    """Letters and units of the axes of a multiscale image of any version."""
    if not axes:
        return "TCZYX"[-ndim:], [""] * ndim
    entries = [entry if isinstance(entry, Mapping) else {"name": entry} for entry in axes]
    letters = [_axis_letter(entry) for entry in entries]
    unnamed = [i for i, letter in enumerate(letters) if letter == UNKNOWN]
    left = [letter for letter in SPATIAL if letter not in letters]
    for index, letter in zip(reversed(unnamed), reversed(left), strict=False):
        letters[index] = letter
    return "".join(letters), [str(entry.get("unit") or "") for entry in entries]


def _axis_letter(entry: Mapping[str, Any]) -> str:
    by_type = {"time": "T", "channel": "C"}.get(str(entry.get("type", "")))
    return by_type or letter_of(entry.get("name", ""))


def level_transforms(multiscale: Mapping[str, Any], ndim: int) -> list[tuple[list[float], list[float]]]:
    """Scale and translation of each level of a multiscale image, a number an axis."""
    outer = multiscale.get("coordinateTransformations")
    return [_compose(ndim, d.get("coordinateTransformations"), outer) for d in multiscale["datasets"]]


def _compose(ndim: int, inner: Any, outer: Any) -> tuple[list[float], list[float]]:
    """Scale and translation of a level: its own transformations, then those of the whole image."""
    scale, shift = [1.0] * ndim, [0.0] * ndim
    for step in [*(inner or []), *(outer or [])]:
        values = step.get(step.get("type"))
        if not isinstance(values, list):
            continue
        if step["type"] == "scale":
            scale = [a * b for a, b in zip(scale, values, strict=True)]
            shift = [a * b for a, b in zip(shift, values, strict=True)]
        elif step["type"] == "translation":
            shift = [a + b for a, b in zip(shift, values, strict=True)]
    return scale, shift


def _geometry(
    multiscale: Mapping[str, Any], axes: str, units: list[str], levels: Sequence[zarr.Array]
) -> dict[str, Any]:
    """Keyword arguments of `Pixels` that say where the voxels are."""
    inner = [d.get("coordinateTransformations") or [] for d in multiscale["datasets"]]
    if not (any(inner) or multiscale.get("coordinateTransformations")):
        return {}
    transforms = level_transforms(multiscale, len(axes))
    is_placed = any(step.get("type") == "translation" for steps in inner for step in steps)
    names = {letter: parse_unit(unit) for letter, unit in zip(axes, units, strict=True)}
    unit = next((names[a] for a in "XYZ" if names.get(a)), "")

    def triple(values: Sequence[float], absent: float) -> Triple:
        by_axis = dict(zip(axes, values, strict=True))
        z, y, x = (
            float(by_axis[a]) * unit_ratio(names[a], unit) if a in by_axis else absent for a in SPATIAL
        )
        return z, y, x

    spacings = [triple(scale, 1.0) for scale, _ in transforms]
    starts = [triple(shift, 0.0) for _, shift in transforms]
    shapes = [shape_zyx(axes, level.shape) for level in levels]
    time = axes.find("T")
    return {
        "spacing_zyx": spacings[0],
        "translate_zyx": starts[0],
        "unit": unit,
        "time_step": transforms[0][0][time] if time >= 0 else 1.0,
        "time_unit": units[time] if time >= 0 else "",
        "places": level_places(spacings, starts if is_placed else None, shapes) if all(inner) else None,
    }
