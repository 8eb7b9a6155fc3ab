"""Measure a model as a user meets it: through a predictor, by the protocol, on a folder of labelled images."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import tifffile
from imageio.v3 import improps
from skimage.io import imread

from napari_sam.core.arrays import Array, BoolArray, FloatArray
from napari_sam.core.planes import PlaneRef
from napari_sam.core.prompts import PromptSet
from napari_sam.core.protocols import Predictor
from napari_sam.core.results import MaskPrediction
from napari_sam.errors import InputWarning, TrainingError
from napari_sam.inference.contrast import estimate_contrast
from napari_sam.inference.seen import SeenImage
from napari_sam.io.volume import open_volume
from napari_sam.training.packed import find_pairs
from napari_sam.training.protocol import (
    Click,
    first_click,
    iou,
    next_click,
    number_of_clicks,
    share_worse,
    tight_box,
)

REPORTED = (1, 2, 3, 5)
IMAGES, PLANES = "images", "planes"
"""Groups of sets: sets of images, and volumes measured by their planes."""

Pair = tuple[Path, Path]
"""Image file and label file."""

Result = TypeVar("Result")

_READ_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    EOFError,
    struct.error,
    zlib.error,
    tifffile.TiffFileError,
)
"""What readers of image files raise on damaged ones."""


class _Pixels(Protocol):
    """An array, or what a file says of the one in it."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...


@dataclass(frozen=True, slots=True)
class EvaluationLimits:
    """How much is measured; what is left out is left out evenly and always the same.

    Parameters
    ----------
    clicks : int
        Most clicks an object gets; NoC@85 is capped there.
    objects : int
        Most objects of an image, spread evenly over its labels; 0 for all.
    images : int
        Most images of a set, spread evenly; 0 for all.
    planes : int
        Most planes of a volume, spread evenly; 0 for all.
    min_area : int
        Smallest object in pixels.
    """

    clicks: int = 20
    objects: int = 0
    images: int = 0
    planes: int = 0
    min_area: int = 30


@dataclass(frozen=True, slots=True)
class SetResult:
    """Figures of one set of planes: means over objects of an image, then over images.

    Parameters
    ----------
    name : str
    images, objects : int
        How many were measured.
    miou : dict of str to float
        By number of clicks ("1", "2", "3", "5") and "box".
    noc85 : float
    worse : float
        Share of clicks after which the IoU fell by more than 0.05.
    curve : tuple of float
        mIoU after 1, 2, 3 ... clicks.
    group : str
        "images", or "planes" where it is a volume.
    """

    name: str
    images: int
    objects: int
    miou: dict[str, float]
    noc85: float
    worse: float
    curve: tuple[float, ...] = ()
    group: str = IMAGES


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All figures of planes; `to_dict` is plain data for JSON."""

    sets: tuple[SetResult, ...]
    limits: EvaluationLimits = field(default_factory=EvaluationLimits)

    @property
    def curve(self) -> tuple[float, ...]:
        """Mean over sets of mIoU after 1, 2, 3 ... clicks."""
        return tuple(float(v) for v in np.mean([s.curve for s in self.sets], axis=0)) if self.sets else ()

    @property
    def mean(self) -> dict[str, float]:
        """Means over sets."""
        return _means(self.sets)

    @property
    def groups(self) -> dict[str, dict[str, float]]:
        """Means over the sets of each group that was measured: "images", "planes"."""
        names = dict.fromkeys(one.group for one in self.sets)
        return {name: _means([one for one in self.sets if one.group == name]) for name in names}

    def need_results(self, folder: Path) -> None:
        """Raise TrainingError if there are none."""
        if not self.sets:
            raise TrainingError(
                f"{folder} holds no NAME_img.png|tif with NAME_lbl.tif that could be measured: "
                f"objects need at least {self.limits.min_area} pixels"
            )

    def to_dict(self) -> dict[str, Any]:
        """Sets, means and limits as plain data."""
        return asdict(self) | {"mean": self.mean, "groups": self.groups, "curve": self.curve}


def _means(sets: Sequence[SetResult]) -> dict[str, float]:
    keys = list(sets[0].miou)
    means = {key: float(np.mean([s.miou[key] for s in sets])) for key in keys}
    return means | {
        "noc85": float(np.mean([s.noc85 for s in sets])),
        "worse": float(np.mean([s.worse for s in sets])),
    }


@dataclass(frozen=True, slots=True, eq=False)
class _ImageResult:
    curves: FloatArray  # (N, clicks)
    boxes: FloatArray  # (N,)


def evaluate(folder: Path, predictor: Predictor, limits: EvaluationLimits | None = None) -> Evaluation:
    """Measure the planes of every set and volume in a folder; `ns.evaluate` measures volumes as a whole too.

    Parameters
    ----------
    folder : Path
        Sets of `NAME_img.png|tif` and `NAME_lbl.tif`, and `volumes/` of the same in ZYX; or one such set.
    predictor : Predictor
        The model, with everything a user gets: contrast, tiles, scale, choice of the answer.
    limits : EvaluationLimits, optional
        What to leave out; nothing by default.

    Raises
    ------
    TrainingError
        There is nothing to measure.
    """
    limits = limits or EvaluationLimits()
    found = Evaluation(tuple(evaluate_sets(folder, predictor, limits)), limits)
    found.need_results(folder)
    return found


def row(result: SetResult) -> str:
    """One line for people."""
    figures = "  ".join(f"{name} {value:.3f}" for name, value in result.miou.items())
    counts = f"({result.images} {result.group}, {result.objects} objects)"
    return f"{result.name}  {figures}  noc85 {result.noc85:.2f}  worse {result.worse:.3f}  {counts}"


def evaluate_sets(folder: Path, predictor: Predictor, limits: EvaluationLimits) -> Iterator[SetResult]:
    """One result after the other, as they are done: of each set of images, and of each volume."""
    for name, group, images in measured_sets(folder, limits):
        yield from _evaluate_set(name, group, images, predictor, limits)


def measured_sets(
    folder: Path, limits: EvaluationLimits
) -> Iterator[tuple[str, str, Iterator[tuple[Array, Array]]]]:
    """Name and group of each set and each volume, and what is measured of it: images or planes with labels."""
    for name, pairs in labelled_sets(folder):
        volumes = [pair for pair in pairs if is_volume(pair)]
        images = [pair for pair in pairs if pair not in volumes]
        if images:
            yield name, IMAGES, map(read_pair, spread(images, limits.images))
        for pair in volumes:
            yield volume_name(pair), PLANES, _volume_planes(pair, limits)


def measured_objects(labels: Array, limits: EvaluationLimits) -> list[BoolArray]:
    """Masks of the objects of an image that are measured."""
    found, areas = np.unique(labels, return_counts=True)
    numbers = found[(areas >= limits.min_area) & (found > 0)].tolist()
    return [labels == number for number in spread(numbers, limits.objects)]


def labelled_sets(folder: Path) -> list[tuple[str, list[Pair]]]:
    """Name and pairs of each subfolder that has some, or of the folder itself.

    Raises
    ------
    TrainingError
        There is no such folder.
    """
    if not folder.is_dir():
        raise TrainingError(
            f"there is no folder {folder}; give one that holds NAME_img.tif with NAME_lbl.tif"
        )
    subs = [p for p in sorted(folder.iterdir()) if p.is_dir()]
    found = [(sub.name, find_pairs(sub)) for sub in [folder, *subs]]
    return [(name, pairs) for name, pairs in found if pairs]


def check_pairs(folder: Path) -> None:
    """See to it, by the headers of all files, that measuring will not end in the middle.

    Raises
    ------
    TrainingError
        There is no such folder, an image has no labels, a file is none that can be read, or labels do
        not fit their image.
    """
    for _, pairs in labelled_sets(folder):
        for pair in pairs:
            _check_labels(pair, *_headers(pair))


def is_volume(pair: Pair) -> bool:
    """Whether the labels of a pair are a ZYX volume, by their header alone."""
    return len(_headers(pair)[1].shape) == 3


def _headers(pair: Pair) -> tuple[_Pixels, _Pixels]:
    """What the files of image and labels hold, without reading it."""
    image_path, label_path = pair
    if not label_path.is_file():
        raise TrainingError(f"{image_path} has no labels at {label_path}; add them, or move the image away")
    return _read(_header, image_path), _read(_header, label_path)


def _header(path: Path) -> _Pixels:
    if path.suffix.lower() == ".png":
        return improps(path)
    with tifffile.TiffFile(path) as file:
        found: _Pixels = file.series[0]
        return found


def _check_labels(pair: Pair, image: _Pixels, labels: _Pixels) -> None:
    if len(labels.shape) not in (2, 3) or labels.dtype.kind not in "iu":
        raise TrainingError(
            f"{pair[1]} holds {labels.dtype} of shape {labels.shape}; "
            "labels are whole numbers, of a plane (Y, X) or a volume (Z, Y, X)"
        )
    if image.shape[: len(labels.shape)] != labels.shape:
        raise TrainingError(f"{pair[1]} has shape {labels.shape}, but its image has {image.shape}")


def _read(function: Callable[[Path], Result], path: Path) -> Result:
    """What a reader of image files makes of a path; what it raises is told with the path."""
    try:
        return function(path)
    except _READ_ERRORS as error:
        raise TrainingError(f"cannot read {path}: {error}; copy it again, or move it away") from error


def volume_name(pair: Pair) -> str:
    """Name of a labelled volume."""
    return pair[0].stem.removesuffix("_img")


def _evaluate_set(
    name: str,
    group: str,
    images: Iterator[tuple[Array, Array]],
    predictor: Predictor,
    limits: EvaluationLimits,
) -> Iterator[SetResult]:
    found = [evaluate_image(image, labels, predictor, limits) for image, labels in images]
    found = [result for result in found if len(result.curves)]
    if not found:
        warnings.warn(
            f"{name} has no object of {limits.min_area} pixels; it is left out", InputWarning, stacklevel=2
        )
        return
    curves = [result.curves for result in found]
    miou = {str(k): _mean([c[:, k - 1] for c in curves]) for k in REPORTED if k <= limits.clicks}
    miou["box"] = _mean([result.boxes for result in found])
    noc = _mean([np.array([number_of_clicks(c, limits.clicks) for c in one]) for one in curves])
    worse = share_worse(np.concatenate(curves))
    curve = tuple(_mean([c[:, k] for c in curves]) for k in range(limits.clicks))
    yield SetResult(name, len(found), sum(map(len, curves)), miou, noc, worse, curve, group)


def _mean(groups: Sequence[FloatArray]) -> float:
    """Over the objects of an image, then over images."""
    return float(np.mean([group.mean() for group in groups]))


def read_pair(pair: Pair) -> tuple[Array, Array]:
    """Image and labels of a pair; a TrainingError says what is wrong with it."""
    image_path, label_path = pair
    if not label_path.is_file():
        raise TrainingError(f"{image_path} has no labels at {label_path}; add them, or move the image away")
    is_png = image_path.suffix.lower() == ".png"
    image = np.asarray(_read(imread if is_png else tifffile.imread, image_path))
    labels = np.asarray(_read(tifffile.imread, label_path))
    _check_labels(pair, image, labels)
    return image, labels


def _volume_planes(pair: Pair, limits: EvaluationLimits) -> Iterator[tuple[Array, Array]]:
    """Planes at the contrast that a user sees them with, which is that of the volume."""
    image, labels = read_pair(pair)
    volume = open_volume(image, axes="ZYX")
    contrast = estimate_contrast(volume)
    for index in spread(range(len(labels)), limits.planes):
        yield contrast.apply(volume.read_plane(PlaneRef(0, index))), labels[index]


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the items, evenly spread; all for 0."""
    if not most or len(items) <= most:
        return list(items)
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, most).round()]


def evaluate_image(
    image: Array, labels: Array, predictor: Predictor, limits: EvaluationLimits
) -> _ImageResult:
    """Click and box every object of an image."""
    truths = measured_objects(labels, limits)
    if not truths:
        return _ImageResult(np.zeros((0, limits.clicks)), np.zeros(0))
    seen = SeenImage(image, predictor)
    boxes = seen.ask([PromptSet(box_yxyx=tight_box(truth)) for truth in truths])
    box_ious = [iou(answer.mask, truth) for answer, truth in zip(boxes, truths, strict=True)]
    return _ImageResult(click_curves(seen, truths, limits.clicks), np.array(box_ious))


def click_curves(seen: SeenImage, truths: Sequence[BoolArray], n_clicks: int) -> FloatArray:
    """IoU of the default answer after each click, (N, clicks); an object that is perfect stays so."""
    curves = np.ones((len(truths), n_clicks))
    clicks: list[list[Click]] = [[first_click(truth)] for truth in truths]
    given: list[MaskPrediction | None] = [None] * len(truths)
    active = list(range(len(truths)))
    for number in range(n_clicks):
        earlier = [given[i] for i in active]
        asked = [_prompts(clicks[i]) for i in active]
        for i, answer in zip(active, seen.ask(asked, earlier), strict=True):
            given[i] = answer
            curves[i, number:] = iou(answer.mask, truths[i])
            follow = next_click(truths[i], answer.mask)
            clicks[i] = [*clicks[i], follow] if follow else []
        active = [i for i in active if clicks[i]]
        if not active:
            break
    return curves


def _prompts(clicks: list[Click]) -> PromptSet:
    return PromptSet(
        np.array([click.yx for click in clicks], float), np.array([click.positive for click in clicks])
    )
