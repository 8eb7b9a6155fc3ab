"""Where an object is doubtful: for a strip over the planes, and for going from one such plane to the next."""

from __future__ import annotations

from collections.abc import Mapping

from napari_sam.core.planes import PlaneRef
from napari_sam.core.results import DOUBTFUL, PropagationStep
from napari_sam.session.objects import ObjectRecord, PlaneScore
from napari_sam.session.resolve import parallel


def doubts(record: ObjectRecord, like: PlaneRef) -> dict[int, float]:
    """Doubt (0..1) by plane index, of the object's planes parallel to one."""
    return {
        plane.index: score.doubt.value
        for plane, score in record.scores.items()
        if parallel(plane, like) and plane in record.written
    }


def next_doubtful(
    values: Mapping[int, float], current: int, least: float = DOUBTFUL, step: int = 1
) -> int | None:
    """The next plane worth a look, round the end; None if there is none.

    Where none is as doubtful as `least` the most doubtful plane is given, so that the key always leads
    somewhere as long as there is any doubt; `current` is given only if it is the only one.
    """
    found = sorted(index for index, value in values.items() if value >= least)
    if not found:
        worst = max(values, key=lambda index: values[index], default=None)
        return worst if worst is not None and values[worst] > 0 else None
    beyond = [i for i in found if (i - current) * step > 0]
    return (min(beyond) if step > 0 else max(beyond)) if beyond else (found[0] if step > 0 else found[-1])


def describe(score: PlaneScore) -> str:
    """Why a plane is doubtful, in a sentence; empty if it is not."""
    reasons = "; ".join(str(reason) for reason in score.doubt.reasons)
    return f"doubt {score.doubt.value:.2f}: {reasons}" if reasons else ""


def describe_ends(ends: tuple[PropagationStep, ...]) -> str:
    """Where each direction of the last propagation ended, and why."""
    told = {}
    for step in ends:
        for stop in step.stops:
            told[stop.direction, step.plane_index] = f"plane {step.plane_index}: {stop.reason}"
    return "; ".join(text for _, text in sorted(told.items()))
