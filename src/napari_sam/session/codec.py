"""Values as plain JSON and back, for the journal.

Frozen values of this program are written by name, so that a new one needs no code here; a mask is packed.

>>> from napari_sam.core.planes import PlaneRef
>>> decode(encode((PlaneRef(0, 12), {3: "x"})))
(PlaneRef(axis=0, index=12, level=0, time=0), {3: 'x'})
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.errors import SessionError

KIND = "!"
"""Key of the name of what a JSON object stands for."""
PACKAGE = "napari_sam."

Refer = Callable[[Region], Mapping[str, Any] | None]
"""Says where a mask came from: values to keep with it, or None."""
Resolve = Callable[[Mapping[str, Any]], Region | None]
"""Gives the mask that such values stand for; None to take the one that was kept."""


def encode(value: Any, refer: Refer | None = None) -> Any:
    """A value as JSON holds it.

    Parameters
    ----------
    value : Any
        Plain values, tuples, mappings, arrays, enums and the dataclasses of this program.
    refer : callable, optional
        Says where a `Region` came from. Values with an "at" stand for it alone.

    Raises
    ------
    TypeError
        There is no way to write it.
    """
    match value:
        case Enum():
            return {KIND: _name(type(value)), "value": value.value}
        case None | bool() | int() | float() | str():
            return value
        case np.generic():
            return value.item()
        case PlaneRef():
            return {KIND: "plane", "at": [value.axis, value.index, value.level, value.time]}
        case Region():
            origin = dict(refer(value) or {}) if refer is not None else {}
            return {KIND: "region", **origin} if "at" in origin else pack_region(value) | origin
        case np.ndarray():
            return {
                KIND: "array",
                "dtype": value.dtype.str,
                "shape": list(value.shape),
                "data": pack(value.tobytes()),
            }
        case Path():
            return {KIND: "path", "path": str(value)}
        case _:
            return _encode_many(value, refer)


def _encode_many(value: Any, refer: Refer | None) -> Any:
    if isinstance(value, list):
        return [encode(v, refer) for v in value]
    if isinstance(value, tuple | set | frozenset | range):
        return {KIND: "tuple", "items": [encode(v, refer) for v in value]}
    if isinstance(value, Mapping):
        return {KIND: "map", "items": [[encode(k, refer), encode(v, refer)] for k, v in value.items()]}
    if is_dataclass(value) and type(value).__module__.startswith(PACKAGE):
        named = {f.name: encode(getattr(value, f.name), refer) for f in fields(value) if f.init}
        return {KIND: _name(type(value)), **named}
    raise TypeError(f"a {type(value).__name__} cannot be kept in a journal")


def decode(value: Any, resolve: Resolve | None = None) -> Any:
    """The value that `encode` wrote.

    Raises
    ------
    SessionError
        It names something that this version of the program does not know.
    """
    if isinstance(value, list):
        return [decode(v, resolve) for v in value]
    if not isinstance(value, dict):
        return value
    match value.get(KIND):
        case "plane":
            return PlaneRef(*value["at"])
        case "region":
            known = resolve(value) if resolve is not None else None
            return known if known is not None else unpack_region(value)
        case "array":
            return np.frombuffer(unpack(value["data"]), value["dtype"]).reshape(value["shape"]).copy()
        case "path":
            return Path(value["path"])
        case "tuple":
            return tuple(decode(v, resolve) for v in value["items"])
        case "map":
            return {decode(k, resolve): decode(v, resolve) for k, v in value["items"]}
        case str(name):
            return _decode_named(name, value, resolve)
    return {k: decode(v, resolve) for k, v in value.items()}


def _decode_named(name: str, value: dict[str, Any], resolve: Resolve | None) -> Any:
    made = _class(name)
    if issubclass(made, Enum):
        return made(value["value"])
    known = {f.name for f in fields(made) if f.init}  # type: ignore[arg-type]
    before = getattr(made, "BEFORE", {})  # what a field meant before there was one
    return made(**before | {k: decode(v, resolve) for k, v in value.items() if k in known})


def pack(data: bytes) -> str:
    """Bytes, compressed, as text."""
    return base64.b64encode(zlib.compress(data, 1)).decode("ascii")


def unpack(text: str) -> bytes:
    """The bytes that `pack` took."""
    return zlib.decompress(base64.b64decode(text))


def pack_region(region: Region) -> dict[str, Any]:
    """A mask as JSON: a few hundred bytes for an object of usual size."""
    bits = pack(np.packbits(region.crop).tobytes())
    return {KIND: "region", "shape": list(region.plane_shape), "box": list(region.box_yxyx), "bits": bits}


def unpack_region(value: Mapping[str, Any]) -> Region:
    """The mask that `pack_region` wrote.

    Raises
    ------
    SessionError
        It is kept elsewhere, and nobody said where.
    """
    if "bits" not in value:
        raise SessionError("a mask of the journal is kept in another record, which was not looked up")
    y0, x0, y1, x1 = value["box"]
    height, width = y1 - y0, x1 - x0
    bits = np.frombuffer(unpack(value["bits"]), np.uint8)
    crop = np.unpackbits(bits, count=height * width).astype(bool).reshape(height, width)
    return Region(tuple(value["shape"]), (y0, x0, y1, x1), crop)


def _name(kind: type) -> str:
    return f"{kind.__module__.removeprefix(PACKAGE)}:{kind.__qualname__}"


def _class(name: str) -> type:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(PACKAGE + module), attribute)
    except (ImportError, AttributeError):
        found = None
    if not isinstance(found, type) or not (is_dataclass(found) or issubclass(found, Enum)):
        raise SessionError(
            f"the journal names {name!r}, which this version does not know; use a newer version"
        )
    return found
