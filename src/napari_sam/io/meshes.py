"""Surfaces of labelled objects as triangle meshes in physical units: OBJ and STL.

Marching cubes (Lewiner 2003, scikit-image) runs over a few planes at a time, and the triangles are written
as they are found, so that an object may be as large as it likes. Vertices that two parts share are written
once: the surface is closed. Coordinates are x, y, z in the unit of the labels; triangles turn
counter-clockwise seen from outside.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from napari_sam.core.arrays import BoolArray, FloatArray
from napari_sam.core.protocols import VolumeLike
from napari_sam.errors import ExportError, InputWarning
from napari_sam.io.atomic import check_new, replacing
from napari_sam.io.label_source import LabelSource, label_source
from napari_sam.io.measure import ObjectMeasures, iter_measures
from napari_sam.io.volume import Box

Progress = Generator[tuple[int, int], None, Path]

PART_VOXELS = 1 << 23
"""Voxels of an object that are in memory at once, unless one pair of planes has more."""

_NEAR = 1e-3
"""Voxels; vertices this near to a plane of voxels lie on it."""

_STL_TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


class MeshFormat(StrEnum):
    """Kinds of mesh files."""

    OBJ = "obj"
    """Text, with shared vertices; a file holds many objects by name."""
    STL = "stl"
    """Binary triangles."""


@dataclass(frozen=True, slots=True)
class MeshOptions:
    """Which objects become meshes, and how.

    Parameters
    ----------
    objects : sequence of int, optional
        Labels; all when None.
    time : int, optional
        Time point; the first when None.
    format : MeshFormat
        Of the files in a folder; one file says it by its ending.
    overwrite : bool
        Replace files that are there.
    """

    objects: Sequence[int] | None = None
    time: int | None = None
    format: MeshFormat = MeshFormat.OBJ
    overwrite: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class MeshPart:
    """Some triangles of a surface.

    Parameters
    ----------
    vertices_xyz : (n, 3) float array
        New vertices, in units.
    faces : (m, 3) int array
        Indices of vertices, counted over all parts of the object.
    corners_xyz : (m, 3, 3) float array
        The same triangles by their corners.
    """

    vertices_xyz: FloatArray
    faces: NDArray[np.int64]
    corners_xyz: FloatArray


def iter_mesh(source: LabelSource, label: int, box_zyx: Box, time: int = 0) -> Iterator[MeshPart]:
    """The closed surface of one object, part by part.

    Parameters
    ----------
    source : LabelSource
        The labels.
    label : int
        Which object.
    box_zyx : ((int, int), (int, int), (int, int))
        First voxel and last voxel + 1 of it along Z, Y, X.
    time : int
        Time point.
    """
    (z0, z1), (y0, y1), (x0, x1) = box_zyx
    step = max(1, PART_VOXELS // ((y1 - y0 + 2) * (x1 - x0 + 2)))
    numbering = _Numbering()
    spacing, origin = np.array(source.spacing_zyx), np.array(source.translate_zyx)
    for first in range(z0 - 1, z1, step):
        last = min(first + step, z1)
        mask = _mask(source, label, ((first, last + 1), (y0 - 1, y1 + 1), (x0 - 1, x1 + 1)), time)
        vertices, faces = _marching_cubes(mask)
        numbers, is_new = numbering.add(vertices, last - first)
        corner = np.array([first, y0 - 1, x0 - 1])
        world = ((vertices + corner) * spacing + origin)[:, ::-1]
        yield MeshPart(world[is_new], numbers[faces], world[faces])


def iter_save_mesh(
    labels: Any, path: str | Path, like: VolumeLike | None = None, options: MeshOptions | None = None
) -> Progress:
    """Write objects to one file (NAME.obj, NAME.stl) or, one a file, to a folder; yields (done, total).

    Parameters
    ----------
    labels, like
        As `napari_sam.save_labels` takes them.
    path : path
        A file that ends in .obj or .stl, or a folder, which is made; its files are ``object_00001.obj``.
    options : MeshOptions, optional
        Which objects.

    Raises
    ------
    ExportError
        A file exists or cannot be written; an object or time point asked for is not there; these are no labels.

    Warns
    -----
    InputWarning
        The labels have several time points, and none was chosen.
    """
    target = Path(path).expanduser()
    source = label_source(labels, like)
    options = _with_time(source, options or MeshOptions())
    single = target.suffix.lower()[1:] in set(MeshFormat)
    check_new(target if single else target.parent / f".{target.name}.check", options.overwrite)
    found: dict[int, Box] = {}
    for one in iter_measures(source):
        if not isinstance(one, ObjectMeasures):
            yield one[0], 2 * one[1]
        elif one.time == options.time and (options.objects is None or one.label in options.objects):
            found[one.label] = _box(one)
    _check_found(found, options)
    steps = (
        _save_file(source, target, found, options) if single else _save_folder(source, target, found, options)
    )
    for done in steps:
        yield len(found) + done, 2 * len(found)
    return target


def _with_time(source: LabelSource, options: MeshOptions) -> MeshOptions:
    n_time = source.shape[0]
    if options.time is None:
        if n_time > 1:
            warnings.warn(
                f"the labels have {n_time} time points; the meshes are of the first one alone, choose a time for another",
                InputWarning,
                stacklevel=3,
            )
        return replace(options, time=0)
    if not 0 <= options.time < n_time:
        raise ExportError(f"there is no time point {options.time}; the labels have 0 to {n_time - 1}")
    return options


def _check_found(found: dict[int, Box], options: MeshOptions) -> None:
    missing = sorted(set(options.objects or ()) - set(found))
    if missing:
        raise ExportError(f"there is no object {missing[0]} at time {options.time}; look at the labels' ids")
    if not found:
        raise ExportError(f"the labels hold no object at time {options.time}: there is no mesh to write")


def _save_folder(
    source: LabelSource, folder: Path, found: dict[int, Box], options: MeshOptions
) -> Iterator[int]:
    paths = {label: folder / f"object_{label:05d}.{options.format}" for label in found}
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ExportError(f"cannot make the folder {folder}: {error}; choose another place") from error
    for path in paths.values():
        check_new(path, options.overwrite)
    for done, (label, box) in enumerate(found.items(), 1):
        for _ in _save_file(source, paths[label], {label: box}, options):
            pass
        yield done


def _save_file(source: LabelSource, path: Path, found: dict[int, Box], options: MeshOptions) -> Iterator[int]:
    kind = MeshFormat(path.suffix.lower()[1:])
    with replacing(path) as beside, beside.open("wb") as file:
        writer = _ObjWriter(file, source.unit) if kind is MeshFormat.OBJ else _StlWriter(file, source.unit)
        for done, (label, box) in enumerate(found.items(), 1):
            writer.begin(label)
            for part in iter_mesh(source, label, box, options.time or 0):
                writer.add(part)
            yield done
        writer.end()


def _box(one: ObjectMeasures) -> Box:
    low, high = one.box_zyx
    (z0, y0, x0), (z1, y1, x1) = low.tolist(), (high + 1).tolist()
    return (z0, z1), (y0, y1), (x0, x1)


def _mask(source: LabelSource, label: int, box: Box, time: int) -> BoolArray:
    """The object in a box that may reach one voxel out of the volume: background there."""
    inside = [(max(0, a), min(n, b)) for (a, b), n in zip(box, source.shape[1:], strict=True)]
    (za, zb), (ya, yb), (xa, xb) = inside
    block = source.volume.read_box(((za, zb), (ya, yb), (xa, xb)), time=time) == label
    outside = [(i[0] - b[0], b[1] - i[1]) for b, i in zip(box, inside, strict=True)]
    return np.pad(block, outside)


def _marching_cubes(mask: BoolArray) -> tuple[FloatArray, NDArray[np.int64]]:
    """Vertices (n, 3) zyx in voxels, and faces (m, 3)."""
    from skimage.measure import marching_cubes

    if not mask.any():
        return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    vertices, faces, _, _ = marching_cubes(mask.astype(np.float32), 0.5)
    return vertices.astype(np.float64), faces.astype(np.int64)


class _Numbering:
    """Numbers vertices over all parts; where two parts touch they have the same vertices."""

    def __init__(self) -> None:
        self._count = 0
        self._keys = self._numbers = np.zeros(0, np.int64)

    def add(self, vertices: FloatArray, last: int) -> tuple[NDArray[np.int64], BoolArray]:
        """Number (n,) of each vertex of a part that ends at plane `last` of its own, and whether it is new."""
        keys = _keys(vertices)
        old = np.isin(keys, self._keys) & (np.abs(vertices[:, 0]) < _NEAR)
        order = np.argsort(self._keys)
        numbers = np.empty(len(vertices), np.int64)
        numbers[old] = self._numbers[order[np.searchsorted(self._keys[order], keys[old])]]
        numbers[~old] = self._count + np.arange(np.count_nonzero(~old))
        self._count += int(np.count_nonzero(~old))
        at_end = np.abs(vertices[:, 0] - last) < _NEAR
        self._keys, self._numbers = keys[at_end], numbers[at_end]
        return numbers, ~old


def _keys(vertices: FloatArray) -> NDArray[np.int64]:
    """One number for each place in a plane; vertices on its edges lie at half voxels."""
    y, x = np.rint(2 * vertices[:, 1:]).astype(np.int64).T
    return np.asarray(y << 32 | x)


class _ObjWriter:
    def __init__(self, file: IO[bytes], unit: str) -> None:
        self._file, self._before, self._written = file, 0, 0
        self._write(f"# unit: {unit or 'voxel'}\n")

    def begin(self, label: int) -> None:
        self._before = self._written
        self._write(f"o object_{label}\n")

    def add(self, part: MeshPart) -> None:
        self._write("".join(f"v {x:.9g} {y:.9g} {z:.9g}\n" for x, y, z in part.vertices_xyz.tolist()))
        faces = part.faces + self._before + 1
        self._write("".join(f"f {a} {b} {c}\n" for a, b, c in faces.tolist()))
        self._written += len(part.vertices_xyz)

    def end(self) -> None:
        self._file.flush()

    def _write(self, text: str) -> None:
        self._file.write(text.encode("utf-8"))


class _StlWriter:
    def __init__(self, file: IO[bytes], unit: str) -> None:
        self._file, self._count = file, 0
        header = f"binary STL, unit: {unit or 'voxel'}".encode("ascii", "replace")
        file.write(header[:80].ljust(80) + bytes(4))

    def begin(self, label: int) -> None:
        """STL knows no names."""

    def add(self, part: MeshPart) -> None:
        triangles = np.zeros(len(part.corners_xyz), _STL_TRIANGLE)
        a, b, c = part.corners_xyz.transpose(1, 0, 2)
        normals = np.cross(b - a, c - a)
        triangles["normal"] = normals / np.linalg.norm(normals, axis=1, keepdims=True)
        triangles["corners"] = part.corners_xyz
        self._file.write(triangles.tobytes())
        self._count += len(triangles)

    def end(self) -> None:
        self._file.seek(80)
        self._file.write(np.uint32(self._count).astype("<u4").tobytes())
