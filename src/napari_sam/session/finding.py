"""Session folders: what each is about, without opening it, and which are about an image."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

from napari_sam.errors import NapariSamError, SessionError, SessionWarning
from napari_sam.session.image import ImageRef
from napari_sam.session.journal import FILE_NAME, Journal, read_journal
from napari_sam.session.recovery import Story

N_FIRST = 16
"""So many records say what a session is about."""
MOST_FOLDERS = 500
"""So many of the latest session folders are looked at."""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session folder, for a list.

    Parameters
    ----------
    folder : Path
        Where it is.
    image : ImageRef
        What it is about.
    level : int
        Multiscale level that is segmented.
    n_objects, n_steps : int
        Objects with labels; things done.
    modified : datetime
        When something was done last.
    """

    folder: Path
    image: ImageRef
    level: int
    n_objects: int
    n_steps: int
    modified: datetime


def read_beginning(folder: Path) -> Story:
    """What the first records of a session say: image and settings; nothing if there is no such session."""
    story = Story(folder)
    with suppress(NapariSamError):
        for at, record in islice(read_journal(folder / FILE_NAME), N_FIRST):
            story.take(at, record)
    return story


def session_info(folder: str | Path) -> SessionInfo:
    """Read what a session is about without opening it.

    Raises
    ------
    SessionError
        There is none, or it is damaged in the middle.
    """
    story = Story(Path(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SessionWarning)
        for at, record in read_journal(story.folder / FILE_NAME):
            story.take(at, record)
    if story.image is None:
        raise SessionError(f"the session {folder} ended before an image was opened; there is nothing in it")
    n_objects = len({object_id for object_id, _ in story.places})
    level = story.settings.get("level", 0)
    modified = datetime.fromisoformat(story.ended)
    return SessionInfo(story.folder, story.image, level, n_objects, story.n_steps, modified)


def list_sessions(root: Path) -> Iterator[Path]:
    """Session folders in a folder, those first whose name sorts last (names begin with the time)."""
    if root.is_dir():
        found = (path for path in root.iterdir() if (path / FILE_NAME).is_file())
        yield from islice(sorted(found, reverse=True), MOST_FOLDERS)


def find_sessions(root: Path, image: ImageRef, at_most: int = 5) -> tuple[SessionInfo, ...]:
    """Sessions on an image in which something was done and that are not open, the latest first."""
    infos = []
    for folder in list_sessions(root):
        known = read_beginning(folder).image
        if known is None or not known.is_same_as(image) or Journal.is_open(folder):
            continue
        try:
            info = session_info(folder)
        except NapariSamError:
            continue
        if info.n_steps:
            infos.append(info)
        if len(infos) == at_most:
            break
    return tuple(sorted(infos, key=lambda info: info.modified, reverse=True))
