"""One persistent thread a device that carries out requests, the most urgent first.

A job is a generator. Between two of its steps a more urgent request may pass, and the job may be
cancelled; what it yielded until then stays. Nothing is lost silently: every request ends with exactly one
of `Finished`, `Cancelled` and `Failed`.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from napari_sam.errors import JobCancelled
from napari_sam.session.requests import Request

Job = Generator[Any, None, None]


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """Something about a request."""

    request: Request


@dataclass(frozen=True, slots=True, eq=False)
class Started(Event):
    """Its first step begins."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer(Event):
    """It yielded something."""

    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class Finished(Event):
    """It is complete."""


@dataclass(frozen=True, slots=True, eq=False)
class Cancelled(Event):
    """It was cancelled or replaced before its end."""


@dataclass(frozen=True, slots=True, eq=False)
class Failed(Event):
    """It raised an error."""

    error: Exception


class _Task:
    """A request in the queue, ordered by priority, then age."""

    def __init__(self, request: Request, job: Callable[[Request], Job], order: int) -> None:
        self.request, self._job = request, job
        self.key = (request.priority, order)
        self.cancelled = False
        self.steps: Job | None = None

    def __lt__(self, other: _Task) -> bool:
        return self.key < other.key

    def start(self) -> Job:
        self.steps = self._job(self.request)
        return self.steps


class InferenceThread:
    """Carries out requests one step at a time on its own thread.

    Parameters
    ----------
    job : callable
        Makes the generator for a request; called on the inference thread.
    deliver : callable
        Called on the inference thread with every Event; must return quickly.
    name : str
        Of the thread.
    """

    def __init__(
        self,
        job: Callable[[Request], Job],
        deliver: Callable[[Event], None],
        name: str = "napari-sam inference",
    ) -> None:
        self._job, self._deliver = job, deliver
        self._queue: list[_Task] = []
        self._current: _Task | None = None
        self._order = 0
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Queue a request; older ones of its lane are cancelled."""
        with self._changed:
            if self._closed:
                return
            if request.lane is not None:
                self._cancel(lambda other: other.lane == request.lane)
            self._order += 1
            heapq.heappush(self._queue, _Task(request, self._job, self._order))
            self._changed.notify()

    def cancel(self, matches: Callable[[Request], bool]) -> int:
        """Cancel the waiting and the running requests that match; returns how many."""
        with self._changed:
            count = self._cancel(matches)
            self._changed.notify()
            return count

    def close(self, timeout: float | None = None, keep: Callable[[Request], bool] | None = None) -> bool:
        """Take no more requests and end the thread; True once it has ended.

        What waits or runs is cancelled, but for the requests that `keep` names, which are carried out first.
        """
        with self._changed:
            self._closed = True
            self._cancel(lambda request: keep is None or not keep(request))
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def is_busy(self) -> bool:
        """Whether anything runs or waits."""
        with self._changed:
            return self._current is not None or bool(self._queue)

    def _cancel(self, matches: Callable[[Request], bool]) -> int:
        found = [t for t in (*self._queue, self._current) if t and not t.cancelled and matches(t.request)]
        for task in found:
            task.cancelled = True
        return len(found)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._current = None
                while not self._queue and not self._closed:
                    self._changed.wait()
                if not self._queue:
                    return
                task = self._current = heapq.heappop(self._queue)
            if self._step(task):
                with self._changed:
                    heapq.heappush(self._queue, task)

    def _step(self, task: _Task) -> bool:
        """Carry out one step; whether there may be more."""
        event: Event
        try:
            value = self._advance(task)
        except StopIteration:
            event = Finished(task.request)
        except JobCancelled:
            event = Cancelled(task.request)
        except Exception as error:  # noqa: BLE001 - a thread must hand on whatever happened
            event = Failed(task.request, error)
        else:
            self._deliver(Answer(task.request, value))
            return True
        self._deliver(event)
        return False

    def _advance(self, task: _Task) -> Any:
        if task.cancelled:
            if task.steps is not None:
                task.steps.close()
            raise JobCancelled(f"{task.request.title} was cancelled")
        if task.steps is None:
            self._deliver(Started(task.request))
            task.start()
        assert task.steps is not None
        return next(task.steps)
