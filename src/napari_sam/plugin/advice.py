"""One line that says what is going on or what to do next."""

from __future__ import annotations

from napari_sam.core.results import PropagationStep
from napari_sam.plugin.keys import shown
from napari_sam.session.doubt import describe_ends
from napari_sam.session.objects import ObjectState
from napari_sam.session.requests import Propagate, SaveLabels
from napari_sam.session.resolve import Blocked, ResolvedSession
from napari_sam.session.session import Session


def advice(session: Session, tool: str | None) -> str:
    """What a newcomer should read now; `tool` is what he draws with, if he does."""
    resolved = session.resolved
    if isinstance(resolved, Blocked):
        return resolved.reason
    if session.model_error is not None:
        return f"The model could not be loaded: {session.model_error}"
    running = _running(session)
    if running:
        return running
    if resolved.marks_blocked is not None:
        return resolved.marks_blocked.reason
    return _next_step(session, resolved, tool)


def _running(session: Session) -> str:
    job = session.progress.current
    if job is None or job.is_idle_work:
        return ""
    if job.is_fetching:
        return (
            f"Downloading the model ({job.text}) … {shown('cancel')} cancels and goes back to the one before."
        )
    if isinstance(job.request, Propagate | SaveLabels):
        count = f" ({job.text})" if job.total else ""
        left = "no half of a file is left" if isinstance(job.request, SaveLabels) else "what is done stays"
        return f"{job.title}{count} … {shown('cancel')} cancels; {left}."
    return f"{job.title} …"


def _next_step(session: Session, resolved: ResolvedSession, tool: str | None) -> str:
    record, plane = session.record, resolved.plane
    name = f"object {record.object_id}"
    if plane in record.pending:
        return (
            f"Is the mask right? {shown('keep')} keeps it, {shown('cycle')} shows another answer. "
            f"Or click again: {shown('polarity')} switches between adding and removing."
        )
    if plane in resolved.marks and plane not in record.written:
        return "No mask was found for these prompts; click nearer to the middle, or draw a box around the object."
    if record.ends:
        return (
            f"Propagated {name}. {propagation_summary(record.ends)} {shown('next')} starts the next object."
        )
    if record.written and record.state is not ObjectState.DRAFT and record.summary.planes:
        first, last = record.summary.planes
        return f"Object {record.object_id} is in planes {first} to {last}. {shown('next')} starts the next object."
    if record.written and resolved.propagate_blocked is None:
        return (
            f"Kept {name}. {shown('propagate')} carries it through the planes, "
            f"{shown('next')} starts the next object."
        )
    if record.written:
        return f"Kept {name}. {shown('next')} starts the next object."
    if tool is None:
        return f"Press Point and click on {name}, or press Box and drag around it."
    return f"Click on {name}, or press Box and drag around it."


def propagation_summary(ends: tuple[PropagationStep, ...]) -> str:
    """Where a propagation stopped and why, for people."""
    return f"Stopped at {describe_ends(ends)}."
