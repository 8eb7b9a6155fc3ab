"""`napari_sam.propagate`: one object through one volume, in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_sam.core.prompts import PromptSet
from napari_sam.core.protocols import EmbeddingStore, Predictor, VolumeLike
from napari_sam.embedding import default_store
from napari_sam.inference.encode import CachedEncoder
from napari_sam.io.volume import open_volume
from napari_sam.propagation.consensus import propagate_three_axes
from napari_sam.propagation.engine import Steps, propagate_objects
from napari_sam.propagation.settings import PropagationSettings


def propagate(  # noqa: PLR0913 - the one public door
    volume: Any,
    model: Predictor,
    seeds: Mapping[int, PromptSet],
    axis: int = 0,
    *,
    settings: PropagationSettings | None = None,
    store: EmbeddingStore | None = None,
    object_id: int = 1,
    time: int = 0,
    three_axes: bool = False,
) -> Steps:
    """Carry one object through a volume, from its seed planes outward.

    Parameters
    ----------
    volume : VolumeLike, array or path
        The volume, or anything `napari_sam.open_volume` takes.
    model : Predictor
        A loaded model, as `napari_sam.load_model` gives it.
    seeds : mapping of int to PromptSet
        Plane index -> prompts in that plane (plane space, level 0).
    axis : int
        The planes are perpendicular to this axis: 0 is Z, 1 is Y, 2 is X.
    settings : PropagationSettings, optional
        What to carry, when to stop, where to go.
    store : EmbeddingStore, optional
        Where embeddings are kept; the cache of this user when left out.
    object_id : int
        Stamped on the steps.
    time : int
        Time point of a series. In a volume that was opened to be tracked (axes "TZYX:T"), where plane indices are
        time points, the plane along Z.
    three_axes : bool
        Carry the object along all three axes and give what they agree on, where voxels are about as deep as they are
        wide: slower, for objects that one axis shows badly. Nothing is yielded before the end.

    Returns
    -------
    generator of PropagationStep
        See `napari_sam.propagation.propagate_objects`.

    Raises
    ------
    PromptError
        No seeds, or seeds outside the volume.
    VolumeError
        `volume` cannot be read.

    Examples
    --------
    >>> for step in napari_sam.propagate(volume, model, seeds={12: prompts}):  # doctest: +SKIP
    ...     labels[step.plane_index][step.mask] = 1
    """
    if not isinstance(volume, VolumeLike):
        volume = open_volume(volume)
    encoder = CachedEncoder(volume, model, default_store() if store is None else store)
    run = propagate_three_axes if three_axes else propagate_objects
    return run(encoder, model, {object_id: seeds}, axis=axis, settings=settings, time=time)
