"""What a click in a plane can mean of a labelled object: the connected part that it is on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from skimage.measure import label

from napari_sam.core.arrays import Array


def connected_parts(planes: Iterable[Array]) -> Iterator[Array]:
    """Split objects into their parts in each plane; a part keeps the number of what it overlaps in the plane before.

    Parameters
    ----------
    planes : iterable of (Y, X) int array
        Labels of a volume's planes, one after the other; 0 is background.

    Yields
    ------
    (Y, X) int64 array
        Numbers of parts, whose sides touch. Of several parts that overlap one of the plane before, and of several
        that one overlaps, those that share most pixels keep the number; the others get numbers that no plane had.
    """
    before: tuple[Array, Array] | None = None
    highest = 0
    for labels in planes:
        parts = label(labels, connectivity=1)
        if before is not None:
            same = (labels == before[0]) & (labels > 0)
            parts = _numbered(parts, before[1], same, highest + 1)
        before, highest = (labels, parts), max(highest, int(parts.max()))
        yield parts


def _numbered(parts: Array, before: Array, same: Array, free: int) -> Array:
    """Parts with the numbers of those before them, where the object is the same; others from `free` on."""
    numbers = np.arange(parts.max() + 1) + free
    pairs, overlap = np.unique(np.stack([parts[same], before[same]]), axis=1, return_counts=True)
    order = overlap.argsort()
    owner = dict(zip(pairs[1, order].tolist(), pairs[0, order].tolist(), strict=True))  # the largest wins
    numbers[list(owner.values())] = list(owner)
    numbers[0] = 0
    return np.asarray(numbers[parts])
