"""What is going on, in words and numbers, from the events of the inference thread."""

from __future__ import annotations

from dataclasses import dataclass, replace

from napari_sam.core.results import EncodeEvent
from napari_sam.session.requests import EncodePlanes, Propagate, Request, SaveLabels
from napari_sam.session.worker import Answer, Event, Started


@dataclass(frozen=True, slots=True, eq=False)
class JobStatus:
    """A running job: `total` is 0 where the end is not known."""

    request: Request
    done: int = 0
    total: int = 0

    @property
    def title(self) -> str:
        """What it does."""
        return self.request.title

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
    def current(self) -> JobStatus | None:
        """The job that the user should see: the least urgent one that somebody waits for, else idle work."""
        jobs = sorted(self._jobs.values(), key=lambda job: (job.is_idle_work, -job.request.priority))
        return jobs[0] if jobs else None

    def is_running(self, kind: type[Request]) -> bool:
        """Whether a job of this kind has begun and not ended."""
        return any(isinstance(job.request, kind) for job in self._jobs.values())


def _advanced(job: JobStatus, value: object) -> JobStatus:
    if isinstance(value, EncodeEvent):
        return replace(job, done=value.done, total=value.total)
    if isinstance(job.request, SaveLabels) and isinstance(value, tuple):
        done, total = value
        return replace(job, done=done, total=total)
    return replace(job, done=job.done + (value is not None))


def _expected_steps(request: Request) -> int:
    """How many steps a job will have at most, 0 if that is not known."""
    if isinstance(request, Propagate):
        first, end = request.settings.plane_range or (0, 0)
        return (end - first) * len(request.objects)
    return len(request.planes) if isinstance(request, EncodePlanes) else 0
