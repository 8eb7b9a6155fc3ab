"""A session once more, from its journal, with the model: the same labels, or where they differ.

Orders are carried out by the same engine, in the order in which their changes were written; answers of the model are
computed again wherever a mask came from one. What people painted by hand, or took from elsewhere, is taken from the
journal.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.protocols import VolumeLike
from napari_sam.core.results import MaskPrediction
from napari_sam.errors import SessionError
from napari_sam.inference.sight import Sight
from napari_sam.io.labels import open_labels
from napari_sam.session import requests as ask
from napari_sam.session.codec import decode
from napari_sam.session.engine import Backend, Engine, Weights, choose
from napari_sam.session.history import NOWHERE, LabelWrite, Step
from napari_sam.session.image import ImageRef
from napari_sam.session.journal import FILE_NAME, Journal, Record, read_journal
from napari_sam.session.labels import Kept, LabelArray, LabelDelta, impose
from napari_sam.session.many import Batch, Written
from napari_sam.session.marks import Marks
from napari_sam.session.recovery import LABELS, Story, read_region
from napari_sam.session.report import write_report
from napari_sam.session.restoring import Restored, restore_writes
from napari_sam.session.worker import Job

ANSWERS_KEPT = 64


@dataclass(slots=True)
class Replayed:
    """What a replay found.

    Parameters
    ----------
    n_steps : int
        Things done in the session.
    differing : dict of int to int
        Plane (of the first spatial axis, all time points in a row) to voxels that are not as in the session.
    remarks : list of str
        What is not as it was when the session was made: image, weights, contrast.
    """

    n_steps: int = 0
    differing: dict[int, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def is_identical(self) -> bool:
        """Whether all labels are those of the session."""
        return not self.differing


def replay(
    folder: str | Path,
    volume: VolumeLike,
    backend: Backend,
    output: str | Path | None = None,
    *,
    force: bool = False,
) -> Replayed:
    """Do a session again, without a window, and compare the labels.

    Parameters
    ----------
    folder : path
        Of the session; it is only read.
    volume : VolumeLike
        Its image.
    backend : Backend
        Loads the models that it names.
    output : path, optional
        Folder to make, for ``labels.zarr`` and ``session.json``.
    force : bool
        Go on though image or weights are not those of the session.

    Raises
    ------
    SessionError
        There is no such session, `output` exists, or image or weights are not those of the session.
    """
    folder, target = Path(folder), Path(output) if output is not None else None
    if target is not None and target.exists():
        raise SessionError(f"{target} exists; choose another output folder")
    with tempfile.TemporaryDirectory(prefix="napari-sam-replay-") as place:
        player = _Player(folder, volume, backend, Path(place), force)
        for at, record in read_journal(folder / FILE_NAME):
            player.take(at, record)
        result = player.finish()
        if target is not None:
            _hand_over(Path(place), folder, target)
    return result


class _Player:
    """Takes the records of a journal one by one and does what they say."""

    def __init__(self, folder: Path, volume: VolumeLike, backend: Backend, place: Path, force: bool) -> None:
        self.story = Story(folder)
        self.result = Replayed()
        self._volume, self._backend, self._place, self._force = volume, backend, place, force
        self._journal = Journal(place)
        self._labels: LabelArray | None = None
        self._engines: dict[Any, Engine] = {}
        self._jobs: dict[int, Job | Iterator[Restored]] = {}
        self._moved: dict[int, int] = {}
        self._known = self._digests(folder)
        self._answer = lru_cache(ANSWERS_KEPT)(self._compute)

    def take(self, at: int, record: Record) -> None:
        """Take the next record of the session."""
        event, step = record["event"], self._step_of(record)
        self.story.take(at, record)
        if event == "labels":
            self._make_labels(record)
        elif event == "step" and record.get("request") is not None:
            self._begin(record)
        elif event in ("undo", "redo") and step is not None and record["job"] is not None:
            writes = self._own(step)
            self._jobs[record["job"]] = restore_writes(
                self._need_labels(), writes, event == "redo", record["job"]
            )
        elif event == "delta":
            self._write(at, record)
        elif event == "end":
            self._end(record)

    def finish(self) -> Replayed:
        """Compare with the labels of the session."""
        self._journal.close()
        self.result.n_steps = self.story.n_steps
        labels = self._need_labels()
        theirs = open_labels(self.story.folder / self.story.labels["path"])
        for number, index in enumerate(np.ndindex(*labels.array.shape[:-2])):
            different = np.count_nonzero(np.asarray(labels.array[index]) != np.asarray(theirs[index]))
            if different:
                self.result.differing[number] = int(different)
        return self.result

    # Records

    def _make_labels(self, record: Record) -> None:
        if self.story.image is None or ImageRef.of(self._volume).shape != self.story.image.shape:
            raise SessionError(
                f"the image has the shape {ImageRef.of(self._volume).shape} (T, Z, Y, X, C), that of the session "
                f"{self.story.image.shape if self.story.image else None}; name the right image"
            )
        path = self._place / record["path"]
        if self._labels is None:
            request = ask.CreateLabels(
                path=path,
                volume=self._volume,
                level=record["level"],
                flat=record["flat"],
                journal=self._journal,
            )
            (self._labels,) = Engine(self._backend).job(request)

    def _begin(self, record: Record) -> None:
        request = record["request"]
        if request["kind"] == ask.ImportLabels.__name__:  # the journal knows what came, not where from
            return
        values = {name: decode(value, self._find) for name, value in request.items() if name != "kind"}
        if "places" in values:
            values["places"][:, 0] = [self._moved[at] for at in values["places"][:, 0].tolist()]
        kind = getattr(ask, request["kind"])
        made = kind(**values, labels=self._need_labels(), generation=record["job"])
        self._jobs[record["job"]] = _one_by_one(self._engine(record["model"]).job(made))

    def _write(self, at: int, record: Record) -> None:
        job = self._jobs.get(record["job"])
        if job is not None:
            written = _next_write(job)
            if isinstance(written, Written):
                self._moved[at] = written.at
            return
        delta = LabelDelta.from_json(record)  # by hand, or from elsewhere
        kept = Kept(self._journal, record["job"])
        kept(delta)
        self._moved[at] = kept.at
        self._need_labels().note_painted(delta, record["job"])
        impose(self._need_labels(), delta)

    def _end(self, record: Record) -> None:
        job = self._jobs.pop(record["job"], None)
        if job is None:
            return
        if record["how"] == "finished":
            while _next_write(job) is not None:
                continue
        if isinstance(job, Generator):
            job.close()

    # Details

    def _step_of(self, record: Record) -> Step | None:
        """The step that a record takes back or makes again."""
        history = self.story.history
        return {"undo": history.next_undo, "redo": history.next_redo}.get(record["event"])

    def _own(self, step: Step) -> list[LabelWrite]:
        """The writes of a step, where they are in the replay's own journal."""
        return [
            LabelWrite(self._moved[w.at], w.plane, w.object_id, self._moved.get(w.before, NOWHERE))
            for w in step.writes
            if w.at in self._moved
        ]

    def _find(self, value: Mapping[str, Any]) -> Region | None:
        if "at" in value:
            return read_region(self._journal, self._moved[value["at"]])
        if "answer" in value:
            number, candidate = value["answer"]
            answer: MaskPrediction = self._answer(number)
            return answer.candidates[int(candidate)].region
        return None

    def _compute(self, number: int) -> MaskPrediction:
        record = self.story.answers[number]
        earlier = None
        if record["follows"] is not None:
            before, chosen = record["follows"]
            earlier = choose(self._answer(before), chosen)
        engine = self._engine(record["model"])
        start = decode(record.get("start"), self._find)
        plane, marks = decode(record["plane"]), Marks.from_json(record["marks"])
        answer = engine.answer(plane, marks, earlier, start, Sight(record.get("scale", 1)))
        self._check_pixels(engine)
        return answer

    def _engine(self, number: int) -> Engine:
        """An engine with the model that the session used then."""
        spec = self.story.models[number - 1]
        if spec not in self._engines:
            engine = self._engines[spec] = Engine(self._backend)
            *_, weights = engine.job(ask.LoadModel(spec=spec))
            self._check_weights(number, weights)
            use = ask.UseVolume(volume=self._volume, journal=self._journal, known=self._known)
            list(engine.job(use))
        return self._engines[spec]

    def _check_weights(self, number: int, weights: Weights) -> None:
        theirs = next((w for w in self.story.weights if w["number"] == number), None)
        for name in ("encoder_digest", "file_hash"):
            mine = weights.values.get(name)
            if theirs is not None and mine and theirs.get(name) and mine != theirs[name]:
                self._remark(
                    f"the weights of {weights.values['model']!r} are {mine}, the session used {theirs[name]}"
                )
                return
        for name in ("device", "dtype"):
            mine = weights.values.get(name)
            if theirs is not None and mine != theirs.get(name):
                self.result.remarks.append(f"{name} is {mine}, the session had {theirs.get(name)}")

    def _check_pixels(self, engine: Engine) -> None:
        if engine.changed:
            planes = ", ".join(str(plane.index) for plane in engine.changed)
            engine.changed.clear()
            self._remark(f"the image is not that of the session: plane {planes} differs")

    def _remark(self, text: str) -> None:
        if not self._force:
            raise SessionError(f"{text}; to replay nevertheless, pass --force")
        self.result.remarks.append(text)

    def _need_labels(self) -> LabelArray:
        if self._labels is None:
            raise SessionError(f"the session {self.story.folder} has no labels; there is nothing to replay")
        return self._labels

    @staticmethod
    def _digests(folder: Path) -> dict[PlaneRef, str]:
        found: dict[PlaneRef, str] = {}
        for _, record in read_journal(folder / FILE_NAME):
            if record["event"] == "pixels":
                found.setdefault(decode(record["plane"]), record["digest"])
        return found


def _one_by_one(job: Job) -> Job:
    """The answers of a job, those in batches one after the other."""
    for value in job:
        yield from value.answers if isinstance(value, Batch) else (value,)


def _next_write(job: Job | Iterator[Restored]) -> Written | Restored | None:
    """The next change that a job makes, None at its end."""
    for value in job:
        if isinstance(value, Written | Restored):
            return value
    return None


def _hand_over(place: Path, folder: Path, target: Path) -> None:
    try:
        target.mkdir(parents=True)
        shutil.move(place / LABELS, target / LABELS)
        write_report(folder, target)
    except OSError as error:
        raise SessionError(f"cannot write {target}: {error}; choose a folder you can write to") from error
