"""The user's own labels: from a folder or from arrays, and the part of them that is kept for validation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_sam.core.arrays import Array
from napari_sam.errors import InputWarning, TrainingError
from napari_sam.training.packed import LabelledPlane, find_pairs, read_pair, small_numbers, to_uint8
from napari_sam.training.parts import connected_parts

LEAST_AREA = 9
"""Smallest object that is learned from, in pixels."""

OwnData = str | Path | Sequence[tuple[Array, Array]]
"""A folder, or pairs of an image and its labels."""


def own_planes(data: OwnData, planes: slice | None = None, connected: bool = False) -> list[LabelledPlane]:
    """Read labelled images and volumes; planes without a label are left out.

    Parameters
    ----------
    data : path, or sequence of (image, labels)
        Folder of `NAME_img.png|tif` with `NAME_lbl.tif`, in itself or in its subfolders; or arrays, images
        (Y, X), (Z, Y, X) or either with colours last, labels (Y, X) or (Z, Y, X).
    planes : slice, optional
        Which planes of every volume; all when left out.
    connected : bool
        Whether what hangs together in a plane is an object of its own: a neurite that is cut twice is two objects
        to a model that answers a click with what it is on (`SamConfig.connected`).

    Raises
    ------
    TrainingError
        There is nothing to learn from, or labels do not fit their image.

    Warns
    -----
    InputWarning
        A file is left out, and why.
    """
    pairs = _read(Path(data).expanduser()) if isinstance(data, (str, Path)) else _checked(data)
    found: list[LabelledPlane] = []
    for number, (image, labels) in enumerate(pairs):
        found += _planes_of(to_uint8(np.asarray(image)), np.asarray(labels), number, planes, connected)
    usable = [plane for plane in found if object_numbers(plane.labels)]
    if not usable:
        where = data if isinstance(data, (str, Path)) else "the given labels"
        raise TrainingError(
            f"{where}: no labelled object of at least {LEAST_AREA} pixels in {len(found)} planes; "
            "label some objects, or choose other planes"
        )
    return usable


def object_numbers(labels: Array) -> list[int]:
    """Labels of the objects that are large enough to learn from."""
    numbers, areas = np.unique(labels, return_counts=True)
    return [int(n) for n in numbers[(areas >= LEAST_AREA) & (numbers > 0)]]


def hold_out(
    planes: list[LabelledPlane], share: float, seed: int
) -> tuple[list[LabelledPlane], list[LabelledPlane]]:
    """Planes to learn from, and planes to choose the best weights by.

    Of several planes at least one is kept out; a single one is split by its objects.

    Warns
    -----
    InputWarning
        There is one object in all, so nothing can be kept out.
    """
    rng = np.random.default_rng(seed)
    if len(planes) > 1:
        out = set(rng.permutation(len(planes))[: max(1, round(share * len(planes)))].tolist())
        return [p for i, p in enumerate(planes) if i not in out], [planes[i] for i in sorted(out)]
    plane, numbers = planes[0], object_numbers(planes[0].labels)
    if len(numbers) < 2:
        warnings.warn(
            "there is one labelled object, so none can be kept out to choose the best weights by; "
            "the last weights are kept",
            InputWarning,
            stacklevel=2,
        )
        return planes, []
    kept_out = rng.permutation(numbers)[: max(1, round(share * len(numbers)))]
    is_out = np.isin(plane.labels, kept_out)
    return (
        [replace(plane, labels=np.where(is_out, 0, plane.labels))],
        [replace(plane, labels=np.where(is_out, plane.labels, 0))],
    )


def _read(folder: Path) -> Iterator[tuple[Array, Array]]:
    if not folder.is_dir():
        raise TrainingError(
            f"there is no folder {folder}; give one that holds NAME_img.tif with NAME_lbl.tif"
        )
    subs = [p for p in sorted(folder.iterdir()) if p.is_dir()]
    for sub in (folder, *subs):
        for paths in find_pairs(sub):
            pair = read_pair(*paths)
            if pair is not None:
                yield pair


def _checked(data: Sequence[tuple[Array, Array]]) -> Iterator[tuple[Array, Array]]:
    for image, labels in data:
        if labels.ndim not in (2, 3) or labels.dtype.kind not in "iub":
            raise TrainingError(
                f"labels hold {labels.dtype} of shape {labels.shape}; "
                "give whole numbers, of a plane (Y, X) or a volume (Z, Y, X)"
            )
        if image.shape[: labels.ndim] != labels.shape:
            raise TrainingError(f"labels of shape {labels.shape} do not fit the image of shape {image.shape}")
        yield image, labels.astype(np.uint8) if labels.dtype == bool else labels


def _planes_of(
    image: Array, labels: Array, number: int, planes: slice | None, connected: bool
) -> Iterator[LabelledPlane]:
    if image.ndim == labels.ndim + 1:
        image = _three_colours(image)
    if labels.ndim == 2:
        image, labels, number, planes = image[None], labels[None], -1, None
    if planes is not None and not range(len(labels))[planes]:
        text = f"a volume of {len(labels)} planes has none of the chosen ones; it is left out"
        warnings.warn(text, InputWarning, stacklevel=3)
    there = [index for index in range(len(labels))[planes or slice(None)] if (labels[index] > 0).any()]
    shown = (np.maximum(labels[index], 0) for index in there)
    for index, numbers in zip(there, connected_parts(shown) if connected else shown, strict=True):
        yield LabelledPlane("own", image[index], small_numbers(numbers), number, index)


def _three_colours(image: Array) -> Array:
    """Colours last: three of them, or the mean of any other number."""
    return image[..., :3] if image.shape[-1] in (3, 4) else image.mean(-1).astype(np.uint8)
