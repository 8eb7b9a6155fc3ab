"""Frozen work orders for the inference thread, and what it answers.

Requests of one *lane* replace each other: when a newer one is submitted, an older one that waits is dropped and
one that runs is closed at its next step; its *generation* is stale. Requests without a lane are always
carried out, in the order in which they came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, ClassVar

from napari_sam.core.arrays import Array
from napari_sam.core.models import ModelSpec
from napari_sam.core.planes import BoxYXYX, PlaneRef, Region
from napari_sam.core.protocols import VolumeLike
from napari_sam.core.results import LabelEdit, MaskPrediction
from napari_sam.inference.sight import FULL, Sight
from napari_sam.io.export import ExportOptions
from napari_sam.propagation.anchors import Gap
from napari_sam.propagation.settings import PropagationSettings
from napari_sam.session.history import Writes
from napari_sam.session.image import ImageRef
from napari_sam.session.journal import Journal
from napari_sam.session.labels import LabelArray
from napari_sam.session.marks import Marks
from napari_sam.session.objects import PlaneScore
from napari_sam.session.state import OverlapPolicy


class Priority(IntEnum):
    """Which request runs first; lower numbers win, and a running job lets them pass between its steps."""

    SETUP = 0
    LABELS = 1
    MODEL = 2
    DECODE = 3
    SCREEN = 4
    PROPAGATE = 5
    SAVE = 6
    IDLE = 9


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Request:
    """One work order; `generation` grows with every request of a session."""

    generation: int = 0
    priority: ClassVar[Priority] = Priority.SETUP
    title: ClassVar[str] = "Working"
    all_or_nothing: ClassVar[bool] = False
    """Whether what it did is taken back if it does not come to its end."""

    @property
    def lane(self) -> str | None:
        """Requests of the same lane replace each other."""
        return None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class LoadModel(Request):
    """Load a model; answers with a `Fetched` after every part of a download, then with its `Weights`.

    Labels are written between two parts; whatever needs the model waits.
    """

    spec: ModelSpec
    priority: ClassVar[Priority] = Priority.MODEL
    title: ClassVar[str] = "Loading the model"

    @property
    def lane(self) -> str:
        """The last model chosen wins."""
        return "model"


@dataclass(frozen=True, slots=True)
class Fetched:
    """Bytes of a model's weights that have come, and in all; 0 if that is not known."""

    done: int
    total: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ListModels(Request):
    """Look up which models there are; answers with ModelInfos."""

    title: ClassVar[str] = "Looking for models"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class UseVolume(Request):
    """Make a volume the one that is segmented; answers with it.

    What is read of it is noted in the journal; `known` are planes whose pixels were noted there before.
    """

    volume: VolumeLike
    journal: Journal = field(default_factory=lambda: Journal(None))
    known: Mapping[PlaneRef, str] = field(default_factory=dict)
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
    journal: Journal = field(default_factory=lambda: Journal(None))
    title: ClassVar[str] = "Making the labels"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ScanLabels(Request):
    """Look for the largest of labels from elsewhere; answers with a Computed, whose `then` takes it.

    Parameters
    ----------
    source : array_like
        Integers, read plane by plane.
    then : callable
        Called with the largest label on the session's own thread.
    """

    source: Any
    then: Callable[[int], None]
    priority: ClassVar[Priority] = Priority.PROPAGATE
    title: ClassVar[str] = "Reading the labels"

    @property
    def lane(self) -> str:
        """The last labels chosen win."""
        return "labels"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ImportLabels(Request):
    """Copy labels to where nothing is yet; answers with Copied. One that is cut short is taken back.

    Parameters
    ----------
    source : array_like
        (T, Z, Y, X) integers.
    offset : int
        Added to every label.
    largest : int
        What that gives at most.
    """

    labels: LabelArray
    source: Any
    offset: int
    largest: int
    priority: ClassVar[Priority] = Priority.PROPAGATE
    title: ClassVar[str] = "Copying the labels"
    all_or_nothing: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Predict(Request):
    """Answer the marks of one object in one plane; answers with a MaskPrediction.

    Parameters
    ----------
    earlier : MaskPrediction, optional
        The answer before the last marks were added.
    number : int
        Of this answer, in the journal.
    follows : (int, int), optional
        Number of the earlier answer, and which of its masks was chosen.
    chain : tuple of (Marks, int)
        Earlier questions and choices, to be asked again first because their answers are not there any more.
    chosen : int, optional
        Which of the masks the user had chosen; None leaves it to the model.
    is_known : bool
        Whether the journal has this answer from an earlier run.
    start : Region, optional
        What the object is in this plane already, if the first marks are there to correct it.
    sight : Sight
        How finely the model looks at the plane.
    """

    object_id: int
    plane: PlaneRef
    marks: Marks
    earlier: MaskPrediction | None = None
    number: int = 0
    follows: tuple[int, int] | None = None
    chain: tuple[tuple[Marks, int | None], ...] = ()
    chosen: int | None = None
    is_known: bool = False
    start: Region | None = None
    sight: Sight = FULL
    priority: ClassVar[Priority] = Priority.DECODE
    title: ClassVar[str] = "Predicting"

    @property
    def lane(self) -> str:
        """One answer an object and plane."""
        return f"predict {self.object_id} {self.plane}"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EncodePlane(Request):
    """Encode the plane on screen, or the `part` of it that is shown; answers with an EncodeEvent."""

    plane: PlaneRef
    sight: Sight = FULL
    part: BoxYXYX | None = None
    priority: ClassVar[Priority] = Priority.SCREEN
    title: ClassVar[str] = "Encoding this plane"

    @property
    def lane(self) -> str:
        """Only one plane is on screen."""
        return "screen"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EncodePlanes(Request):
    """Encode planes, or the same `part` of each, when nothing else is to do; answers with EncodeEvents."""

    planes: tuple[PlaneRef, ...]
    sight: Sight = FULL
    part: BoxYXYX | None = None
    priority: ClassVar[Priority] = Priority.IDLE
    title: ClassVar[str] = "Encoding planes"

    @property
    def lane(self) -> str:
        """A new order of planes replaces the old one."""
        return "idle"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Carried:
    """One object that is carried through planes.

    Parameters
    ----------
    object_id : int
        Which object.
    seeds : mapping of PlaneRef to Region or Marks
        Masks that the user has seen, or marks where there is none yet.
    replaces : mapping of PlaneRef to Region
        What the object was in the label array before.
    stale : tuple of PlaneRef
        Planes of an earlier propagation, to be cleared if this one does not reach them.
    gaps : tuple of Gap, optional
        The gaps between seed planes that are run again; all when None.
    protected : tuple of PlaneRef
        The user's own planes without a seed, along any axis; nothing is written there.
    anchors : mapping of PlaneRef to str
        Digests of all of the user's planes, for the next time.
    starts : mapping of PlaneRef to Region
        What the marks among the seeds are there to correct.
    """

    object_id: int
    seeds: Mapping[PlaneRef, Region | Marks]
    replaces: Mapping[PlaneRef, Region] = field(default_factory=dict)
    stale: tuple[PlaneRef, ...] = ()
    gaps: tuple[Gap, ...] | None = None
    protected: tuple[PlaneRef, ...] = ()
    anchors: Mapping[PlaneRef, str] = field(default_factory=dict)
    starts: Mapping[PlaneRef, Region] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Propagate(Request):
    """Carry objects through planes and write them; answers with Written, one an object and plane.

    The fields of the first object are those of `Carried`; `others` go with it, in the same batches, and all planes
    are looked at as the smallest of them asks for.
    """

    labels: LabelArray
    object_id: int
    plane: PlaneRef
    seeds: Mapping[PlaneRef, Region | Marks]
    settings: PropagationSettings
    policy: OverlapPolicy
    replaces: Mapping[PlaneRef, Region]
    stale: tuple[PlaneRef, ...] = ()
    gaps: tuple[Gap, ...] | None = None
    protected: tuple[PlaneRef, ...] = ()
    others: tuple[Carried, ...] = ()
    starts: Mapping[PlaneRef, Region] = field(default_factory=dict)
    sight: Sight = FULL
    priority: ClassVar[Priority] = Priority.PROPAGATE
    title: ClassVar[str] = "Propagating"

    @property
    def objects(self) -> dict[int, Carried]:
        """All objects by number."""
        first = Carried(
            object_id=self.object_id,
            seeds=self.seeds,
            replaces=self.replaces,
            stale=self.stale,
            gaps=self.gaps,
            protected=self.protected,
            starts=self.starts,
        )
        return {one.object_id: one for one in (first, *self.others)}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class WriteLabels(Request):
    """Write edits under a policy; answers with Written, one an edit. `scores` are what is known about their masks."""

    labels: LabelArray
    edits: tuple[LabelEdit, ...]
    policy: OverlapPolicy
    replaces: Mapping[PlaneRef, Region]
    scores: Mapping[PlaneRef, PlaneScore] = field(default_factory=dict)
    priority: ClassVar[Priority] = Priority.LABELS
    title: ClassVar[str] = "Writing the labels"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RemoveObjects(Request):
    """Clear objects, or make them part of another one; answers with Batches of Written.

    Parameters
    ----------
    places, painted, into
        As `many.removals` takes them.
    """

    labels: LabelArray
    places: Array
    painted: Mapping[int, Mapping[PlaneRef, Region]]
    into: int = 0
    priority: ClassVar[Priority] = Priority.LABELS
    title: ClassVar[str] = "Writing the labels"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TakeLabels(Request):
    """Look for objects in the labels; answers with Batches of Written, one an object and plane, that change nothing.

    An object of which some planes are missing is of no use, so one that is cut short is taken back.

    Parameters
    ----------
    plane : PlaneRef
        Says the axis and the time.
    wanted : tuple of int, optional
        These labels only.
    skip : tuple of int
        Labels that are objects already.
    """

    labels: LabelArray
    plane: PlaneRef
    wanted: tuple[int, ...] | None = None
    skip: tuple[int, ...] = ()
    priority: ClassVar[Priority] = Priority.PROPAGATE
    title: ClassVar[str] = "Taking objects from the labels"
    all_or_nothing: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Refine(Request):
    """Let the model draw an object again in these planes; answers with Written, one a plane that changes.

    Where they cross a `protected` plane along another axis they stay as they are.
    """

    labels: LabelArray
    object_id: int
    replaces: Mapping[PlaneRef, Region]
    settings: PropagationSettings
    protected: tuple[PlaneRef, ...] = ()
    sight: Sight = FULL
    priority: ClassVar[Priority] = Priority.PROPAGATE
    title: ClassVar[str] = "Refining"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class AgreeAlongAxes(Request):
    """Carry an object along the two other axes and let all three vote; answers with Written, one a plane that changes.

    Parameters
    ----------
    masks : mapping of PlaneRef to Region
        The object, in parallel planes.
    replaces : mapping of PlaneRef to Region
        Those of them that may change.
    """

    labels: LabelArray
    object_id: int
    masks: Mapping[PlaneRef, Region]
    replaces: Mapping[PlaneRef, Region]
    settings: PropagationSettings
    sight: Sight = FULL
    priority: ClassVar[Priority] = Priority.PROPAGATE
    title: ClassVar[str] = "Carrying along three axes"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Compute(Request):
    """Do something that takes long; answers with a Computed, whose `then` takes what came out.

    Parameters
    ----------
    work : callable
        Called on the inference thread.
    then : callable
        Called with its result on the session's own thread.
    """

    work: Callable[[], Any]
    then: Callable[[Any], None]
    priority: ClassVar[Priority] = Priority.LABELS


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class RestoreLabels(Request):
    """Take label changes back, or make them again; answers with Batches of Restored, one a change."""

    labels: LabelArray
    writes: Writes
    forward: bool
    priority: ClassVar[Priority] = Priority.LABELS
    title: ClassVar[str] = "Restoring the labels"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SaveLabels(Request):
    """Write the labels, or tables, meshes or annotations of them; answers with the path."""

    labels: LabelArray
    path: Path
    options: ExportOptions = field(default_factory=ExportOptions)
    priority: ClassVar[Priority] = Priority.SAVE
    title: ClassVar[str] = "Saving"

    @property
    def lane(self) -> str:
        """Saving a file again is enough once; other files are saved as well."""
        return f"save {self.path}"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class OpenSession(Request):
    """Read the journal of a session folder and bring its labels up to date; answers with a Recovered."""

    folder: Path
    title: ClassVar[str] = "Opening the session"

    @property
    def lane(self) -> str:
        """The last session chosen wins."""
        return "session"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FindSessions(Request):
    """Look for earlier sessions on an image; answers with SessionInfos, the latest first."""

    root: Path
    image: ImageRef
    priority: ClassVar[Priority] = Priority.LABELS
    title: ClassVar[str] = "Looking for earlier work"

    @property
    def lane(self) -> str:
        """Only the last image counts."""
        return "find"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CheckImage(Request):
    """Compare planes with their digests from earlier; answers with an ImageChanged if some are different."""

    volume: VolumeLike
    known: Mapping[PlaneRef, str]
    priority: ClassVar[Priority] = Priority.SAVE
    title: ClassVar[str] = "Comparing the image"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EndSession(Request):
    """Close the journal of a session, after its last labels were written; or throw its folder away."""

    journal: Journal
    discard: bool = False
    priority: ClassVar[Priority] = Priority.LABELS
    title: ClassVar[str] = "Ending the session"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DescribeSession(Request):
    """Write the ``session.json`` of a session folder."""

    folder: Path
    priority: ClassVar[Priority] = Priority.IDLE
    title: ClassVar[str] = "Describing the session"
