"""Writing masks into labels on disk while they arrive, and telling what became of each object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam.core.planes import PlaneRef
from napari_sam.core.results import DOUBTFUL, PropagationStep, StopReason
from napari_sam.core.spaces import level_geometry

if TYPE_CHECKING:
    from napari_sam.io.volume import Volume

_BLOCK, _SIDE = 64, 512
_UNSURE = 0.6


def partial_path(output: Path) -> Path:
    """Where labels grow until they are complete: next to the output, or to the image that they join."""
    from napari_sam.io.save import SaveOptions, joined_image

    image = output.parent.parent
    place = image.with_name(f"{image.name}-{output.name}") if joined_image(output, SaveOptions()) else output
    return place.with_name(place.name + ".partial.zarr")


def create_partial(output: Path, volume: Volume, plane: PlaneRef, max_id: int) -> Any:
    """Make the growing label array; one that an interrupted run left is thrown away."""
    from napari_sam.io.labels import create_labels, smallest_label_dtype

    path = partial_path(output)
    if path.exists():
        rmtree(path)
    shape = volume.shape_zyx(plane.level)
    chunks = (1, _SIDE, _SIDE) if plane.axis == 0 else (_BLOCK, _BLOCK, _BLOCK)
    return create_labels(
        path,
        shape,
        smallest_label_dtype(max_id),
        [min(n, c) for n, c in zip(shape, chunks, strict=True)],
        **level_geometry(volume, plane.level),
    )


def write_step(labels: Any, step: PropagationStep) -> None:
    """Write one mask. Where objects meet, the smaller id keeps the pixel, whoever comes first."""
    if not step.region.area:
        return
    window: list[slice | int] = list(step.region.slices)
    window.insert(step.plane.axis, step.plane.index)
    before = np.asarray(labels[tuple(window)])
    free = (before == 0) | (before > step.object_id)
    labels[tuple(window)] = np.where(step.region.crop & free, before.dtype.type(step.object_id), before)


@dataclass(slots=True)
class Tally:
    """What became of the objects."""

    voxels: Counter[int] = field(default_factory=Counter)
    planes: dict[int, set[int]] = field(default_factory=dict)
    ends: dict[int, list[tuple[int, StopReason]]] = field(default_factory=dict)
    doubtful: dict[int, list[int]] = field(default_factory=dict)

    def add(self, step: PropagationStep) -> None:
        """Count one step."""
        key, index = step.object_id, step.plane_index
        if step.region.area:
            self.voxels[key] += step.region.area
            self.planes.setdefault(key, set()).add(index)
            is_unsure = step.is_seed and step.predicted_iou < _UNSURE  # a seed has no doubt of its own
            if is_unsure or step.doubt.value >= DOUBTFUL:
                self.doubtful.setdefault(key, []).append(index)
        for stop in step.stops:
            self.ends.setdefault(key, []).append((index, stop.reason))

    @property
    def n_planes(self) -> int:
        """Planes that hold at least one object."""
        return len(set().union(*self.planes.values())) if self.planes else 0

    def describe(self, object_id: int, name: str) -> str:
        """One line: what was found, where and why it ended, which planes look doubtful."""
        who = f"object {object_id}" + (f" ({name})" if name else "")
        planes = sorted(self.planes.get(object_id, ()))
        if not planes:
            return f"{who}: nothing was found; move its prompts or add some"
        parts = [f"{who}: planes {planes[0]}-{planes[-1]}, {self.voxels[object_id]} voxels"]
        parts += [f"ended at plane {i}, {why}" for i, why in sorted(self.ends.get(object_id, ()))]
        doubtful = sorted(self.doubtful.get(object_id, ()))
        if doubtful:
            parts.append("look at plane " + ranges(doubtful))
        return "; ".join(parts)


def ranges(indices: list[int]) -> str:
    """Sorted indices in words: [1, 2, 3, 7] is "1-3, 7"."""
    gaps = [i for i in range(1, len(indices)) if indices[i] > indices[i - 1] + 1]
    runs = [indices[a:b] for a, b in pairwise([0, *gaps, len(indices)])]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def fill(labels: Any, steps: Iterable[PropagationStep]) -> Tally:
    """Write all steps as they arrive."""
    tally = Tally()
    for step in steps:
        write_step(labels, step)
        tally.add(step)
    return tally
