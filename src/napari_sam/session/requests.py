"""Frozen work orders for the inference thread, and what it answers.

Requests of one *lane* replace each other: when a newer one is submitted, an older one that waits is dropped and
one that runs is closed at its next step; its *generation* is stale. Requests without a lane are always
carried out, in the order in which they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, ClassVar

from napari_sam.core.models import ModelSpec
from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.protocols import VolumeLike
from napari_sam.core.results import LabelEdit, MaskPrediction
from napari_sam.propagation.settings import PropagationSettings
from napari_sam.session.labels import LabelArray, LabelDelta
from napari_sam.session.marks import Marks
from napari_sam.session.state import OverlapPolicy


class Priority(IntEnum):
    """Which request runs first; lower numbers win, and a running job lets them pass between its steps."""

    SETUP = 0
    LABELS = 1
    DECODE = 2
    SCREEN = 3
    PROPAGATE = 4
    SAVE = 5
    IDLE = 9


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Request:
    """One work order; `generation` grows with every request of a session."""

    generation: int = 0
    priority: ClassVar[Priority] = Priority.SETUP
    title: ClassVar[str] = "Working"

    @property
    def lane(self) -> str | None:
        """Requests of the same lane replace each other."""
        return None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LoadModel(Request):
    """Load a model; answers with the Predictor."""

    spec: ModelSpec
    title: ClassVar[str] = "Loading the model"

    @property
    def lane(self) -> str:
        """The last model chosen wins."""
        return "model"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ListModels(Request):
    """Look up which models there are; answers with ModelInfos."""

    title: ClassVar[str] = "Looking for models"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class UseVolume(Request):
    """Make a volume the one that is segmented; answers with it."""

    volume: VolumeLike
    title: ClassVar[str] = "Opening the image"

    @property
    def lane(self) -> str:
        """The last volume chosen wins."""
        return "volume"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CreateLabels(Request):
    """Make the label array on disk; answers with a LabelArray."""

    path: Path
    volume: VolumeLike
    level: int
    flat: bool
    title: ClassVar[str] = "Making the labels"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class UseLabels(Request):
    """Look through existing labels; answers with the largest one so far after every part."""

    labels: LabelArray
    title: ClassVar[str] = "Reading the labels"

    @property
    def lane(self) -> str:
        """The last labels chosen win."""
        return "labels"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Predict(Request):
    """Answer the marks of one object in one plane; answers with a MaskPrediction.

    `earlier` is the answer before the last marks were added.
    """

    object_id: int
    plane: PlaneRef
    marks: Marks
    earlier: MaskPrediction | None = None
    priority: ClassVar[Priority] = Priority.DECODE
    title: ClassVar[str] = "Predicting"

    @property
    def lane(self) -> str:
        """One answer a plane."""
        return f"predict {self.plane}"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EncodePlane(Request):
    """Encode the plane on screen; answers with an EncodeEvent."""

    plane: PlaneRef
    priority: ClassVar[Priority] = Priority.SCREEN
    title: ClassVar[str] = "Encoding this plane"

    @property
    def lane(self) -> str:
        """Only one plane is on screen."""
        return "screen"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EncodePlanes(Request):
    """Encode planes when nothing else is to do, in this order; answers with EncodeEvents."""

    planes: tuple[PlaneRef, ...]
    priority: ClassVar[Priority] = Priority.IDLE
    title: ClassVar[str] = "Encoding planes"

    @property
    def lane(self) -> str:
        """A new order of planes replaces the old one."""
        return "idle"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Propagate(Request):
    """Carry one object through planes and write it; answers with Written, one a plane.

    Parameters
    ----------
    seeds : mapping of PlaneRef to Region or Marks
        Masks that the user has seen, or marks where there is none yet.
    replaces : mapping of PlaneRef to Region
        What the object was in the label array before.
    stale : tuple of PlaneRef
        Planes of an earlier propagation, to be cleared if this one does not reach them.
    """

    labels: LabelArray
    object_id: int
    plane: PlaneRef
    seeds: Mapping[PlaneRef, Region | Marks]
    settings: PropagationSettings
    policy: OverlapPolicy
    replaces: Mapping[PlaneRef, Region]
    stale: tuple[PlaneRef, ...] = ()
    priority: ClassVar[Priority] = Priority.PROPAGATE
    title: ClassVar[str] = "Propagating"

    @property
    def lane(self) -> str:
        """One propagation at a time."""
        return "propagate"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class WriteLabels(Request):
    """Write edits under a policy; answers with Written, one an edit."""

    labels: LabelArray
    edits: tuple[LabelEdit, ...]
    policy: OverlapPolicy
    replaces: Mapping[PlaneRef, Region]
    priority: ClassVar[Priority] = Priority.LABELS
    title: ClassVar[str] = "Writing the labels"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RestoreLabels(Request):
    """Take label changes back, or make them again; answers with one LabelChange a delta."""

    labels: LabelArray
    deltas: tuple[LabelDelta, ...]
    forward: bool
    priority: ClassVar[Priority] = Priority.LABELS
    title: ClassVar[str] = "Restoring the labels"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SaveLabels(Request):
    """Write the labels to a file that other programs read; answers with its path."""

    labels: LabelArray
    path: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    priority: ClassVar[Priority] = Priority.SAVE
    title: ClassVar[str] = "Saving"

    @property
    def lane(self) -> str:
        """One file at a time."""
        return "save"
