"""What is done to whole objects on the inference thread: taking labels over, refining, finding parts."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sam.core.arrays import BoolArray
from napari_sam.core.planes import PlaneRef, Region, hull_of
from napari_sam.core.prompts import PromptSet
from napari_sam.core.protocols import PlaneEncoder, Predictor
from napari_sam.core.results import ImageEmbedding, LabelEdit, MaskCandidate
from napari_sam.errors import SessionError
from napari_sam.inference.predict import predict_plane
from napari_sam.io.coco import plane_objects
from napari_sam.io.labels import CHUNK_SIDE
from napari_sam.propagation.carry import prompts_to_draw_anew
from napari_sam.propagation.fronts import closest
from napari_sam.propagation.settings import PropagationSettings
from napari_sam.session.history import COPIED, LabelWrite
from napari_sam.session.labels import (
    MOST_VOXELS,
    RUN_PLANES,
    Kept,
    LabelArray,
    LabelChange,
    deltas_between,
)

MAX_VOXELS = 1 << 26
"""Objects whose box has more voxels are not split: the work would take gigabytes."""

Written = Mapping[PlaneRef, Region]


def label_edits(
    labels: LabelArray, wanted: Collection[int] | None, plane: PlaneRef, skip: Collection[int] = ()
) -> Iterator[LabelEdit]:
    """Every object of a label array in every plane parallel to `plane`, as edits that change nothing.

    Parameters
    ----------
    labels : LabelArray
        Read plane by plane.
    wanted : collection of int, optional
        These labels only.
    plane : PlaneRef
        Says the axis and time.
    skip : collection of int
        Labels that are left out.
    """
    shape = (1,) * (3 - min(3, labels.array.ndim)) + tuple(labels.array.shape[-3:])
    height, width = (n for axis, n in enumerate(shape) if axis != plane.axis)
    for index in range(shape[plane.axis]):
        here = plane.at(index)
        for label, region in plane_objects(labels.read(here, (0, 0, height, width))):
            if label not in skip and (wanted is None or label in wanted):
                yield LabelEdit(here, region, label)


@dataclass(frozen=True, slots=True, eq=False)
class Copied:
    """A run of planes was copied into the labels: where that is kept, and what changed."""

    writes: tuple[LabelWrite, ...]
    changes: tuple[LabelChange, ...]


def largest_label(source: Any) -> Generator[None, None, int]:
    """The largest label of all, found plane by plane.

    Raises
    ------
    SessionError
        There are negative labels.
    """
    largest = 0
    for index in np.ndindex(*source.shape[:-2]):
        plane = np.asarray(source[index])
        if plane.size and plane.min() < 0:
            raise SessionError(f"the labels hold {plane.min()}; 0 is background, objects count from 1")
        largest = max(largest, int(plane.max(initial=0)))
        yield
    return largest


def copy_labels(labels: LabelArray, source: Any, offset: int, job: int) -> Iterator[Copied]:
    """Copy labels, plus an offset, to where nothing is yet; some planes at a time, in the journal first.

    Parameters
    ----------
    labels : LabelArray
        Where to.
    source : array_like
        (T, Z, Y, X) integers, as large as the labels.
    offset : int
        Added to every label.
    job : int
        Number of the job in the journal.
    """
    n_time, n_planes, height, width = source.shape
    high = min(height, max(CHUNK_SIDE, MOST_VOXELS // width // CHUNK_SIDE * CHUNK_SIDE))
    deep = max(1, min(RUN_PLANES, MOST_VOXELS // (high * width)))
    for t, z, y in product(range(n_time), range(0, n_planes, deep), range(0, height, high)):
        first, end = PlaneRef(0, z, labels.level, t), min(z + deep, n_planes)
        box = (y, 0, min(y + high, height), width)
        found = np.asarray(source[t, z:end, y : box[2]])
        writes, changes = [], []
        with labels.lock:
            before = labels.read_block(first, end, box)
            moved = found.astype(before.dtype) + before.dtype.type(offset)
            after = np.where((before == 0) & (found != 0), moved, before)
            for delta in deltas_between(before[None], after[None], (t, z, y, 0), labels.level):
                kept = Kept(labels.journal, job, COPIED)
                kept(delta)
                writes.append(LabelWrite(kept.at, delta.plane, COPIED))
                y0, x0, y1, x1 = delta.box_yxyx
                values = after[delta.plane.index - z, y0 - y : y1 - y, x0:x1]
                changes.append(LabelChange(delta.plane, delta.box_yxyx, values))
            if writes:
                labels.write_block(first, end, box, after)
        yield Copied(tuple(writes), tuple(changes))


@dataclass(frozen=True, slots=True)
class _Asking:
    """An encoder that knows its model, as `predict_plane` wants it."""

    encoder: PlaneEncoder
    predictor: Predictor

    def embedding(self, plane: PlaneRef, prompts: Sequence[PromptSet] | None = None) -> ImageEmbedding:
        return self.encoder.embedding(plane, prompts)


def refined_edits(
    encoder: PlaneEncoder,
    predictor: Predictor,
    written: Written,
    object_id: int,
    settings: PropagationSettings,
) -> Iterator[tuple[LabelEdit, MaskCandidate]]:
    """The model's own outline of an object, plane by plane, where it agrees with the mask that is there."""
    for plane, region in sorted(written.items()):
        (prediction,) = predict_plane(_Asking(encoder, predictor), plane, [prompts_to_draw_anew(region)])
        answer = closest(prediction, region)
        if answer.region.iou(region) >= settings.snap_iou:
            yield LabelEdit(plane, answer.region, object_id), answer


def component_parts(written: Written) -> list[dict[PlaneRef, Region]]:
    """The connected components of an object, the largest first; voxels that touch by a corner are connected.

    Raises
    ------
    SessionError
        The object is too large, or its planes are not parallel.
    """
    from scipy import ndimage

    mask, origin, first = _stacked(written)
    labelled, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(labelled.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind="stable") + 1
    return [_unstacked(labelled == number, origin, first, written) for number in order.tolist()]


def parts_by_points(
    written: Written, points: Sequence[NDArray[np.floating]], spacing: tuple[float, float, float]
) -> list[dict[PlaneRef, Region]]:
    """An object cut between two sets of points: a watershed of the distance to its surface (Beucher 1979).

    Parameters
    ----------
    written : mapping of PlaneRef to Region
        The object, in parallel planes.
    points : two (n, 3) arrays
        (plane index, row, column) of each set.
    spacing : (float, float, float)
        Between planes, rows, columns.

    Raises
    ------
    SessionError
        The object is too large, or a set has no point in it.
    """
    from scipy import ndimage
    from skimage.segmentation import watershed

    mask, origin, first = _stacked(written)
    markers = np.zeros(mask.shape, np.int32)
    for number, one in enumerate(points, 1):
        at = np.rint(np.asarray(one, np.float64).reshape(-1, 3)).astype(int) - origin
        at = at[((at >= 0) & (at < mask.shape)).all(1)]
        at = at[mask[tuple(at.T)]]
        if not len(at):
            raise SessionError(
                "each of the two sets of points needs a point in the object; click on both parts"
            )
        markers[tuple(at.T)] = number
    inner = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    labelled = watershed(-inner, markers, mask=mask)
    return [_unstacked(labelled == number, origin, first, written) for number in (1, 2)]


def _stacked(written: Written) -> tuple[BoolArray, NDArray[np.int64], PlaneRef]:
    """Masks of parallel planes as one block, the index of its first voxel, and a plane."""
    planes = sorted(plane for plane, region in written.items() if region.area)
    if not planes or len({plane.at(0) for plane in planes}) != 1:
        raise SessionError("this object has no planes, or planes along several axes; it cannot be split")
    box = hull_of(written[plane].box_yxyx for plane in planes)
    low = np.array([planes[0].index, *box[:2]])
    high = np.array([planes[-1].index + 1, *box[2:]])
    if int(np.prod(high - low)) > MAX_VOXELS:
        raise SessionError(
            f"an object of {' x '.join(map(str, high - low))} voxels is too large to be split at once; "
            "split it at a coarser level"
        )
    block = np.zeros(high - low, bool)
    for plane in planes:
        block[plane.index - low[0]] = written[plane].over(box)
    return block, low, planes[0]


def _unstacked(
    block: BoolArray, origin: NDArray[np.int64], first: PlaneRef, written: Written
) -> dict[PlaneRef, Region]:
    """Planes of a block that are not empty."""
    found = {}
    for offset in np.flatnonzero(block.any((1, 2))).tolist():
        plane = first.at(int(origin[0]) + offset)
        corner = int(origin[1]), int(origin[2])
        found[plane] = Region.from_part(written[plane].plane_shape, corner, block[offset])
    return found


def united(regions: Collection[Region]) -> Region:
    """All of these regions of a plane, at least one, as one."""
    present = [region for region in regions if region.area]
    shape = next(iter(regions)).plane_shape
    if not present:
        return Region.empty(shape)
    box = hull_of(region.box_yxyx for region in present)
    return Region(shape, box, np.logical_or.reduce([region.over(box) for region in present]))
