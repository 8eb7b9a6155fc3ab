"""From a session folder back to a session: what was journalled, and labels that agree with it.

A `Story` takes the records of a journal one by one and knows then what the session knew: objects, marks, names,
settings, where each written mask is kept, the history. Changes of labels are in the journal before they are in the
label array, so the last ones are made again, and work that was ordered is finished.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.errors import SessionError
from napari_sam.io.labels import open_labels
from napari_sam.session import requests as ask
from napari_sam.session.codec import decode, encode, unpack_region
from napari_sam.session.following import corrections, look_at_painted
from napari_sam.session.history import (
    NOWHERE,
    Change,
    History,
    LabelWrite,
    MarksChange,
    RecordChange,
    Step,
    Writing,
    encode_changes,
)
from napari_sam.session.image import ImageRef
from napari_sam.session.journal import FILE_NAME, Journal, Record
from napari_sam.session.labels import (
    RUN_CHANGES,
    Kept,
    LabelArray,
    LabelDelta,
    apply_edit,
    impose,
)
from napari_sam.session.made import Made, MadeWith, made_changes, made_of
from napari_sam.session.many import removals, write_many
from napari_sam.session.marks import Marks
from napari_sam.session.objects import NOT_CARRIED, ObjectRecord
from napari_sam.session.restoring import restore_writes

LABELS = "labels.zarr"
"""Name of the label array in a session folder."""
MADE_AGAIN = RUN_CHANGES
"""So many of the last changes of labels are made again: as many as one thread tells the journal before it makes them."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What led to an answer of the model.

    Parameters
    ----------
    number : int
        Of the answer.
    questions : tuple of Marks
        In order; each answer was handed in with the next question.
    choices : tuple of (int or None)
        Which mask of each answer was chosen; None for the one that the model chose.
    start : Any
        The mask that the first question corrected, as the journal holds it; None if there was none.
    scale : float
        At which the model looked.
    """

    number: int
    questions: tuple[Marks, ...]
    choices: tuple[int | None, ...]
    start: Any = None
    scale: float = 1

    @property
    def chain(self) -> tuple[tuple[Marks, int | None], ...]:
        """The questions before the last one, with their choices."""
        return tuple(zip(self.questions[:-1], self.choices[:-1]))

    @property
    def chosen(self) -> int | None:
        """Which mask of the last answer was chosen."""
        return self.choices[-1]


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Work that had not come to its end.

    Parameters
    ----------
    kind : str
        Name of its request.
    object_ids : tuple of int
        The objects that it was about, as far as it was about any.
    """

    kind: str
    object_ids: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class OpenJob:
    """A job that had not ended: a step in the making, or an undo or redo (`forward`) of one."""

    writing: Writing
    request: Any = None
    step: Step | None = None
    forward: bool = False

    @property
    def kind(self) -> str | None:
        """Name of the request that was carried out; None for a stroke, an undo or a redo."""
        return self.request["kind"] if self.request is not None else None

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects that its request names; none for labels that are copied or taken over."""
        asked: Record = self.request or {}
        parts = [asked, *asked.get("others", {}).get("items", ())]
        return tuple(part["object_id"] for part in parts if "object_id" in part)

    @property
    def all_or_nothing(self) -> bool:
        """Whether what it did counts only if it comes to its end."""
        return self.kind is not None and bool(getattr(ask, self.kind).all_or_nothing)


@dataclass(slots=True, eq=False)
class Story:
    """What the records so far say.

    Parameters
    ----------
    folder : Path
        Of the session; paths are relative to it.
    """

    folder: Path
    image: ImageRef | None = None
    labels: Record = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    objects: dict[int, ObjectRecord] = field(default_factory=dict)
    places: dict[tuple[int, PlaneRef], int] = field(default_factory=dict)
    overwritten: set[tuple[int, PlaneRef]] = field(default_factory=set)
    marks_then: dict[tuple[int, PlaneRef], Marks] = field(default_factory=dict)
    history: History = field(default_factory=History)
    digests: dict[PlaneRef, str] = field(default_factory=dict)
    versions: list[str] = field(default_factory=list)
    models: list[Any] = field(default_factory=list)
    weights: list[Record] = field(default_factory=list)
    contrasts: dict[int, Any] = field(default_factory=dict)
    answers: dict[int, Record] = field(default_factory=dict)
    latest: dict[tuple[int, PlaneRef], int] = field(default_factory=dict)
    jobs: dict[int, OpenJob] = field(default_factory=dict)
    deltas: list[int] = field(default_factory=list)
    interrupted: list[Interrupted] = field(default_factory=list)
    largest_label: int = 0
    copied: list[tuple[int, int]] = field(default_factory=list)
    last_job: int = 0
    n_steps: int = 0
    ended: str = ""

    def take(self, at: int, record: Record) -> None:
        """Take the next record, which begins at `at`."""
        self.ended = record["time"]
        self.last_job = max(self.last_job, record.get("job") or 0)
        handler = getattr(self, f"_on_{record['event']}", None)
        if handler is not None:
            handler(at, record)

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was done yet."""
        return self.n_steps == 0

    def asked(self) -> dict[tuple[int, PlaneRef], Asked]:
        """The last answer of each object in each plane, where the model is still the same."""
        return {
            key: self._chain(last)
            for key, last in self.latest.items()
            if self.models[self.answers[last]["model"] - 1] == self.models[-1]
        }

    def _chain(self, number: int) -> Asked:
        questions: list[Marks] = []
        choices: list[int | None] = [self.answers[number].get("chosen")]
        answer = self.answers[number]
        link: int | None = number
        while link is not None:
            answer = self.answers[link]
            questions.append(Marks.from_json(answer["marks"]))
            link, chosen = answer["follows"] or (None, None)
            if chosen is not None:
                choices.append(chosen)
        start, scale = answer.get("start"), answer.get("scale", 1)
        return Asked(number, tuple(reversed(questions)), tuple(reversed(choices)), start, scale)

    def _object(self, object_id: int) -> ObjectRecord:
        return self.objects.setdefault(object_id, ObjectRecord(object_id))

    # Records

    def _on_session(self, at: int, record: Record) -> None:
        self.versions.append(record["version"])

    def _on_reopened(self, at: int, record: Record) -> None:
        self.versions.append(record["version"])

    def _on_image(self, at: int, record: Record) -> None:
        self.image = ImageRef.from_json(record["image"], self.folder)

    def _on_labels(self, at: int, record: Record) -> None:
        self.labels = record

    def _on_largest(self, at: int, record: Record) -> None:
        self.largest_label = record["label"]

    def _on_setting(self, at: int, record: Record) -> None:
        self.settings[record["name"]] = decode(record["value"])
        if record["name"] == "object_id":
            self._object(self.settings["object_id"])

    def _on_model(self, at: int, record: Record) -> None:
        self.models.append(decode(record["spec"]))

    def _on_weights(self, at: int, record: Record) -> None:
        self.weights.append({k: v for k, v in record.items() if k not in ("n", "time", "event")})

    def _on_contrast(self, at: int, record: Record) -> None:
        self.contrasts[record["time_point"]] = decode(record["contrast"])

    def _on_pixels(self, at: int, record: Record) -> None:
        self.digests[decode(record["plane"])] = record["digest"]

    def _on_answer(self, at: int, record: Record) -> None:
        self.answers[record["number"]] = record
        self.latest[record["object"], decode(record["plane"])] = record["number"]
        self._object(record["object"]).scale = record.get("scale", 1)

    def _on_choose(self, at: int, record: Record) -> None:
        if record["number"] in self.answers:
            self.answers[record["number"]]["chosen"] = record["chosen"]

    def _on_step(self, at: int, record: Record) -> None:
        self.n_steps += 1
        changes = tuple(self._change(value) for value in record.get("changes", ()))
        self._apply(changes)
        number, model = record.get("number", 0), record.get("model", 0)
        writing = Writing(record["title"], record["object"], changes, number=number, model=model)
        self.last_job = max(self.last_job, number)
        request = record.get("request") or {}
        if request.get("kind") == ask.ImportLabels.__name__:
            self.copied.append((request["offset"] + 1, request["largest"]))
        if record.get("job") is None:
            self._push(writing)
        else:
            self.jobs[record["job"]] = OpenJob(writing, record.get("request"))

    def _on_delta(self, at: int, record: Record) -> None:
        if len(self.deltas) >= 2 * MADE_AGAIN:
            del self.deltas[:MADE_AGAIN]
        self.deltas.append(at)
        job, plane, object_id = self.jobs.get(record["job"]), PlaneRef(*record["plane"]), record["object"]
        self.overwritten.update((other, plane) for other in record.get("over", ()))
        if job is None or job.step is not None:
            return
        before = self.places.get((object_id, plane), NOWHERE)
        job.writing.writes.append(LabelWrite(at, plane, object_id, before))
        if object_id > 0:
            self._place(object_id, plane, at, record["region"])

    def _on_end(self, at: int, record: Record) -> None:
        job = self.jobs.pop(record["job"], None)
        if job is not None and record["how"] != "finished":
            job.writing.cut_short(self.objects, NOT_CARRIED, is_whole=not job.all_or_nothing)
        changes = tuple(self._change(value) for value in record.get("changes", ()))
        changes += made_changes(decode(record.get("made", [])), self.objects)
        self._apply(changes)
        if job is not None and job.step is None:
            job.writing.changes += changes
            self._push(job.writing)

    def _on_undo(self, at: int, record: Record) -> None:
        self._move(self.history.undo(), record, forward=False)

    def _on_redo(self, at: int, record: Record) -> None:
        self._move(self.history.redo(), record, forward=True)

    # Details

    def _push(self, writing: Writing) -> None:
        step = writing.step()
        if step is not None:
            self.history.push(step)

    def _move(self, step: Step | None, record: Record, forward: bool) -> None:
        if step is None:
            raise SessionError(
                f"record {record['n']} of the journal of {self.folder} undoes what is not there"
            )
        if step.changes:
            self.settings["object_id"] = step.object_id
            self._apply(step.ordered(forward))
        marked = {change.object_id for change in step.changes if isinstance(change, MarksChange)}
        for write in step.writes if forward else reversed(step.writes):
            key = write.object_id, write.plane
            place = write.at if forward else write.before
            if write.object_id > 0 and place != NOWHERE:
                self.places[key] = place
            else:
                self.places.pop(key, None)
            if write.object_id in marked:
                self.marks_then[key] = self.objects[write.object_id].marks
            else:
                self.marks_then.pop(key, None)
        if record["job"] is not None:
            writing = Writing(step.title, step.object_id)
            self.jobs[record["job"]] = OpenJob(writing, step=step, forward=forward)

    def _change(self, value: Record) -> Change:
        object_id = value["object"]
        record = self._object(object_id)
        if "marks" in value:
            return MarksChange(object_id, record.marks, Marks.from_json(value["marks"]))
        after = {name: decode(v) for name, v in value["fields"].items() if hasattr(record, name)}
        return RecordChange(object_id, {name: getattr(record, name) for name in after}, after)

    def _apply(self, changes: tuple[Change, ...]) -> None:
        for change in changes:
            record = self._object(change.object_id)
            if isinstance(change, MarksChange):
                record.marks = change.after
            else:
                for name, value in change.after.items():
                    setattr(record, name, value)

    def _place(self, object_id: int, plane: PlaneRef, at: int, region: Record | None) -> None:
        key, marks = (object_id, plane), self._object(object_id).marks
        if region is not None and region["box"][2] > region["box"][0]:
            self.places[key] = at
            self.marks_then[key] = marks
        else:
            self.places.pop(key, None)


@dataclass(slots=True, eq=False)
class Recovered:
    """A session that was read from its folder.

    Parameters
    ----------
    story : Story
        What it knew.
    journal : Journal
        Open for more.
    labels : LabelArray, optional
        None if they had not been made yet.
    """

    story: Story
    journal: Journal
    labels: LabelArray | None = None


def recover(folder: str | Path) -> Recovered:
    """Read a session folder, and bring its labels to what the journal says.

    Raises
    ------
    SessionError
        It holds no session, one that is damaged in the middle, or one that is open elsewhere.

    Warns
    -----
    SessionWarning
        The last record was cut off.
    """
    story = Story(Path(folder))
    if not (story.folder / FILE_NAME).is_file():
        raise SessionError(f"there is no session in {folder}; choose a folder that holds a {FILE_NAME}")
    journal = Journal(folder, story.take)
    try:
        if story.image is None:
            raise SessionError(
                f"the session {folder} ended before an image was opened; there is nothing in it"
            )
        recovered = Recovered(story, journal, _open_labels(story, journal))
        if recovered.labels is not None:
            mend_labels(recovered.labels, story)
        _place_masks(story, journal)
        look_at_painted(story, recovered.labels)
    except BaseException:
        journal.close()
        raise
    return recovered


def mend_labels(labels: LabelArray, story: Story) -> None:
    """Make the last changes again and finish what was ordered, but for propagations: those can be resumed.

    What counts only when it is complete is taken back.
    """
    journal = labels.journal
    for at in story.deltas:
        impose(labels, LabelDelta.from_json(journal.read(at)))
    for number, job in sorted(story.jobs.items(), key=lambda item: item[1].all_or_nothing):
        _finish(labels, number, job, story)
    while (step := story.history.next_undo) is not None and not step.is_whole:
        number = story.last_job + 1
        at = journal.append("undo", job=number)
        story.take(at, journal.read(at))
        _finish(labels, number, story.jobs[number], story)


def read_region(journal: Journal, at: int) -> Region:
    """The mask that a change of labels came from."""
    return unpack_region(journal.read(at)["region"])


def decode_request(request: Mapping[str, Any], journal: Journal) -> dict[str, Any]:
    """Fields of a request of the journal, with their masks."""
    return {name: decode_mask(value, journal) for name, value in request.items() if name != "kind"}


def decode_mask(value: Any, journal: Journal) -> Any:
    """A value of the journal, with masks that it names by their place."""

    def find(named: Mapping[str, Any]) -> Region | None:
        return read_region(journal, named["at"]) if "at" in named else None

    return decode(value, find)


def _open_labels(story: Story, journal: Journal) -> LabelArray | None:
    if not story.labels:
        return None
    path = story.folder / story.labels["path"]
    if not (path / "zarr.json").exists():
        if story.deltas:
            raise SessionError(f"the labels {path} are missing; put them back beside the journal")
        shutil.rmtree(path, ignore_errors=True)  # killed before they were made
        return None
    return LabelArray(open_labels(path), story.labels["level"], journal)


def _finish(labels: LabelArray, number: int, job: OpenJob, story: Story) -> None:
    """Bring an open job to its end."""
    journal = labels.journal
    if job.step is not None:
        for _ in restore_writes(labels, job.step.writes, job.forward, number):
            continue
    elif job.kind == "WriteLabels":
        _finish_writing(labels, number, job, story)
    elif job.kind == "RemoveObjects":
        _finish_removing(labels, number, job, story)
    elif job.request is not None:
        story.interrupted.append(Interrupted(str(job.kind), job.object_ids))
    changes, made = encode_changes(corrections(job, story, journal)), encode(_made(job, story))
    at = journal.append("end", job=number, how="interrupted", changes=changes, made=made)
    story.take(at, journal.read(at))


def _made(job: OpenJob, story: Story) -> tuple[Made, ...]:
    """What a propagation or refinement that was interrupted had made."""
    number, settings = job.writing.model, decode((job.request or {}).get("settings"))
    if not number or settings is None:
        return ()
    drawn = {(write.object_id, write.plane.time) for write in job.writing.writes}
    digests = {w["number"]: w.get("encoder_digest", "") for w in story.weights}
    how = MadeWith(story.models[number - 1], digests.get(number, ""), settings=settings)
    return made_of(drawn, story.contrasts, how)


def _finish_writing(labels: LabelArray, number: int, job: OpenJob, story: Story) -> None:
    request = decode_request(job.request, labels.journal)
    for edit in request["edits"][len(job.writing.writes) :]:
        score = request.get("scores", {}).get(edit.plane) if edit.region.area else None
        kept = Kept(labels.journal, number, edit.label, edit.region, encode(score))
        apply_edit(labels, edit, request["policy"], request["replaces"].get(edit.plane), kept)
        story.take(kept.at, labels.journal.read(kept.at))


def _finish_removing(labels: LabelArray, number: int, job: OpenJob, story: Story) -> None:
    request = decode_request(job.request, labels.journal)
    left = islice(removals(labels.journal, **request), len(job.writing.writes), None)
    for written in write_many(labels, left, number):
        story.take(written.at, labels.journal.read(written.at))


def _place_masks(story: Story, journal: Journal) -> None:
    for (object_id, plane), at in list(story.places.items()):
        kept = journal.read(at)
        region = unpack_region(kept["region"])
        if not region.area:  # a deletion that was made again
            del story.places[object_id, plane]
            continue
        record = story.objects[object_id]
        record.set_written(plane, region)
        record.set_kept(plane, unpack_region(kept["asked"]) if "asked" in kept else record.written[plane])
        record.set_score(plane, decode(kept.get("score")))
