"""What is going on, in words and numbers, from the events of the inference thread."""

from __future__ import annotations

from dataclasses import dataclass, replace

from napari_sam.core.results import EncodeEvent
from napari_sam.session.made import ContrastUsed
from napari_sam.session.requests import EncodePlanes, Fetched, Propagate, Request, SaveLabels
from napari_sam.session.worker import Answer, Event, Started


@dataclass(frozen=True, slots=True, eq=False)
class JobStatus:
    """A running job: `total` is 0 where the end is not known. While a model is downloaded both count kilobytes."""

    request: Request
    done: int = 0
    total: int = 0
    is_fetching: bool = False

    @property
    def title(self) -> str:
        """What it does."""
        return self.request.title

    @property
    def text(self) -> str:
        """How far it is; empty where the end is not known."""
        if not self.total:
            return f"{self.done / 1000:.1f} MB" if self.is_fetching else ""
        if self.is_fetching:
            return f"{self.done / 1000:.1f} of {self.total / 1000:.1f} MB"
        return f"{self.done} of {self.total}"

    @property
    def is_idle_work(self) -> bool:
        """Whether nobody waits for it."""
        return isinstance(self.request, EncodePlanes)


class Progress:
    """Keeps the status of every job that has begun and not ended."""

    def __init__(self) -> None:
        self._jobs: dict[int, JobStatus] = {}

    def note(self, event: Event) -> None:
        """Take one event."""
        key = event.request.generation
        if isinstance(event, Started):
            self._jobs[key] = JobStatus(event.request, 0, _expected_steps(event.request))
        elif isinstance(event, Answer) and key in self._jobs:
            self._jobs[key] = _advanced(self._jobs[key], event.value)
        else:
            self._jobs.pop(key, None)

    @property
    def is_fetching(self) -> bool:
        """Whether a model is being downloaded."""
        return any(job.is_fetching for job in self._jobs.values())

    @property
    def current(self) -> JobStatus | None:
        """The job that the user should see: the least urgent one that somebody waits for, else idle work."""
        jobs = sorted(self._jobs.values(), key=lambda job: (job.is_idle_work, -job.request.priority))
        return jobs[0] if jobs else None


def _advanced(job: JobStatus, value: object) -> JobStatus:
    if isinstance(value, EncodeEvent):
        return replace(job, done=value.done, total=value.total)
    if isinstance(value, Fetched):
        return replace(job, done=value.done // 1000, total=value.total // 1000, is_fetching=True)
    if isinstance(job.request, SaveLabels) and isinstance(value, tuple):
        done, total = value
        return replace(job, done=done, total=total)
    return replace(job, done=job.done + (value is not None and not isinstance(value, ContrastUsed)))


def _expected_steps(request: Request) -> int:
    """How many steps a job will have at most, 0 if that is not known."""
    if isinstance(request, Propagate):
        first, end = request.settings.plane_range or (0, 0)
        return (end - first) * len(request.objects)
    return len(request.planes) if isinstance(request, EncodePlanes) else 0
