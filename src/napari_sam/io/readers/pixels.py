"""What every reader gives: lazily readable levels, and what is known about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from napari_sam.core.spaces import Level

Triple = tuple[float, float, float]


def do_nothing() -> None:
    """Close what needs no closing."""


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """An opened source.

    Parameters
    ----------
    levels : tuple of array_like
        Full resolution first; anything with `shape`, `dtype` and basic slicing.
    axes : str, optional
        One letter a dimension of each level, also letters that are not ours; None when the source does not say.
    source : str, optional
        Path it can be reopened from.
    spacing_zyx, translate_zyx : (float, float, float), optional
        Voxel size and centre of the first voxel at level 0, None when unknown.
    unit : str
        Of both.
    time_step, time_unit : float, str
        Interval between time points, 1.0 and "" when unknown.
    places : tuple of Level, optional
        How the voxels of each level lie among those of level 0; from the shapes when None.
    rgb : bool, optional
        Whether channels are the colours of a pixel; None when the source does not say.
    missing : callable
        Gives and forgets the names of chunks that were asked for since the last call and are not there.
    has_data : callable
        Whether any chunk is there at all.
    close : callable
        Closes files.
    """

    levels: tuple[Any, ...]
    axes: str | None = None
    source: str | None = None
    spacing_zyx: Triple | None = None
    translate_zyx: Triple | None = None
    unit: str = ""
    time_step: float = 1.0
    time_unit: str = ""
    places: tuple[Level, ...] | None = None
    rgb: bool | None = None
    missing: Callable[[], list[str]] = list
    has_data: Callable[[], bool] = lambda: True
    close: Callable[[], None] = do_nothing
