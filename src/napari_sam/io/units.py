"""Names of lengths and times, as UDUNITS-2 spells them (which is what OME-Zarr and napari use)."""

from __future__ import annotations

METERS = {
    "angstrom": 1e-10,
    "picometer": 1e-12,
    "nanometer": 1e-9,
    "micrometer": 1e-6,
    "millimeter": 1e-3,
    "centimeter": 1e-2,
    "decimeter": 1e-1,
    "meter": 1.0,
    "kilometer": 1e3,
    "inch": 0.0254,
    "foot": 0.3048,
}
"""Size of each known unit of length, in meters."""

SYMBOLS = {
    "angstrom": "Å",
    "picometer": "pm",
    "nanometer": "nm",
    "micrometer": "µm",
    "millimeter": "mm",
    "centimeter": "cm",
    "decimeter": "dm",
    "meter": "m",
    "kilometer": "km",
    "inch": "in",
    "foot": "ft",
}
"""Symbols that OME-XML uses for the same units."""

SECONDS = {
    "nanosecond": 1e-9,
    "microsecond": 1e-6,
    "millisecond": 1e-3,
    "second": 1.0,
    "minute": 60.0,
    "hour": 3600.0,
    "day": 86400.0,
}
"""Length of each known unit of time, in seconds."""

TIME_SYMBOLS = {
    "nanosecond": "ns",
    "microsecond": "µs",
    "millisecond": "ms",
    "second": "s",
    "minute": "min",
    "hour": "h",
    "day": "d",
}
"""Symbols that OME-XML uses for the same units."""

_ALIASES = {
    **{symbol: name for name, symbol in SYMBOLS.items()},
    "\u212b": "angstrom",
    "A": "angstrom",
    "um": "micrometer",
    "\u03bcm": "micrometer",
    "\\u00B5m": "micrometer",
    "micron": "micrometer",
    "microns": "micrometer",
    "micrometre": "micrometer",
    "nanometre": "nanometer",
    "millimetre": "millimeter",
    "centimetre": "centimeter",
    "metre": "meter",
    '"': "inch",
    "inches": "inch",
}

_TIME_ALIASES = {
    **{symbol: name for name, symbol in TIME_SYMBOLS.items()},
    "us": "microsecond",
    "\u03bcs": "microsecond",
    "msec": "millisecond",
    "sec": "second",
    "hr": "hour",
}

_UNKNOWN = {"", "pixel", "pixels", "px", "reference frame", "none", "null", "voxel", "dimensionless"}


def parse_unit(unit: object) -> str:
    """UDUNITS-2 name of a unit of length, "" when there is none; names not known are kept as they are.

    Parameters
    ----------
    unit : object
        A name or symbol in any common spelling ("µm", "um", "micron"), a pint unit, or None.
    """
    text = "" if unit is None else str(unit).strip()
    if text.lower() in _UNKNOWN:
        return ""
    if text in _ALIASES:
        return _ALIASES[text]
    lower = text.lower()
    return _ALIASES.get(lower, lower if lower in METERS else text)


def parse_time_unit(unit: object) -> str:
    """UDUNITS-2 name of a unit of time, "" when there is none; names not known are kept as they are."""
    text = "" if unit is None else str(unit).strip()
    lower = text.lower()
    if lower in _UNKNOWN:
        return ""
    singular = lower.rstrip("s")
    return _TIME_ALIASES.get(lower) or _TIME_ALIASES.get(singular, singular if singular in SECONDS else text)


def unit_ratio(unit: str, into: str) -> float:
    """How many `into` one `unit` is; 1.0 where either of them is unknown."""
    if unit == into or unit not in METERS or into not in METERS:
        return 1.0
    return METERS[unit] / METERS[into]
