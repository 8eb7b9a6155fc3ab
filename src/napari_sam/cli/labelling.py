"""Writing masks into labels on disk while they arrive, and telling what became of each object."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam.core.planes import PlaneRef
from napari_sam.core.results import DOUBTFUL, PropagationStep, StopReason
from napari_sam.core.spaces import level_geometry
from napari_sam.errors import ExportError

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
    try:
        if path.exists():
            rmtree(path)
    except OSError as error:
        raise ExportError(f"cannot make {path}: {error}; choose a shorter name, or another folder") from error
    shape = volume.shape_zyx(plane.level)
    chunks = (1, _SIDE, _SIDE) if plane.axis == 0 else (_BLOCK, _BLOCK, _BLOCK)
    return create_labels(
        path,
        shape,
        smallest_label_dtype(max_id),
        [min(n, c) for n, c in zip(shape, chunks, strict=True)],
        **level_geometry(volume, plane.level),
    )


def write_step(labels: Any, step: PropagationStep) -> Counter[int]:
    """Write one mask; how many pixels each object gained by it, or lost where that is below 0.

    Where objects meet, the smaller id keeps the pixel, whoever comes first.
    """
    if not step.region.area:
        return Counter()
    window: list[slice | int] = list(step.region.slices)
    window.insert(step.plane.axis, step.plane.index)
    before = np.asarray(labels[tuple(window)])
    taken = step.region.crop & ((before == 0) | (before > step.object_id))
    owners, counts = np.unique(before[taken], return_counts=True)
    lost = {owner: -n for owner, n in zip(owners.tolist(), counts.tolist(), strict=True) if owner}
    labels[tuple(window)] = np.where(taken, before.dtype.type(step.object_id), before)
    return Counter({step.object_id: int(counts.sum()), **lost})


@dataclass(slots=True)
class Tally:
    """What became of the objects; `voxels` are those that they have in the labels, by object and plane."""

    voxels: defaultdict[int, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    found: set[int] = field(default_factory=set)
    ends: dict[int, list[tuple[int, StopReason]]] = field(default_factory=dict)
    doubtful: dict[int, list[int]] = field(default_factory=dict)

    def add(self, step: PropagationStep, written: Mapping[int, int]) -> None:
        """Count one step, and what `write_step` made of it."""
        key, index = step.object_id, step.plane_index
        for owner, change in written.items():
            self.voxels[owner][index] += change
        if step.region.area:
            self.found.add(key)
            is_unsure = step.is_seed and step.predicted_iou < _UNSURE  # a seed has no doubt of its own
            if is_unsure or step.doubt.value >= DOUBTFUL:
                self.doubtful.setdefault(key, []).append(index)
        for stop in step.stops:
            self.ends.setdefault(key, []).append((index, stop.reason))

    @property
    def n_planes(self) -> int:
        """Planes that hold at least one object."""
        return len({index for planes in self.voxels.values() for index in +planes})

    def describe(self, object_id: int, name: str) -> str:
        """One line: what was found, where and why it ended, which planes look doubtful."""
        who = f"object {object_id}" + (f" ({name})" if name else "")
        planes = +self.voxels[object_id]  # without those where it lost all to others
        if not planes:
            why = "all of it belongs to other objects" if object_id in self.found else "nothing was found"
            return f"{who}: {why}; move its prompts or add some"
        parts = [f"{who}: planes {min(planes)}-{max(planes)}, {planes.total()} voxels"]
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
        tally.add(step, write_step(labels, step))
    return tally
