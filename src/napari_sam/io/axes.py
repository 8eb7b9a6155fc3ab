"""Which dimension of an array means what.

Axes are a string with one letter a dimension, in the array's own order: T time, C channel, Z, Y, X space,
S the samples of a colour pixel (a second kind of channel, as TIFF has it). Inside this room ``_`` stands
for a dimension of length 1 that means nothing to us.

``:T`` behind the letters, as in "TZYX:T", asks for *tracking*: time points take the place of planes along Z, and
the other way round, so that whatever carries objects from plane to plane carries them through time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_sam.errors import AxesError

SPATIAL = "ZYX"
CHANNELS = "CS"
LETTERS = "TCZYXS"
DROPPED = "_"
UNKNOWN = "?"
TRACKING = ":T"

_NAMES = {
    "TIME": "T",
    "CHANNEL": "C",
    "DEPTH": "Z",
    "HEIGHT": "Y",
    "ROW": "Y",
    "WIDTH": "X",
    "COLUMN": "X",
}


def letter_of(name: object) -> str:
    """Letter of an axis that a file names by letter or by word, "?" for a name that means nothing to us."""
    word = str(name).upper()
    return word if word in tuple(LETTERS) else _NAMES.get(word.removesuffix("S"), UNKNOWN)


def exchange_time(letters: str) -> str:
    """Axes with T and Z exchanged."""
    return letters.translate(str.maketrans("TZ", "ZT"))


def seen_axes(axes: str) -> str:
    """Axes as the program sees them: "TZYX" as it is, "TZYX:T" as "ZTYX"."""
    letters, tracking, _ = axes.partition(TRACKING)
    return exchange_time(letters) if tracking else letters


def parse_axes(axes: str | Sequence[str], shape: Sequence[int]) -> str:
    """Check axes given by a person or a file against an array's shape.

    Parameters
    ----------
    axes : str or sequence of str
        One letter a dimension, such as "TCZYX", in any order and case.
    shape : sequence of int
        Shape of the array.

    Returns
    -------
    str
        The axes in capitals.

    Raises
    ------
    AxesError
        For a wrong count, unknown or repeated letters, or without Y and X.
    """
    letters = "".join(axes).upper()
    if len(letters) != len(shape):
        raise AxesError(
            f"axes {letters!r} name {len(letters)} dimensions, but the array has {len(shape)} "
            f"(shape {tuple(shape)}); give one letter of {LETTERS} for each dimension"
        )
    named = letters.replace(DROPPED, "")
    unknown = sorted(set(named) - set(LETTERS))
    if unknown or len(set(named)) != len(named):
        raise AxesError(
            f"axes {letters!r} must use each of the letters {LETTERS} at most once; "
            f"give the meaning of each dimension of shape {tuple(shape)}, such as 'TCZYX'"
        )
    if "Y" not in named or "X" not in named:
        raise AxesError(f"axes {letters!r} must contain both Y and X")
    return letters


def guess_axes(shape: Sequence[int], dtype: Any) -> str:
    """Axes of an array about which nothing is known, where only one reading is plausible.

    Raises
    ------
    AxesError
        For anything but two and three dimensions.
    """
    if len(shape) == 2:
        return "YX"
    if len(shape) == 3:
        return "YXC" if shape[-1] in (3, 4) and np.dtype(dtype) == np.uint8 else "ZYX"
    raise AxesError(
        f"cannot tell what the {len(shape)} dimensions of shape {tuple(shape)} mean; "
        "pass axes, one letter a dimension, such as axes='TCZYX' or axes='CZYX'"
    )


def settle_axes(letters: str, shape: Sequence[int]) -> str:
    """Make sense of axes that a file names in letters beyond ours.

    Unknown dimensions of length 1 are dropped. One that is longer is taken as Z where there is no Z: a
    file that only counts its images holds a series of planes.

    Raises
    ------
    AxesError
        When more than one dimension stays unknown, or the letters are not as many as the dimensions.
    """
    if len(letters) != len(shape):
        raise AxesError(
            f"the file names {len(letters)} dimensions {letters!r}, but the array has {len(shape)} "
            f"(shape {tuple(shape)}); pass axes, one letter a dimension, such as axes='TCZYX'"
        )
    settled = [
        a if a in LETTERS else (DROPPED if n == 1 else UNKNOWN) for a, n in zip(letters, shape, strict=True)
    ]
    if settled.count(UNKNOWN) == 1 and "Z" not in settled:
        settled[settled.index(UNKNOWN)] = "Z"
    if UNKNOWN in settled:
        raise AxesError(
            f"the file names its dimensions {letters!r} (shape {tuple(shape)}), which cannot be told apart; "
            "pass axes, one letter a dimension, such as axes='TCZYX'"
        )
    return parse_axes("".join(settled), shape)


def shape_zyx(axes: str, shape: Sequence[int]) -> tuple[int, int, int]:
    """Lengths of Z, Y and X; absent ones count 1."""
    z, y, x = (size_of(letter, axes, shape) for letter in SPATIAL)
    return z, y, x


def size_of(letters: str, axes: str, shape: Sequence[int]) -> int:
    """Product of the lengths of the dimensions named in `letters`; absent ones count 1."""
    size = 1
    for letter, length in zip(axes, shape, strict=True):
        if letter in letters:
            size *= int(length)
    return size
