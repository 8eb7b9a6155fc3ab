"""All or nothing: write beside the target, then rename.

A reader sees the old file or the new one, never half of one; a failure or a cancel leaves the old one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from napari_sam.errors import ExportError


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a path beside `target` to write a file or folder to; put it in place when the block ends well.

    A link stays one: what it leads to is replaced.

    Raises
    ------
    ExportError
        If the system refuses to write or rename; `target` is then as it was.
    """
    target = Path(os.path.realpath(target)) if target.is_symlink() else target
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        _remove(beside)
        yield beside
        sync_to_disk(beside)
        _put(beside, target)
    except OSError as error:
        if isinstance(error, ExportError):
            raise
        raise ExportError(
            f"cannot write {target}: {error}; what was there before is unchanged. "
            "Choose a folder you can write to, with enough space"
        ) from error
    finally:
        _remove(beside)


def check_new(target: Path, overwrite: bool) -> None:
    """Raise ExportError if a file cannot be put at `target`: no folder for it, or something is there."""
    if not target.parent.is_dir():
        raise ExportError(f"there is no folder {target.parent}; make it first")
    if target.is_dir():
        raise ExportError(f"{target} is a folder; choose another name")
    if target.exists() and not overwrite:
        raise ExportError(
            f"{target} exists; choose another name, or allow to overwrite it (overwrite=True, --overwrite)"
        )


def sync_to_disk(path: Path) -> None:
    """Wait until a file, or all files in a folder, have reached the disk."""
    if path.is_file():
        _sync_file(path)
        return
    files = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(_sync_file, files))


def replace_text(target: Path, text: str) -> None:
    """Write a small text file, all or nothing."""
    with replacing(target) as beside:
        beside.write_text(text, encoding="utf-8")


def _put(beside: Path, target: Path) -> None:
    """Rename over a file; a folder cannot be renamed over, so an old one steps aside first."""
    if not target.is_dir():
        os.replace(beside, target)
    else:
        aside = target.with_name(f".{target.name}.{os.getpid()}.old")
        os.rename(target, aside)
        try:
            os.rename(beside, target)
        except OSError:
            os.rename(aside, target)
            raise
        _remove(aside)
    _sync_folder(target.parent)


def _sync_file(path: Path) -> None:
    # Windows flushes only handles that are open for writing.
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
