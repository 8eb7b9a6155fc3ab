"""All labelled images of a folder in one file that opens fast and is small enough to travel to a GPU.

Images are kept as JPEG of high quality: what it changes is far below the noise that training adds.

A folder holds sets (one folder each) of `NAME_img.png|tif` with `NAME_lbl.tif`, and may hold `volumes/`
of the same form in ZYX. Volumes become planes, and planes know their neighbours.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from imageio.v3 import imread, imwrite

from napari_sam.core.arrays import Array
from napari_sam.errors import InputWarning, TrainingError

MAX_LABEL = np.iinfo(np.uint16).max
QUALITY = 90
"""Of JPEG: a grey value is off by about one of 255."""
DARK = 128
"""An 8 bit image that uses fewer grey values is stretched, so that JPEG leaves its detail alone."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPlane:
    """One image with its labels.

    Parameters
    ----------
    set_name : str
        The set it belongs to; sets are balanced against each other.
    image : (H, W) or (H, W, 3) uint8 array
        Contrast already stretched.
    labels : (H, W) uint16 array
        0 is background.
    volume : int
        Planes with the same number, 0 or more, are neighbours when their `index` are; -1 for an image.
    index : int
        Position in the volume.
    held_out : bool
        Belongs to the validation part.
    """

    set_name: str
    image: Array
    labels: Array
    volume: int = -1
    index: int = 0
    held_out: bool = False

    @property
    def grey(self) -> Array:
        """(H, W) float32 array, 0..1; colours are averaged."""
        image = self.image if self.image.ndim == 2 else self.image.mean(-1)
        return image.astype(np.float32) / 255


def to_uint8(image: Array) -> Array:
    """Stretch the 0.1 to 99.9 percentiles to 0..255, unless it is an 8 bit image that uses most of its range."""
    finite = image[np.isfinite(image)]
    low, high = np.percentile(finite, (0.1, 99.9)) if finite.size else (0.0, 1.0)
    if image.dtype == np.uint8 and high - low >= DARK:
        return image
    scaled = (np.nan_to_num(image.astype(np.float32)) - low) / max(high - low, 1e-6) * 255
    return np.clip(scaled, 0, 255).astype(np.uint8)


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Image and label files of one set, sorted by name; NAME_lbl.tif where there are no labels."""
    tiff = (".tif", ".tiff")
    images = sorted(p for p in folder.glob("*_img.*") if p.suffix.lower() in (".png", *tiff))
    files = sorted((p for p in folder.glob("*_lbl.*") if p.suffix.lower() in tiff), reverse=True)
    labels = {p.stem: p for p in files}
    names = [p.stem.removesuffix("_img") + "_lbl" for p in images]
    return [(p, labels.get(name, p.with_name(f"{name}.tif"))) for p, name in zip(images, names, strict=True)]


def read_pair(image_path: Path, label_path: Path) -> tuple[Array, Array] | None:
    """Read one pair; None, with an InputWarning that says why, where nothing can be learned from it.

    What is below 0 is no object, and becomes 0. Labels keep their type, see `small_numbers`.
    """
    if not label_path.is_file():
        warnings.warn(
            f"{image_path} has no labels at {label_path}; it is left out", InputWarning, stacklevel=2
        )
        return None
    is_png = image_path.suffix.lower() == ".png"
    image = np.asarray(imread(image_path) if is_png else tifffile.imread(image_path))
    labels = np.maximum(tifffile.imread(label_path), 0)
    reason = _why_unusable(image, labels)
    if reason:
        warnings.warn(f"{image_path} is left out: {reason}", InputWarning, stacklevel=2)
        return None
    if image.ndim == labels.ndim + 1:
        image = image[..., :3]
    return to_uint8(image), labels


def small_numbers(labels: Array) -> Array:
    """Labels as uint16, numbered anew where the numbers are too large."""
    if labels.max(initial=0) <= MAX_LABEL:
        return labels.astype(np.uint16)
    numbers, inverse = np.unique(labels, return_inverse=True)
    if len(numbers) > MAX_LABEL:
        raise TrainingError(f"there are {len(numbers)} labels in one image, more than {MAX_LABEL}; split it")
    first = 0 if numbers[0] == 0 else 1
    return (inverse.reshape(labels.shape) + first).astype(np.uint16)


def _why_unusable(image: Array, labels: Array) -> str:
    if image.shape[: labels.ndim] != labels.shape:
        return f"labels of shape {labels.shape} do not fit the image of shape {image.shape}"
    if labels.ndim not in (2, 3):
        return f"labels must be a plane or a ZYX volume, got shape {labels.shape}"
    if not labels.any():
        return "its labels are empty"
    return ""


def _held_out(count: int, share: float, seed: int) -> set[int]:
    """Indices of the validation images: at least one as soon as there are five."""
    wanted = max(round(count * share), 1 if count >= 5 and share > 0 else 0)
    order = np.random.default_rng(seed).permutation(count)
    return set(order[:wanted].tolist())


def _set_planes(folder: Path, share: float, seed: int) -> Iterator[LabelledPlane]:
    pairs = find_pairs(folder)
    held_out = _held_out(len(pairs), share, seed)
    for i, (image_path, label_path) in enumerate(pairs):
        pair = read_pair(image_path, label_path)
        if pair is not None and pair[1].ndim == 2:
            yield LabelledPlane(folder.name, pair[0], small_numbers(pair[1]), held_out=i in held_out)


def _is_isotropic(shape: tuple[int, ...]) -> bool:
    """Whether planes along all three axes are worth learning from (thin stacks are not)."""
    return min(shape) >= 0.5 * max(shape)


def _volume_planes(
    image: Array, labels: Array, name: str, first_volume: int, share: float
) -> list[LabelledPlane]:
    """Planes of a volume; a block at the end of every axis is held out, after a gap, from planes along the others too."""
    planes = []
    axes = range(3 if _is_isotropic(labels.shape) else 1)
    kept = [_planes_kept_out(labels.shape[axis], share) for axis in axes]
    learned = tuple(slice(labels.shape[axis] - sum(kept[axis])) for axis in axes)
    for axis in axes:
        count, (gap, kept_out) = labels.shape[axis], kept[axis]
        for i in [*range(count - kept_out - gap), *range(count - kept_out, count)]:
            held_out = i >= count - kept_out
            block = () if held_out else learned
            plane = [np.ascontiguousarray(np.take(array[block], i, axis)) for array in (image, labels)]
            if plane[1].any():
                planes.append(LabelledPlane(name, plane[0], plane[1], first_volume + axis, i, held_out))
    return planes


def _planes_kept_out(count: int, share: float) -> tuple[int, int]:
    """Planes of the gap, and planes that are held out behind it."""
    if count >= 20:
        return (round(count * share),) * 2
    return 0, int(share > 0 and count > 3)


def read_folder(folder: Path, validation: float = 0.06, seed: int = 0) -> list[LabelledPlane]:
    """Read every set and volume of a folder.

    Raises
    ------
    TrainingError
        There is no labelled image in it.
    """
    planes: list[LabelledPlane] = []
    for sub in sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []:
        if sub.name != "volumes":
            planes.extend(_set_planes(sub, validation, seed))
            continue
        for number, pair_paths in enumerate(find_pairs(sub)):
            pair = read_pair(*pair_paths)
            if pair is not None and pair[1].ndim == 3:
                name = pair_paths[0].stem.removesuffix("_img")
                labels = small_numbers(pair[1])
                planes.extend(_volume_planes(pair[0], labels, name, 3 * number, validation))
    if folder.is_dir() and not planes:
        planes.extend(_set_planes(folder, validation, seed))
    if not any(not plane.held_out for plane in planes):
        raise TrainingError(f"{folder} holds no NAME_img.png|tif with NAME_lbl.tif that can be learned from")
    return planes


def write_packed(planes: list[LabelledPlane], path: Path) -> None:
    """Write planes to one compressed .npz; labels exactly, images as JPEG."""
    images = [imwrite("<bytes>", p.image, extension=".jpg", quality=QUALITY, subsampling=0) for p in planes]
    arrays: dict[str, Array] = {
        "sets": np.array([p.set_name for p in planes]),
        "shapes": np.array([(*p.labels.shape, 3 if p.image.ndim == 3 else 1) for p in planes], np.int32),
        "places": np.array([(p.volume, p.index, p.held_out) for p in planes], np.int32),
        "images": np.frombuffer(b"".join(images), np.uint8),
        "sizes": np.array([len(image) for image in images], np.int64),
        "labels": np.concatenate([p.labels.ravel() for p in planes]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def read_packed(path: Path) -> list[LabelledPlane]:
    """Read what `write_packed` wrote."""
    if not path.is_file():
        raise TrainingError(f"there is no packed data at {path}; pack a folder first")
    with np.load(path) as file:
        images, labels = file["images"].tobytes(), file["labels"]
        columns = (file[key].tolist() for key in ("sets", "shapes", "places", "sizes"))
        rows = list(zip(*columns, strict=True))
    planes, at, label_at = [], 0, 0
    for name, (height, width, _), (volume, index, held_out), size in rows:
        area = height * width
        image = np.asarray(imread(images[at : at + size], extension=".jpg"))
        label = labels[label_at : label_at + area].reshape(height, width)
        planes.append(LabelledPlane(name, image, label, volume, index, bool(held_out)))
        at, label_at = at + size, label_at + area
    return planes
