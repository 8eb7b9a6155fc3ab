"""What objects were made with: which model, which contrast, which settings of the propagation.

It is known once a job has ended, is kept with each object for each time point, and is part of the job's step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_sam.core.contrast import Contrast
from napari_sam.core.models import ModelSpec
from napari_sam.propagation.settings import PropagationSettings
from napari_sam.session.codec import encode
from napari_sam.session.history import RecordChange

if TYPE_CHECKING:
    from napari_sam.session.objects import ObjectRecord


@dataclass(frozen=True, slots=True)
class ContrastUsed:
    """What grey values the model sees as black and white at a time point."""

    time: int
    contrast: Contrast


@dataclass(frozen=True, slots=True)
class MadeWith:
    """What the model drew an object with the last time.

    Parameters
    ----------
    model : ModelSpec
        As the user chose it.
    encoder_digest : str
        Of its weights; empty if not known.
    contrast : Contrast, optional
        What grey values the model saw as black and white; None if not known.
    settings : PropagationSettings, optional
        Of the last propagation or refinement; None if there was none.
    """

    model: ModelSpec
    encoder_digest: str = ""
    contrast: Contrast | None = None
    settings: PropagationSettings | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """What one job drew: some objects at one time point, all in the same way."""

    object_ids: tuple[int, ...]
    time: int
    how: MadeWith


def made_of(
    drawn: Collection[tuple[int, int]], contrasts: Mapping[int, Contrast], how: MadeWith
) -> tuple[Made, ...]:
    """Sort objects and time points that a job drew by time, each with its contrast."""
    return tuple(
        Made(
            tuple(sorted(i for i, at in drawn if at == time)),
            time,
            replace(how, contrast=contrasts.get(time)),
        )
        for time in sorted({time for _, time in drawn})
    )


def made_changes(made: Iterable[Made], records: Mapping[int, ObjectRecord]) -> tuple[RecordChange, ...]:
    """How the records of objects change by what a job drew; settings stay where it carried nothing."""
    changes = []
    for one in made:
        for object_id in one.object_ids:
            before = records[object_id].made_with
            settings = one.how.settings or (before[one.time].settings if one.time in before else None)
            after = {**before, one.time: replace(one.how, settings=settings)}
            if after != before:
                changes.append(RecordChange(object_id, {"made_with": before}, {"made_with": after}))
    return tuple(changes)


def lasting(settings: PropagationSettings | None) -> PropagationSettings | None:
    """Settings as a journal can hold them: rules that are functions of the user's own are left out."""
    try:
        encode(settings)
    except TypeError:
        assert settings is not None
        return replace(settings, extra_rules=())
    return settings
