"""Measuring labelled objects in physical units, in one pass over the planes.

Everything measured is a sum over voxels or over cubes of 2 x 2 x 2 voxels, so one plane and the one before
it are all that is in memory, however deep the labels are and however large an object is. The surface is
that of marching cubes: the area inside a cube depends on which of its eight corners belong to the object
and on the voxel size alone, so it is looked up in a table of 256 areas made by scikit-image.
"""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_sam.core.arrays import Array, FloatArray
from napari_sam.core.planes import PlaneRef
from napari_sam.core.protocols import VolumeLike
from napari_sam.io.atomic import check_new, replacing
from napari_sam.io.label_source import LabelSource, check_shape, label_source

Progress = Generator[tuple[int, int], None, Path]

_CORNERS = tuple(product((0, 1), repeat=3))
"""Corners of a cube of voxels as (z, y, x); corner i is bit i of a code."""


@dataclass(frozen=True, slots=True, eq=False)
class ObjectMeasures:
    """What was measured of one object at one time point.

    Parameters
    ----------
    label, time : int
        Which object, when.
    n_voxels : int
        How many voxels.
    volume, surface : float
        In cubed and squared units; the surface by marching cubes, closed where the volume ends.
    centroid_zyx : (3,) float array
        World position: spacing * index + translation.
    box_zyx : (2, 3) int array
        First and last voxel, both included.
    extent_zyx : (3,) float array
        Size of that box, in units.
    touches_border : bool
        Whether a voxel lies at the border of a plane or, in a volume, in its first or last plane.
    intensity : (4, C) float array, optional
        Mean, standard deviation, smallest and largest intensity, a column a channel.
    """

    label: int
    time: int
    n_voxels: int
    volume: float
    surface: float
    centroid_zyx: FloatArray
    box_zyx: NDArray[np.int64]
    extent_zyx: FloatArray
    touches_border: bool
    intensity: FloatArray | None = None

    @property
    def equivalent_diameter(self) -> float:
        """Diameter of the ball of the same volume."""
        return float((6 * self.volume / np.pi) ** (1 / 3))

    @property
    def sphericity(self) -> float:
        """Surface of the ball of the same volume over the surface; 1.0 for a ball (Wadell 1935)."""
        return float(np.pi ** (1 / 3) * (6 * self.volume) ** (2 / 3) / self.surface)

    def row(self) -> dict[str, Any]:
        """Column name -> value, for a table."""
        result: dict[str, Any] = {
            "label": self.label,
            "time": self.time,
            "voxels": self.n_voxels,
            "volume": self.volume,
            "surface": self.surface,
            "equivalent_diameter": self.equivalent_diameter,
            "sphericity": self.sphericity,
            **{f"centroid_{a}": float(v) for a, v in zip("zyx", self.centroid_zyx, strict=True)},
            **{f"extent_{a}": float(v) for a, v in zip("zyx", self.extent_zyx, strict=True)},
        }
        for name, values in zip(("first", "last"), self.box_zyx, strict=True):
            result |= {f"{name}_{a}": int(v) for a, v in zip("zyx", values, strict=True)}
        result["touches_border"] = self.touches_border
        return result | self._intensity_row()

    def _intensity_row(self) -> dict[str, float]:
        if self.intensity is None:
            return {}
        n_channels = self.intensity.shape[1]
        names = [f"_{c}" for c in range(n_channels)] if n_channels > 1 else [""]
        return {
            f"{what}_intensity{name}": float(self.intensity[i, c])
            for c, name in enumerate(names)
            for i, what in enumerate(("mean", "std", "min", "max"))
        }


def measure_objects(
    labels: Any, like: VolumeLike | None = None, image: VolumeLike | None = None, **given: Any
) -> list[ObjectMeasures]:
    """Measure every object of labels, by label and time.

    Parameters
    ----------
    labels : array or Volume
        As `napari_sam.save_labels` takes them.
    like : VolumeLike, optional
        Gives voxel size, translation and unit; the image, when one is given.
    image : VolumeLike, optional
        For intensities; as large as the labels.
    **given
        `spacing_zyx`, `translate_zyx`, `unit`: win over those.

    Returns
    -------
    list of ObjectMeasures

    Raises
    ------
    ExportError
        These are no labels, or the image does not fit them.
    """
    source = label_source(labels, like if like is not None else image, **given)
    return [one for one in iter_measures(source, image) if isinstance(one, ObjectMeasures)]


def iter_measures(
    source: LabelSource, image: VolumeLike | None = None, image_level: int = 0
) -> Iterator[ObjectMeasures | tuple[int, int]]:
    """Yield (done, total) after each plane, and at the end of a time point what was measured in it.

    Intensities are those of `image` at the level that the labels are as large as.

    Raises
    ------
    ExportError
        At a negative label; the image does not fit the labels.
    """
    if image is not None:
        check_shape(source.volume, image, image_level)
    n_time, n_z = source.shape[:2]
    sums = _Sums(source, image)
    for done, (time, z, plane) in enumerate(source.planes(), 1):
        sums.add(plane, z, None if image is None else _read_image(image, z, image_level, time))
        yield done, n_time * n_z
        if z == n_z - 1:
            yield from sums.results(time)
            sums = _Sums(source, image)


def _read_image(image: VolumeLike, z: int, level: int, time: int) -> Array:
    """A plane along Z; of a tracked volume, which counts time points where others count planes, as well."""
    index, moment = (time, z) if getattr(image, "is_tracked", False) else (z, time)
    return image.read_plane(PlaneRef(0, index, level, moment))


def iter_save_table(
    labels: Any,
    path: str | Path,
    like: VolumeLike | None = None,
    *,
    image: VolumeLike | None = None,
    image_level: int = 0,
    properties: Mapping[int, Mapping[str, Any]] | None = None,
    overwrite: bool = False,
) -> Progress:
    """Write the table of objects as CSV; yields (done, total) after each plane, returns the path.

    Parameters
    ----------
    labels, like, image
        As `measure_objects` takes them.
    path : path
        Ends in .csv.
    image_level : int
        The image's multiscale level that the labels are as large as.
    properties : mapping of int to mapping, optional
        Further columns by label, such as name and class; they come first. One that is named as something measured
        gets "own_" before its name.
    overwrite : bool
        Replace a file that is there.

    Raises
    ------
    ExportError
        `path` exists or cannot be written; these are no labels; the image does not fit. What was there
        before is unchanged.
    """
    target = Path(path).expanduser()
    check_new(target, overwrite)
    source = label_source(labels, like if like is not None else image)
    rows = []
    for one in iter_measures(source, image, image_level):
        if isinstance(one, ObjectMeasures):
            measured = one.row() | {"unit": source.unit or "voxel"}
            rows.append((_own_columns((properties or {}).get(one.label, {}), measured), measured))
        else:
            yield one
    own_names = dict.fromkeys(name for own, _ in rows for name in own)
    columns = list(dict.fromkeys(["label", *own_names, *(rows[0][1] if rows else ())]))
    with replacing(target) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(own | measured for own, measured in rows)
    return target


def _own_columns(properties: Mapping[str, Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of an object by names of columns that nothing measured has."""
    return {f"own_{name}" if name in measured else name: value for name, value in properties.items()}


@lru_cache(maxsize=16)
def cube_areas(spacing_zyx: tuple[float, float, float]) -> FloatArray:
    """Area of the marching cubes surface in a cube of 2 x 2 x 2 voxels, for each of the 256 sets of corners.

    Returns
    -------
    (256,) float array
        Entry ``sum(2**i for the corners i that are inside)``, corners in the order of ``itertools.product``.
    """
    from skimage.measure import marching_cubes, mesh_surface_area

    areas = np.zeros(256)
    for code in range(1, 255):
        cube = np.array([code >> i & 1 for i in range(8)], np.float32).reshape(2, 2, 2)
        vertices, faces, _, _ = marching_cubes(cube, 0.5, spacing=spacing_zyx)
        areas[code] = mesh_surface_area(vertices, faces)
    areas.flags.writeable = False
    return areas


@dataclass(slots=True)
class _Row:
    """Sums of one object."""

    count: int = 0
    surface: float = 0.0
    sums_zyx: FloatArray = field(default_factory=lambda: np.zeros(3))
    low_zyx: FloatArray = field(default_factory=lambda: np.full(3, np.inf))
    high_zyx: FloatArray = field(default_factory=lambda: np.full(3, -np.inf))
    intensity: list[FloatArray] = field(default_factory=list)


class _Sums:
    """Sums over the planes of one time point."""

    def __init__(self, source: LabelSource, image: VolumeLike | None) -> None:
        self.source, self.image = source, image
        self._rows: dict[int, _Row] = {}
        self._areas = cube_areas(source.spacing_zyx)
        height, width = source.shape[2:]
        self._before = np.zeros((height, width), source.dtype)

    def add(self, plane: Array, z: int, pixels: Array | None) -> None:
        """Add a plane (H, W) of labels and, where there is one, of the image (H, W) or (H, W, C)."""
        plane = plane.astype(self.source.dtype, copy=False)
        self._add_voxels(plane, z, pixels)
        self._add_surface(self._before, plane)
        self._before = plane

    def results(self, time: int) -> Iterator[ObjectMeasures]:
        """What was measured, by label."""
        self._add_surface(self._before, np.zeros_like(self._before))
        for label, row in sorted(self._rows.items()):
            yield self._measures(label, time, row)

    def _add_voxels(self, plane: Array, z: int, pixels: Array | None) -> None:
        at = np.flatnonzero(plane)
        if not len(at):
            return
        labels, which, counts = np.unique(plane.ravel()[at], return_inverse=True, return_counts=True)
        order = np.argsort(which, kind="stable")
        begins = np.concatenate([[0], np.cumsum(counts)[:-1]])
        yx = [axis[order] for axis in np.divmod(at, plane.shape[1])]
        low, high = (np.stack([f.reduceat(axis, begins) for axis in yx], 1) for f in (np.minimum, np.maximum))
        sums = np.stack([np.add.reduceat(axis.astype(np.float64), begins) for axis in yx], 1)
        for i, label in enumerate(labels.tolist()):
            row = self._rows.setdefault(label, _Row())
            row.count += int(counts[i])
            row.sums_zyx += (z * counts[i], *sums[i])
            row.low_zyx = np.minimum(row.low_zyx, (z, *low[i]))
            row.high_zyx = np.maximum(row.high_zyx, (z, *high[i]))
        if pixels is not None:
            values = pixels.reshape(plane.size, -1)[at[order]].astype(np.float64)
            self._add_intensities(labels, values, begins)

    def _add_intensities(self, labels: Array, values: FloatArray, begins: Array) -> None:
        parts = np.add.reduceat(values, begins), np.add.reduceat(values**2, begins)
        limits = np.minimum.reduceat(values, begins), np.maximum.reduceat(values, begins)
        for i, label in enumerate(labels.tolist()):
            total, squares, low, high = (part[i] for part in (*parts, *limits))
            old = self._rows[label].intensity
            if old:
                total, squares = total + old[0], squares + old[1]
                low, high = np.minimum(low, old[2]), np.maximum(high, old[3])
            self._rows[label].intensity = [total, squares, low, high]

    def _add_surface(self, below: Array, above: Array) -> None:
        """Add the area between two planes, and beside them outside of the volume."""
        cubes = _mixed_cubes(below, above)
        for corner in range(8):
            labels = cubes[corner]
            new = labels != 0
            for earlier in range(corner):
                new &= cubes[earlier] != labels
            own = labels[new]
            codes = np.zeros(len(own), np.intp)
            for i in range(8):
                codes |= (cubes[i][new] == own).astype(np.intp) << i
            found, which = np.unique(own, return_inverse=True)
            areas = np.bincount(which, self._areas[codes], minlength=len(found))
            for label, area in zip(found.tolist(), areas.tolist(), strict=True):
                self._rows[label].surface += area

    def _measures(self, label: int, time: int, row: _Row) -> ObjectMeasures:
        spacing = np.array(self.source.spacing_zyx)
        box = np.stack([row.low_zyx, row.high_zyx]).astype(np.int64)
        size = np.array(self.source.shape[1:])
        inner = size > 1
        return ObjectMeasures(
            label,
            time,
            row.count,
            row.count * float(spacing.prod()),
            row.surface,
            spacing * row.sums_zyx / row.count + self.source.translate_zyx,
            box,
            spacing * (box[1] - box[0] + 1),
            bool(((box[0] == 0) | (box[1] == size - 1))[inner].any()),
            _statistics(row) if row.intensity else None,
        )


def _statistics(row: _Row) -> FloatArray:
    total, squares, low, high = row.intensity
    mean = total / row.count
    return np.stack([mean, np.sqrt(np.maximum(squares / row.count - mean**2, 0)), low, high])


def _mixed_cubes(below: Array, above: Array) -> Array:
    """Corner labels of the cubes between two planes that hold more than one label, (8, n)."""
    used = (below != 0) | (above != 0)
    rows, columns = np.flatnonzero(used.any(1)), np.flatnonzero(used.any(0))
    if not len(rows):
        return np.zeros((8, 0), below.dtype)
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    planes = [np.pad(one[box], 1) for one in (below, above)]
    height, width = planes[0].shape
    corners = [planes[z][y : height - 1 + y, x : width - 1 + x] for z, y, x in _CORNERS]
    mixed = np.zeros(corners[0].shape, bool)
    for corner in corners[1:]:
        mixed |= corner != corners[0]
    return np.stack([corner[mixed] for corner in corners])
