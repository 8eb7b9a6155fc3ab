"""The spaces a coordinate lives in, and the only arithmetic between them.

::

    world ──LayerSpace──> data ──VolumeSpace──> plane ──ModelSpace──> model
    (physical)            (voxels, level 0)     (row, column)         (x, y) after resizing

* **world**: what a viewer shows; physical units, one coordinate per viewer dimension.
* **data**: array indices of one image layer at level 0, in the layer's own axis order.
* **plane**: `points_yx`, row and column of one plane at one level, see `napari_sam.core.planes`.
* **model**: `points_xy`, column before row, pixels of the resized tile that the network sees.

In world, data and plane space a coordinate with an integer value in voxels is the *centre* of a voxel.
A voxel therefore covers [i - 0.5, i + 0.5), and everything belongs to the plane, the row and the column
whose index is `nearest_index` of its coordinate. Only this module turns yx into xy; docs/coordinates.md
explains all of it with a figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_sam.core.arrays import Array, ArrayValue, FloatArray, frozen_array
from napari_sam.core.planes import BoxYXYX, PlaneRef, Shape2D
from napari_sam.core.protocols import VolumeLike
from napari_sam.errors import PromptError, SpaceError

ShapeZYX = tuple[int, int, int]
TripleZYX = tuple[float, float, float]

SINGULAR = 1e-10
"""Smallest ratio of singular values (axes scaled to equal length) that still counts as invertible."""


def nearest_index(coordinates: Any) -> Array:
    """Index of the voxel (or plane) that each coordinate belongs to: half up, so i covers [i - 0.5, i + 0.5).

    Parameters
    ----------
    coordinates : array_like of float
        Centres at integers.

    Returns
    -------
    array of int64
        Of the same shape.
    """
    values = np.asarray(coordinates, np.float64)
    below = np.floor(values)
    # floor(x + 0.5) would put 0.49999999999999994 into voxel 1, because the sum is rounded
    indices: Array = (below + (values - below >= 0.5)).astype(np.int64)
    return indices


def layer_affine(
    scale: Any, translate: Any, rotate: Any = None, shear: Any = None, affine: Any = None
) -> FloatArray:
    """Matrix from data to world: affine @ translate @ rotate @ shear @ scale, the order napari uses.

    Parameters
    ----------
    scale, translate : (n,) array_like
        Of a layer with n dimensions.
    rotate : (n, n) array_like, optional
        Rotation matrix.
    shear : (n, n) array_like or (n (n - 1) / 2,) array_like, optional
        Shear matrix, or its values above the diagonal, row by row.
    affine : (n + 1, n + 1) array_like, optional
        Applied last.

    Returns
    -------
    (n + 1, n + 1) float64 array
    """
    ndim = len(scale)
    linear = np.diag(np.asarray(scale, np.float64))
    if shear is not None:
        linear = _shear_matrix(shear, ndim) @ linear
    if rotate is not None:
        linear = np.asarray(rotate, np.float64) @ linear
    matrix = np.eye(ndim + 1)
    matrix[:ndim, :ndim] = linear
    matrix[:ndim, ndim] = translate
    return matrix if affine is None else np.asarray(affine, np.float64) @ matrix


def _shear_matrix(shear: Any, ndim: int) -> FloatArray:
    values = np.asarray(shear, np.float64)
    if values.ndim == 2:
        return values
    matrix = np.eye(ndim)
    matrix[np.triu_indices(ndim, 1)] = values
    return matrix


def _points(points: Any, ndim: int, space: str) -> FloatArray:
    array = np.asarray(points, np.float64)
    if array.ndim != 2 or array.shape[1] < ndim:
        raise SpaceError(f"points_{space} must have shape (n, {ndim}); got {array.shape}")
    return array[:, array.shape[1] - ndim :]


def _finite(points: FloatArray, space: str) -> FloatArray:
    if not np.isfinite(points).all():
        raise PromptError(f"points_{space} hold NaN or infinity: {points.tolist()}; remove these points")
    return points


@dataclass(frozen=True, slots=True, eq=False)
class LayerSpace(ArrayValue):
    """World <-> data of one layer.

    Parameters
    ----------
    affine : (n + 1, n + 1) array_like
        From data to world, homogeneous, rows and columns in the layer's axis order.
    ndim : int, optional
        n; given only to have it checked.

    Raises
    ------
    SpaceError
        The matrix has the wrong shape or last row, is not finite, or cannot be inverted.
    """

    affine: FloatArray
    ndim: int = -1

    def __post_init__(self) -> None:
        affine = frozen_array(self.affine, np.float64)
        ndim = affine.shape[0] - 1 if self.ndim < 0 else self.ndim
        if affine.shape != (ndim + 1, ndim + 1) or ndim < 1:
            raise SpaceError(f"an affine of {ndim} axes must be ({ndim + 1}, {ndim + 1}); got {affine.shape}")
        if not np.isfinite(affine).all() or (affine[-1] != [0] * ndim + [1]).any():
            raise SpaceError(f"affine must be finite with last row (0, ..., 0, 1); got {affine.tolist()}")
        _check_invertible(affine[:-1, :-1])
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "ndim", ndim)

    @classmethod
    def identity(cls, ndim: int) -> LayerSpace:
        """World and data are the same."""
        return cls(np.eye(ndim + 1), ndim)

    def to_world(self, points_data: Any) -> FloatArray:
        """(n, ndim) data coordinates to world."""
        points = _points(points_data, self.ndim, "data")
        return points @ self.affine[:-1, :-1].T + self.affine[:-1, -1]

    def to_data(self, points_world: Any) -> FloatArray:
        """(n, m) world coordinates to data, (n, ndim).

        A viewer may have more dimensions than the layer; the layer's are then the last ones.
        """
        points = _points(points_world, self.ndim, "world")
        solution: FloatArray = np.linalg.solve(self.affine[:-1, :-1], (points - self.affine[:-1, -1]).T).T
        return solution


def _check_invertible(linear: FloatArray) -> None:
    lengths = np.linalg.norm(linear, axis=0)
    if lengths.all():
        values = np.linalg.svd(linear / lengths, compute_uv=False)
        if values[-1] > SINGULAR * values[0]:
            return
    raise SpaceError(
        f"the layer's transform {linear.tolist()} flattens an axis and cannot be inverted; "
        "give the layer a scale without zeros and an affine of full rank"
    )


@dataclass(frozen=True, slots=True)
class Level:
    """How the voxels of a multiscale level lie among those of level 0: x0 = factor * x_level + offset.

    Parameters
    ----------
    factor_zyx : (float, float, float)
        Level-0 voxels per voxel.
    offset_zyx : (float, float, float)
        Level-0 coordinate of the centre of the first voxel. (factor - 1) / 2 where voxels were averaged,
        as in most OME-Zarr pyramids; 0 where every factor-th voxel was kept.
    """

    factor_zyx: TripleZYX = (1.0, 1.0, 1.0)
    offset_zyx: TripleZYX = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if not (np.isfinite((*self.factor_zyx, *self.offset_zyx)).all() and min(self.factor_zyx) > 0):
            raise SpaceError(f"level factors must be positive and offsets finite, got {self}")

    @classmethod
    def averaged(cls, factor_zyx: Sequence[float]) -> Level:
        """Blocks of level-0 voxels, the first of which starts at the edge of the volume."""
        z, y, x = (float(f) for f in factor_zyx)
        return cls((z, y, x), ((z - 1) / 2, (y - 1) / 2, (x - 1) / 2))

    @classmethod
    def from_shapes(cls, shape_zyx: Sequence[int], level_shape_zyx: Sequence[int]) -> Level:
        """Guess from the numbers of voxels: the whole factor that explains them, else their ratio."""
        return cls.averaged([_factor(n, m) for n, m in zip(shape_zyx, level_shape_zyx, strict=True)])

    @classmethod
    def from_physical(
        cls,
        spacing_zyx: Sequence[float],
        translate_zyx: Sequence[float],
        level_spacing_zyx: Sequence[float],
        level_translate_zyx: Sequence[float],
    ) -> Level:
        """From the size of the voxels and the position of the first centre, of level 0 and of the level."""
        factor = np.divide(level_spacing_zyx, spacing_zyx)
        offset = np.subtract(level_translate_zyx, translate_zyx) / np.asarray(spacing_zyx)
        return cls(tuple(factor.tolist()), tuple(offset.tolist()))

    def from_level0(self, points_zyx: FloatArray) -> FloatArray:
        """(n, 3) level-0 voxel coordinates to this level's: (x0 + 0.5) / f - 0.5 where averaged."""
        result: FloatArray = (points_zyx - np.array(self.offset_zyx)) / np.array(self.factor_zyx)
        return result

    def to_level0(self, points_zyx: FloatArray) -> FloatArray:
        """(n, 3) voxel coordinates of this level to level 0's."""
        result: FloatArray = points_zyx * np.array(self.factor_zyx) + np.array(self.offset_zyx)
        return result


def _factor(n: int, m: int) -> float:
    whole = max(round(n / m), 1)
    return float(whole) if m in (n // whole, -(-n // whole)) else n / m


@dataclass(frozen=True, slots=True)
class VolumeSpace:
    """Data <-> plane: which data axes are the volume's T, Z, Y and X, and how its levels lie.

    Parameters
    ----------
    shapes_zyx : tuple of (int, int, int)
        Voxels of each multiscale level, level 0 first.
    zyx_axes : (int or None, int or None, int or None)
        Data axis of Z, Y and X; None for an axis of length 1 that the data do not have.
    ndim : int
        Number of data axes. Axes that are neither Z, Y, X nor time (such as channels) are ignored.
    time_axis : int, optional
        Data axis of time.
    n_time : int
        Number of time points.
    levels : tuple of Level, optional
        One for each shape; guessed from the shapes when left out.
    """

    shapes_zyx: tuple[ShapeZYX, ...]
    zyx_axes: tuple[int | None, int | None, int | None] = (0, 1, 2)
    ndim: int = 3
    time_axis: int | None = None
    n_time: int = 1
    levels: tuple[Level, ...] = ()

    def __post_init__(self) -> None:
        used = [axis for axis in (self.time_axis, *self.zyx_axes) if axis is not None]
        if len(set(used)) < len(used) or not all(0 <= axis < self.ndim for axis in used):
            raise SpaceError(
                f"zyx_axes {self.zyx_axes} and time_axis {self.time_axis} must be different axes "
                f"of the {self.ndim} data axes"
            )
        levels = self.levels or tuple(
            Level.from_shapes(self.shapes_zyx[0], shape) for shape in self.shapes_zyx
        )
        if len(levels) != len(self.shapes_zyx) or levels[0] != Level():
            raise SpaceError(
                f"{len(self.shapes_zyx)} shapes need as many levels, the first with factor 1 and offset 0; "
                f"got {levels}"
            )
        object.__setattr__(self, "levels", levels)

    @classmethod
    def of(
        cls,
        volume: VolumeLike,
        zyx_axes: tuple[int | None, int | None, int | None] = (0, 1, 2),
        ndim: int = 3,
        time_axis: int | None = None,
    ) -> VolumeSpace:
        """Space of a volume; its levels lie as its `level_places` say, else as their shapes do."""
        shapes = tuple(volume.shape_zyx(level) for level in range(volume.n_levels))
        places = getattr(volume, "level_places", ())
        return cls(shapes, zyx_axes, ndim, time_axis, volume.n_time, places)

    @property
    def shape_zyx(self) -> ShapeZYX:
        """Voxels of level 0."""
        return self.shapes_zyx[0]

    def to_zyx(self, points_data: Any, level: int = 0) -> FloatArray:
        """(n, ndim) data coordinates to (n, 3) voxel coordinates of a level; an absent axis reads 0.

        A level may end a little short of level 0: its last voxels then stand for what lies beyond them.
        """
        points = _points(points_data, self.ndim, "data")
        zyx = np.zeros((len(points), 3))
        for i, axis in enumerate(self.zyx_axes):
            if axis is not None:
                zyx[:, i] = points[:, axis]
        return self._kept_inside(self.levels[level].from_level0(zyx), zyx, level)

    def time_of(self, points_data: Any) -> Array:
        """(n,) time point that each point belongs to."""
        points = _points(points_data, self.ndim, "data")
        if self.time_axis is None:
            return np.zeros(len(points), np.int64)
        return nearest_index(points[:, self.time_axis])

    def belongs(self, points_data: Any, plane: PlaneRef) -> Array:
        """(n,) bool: which points belong to a plane, whether inside its rows and columns or not."""
        points = _finite(_points(points_data, self.ndim, "data"), "data")
        along = nearest_index(self.to_zyx(points, plane.level)[:, plane.axis])
        belongs: Array = (along == plane.index) & (self.time_of(points) == plane.time)
        return belongs

    def to_plane(self, points_data: Any, plane: PlaneRef) -> FloatArray:
        """(n, ndim) data coordinates to (n, 2) points_yx of a plane, wherever they are across it."""
        return np.delete(self.to_zyx(points_data, plane.level), plane.axis, axis=1)

    def to_data(self, points_yx: Any, plane: PlaneRef, others: Sequence[float] | None = None) -> FloatArray:
        """(n, 2) points of a plane to data coordinates, (n, ndim).

        Parameters
        ----------
        points_yx : (n, 2) array_like
            In plane space.
        plane : PlaneRef
            The plane; the points lie in its middle.
        others : (ndim,) sequence of float, optional
            Coordinates for the axes that the volume does not have, such as the channel shown; 0 by default.
        """
        points = _points(points_yx, 2, "yx")
        zyx = self.levels[plane.level].to_level0(np.insert(points, plane.axis, plane.index, axis=1))
        data = np.tile(np.zeros(self.ndim) if others is None else np.asarray(others, float), (len(points), 1))
        for i, axis in enumerate(self.zyx_axes):
            if axis is not None:
                data[:, axis] = zyx[:, i]
        if self.time_axis is not None:
            data[:, self.time_axis] = plane.time
        return data

    def _kept_inside(self, zyx: FloatArray, zyx_level0: FloatArray, level: int) -> FloatArray:
        """Clip coordinates of a level to its voxels where the point lies inside the volume."""
        indices = nearest_index(zyx_level0)
        inside = (indices >= 0) & (indices < self.shape_zyx)
        end = np.nextafter(np.array(self.shapes_zyx[level]) - 0.5, -np.inf)
        return np.where(inside, np.clip(zyx, -0.5, end), zyx)


def level_geometry(volume: VolumeLike, level: int) -> dict[str, Any]:
    """Where the voxels of a level are: `spacing_zyx`, `translate_zyx` and `unit`, as labels are made and saved with."""
    lies = VolumeSpace.of(volume).levels[level]
    spacing = np.array(volume.spacing_zyx)
    return {
        "spacing_zyx": tuple((spacing * lies.factor_zyx).tolist()),
        "translate_zyx": tuple((volume.translate_zyx + spacing * lies.offset_zyx).tolist()),
        "unit": volume.unit,
    }


@dataclass(frozen=True, slots=True)
class ModelSpace:
    """Plane <-> model: the part of a plane that was encoded, and its size after resizing.

    SAM scales a click by new size / old size and adds half a pixel in its prompt encoder, which counts from
    the *edge* of the image: column x of the plane goes to ``x * s + 0.5``. The centre of that column lies
    at ``(x + 0.5) * s`` from the edge, so the two differ by ``(s - 1) / 2`` model pixels (3.5 for s = 8,
    none for s = 1). The networks were trained with the former, so it is kept: `to_model` gives
    ``x * s``, the prompt encoder adds its 0.5, and a whole-numbered click becomes to the last digit what
    the published arithmetic makes of it. The rule is the same for points and corners of boxes, and the
    same in both directions, so nothing drifts.

    Parameters
    ----------
    box_yxyx : (int, int, int, int)
        The part of the plane, as in `TileEmbedding`.
    input_shape : (int, int)
        Its height and width after resizing, before padding.
    """

    box_yxyx: BoxYXYX
    input_shape: Shape2D

    def __post_init__(self) -> None:
        y0, x0, y1, x1 = self.box_yxyx
        if y1 <= y0 or x1 <= x0 or min(self.input_shape) < 1:
            raise SpaceError(f"tile {self.box_yxyx} or its resized shape {self.input_shape} is empty")

    @property
    def scale_yx(self) -> FloatArray:
        """(2,) model pixels per plane pixel, along rows and columns."""
        y0, x0, y1, x1 = self.box_yxyx
        return np.array([self.input_shape[0] / (y1 - y0), self.input_shape[1] / (x1 - x0)])

    def to_model(self, points_yx: Any) -> FloatArray:
        """(n, 2) points_yx of the plane to (n, 2) points_xy of the model, before its + 0.5."""
        points = _points(points_yx, 2, "yx")
        return ((points - self.box_yxyx[:2]) * self.scale_yx)[:, ::-1]

    def to_plane(self, points_xy: Any) -> FloatArray:
        """(n, 2) points_xy of the model to (n, 2) points_yx of the plane."""
        points = _points(points_xy, 2, "xy")
        result: FloatArray = points[:, ::-1] / self.scale_yx + np.array(self.box_yxyx[:2])
        return result


def resized_shape(shape: Shape2D, size: int) -> Shape2D:
    """Height and width after the longer side is brought to `size`, rounded as SAM does: int(side * scale + 0.5).

    Never less than one pixel, so that a very long strip stays an image.
    """
    scale = size * 1.0 / max(shape)
    height, width = (max(int(side * scale + 0.5), 1) for side in shape)
    return height, width
