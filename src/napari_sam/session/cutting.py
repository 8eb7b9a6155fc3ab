"""Going back to what a damaged journal still says: it is cut, and the labels are made again from what is left."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from napari_sam.errors import SessionError
from napari_sam.io.labels import open_labels
from napari_sam.session.journal import FILE_NAME, whole_records
from napari_sam.session.labels import LabelArray, LabelDelta, impose

BROKEN = ".broken"
"""Ending of the names of what was set aside."""


def cut_session(folder: str | Path) -> int:
    """Drop a broken record of a session's journal and all after it, and what these did to its labels.

    The journal of before stays as ``journal.jsonl.broken``, the labels as ``labels.zarr.broken``. Where no record is
    broken, the labels are left as they are.

    Returns
    -------
    int
        How many records are left.

    Raises
    ------
    SessionError
        There is no session, or not even its first record is whole.
    """
    journal = Path(folder) / FILE_NAME
    if not journal.is_file():
        raise SessionError(f"there is no session in {folder}; give a folder that holds {FILE_NAME}")
    kept = [line for line, _ in whole_records(journal)]
    if not kept:
        raise SessionError(f"{journal} holds no whole record; nothing of it can be used")
    is_whole = sum(map(len, kept)) == journal.stat().st_size
    made = None if is_whole else _make_labels(journal)
    os.replace(journal, journal.with_name(journal.name + BROKEN))
    journal.write_bytes(b"".join(kept))
    if made is not None:
        labels, fresh = made
        labels.rename(_free(labels.with_name(labels.name + BROKEN)))
        fresh.rename(labels)
    return len(kept)


def _make_labels(journal: Path) -> tuple[Path, Path] | None:
    """Labels as the whole records of a journal say, beside those that are there; None if there are none."""
    path = fresh = None
    array: LabelArray | None = None
    for _, record in whole_records(journal):
        if record["event"] == "labels":
            path = journal.with_name(record["path"])
            fresh = path.with_name(f"{path.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)  # of a cut that was killed
            if not path.exists():
                return None
            shutil.copytree(path, fresh, ignore=shutil.ignore_patterns("c"))  # "c" holds the chunks
            array = LabelArray(open_labels(fresh), record["level"])
        elif record["event"] == "delta" and array is not None:
            impose(array, LabelDelta.from_json(record))
    return (path, fresh) if path is not None and fresh is not None else None


def _free(path: Path) -> Path:
    """The path, or one with a number where something is there."""
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
