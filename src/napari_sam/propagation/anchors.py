"""Which planes a change of the user's planes affects.

An *anchor* is a plane that the user prompted or corrected. A plane that is none depends on the nearest anchor
on either side and on nothing else, so a change of one anchor concerns the two gaps beside it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True, order=True)
class Gap:
    """The planes between two neighbouring anchors; None where there is none on that side."""

    below: int | None
    above: int | None

    def planes(self, first: int, end: int) -> range:
        """Its planes among `first` to `end` - 1."""
        low = first if self.below is None else max(first, self.below + 1)
        high = end if self.above is None else min(end, self.above)
        return range(low, max(low, high))

    @property
    def anchors(self) -> tuple[int, ...]:
        """The anchors beside it."""
        return tuple(index for index in (self.below, self.above) if index is not None)


def gaps_of(anchors: Mapping[int, Hashable]) -> tuple[Gap, ...]:
    """All gaps, in order; none where there are no anchors."""
    return tuple(Gap(a, b) for a, b in pairwise([None, *sorted(anchors), None])) if anchors else ()


def affected_gaps(old: Mapping[int, Hashable], new: Mapping[int, Hashable]) -> tuple[Gap, ...]:
    """The gaps that have to be computed again.

    Parameters
    ----------
    old, new : mapping of int to hashable
        Plane index of each anchor -> what it says; equal values mean that nothing changed. `old` are those of
        the last propagation, empty if there was none (or settings changed and all is to be done).

    Returns
    -------
    tuple of Gap
        In order. A gap is left out only if the same anchors, saying the same, were beside it before and
        none was in it. Anchors are in no gap.
    """
    before = set(gaps_of(old))

    def unchanged(gap: Gap) -> bool:
        return gap in before and all(old[index] == new[index] for index in gap.anchors)

    return tuple(gap for gap in gaps_of(new) if not unchanged(gap))
