"""The beginning of a session: a new folder with what must be known, or an earlier one that goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sam import __version__
from napari_sam.core.models import ModelSpec
from napari_sam.core.protocols import VolumeLike
from napari_sam.errors import SessionError
from napari_sam.propagation.settings import PropagationSettings
from napari_sam.session import requests as ask
from napari_sam.session.codec import encode
from napari_sam.session.image import ImageRef
from napari_sam.session.journal import FILE_NAME, Journal
from napari_sam.session.made import MadeWith
from napari_sam.session.marks import marks_on_plane, marks_space
from napari_sam.session.recovery import LABELS, Recovered, Story

if TYPE_CHECKING:
    from napari_sam.session.session import Session


class Opening:
    """Begins a journal, or goes on with one.

    Parameters
    ----------
    session : Session
        Whose journal it is.

    Attributes
    ----------
    model_number : int
        Which of the models named in the journal is used; from 1.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.model_number = 0
        self._models: dict[int, ModelSpec] = {}
        self._digests: dict[int, str] = {}
        self._weights: dict[str, Any] = {}

    def begin(self, folder: Path, image: ImageRef, flat: bool) -> None:
        """Begin a journal in a folder, or one beside it where there is a session in it already."""
        session, state = self._session, self._session.state
        folder = free_folder(folder)
        assert session.volume is not None
        journal = session.journal = Journal(folder)
        self._forget_models()
        journal.append("image", image=image.to_json(folder))
        for each in fields(state):
            journal.append("setting", name=each.name, value=encode(getattr(state, each.name)))
        self.note_model()
        session.orders.submit(ask.UseVolume(volume=session.volume, journal=journal))
        self._make_labels(flat)

    def note_model(self, weights: Mapping[str, Any] | None = None) -> None:
        """Say in the journal which model is used from here on; its weights are those known, or these."""
        journal = self._session.journal
        self.model_number += 1
        self._weights = self._weights if weights is None else dict(weights)
        self._models[self.model_number] = self._session.state.model
        journal.append("model", spec=encode(self._session.state.model))
        if self._weights:
            self._note_weights()

    def note_weights(self, weights: Mapping[str, Any]) -> None:
        """Know which weights were loaded."""
        self._weights = dict(weights)
        self._note_weights()

    def made_with(self, number: int, settings: PropagationSettings | None) -> MadeWith:
        """What an object is made with when this model, by its number, draws it."""
        return MadeWith(self._models[number], self._digests.get(number, ""), settings=settings)

    def _forget_models(self, number: int = 0) -> None:
        """Begin with another journal, which names so many models already."""
        self.model_number = number
        self._models.clear()
        self._digests.clear()

    def _note_weights(self) -> None:
        self._digests[self.model_number] = self._weights.get("encoder_digest", "")
        self._session.journal.append("weights", number=self.model_number, **self._weights)

    def go_on(self, recovered: Recovered) -> None:
        """Go on where an earlier session ended."""
        session, story, volume = self._session, recovered.story, self._session.volume
        assert story.image is not None
        if volume is None or ImageRef.of(volume).shape != story.image.shape:
            recovered.journal.close()
            session.failed.emit(SessionError(_misfit(story.image, volume)))
            return
        self._take_settings(story.settings)
        session.journal = recovered.journal
        session.journal.append("reopened", version=__version__)
        self._take_objects(story)
        self._forget_models(len(story.models))
        self.note_model()
        session.orders.submit(ask.UseVolume(volume=volume, journal=session.journal, known=story.digests))
        session.enter(volume)
        session.copied = story.copied
        session.largest_label = max(session.largest_label, story.largest_label)
        if recovered.labels is None:
            self._make_labels(flat=bool(story.labels.get("flat")))
        else:
            session.labels = recovered.labels
            session.labels_ready.emit(session.labels)
        session.orders.submit(ask.CheckImage(volume=volume, known=story.digests))
        session.reopened.emit(recovered)
        session.predictions.encode_view()
        session.predictions.update()
        session.marks_changed.emit()

    def _take_settings(self, settings: Mapping[str, Any]) -> None:
        state = self._session.state
        known = {each.name for each in fields(state)}
        for name, value in settings.items():
            if name in known and getattr(state, name) != value:
                setattr(state, name, value)

    def _take_objects(self, story: Story) -> None:
        session = self._session
        session.objects.clear()
        session.objects.update(story.objects)
        session.history = story.history
        session.writer.remember(story.places)
        self._take_answered(story)
        same_model = story.models[-1:] == [session.state.model]
        session.predictions.remember(story.asked() if same_model else {}, 1 + max(story.answers, default=0))
        session.orders.begin_after(story.last_job)

    def _take_answered(self, story: Story) -> None:
        """Know which prompted planes were written since their last mark: the user has seen what is there."""
        assert self._session.volume is not None
        space = marks_space(self._session.volume)
        for record in story.objects.values():
            for plane in self._session.editing.prompted_planes(record):
                then, score = story.marks_then.get((record.object_id, plane)), record.scores.get(plane)
                if then is None or (score is not None and not score.is_seed):
                    continue
                marks = marks_on_plane(record.marks, plane, space)
                if marks.same_as(marks_on_plane(then, plane, space)):
                    record.answered[plane] = marks

    def _make_labels(self, flat: bool) -> None:
        session = self._session
        assert session.volume is not None
        assert session.folder is not None
        level = session.state.level
        session.journal.append("labels", path=LABELS, level=level, flat=flat)
        session.orders.submit(
            ask.CreateLabels(
                path=session.folder / LABELS,
                volume=session.volume,
                level=level,
                flat=flat,
                journal=session.journal,
            )
        )


def free_folder(folder: Path) -> Path:
    """The folder, or one beside it, in which no session is."""
    path, number = folder, 1
    while (path / FILE_NAME).exists():
        number += 1
        path = folder.with_name(f"{folder.name}-{number}")
    return path


def _misfit(image: ImageRef, volume: VolumeLike | None) -> str:
    shape = ImageRef.of(volume).shape if volume is not None else None
    return (
        f"the session is about '{image.name}' of shape (T, Z, Y, X, C) = {image.shape}, the image that is open "
        f"has {shape}; open {image.path or 'that image'}"
    )
