"""Requests on their way: numbered when they go out, checked for freshness when their answers come in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from napari_sam.core.planes import PlaneRef
from napari_sam.session import requests as ask
from napari_sam.session.worker import Event, InferenceThread, Job

UNDISTURBED = (
    ask.ListModels,
    ask.LoadModel,
    ask.UseVolume,
    ask.CreateLabels,
    ask.WriteLabels,
    ask.RemoveObjects,
    ask.RestoreLabels,
    ask.OpenSession,
    ask.FindSessions,
    ask.EndSession,
    ask.DescribeSession,
)
"""Requests that a user's Cancel does not stop."""


class Orders:
    """Hands requests to an inference thread and knows which answers are still wanted.

    Parameters
    ----------
    job, deliver : callable
        As `InferenceThread` takes them.
    """

    def __init__(self, job: Callable[[ask.Request], Job], deliver: Callable[[Event], None]) -> None:
        self._generation = 0
        self._latest: dict[str, int] = {}
        self._open: dict[int, ask.Request] = {}
        self._left_at = 0
        self._thread = InferenceThread(job, deliver)

    def reserve(self) -> int:
        """A generation for a request that is sent later, or for work that needs none."""
        self._generation += 1
        return self._generation

    def begin_after(self, generation: int) -> None:
        """Let generations begin above those of an earlier run."""
        self._generation = max(self._generation, generation)

    def submit(self, request: ask.Request, generation: int | None = None) -> int:
        """Send a request and return its generation; give the one that was reserved for it."""
        generation = generation or self.reserve()
        request = replace(request, generation=generation)
        if request.lane is not None:
            self._latest[request.lane] = generation
        self._open[generation] = request
        self._thread.submit(request)
        return generation

    def cancel(self, matches: Callable[[ask.Request], bool]) -> None:
        """Cancel requests that match."""
        self._thread.cancel(matches)

    def cancel_prediction(self, object_id: int, plane: PlaneRef) -> None:
        """Cancel what was asked for an object in a plane."""
        self._thread.cancel(
            lambda r: isinstance(r, ask.Predict) and r.object_id == object_id and r.plane == plane
        )

    def cancel_all(self) -> None:
        """Cancel everything that does not write labels or prepare the work."""
        self._thread.cancel(lambda request: not isinstance(request, UNDISTURBED))

    def leave_image(self) -> None:
        """Answers about the image so far are not wanted any more."""
        self.cancel_all()
        self._left_at = self._generation

    def is_fresh(self, request: ask.Request) -> bool:
        """Whether it is about this image, and no newer request of its lane was made."""
        if request.generation <= self._left_at:
            return isinstance(request, ask.ListModels | ask.LoadModel | ask.SaveLabels)
        return self.is_latest(request)

    def is_latest(self, request: ask.Request) -> bool:
        """Whether no newer request of its lane was made."""
        return request.lane is None or self._latest[request.lane] == request.generation

    def ended(self, request: ask.Request) -> None:
        """Note that the last event of a request has arrived."""
        self._open.pop(request.generation, None)

    def is_open(self, matches: Callable[[ask.Request], bool]) -> bool:
        """Whether a request that matches has not ended."""
        return any(map(matches, self._open.values()))

    @property
    def is_busy(self) -> bool:
        """Whether anything waits, runs, or is on its way back."""
        return bool(self._open)

    def close(self, timeout: float | None) -> bool:
        """End the thread once labels are written; True once it has ended."""
        kept = ask.WriteLabels | ask.RemoveObjects | ask.RestoreLabels | ask.EndSession | ask.DescribeSession
        return self._thread.close(timeout, keep=lambda request: isinstance(request, kept))
