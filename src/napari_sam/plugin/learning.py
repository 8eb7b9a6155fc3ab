"""Runs fine-tuning on a thread of its own and tells the Qt thread what happens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_sam.core.arrays import Array
from napari_sam.errors import JobCancelled, TrainingError

MOST_BYTES = 1 << 30
"""Of an image that is read whole; of a larger one only the labelled planes are, one by one."""

Events = Generator[Any, None, None]
Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class LayerPair:
    """Data of an image layer and a labels layer, not read yet.

    Parameters
    ----------
    image, labels : array_like
        Of equal shape, but for the colours of an image that has some.
    is_rgb : bool
        Whether it has.
    at : tuple of int
        Where in the dimensions before the last three.
    """

    image: Any
    labels: Any
    is_rgb: bool
    at: tuple[int, ...]

    def read(self) -> list[tuple[Array, Array]]:
        """Arrays as `own_planes` takes them, with no more of a large image than its labelled planes.

        Raises
        ------
        TrainingError
            The shapes do not fit each other.
        """
        shape = tuple(self.image.shape)[:-1] if self.is_rgb else tuple(self.image.shape)
        if shape != tuple(self.labels.shape):
            raise TrainingError(
                f"the labels have shape {tuple(self.labels.shape)}, the image {shape}; choose layers that belong "
                "together: labels of the shape of the image, or of one of its levels"
            )
        lead = self.at[: max(0, len(shape) - 3)]
        image, labels = self.image[lead] if lead else self.image, self.labels[lead] if lead else self.labels
        if len(shape) < 3 or int(np.prod(image.shape)) * np.dtype(image.dtype).itemsize <= MOST_BYTES:
            return [(np.asarray(image), np.asarray(labels))]
        return list(_labelled_planes(image, labels))


def level_of(levels: Sequence[Any], labels: Any, is_rgb: bool) -> Any:
    """The level of a multiscale image that labels were made at, by its shape; the finest where none fits."""
    return next(
        (one for one in levels if tuple(one.shape)[: one.ndim - is_rgb] == tuple(labels.shape)), levels[0]
    )


def _labelled_planes(image: Any, labels: Any) -> Generator[tuple[Array, Array], None, None]:
    for index in range(labels.shape[0]):
        plane = np.asarray(labels[index])
        if plane.any():
            yield np.asarray(image[index]), plane


class LearningThread:
    """Drives the generator of a fine-tuning run.

    Parameters
    ----------
    start : callable
        Makes the generator; called on the thread, with a function that wants to hear of a download.
    tell : callable
        Called on the thread with ("event", event), ("fetching", (bytes so far, bytes in all)), ("failed", error),
        ("cancelled", None) or ("done", None).
    """

    def __init__(self, start: Callable[[Report], Events], tell: Callable[[str, Any], None]) -> None:
        self._start, self._tell = start, tell
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="napari-sam learning", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._thread.is_alive()

    def cancel(self) -> None:
        """End it after the step it is at; the best so far is kept."""
        self._cancelled.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end; whether it came."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            events = self._start(self._fetching)
            for event in events:
                self._tell("event", event)
                if self._cancelled.is_set():
                    events.close()
                    self._tell("cancelled", None)
                    return
            self._tell("done", None)
        except JobCancelled:
            self._tell("cancelled", None)
        except Exception as error:  # noqa: BLE001 - a thread must hand on whatever happened
            self._tell("failed", error)

    def _fetching(self, done: int, total: int) -> None:
        self._tell("fetching", (done, total))
        if self._cancelled.is_set():
            raise JobCancelled("the download was cancelled")
