"""A line of JSON for everything that happens, written as it happens."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from napari_sam.errors import SessionError


class Journal:
    """Appends events to ``journal.jsonl`` in a session folder; each line is complete when `append` returns.

    Parameters
    ----------
    folder : path
        Made if it is not there.

    Raises
    ------
    SessionError
        The folder cannot be written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / "journal.jsonl"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        except OSError as error:
            raise SessionError(
                f"the session folder {folder} cannot be written: {error}; set NAPARI_SAM_CACHE to another folder"
            ) from error

    def append(self, event: str, **values: Any) -> None:
        """Add one event with plain values."""
        line = json.dumps({"time": datetime.now(UTC).isoformat(), "event": event, **values})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def events(self) -> list[dict[str, Any]]:
        """All complete events so far; a last line that was cut off is left out."""
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines if line]
