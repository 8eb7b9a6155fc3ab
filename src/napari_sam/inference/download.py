"""Fetching one file and checking it. What does not match its hash never gets its final name."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, suppress
from pathlib import Path

import pooch
import requests

from napari_sam.errors import DownloadError, JobCancelled
from napari_sam.inference.registry import Progress

_TIMEOUT_S = 30.0
_STEP_S = 0.1
"""Between two looks at a download that runs."""


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
        There is no connection, or what came is not the right file. Says which file to put where. Or the file
        that is there is another one; it is left alone.
    """
    with closing(fetch_steps(url, path, known_hash)) as steps:
        if callable(progress):
            for done, total in steps:
                progress(done, total)
        else:
            _drive(steps, path.name, shown=progress)
    return path


def fetch_steps(url: str, path: Path, known_hash: str) -> Generator[tuple[int, int], None, None]:
    """`fetch` in steps, each with the bytes so far and in all (0 if unknown); closing it gives the download up."""
    if path.is_file():
        _check(url, path, known_hash)
        return
    bar = _Bar()
    downloader = pooch.HTTPDownloader(progressbar=bar, timeout=_TIMEOUT_S)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(1) as thread:
            job = thread.submit(
                pooch.retrieve, url, known_hash, path.name, path.parent, downloader=downloader
            )
            try:
                while wait([job], _STEP_S).not_done:
                    yield bar.done, bar.total
            finally:
                bar.is_given_up = True
            job.result()
            yield bar.total, bar.total
    except (requests.RequestException, OSError) as error:
        raise _failed(url, path, f"{type(error).__name__}: {error}") from error
    except ValueError as error:
        raise _failed(url, path, f"what came does not match its hash {known_hash} and was deleted") from error


class _Bar:
    """What pooch wants of a progress bar, looked at and given up from another thread."""

    def __init__(self) -> None:
        self.total = self.done = 0
        self.is_given_up = False

    def update(self, amount: int) -> None:
        """Count some bytes; pooch takes every block for full, and deletes what it has where this raises."""
        if self.is_given_up:
            raise JobCancelled("the download was given up")
        self.done = min(self.done + amount, self.total or self.done + amount)

    def reset(self) -> None:
        """Pooch resets a bar only to fill it at the end."""
        self.done = 0

    def close(self) -> None:
        """Nothing to close."""


def _drive(steps: Iterator[tuple[int, int]], name: str, shown: bool) -> None:
    """Carry out all steps, with a bar once there is something to show."""
    from tqdm import tqdm

    for done, total in steps:
        with tqdm(total=total or None, desc=name, unit="B", unit_scale=True, disable=not shown) as bar:
            bar.update(done)
            for now, _ in steps:
                bar.update(now - bar.n)


def _check(url: str, path: Path, known_hash: str) -> None:
    """A file that somebody put there by hand, or that was fetched before; hashed once, then remembered."""
    mark = path.with_name(path.name + ".checked")
    stat = path.stat()
    seal = f"{known_hash} {stat.st_size} {stat.st_mtime_ns}"
    if mark.is_file() and mark.read_text() == seal:
        return
    found = _hash_like(known_hash, path)
    if found != known_hash:
        raise DownloadError(
            f"{path} is not the file that is at {url}: its hash is {found} and should be {known_hash}. It was left "
            "as it is: move it away to have the right one fetched, or use it by its path as a model of its own"
        )
    with suppress(OSError):  # a read-only folder: it is hashed again the next time
        mark.write_text(seal)


def _hash_like(known_hash: str, path: Path) -> str:
    """Hash of a file by the algorithm of another, written like that one."""
    algorithm, _ = known_hash.split(":")
    return f"{algorithm}:{pooch.file_hash(str(path), alg=algorithm)}"


def _failed(url: str, path: Path, why: str) -> DownloadError:
    return DownloadError(
        f"{path.name} could not be fetched from {url} ({why}). Try again, or fetch it on another machine "
        f"and put it into the folder {path.parent}{os.sep} as {path.name}"
    )
