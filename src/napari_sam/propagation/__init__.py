"""Carrying an object through planes. A predictor is handed in; nothing here knows the network."""

from napari_sam.propagation.engine import propagate_objects
from napari_sam.propagation.settings import Carry, Direction, Fusion, PropagationSettings

__all__ = ["Carry", "Direction", "Fusion", "PropagationSettings", "propagate_objects"]
