"""Carrying an object through planes. A predictor is handed in; nothing here knows the network."""

from napari_sam.propagation.anchors import Gap, affected_gaps
from napari_sam.propagation.consensus import propagate_three_axes
from napari_sam.propagation.engine import propagate_objects
from napari_sam.propagation.settings import Between, Carry, Direction, Fusion, PropagationSettings

__all__ = [
    "Between",
    "Carry",
    "Direction",
    "Fusion",
    "Gap",
    "PropagationSettings",
    "affected_gaps",
    "propagate_objects",
    "propagate_three_axes",
]
