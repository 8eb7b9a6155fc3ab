"""Fetching one file and checking it. What does not match its hash never gets its final name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pooch
import requests

from napari_sam.errors import DownloadError
from napari_sam.inference.registry import Progress

_TIMEOUT_S = 30.0


def fetch(url: str, path: Path, known_hash: str, progress: Progress = False) -> Path:
    """Return `path`, fetched first if it is not there.

    A download that is interrupted leaves nothing behind and starts again the next time.

    Parameters
    ----------
    url : str
        Where it is fetched from.
    path : Path
        Where it belongs.
    known_hash : str
        "algorithm:hexadecimal digits".
    progress : bool or callable
        True shows a bar; a function is called with bytes so far and bytes in all.

    Raises
    ------
    DownloadError
        There is no connection, or what came is not the right file. Says which file to put where.
    """
    if path.is_file():
        return _checked(url, path, known_hash)
    downloader = pooch.HTTPDownloader(progressbar=_bar(progress), timeout=_TIMEOUT_S)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(url, known_hash, path.name, path.parent, downloader=downloader)
    except (requests.RequestException, OSError) as error:
        raise _failed(url, path, f"{type(error).__name__}: {error}") from error
    except ValueError as error:
        raise _failed(url, path, f"what came does not match its hash {known_hash} and was deleted") from error
    return path


def _checked(url: str, path: Path, known_hash: str) -> Path:
    """A file that somebody put there by hand, or that was fetched before; hashed once, then remembered."""
    mark = path.with_name(path.name + ".checked")
    stat = path.stat()
    seal = f"{known_hash} {stat.st_size} {stat.st_mtime_ns}"
    if mark.is_file() and mark.read_text() == seal:
        return path
    algorithm, digits = known_hash.split(":")
    if pooch.file_hash(str(path), alg=algorithm) != digits:
        path.unlink()
        raise _failed(
            url, path, f"the file that was there does not match its hash {known_hash} and was deleted"
        )
    try:
        mark.write_text(seal)
    except OSError:  # a read-only folder: it is hashed again the next time
        return path
    return path


def _failed(url: str, path: Path, why: str) -> DownloadError:
    return DownloadError(
        f"{path.name} could not be fetched from {url} ({why}). Try again, or fetch it on another machine "
        f"and put it into the folder {path.parent}{os.sep} as {path.name}"
    )


def _bar(progress: Progress) -> Any:
    return progress if isinstance(progress, bool) else _Callback(progress)


class _Callback:
    """What pooch wants of a progress bar, as a function call."""

    def __init__(self, report: Callable[[int, int], None]) -> None:
        self.report, self.total, self._done = report, 0, 0

    def update(self, amount: int) -> None:
        """Count some bytes; pooch takes every block for full."""
        self._done = min(self._done + amount, self.total or self._done + amount)
        self.report(self._done, self.total)

    def reset(self) -> None:
        """Pooch resets a bar only to fill it at the end."""
        self._done = 0

    def close(self) -> None:
        """Nothing to close."""
