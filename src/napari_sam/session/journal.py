"""A line for everything that happens, written as it happens.

The file ``journal.jsonl`` is only ever appended to. A line is the CRC-32 of its JSON in eight hexadecimal
digits, a blank, and the JSON: a running number ``n``, the ``time``, the ``event`` and its values. A line is with
the operating system when `append` returns, so a killed process loses none. The first record names the format.
"""

from __future__ import annotations

import json
import os
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from napari_sam import __version__
from napari_sam.errors import SessionError, SessionWarning

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
"""Raised when an older program could not read the records any more."""
FILE_NAME = "journal.jsonl"

Record = dict[str, Any]


class Journal:
    """Appends records to a session folder. Safe to use from several threads.

    Parameters
    ----------
    folder : path, optional
        Made if it is not there. None for a journal that forgets everything.
    each : callable, optional
        Given the place and the content of every record that is there already.

    Raises
    ------
    SessionError
        The folder cannot be written, or holds a journal that is broken, too new, or open elsewhere.

    Warns
    -----
    SessionWarning
        The last record was cut off; it was dropped.
    """

    def __init__(
        self, folder: str | Path | None, each: Callable[[int, Record], object] = lambda at, record: None
    ) -> None:
        self.path = Path(folder) / FILE_NAME if folder is not None else None
        self._lock = Lock()
        self._file: int | None = None
        self._next = self._end = 0
        self._owed: list[tuple[str, Record]] = []
        if self.path is not None:
            self._open(self.path, each)

    def append(self, event: str, **values: Any) -> int:
        """Add one record with plain values, and return where it begins in the file (-1 if there is none).

        Raises
        ------
        SessionError
            It could not be written.
        """
        with self._lock:
            self._pay()
            return self._write(event, values)

    def owe(self, event: str, **values: Any) -> None:
        """Add a record of what has happened already: if it cannot be written now, it is before the next one.

        Raises
        ------
        SessionError
            It could not be written yet.
        """
        with self._lock:
            self._owed.append((event, values))
            self._pay()

    def read(self, at: int) -> Record:
        """The record that begins at a place that `append` gave.

        Raises
        ------
        SessionError
            There is none.
        """
        if self.path is None:
            raise SessionError("this journal keeps nothing")
        with self.path.open("rb") as file:
            file.seek(at)
            record = unpack_line(file.readline())
        if record is None:
            raise SessionError(f"{self.path} was changed from outside: no record begins at byte {at}")
        return record

    def events(self) -> list[Record]:
        """All records so far; see `read_journal`."""
        return [record for _, record in read_journal(self.path)] if self.path is not None else []

    def close(self) -> None:
        """Let go of the file; nothing is kept from here on."""
        with self._lock, suppress(SessionError):
            self._pay()
        with self._lock:
            if self._file is not None:
                os.close(self._file)
            self._file = None

    @staticmethod
    def is_open(folder: str | Path) -> bool:
        """Whether a journal is being written, by this process or another."""
        try:
            file = os.open(Path(folder) / FILE_NAME, os.O_RDWR)
        except OSError:
            return False
        try:
            return not _lock(file)
        finally:
            os.close(file)

    def _pay(self) -> None:
        while self._owed:
            self._write(*self._owed[0])
            del self._owed[0]

    def _write(self, event: str, values: Record) -> int:
        if self._file is None:
            return -1
        line = pack_line({"n": self._next, "time": datetime.now(UTC).isoformat(), "event": event, **values})
        try:
            written = os.write(self._file, line)
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            with suppress(OSError):  # half a record must not stand before the next one
                os.ftruncate(self._file, self._end)
            raise SessionError(f"cannot write {self.path}: {error}; make room on the disk") from error
        at, self._end, self._next = self._end, self._end + len(line), self._next + 1
        return at

    def _open(self, path: Path, each: Callable[[int, Record], object]) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._file = os.open(path, flags, 0o644)
        except OSError as error:
            raise SessionError(
                f"the session folder {path.parent} cannot be written: {error}; "
                "set NAPARI_SAM_CACHE to another folder"
            ) from error
        try:
            if not _lock(self._file):
                raise SessionError(f"the session {path.parent} is open elsewhere; close it there first")
            for at, record in read_journal(path):
                each(at, record)
                self._next, self._end = record["n"] + 1, at
            if self._next:
                self._end += _length_at(path, self._end)
                os.ftruncate(self._file, self._end)
        except BaseException:
            self.close()
            raise
        if not self._next:
            self.append("session", format=FORMAT, version=__version__)

    def __del__(self) -> None:
        """Do not leave the file open."""
        if getattr(self, "_file", None) is not None:
            self.close()


def read_journal(path: Path) -> Iterator[tuple[int, Record]]:
    """Where each record begins, and the record.

    Raises
    ------
    SessionError
        There is no journal, it is of a newer program, or a record in the middle is broken.

    Warns
    -----
    SessionWarning
        The last record was cut off, as a killed process leaves it; it is not given.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise SessionError(f"there is no session in {path.parent}: {error}; choose another folder") from error
    at = number = 0
    with file:
        for line in file:
            record = unpack_line(line)
            if record is None or record["n"] != number:
                _report_broken(path, number, is_last=not file.read(1))
                return
            if number == 0:
                _check_format(path, record)
            yield at, record
            at, number = at + len(line), number + 1


def pack_line(record: Record) -> bytes:
    """A record as a line with its checksum."""
    text = json.dumps(record, separators=(",", ":")).encode("utf-8")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def unpack_line(line: bytes) -> Record | None:
    """The record of a line, None if the line is not whole."""
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        return None
    record: Record = json.loads(text)
    return record


def whole_records(path: Path) -> Iterator[tuple[bytes, Record]]:
    """Lines of a journal and their records, up to the first that is broken or missing."""
    with path.open("rb") as file:
        for number, line in enumerate(file):
            record = unpack_line(line)
            if record is None or record["n"] != number:
                return
            yield line, record


def _report_broken(path: Path, number: int, *, is_last: bool) -> None:
    if number == 0:
        raise SessionError(f"{path} is not a journal of this program; choose a session folder")
    if not is_last:
        raise SessionError(
            f"record {number} of {path} is damaged, with others after it; restore the file from a copy, or run "
            f"`napari-sam sessions cut {path.parent}` to keep what comes before"
        )
    warnings.warn(
        f"the last record of {path} was cut off, as when a program is killed while it writes; it was dropped",
        SessionWarning,
        stacklevel=3,
    )


def _check_format(path: Path, record: Record) -> None:
    if record["event"] != "session" or record["format"] > FORMAT:
        raise SessionError(
            f"{path} has the format {record.get('format')}, this program reads up to {FORMAT}; update the program"
        )


def _length_at(path: Path, at: int) -> int:
    with path.open("rb") as file:
        file.seek(at)
        return len(file.readline())


def _lock(file: int) -> bool:
    """Take the lock of an open file, which ends with it; False if another has it."""
    if fcntl is not None:
        with suppress(OSError):  # file systems without locks: go on without
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return True
