"""What the user wants: one evented object a viewer. Changing a field announces it; nothing else happens here."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from psygnal import SignalGroupDescriptor

from napari_sam.core.models import ModelSpec
from napari_sam.propagation.settings import Direction


class OverlapPolicy(StrEnum):
    """What a commit may write over."""

    BACKGROUND_ONLY = "background only"
    OVERWRITE = "overwrite"


@dataclass
class SessionState:
    """The user's choices.

    Parameters
    ----------
    model : ModelSpec
        Which model, on which device.
    level : int
        Multiscale level of the labels, 0 is full resolution.
    seen_level : int, optional
        Multiscale level that the model looks at; as the view and the size of the object ask for when None.
    object_id : int
        The object that prompts go to, from 1.
    positive : bool
        Polarity of the next point.
    policy : OverlapPolicy
        What a commit may write over.
    direction : Direction
        Which way propagation goes.
    first_plane, last_plane : int, optional
        Planes that propagation may reach, both included; no limit when None.
    idle_reach : int
        Neighbours on either side of the plane on screen that are encoded in idle time; 0 for none.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    model: ModelSpec = field(default_factory=ModelSpec)
    level: int = 0
    seen_level: int | None = None
    object_id: int = 1
    positive: bool = True
    policy: OverlapPolicy = OverlapPolicy.BACKGROUND_ONLY
    direction: Direction = Direction.BOTH
    first_plane: int | None = None
    last_plane: int | None = None
    idle_reach: int = 16
