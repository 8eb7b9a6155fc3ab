"""The inference thread: order, passing, replacing, cancelling, errors."""

import queue
import threading
from dataclasses import dataclass

import pytest

from napari_sam.session import worker
from napari_sam.session.requests import Priority, Request


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Probe(Request):
    name: str
    steps: int = 1
    urgency: int = 5
    in_lane: str | None = None

    @property
    def priority(self):
        return Priority(self.urgency)

    @property
    def lane(self):
        return self.in_lane


class Bench:
    """A thread whose jobs take a step each time they are allowed to."""

    def __init__(self):
        self.allowed = threading.Semaphore(0)
        self.events = queue.SimpleQueue()
        self.closed = []
        self.thread = worker.InferenceThread(self.job, self.events.put)

    def job(self, request):
        try:
            for step in range(request.steps):
                self.allowed.acquire()
                if request.name == "broken":
                    raise ValueError("as asked")
                yield step
        finally:
            self.closed.append(request.name)

    def next(self):
        event = self.events.get(timeout=5)
        return type(event).__name__, event.request.name

    def run(self, steps):
        for _ in range(steps):
            self.allowed.release()


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.run(100)
    assert made.thread.close(timeout=5)


def submit(bench, name, **kwargs):
    bench.thread.submit(Probe(name=name, **kwargs))


def test_a_more_urgent_request_passes_between_two_steps(bench):
    submit(bench, "slow", steps=2)
    assert bench.next() == ("Started", "slow")
    submit(bench, "urgent", urgency=1)
    bench.run(1)
    assert bench.next() == ("Answer", "slow")
    assert bench.next() == ("Started", "urgent")
    bench.run(2)
    names = [bench.next() for _ in range(4)]
    assert names == [("Answer", "urgent"), ("Finished", "urgent"), ("Answer", "slow"), ("Finished", "slow")]


def test_requests_of_equal_urgency_keep_their_order(bench):
    submit(bench, "blocker", urgency=0)
    assert bench.next() == ("Started", "blocker")
    for name in "abc":
        submit(bench, name)
    bench.run(4)
    finished = [name for kind, name in (bench.next() for _ in range(11)) if kind == "Finished"]
    assert finished == ["blocker", "a", "b", "c"]


def test_a_newer_request_of_a_lane_replaces_the_older(bench):
    submit(bench, "blocker", urgency=0)
    assert bench.next() == ("Started", "blocker")
    submit(bench, "old", in_lane="x")
    submit(bench, "new", in_lane="x")
    bench.run(3)
    events = [bench.next() for _ in range(6)]
    assert ("Cancelled", "old") in events
    assert ("Started", "old") not in events
    assert events[-1] == ("Finished", "new")


def test_a_running_job_is_closed_between_steps_and_keeps_what_it_gave(bench):
    submit(bench, "long", steps=100)
    assert bench.next() == ("Started", "long")
    bench.run(1)
    assert bench.next() == ("Answer", "long")
    assert bench.thread.cancel(lambda request: request.name == "long") == 1
    bench.run(1)
    events = [bench.next() for _ in range(1)]
    while events[-1][0] == "Answer":
        events.append(bench.next())
    assert events[-1] == ("Cancelled", "long")
    assert bench.closed == ["long"]


def test_an_error_is_delivered_and_the_thread_lives_on(bench):
    submit(bench, "broken")
    assert bench.next() == ("Started", "broken")
    bench.run(1)
    event = bench.events.get(timeout=5)
    assert isinstance(event, worker.Failed)
    assert isinstance(event.error, ValueError)
    submit(bench, "after")
    bench.run(1)
    assert [bench.next() for _ in range(3)][-1] == ("Finished", "after")


def test_closing_ends_the_thread_and_cancels_what_waits(bench):
    submit(bench, "running", steps=5)
    assert bench.next() == ("Started", "running")
    submit(bench, "waiting")
    bench.thread.close(timeout=0)
    bench.run(1)
    assert bench.thread.close(timeout=5)
    kinds = []
    while not bench.events.empty():
        kinds.append(bench.next())
    assert ("Cancelled", "waiting") in kinds
    assert ("Cancelled", "running") in kinds
    submit(bench, "too late")
    assert bench.events.empty()
