"""Colours that the user gave to objects, in the colormap of a Labels layer.

napari's direct colormap, one colour a label, is built in Python label by label. Its cyclic one is a table that the
graphics card looks labels up in, so a longer table with some entries replaced costs next to nothing, however many
objects there are.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from napari.utils.colormaps import CyclicLabelColormap

from napari_sam.session.objects import Colour

MOST_COLOURS = 1 << 16
"""napari's limit; labels beyond it share the colours of others."""


def own_colours(
    base: CyclicLabelColormap, colours: Mapping[int, Colour], largest: int
) -> CyclicLabelColormap:
    """A colormap like another one, but for the labels that have colours of their own.

    Parameters
    ----------
    base : CyclicLabelColormap
        Colours of all other labels.
    colours : mapping of int to (float, float, float)
        Labels with colours of their own, at least one.
    largest : int
        The largest label.

    Returns
    -------
    CyclicLabelColormap
        Its cycle is longer than the largest label, so that no other label repeats these colours.
    """
    cycle = len(base.colors) - 1
    most = (MOST_COLOURS - 1) // cycle
    n_cycles = min(most, 2 ** int(np.ceil(np.log2(2 * max(largest, *colours) / cycle + 1))))
    table = np.vstack([base.colors[:1], np.tile(base.colors[1:], (n_cycles, 1))])
    for label, colour in colours.items():
        if label < len(table):
            table[label] = (*colour, 1.0)
    return CyclicLabelColormap(
        colors=table,
        seed=base.seed,
        use_selection=base.use_selection,
        selection=base.selection,
        background_value=base.background_value,
    )
