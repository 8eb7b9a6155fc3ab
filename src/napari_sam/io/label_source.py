"""Labels of any kind, seen as planes to be written, with where they are in space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_sam.core.arrays import Array
from napari_sam.core.planes import BoxYXYX, PlaneRef
from napari_sam.core.protocols import VolumeLike
from napari_sam.errors import ExportError
from napari_sam.io.axes import exchange_time
from napari_sam.io.readers.pixels import Triple
from napari_sam.io.stored import stored_parts
from napari_sam.io.volume import Volume, open_volume


@dataclass(frozen=True, slots=True, eq=False)
class LabelPart:
    """What may hold labels in one plane.

    Parameters
    ----------
    time, z : int
        Which plane.
    box_yxyx : (y0, x0, y1, x1)
        Outside of it, all is background; empty if the whole plane is.
    values : (h, w) array
        The labels in the box.
    """

    time: int
    z: int
    box_yxyx: BoxYXYX
    values: Array


@dataclass(frozen=True, slots=True, eq=False)
class LabelSource:
    """Labels that can be read plane by plane, as (T, Z, Y, X).

    Parameters
    ----------
    volume : Volume
        The labels.
    axes : str
        Their own axes: "YX", "ZYX" or "TZYX".
    spacing_zyx, translate_zyx, unit
        Where they are.
    time_step, time_unit
        When they are.
    """

    volume: Volume
    axes: str
    spacing_zyx: Triple
    translate_zyx: Triple
    unit: str
    time_step: float = 1.0
    time_unit: str = ""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Unsigned type of the same size as the labels' own."""
        return np.dtype(f"u{self.volume.dtype.itemsize}")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Length of T, Z, Y, X."""
        return (self.volume.n_time, *self.volume.shape_zyx())

    @property
    def n_planes(self) -> int:
        """Number of planes of all time points."""
        return self.shape[0] * self.shape[1]

    def parts(self) -> Iterator[LabelPart]:
        """What may hold labels in each plane, in order; of a zarr that may be sparse only what is stored is read.

        Raises
        ------
        ExportError
            At a plane with a negative label.
        """
        sparse = self.volume.missing_chunks == "fill"
        stored = stored_parts(self.volume.levels[0], self.volume.axes) if sparse else None
        whole = (0, 0, *self.shape[2:])
        for time in range(self.shape[0]):
            for z in range(self.shape[1]):
                box = whole if stored is None else stored.box(z) or (0, 0, 0, 0)
                yield LabelPart(time, z, box, self._read(time, z, box))

    def planes(self) -> Iterator[tuple[int, int, Array]]:
        """Time, index and (H, W) array of each plane, in order; errors as `parts`."""
        shape = self.shape[2:]
        for part in self.parts():
            plane = part.values
            if plane.shape != shape:
                y0, x0, y1, x1 = part.box_yxyx
                plane = np.zeros(shape, self.volume.dtype)
                plane[y0:y1, x0:x1] = part.values
            yield part.time, part.z, plane

    def _read(self, time: int, z: int, box: BoxYXYX) -> Array:
        y0, x0, y1, x1 = box
        if y0 == y1:
            return np.zeros((0, 0), self.volume.dtype)
        if box == (0, 0, *self.shape[2:]):
            values = self.volume.read_plane(PlaneRef(0, z, 0, time))
        else:
            values = self.volume.read_box(((z, z + 1), (y0, y1), (x0, x1)), time=time)[0]
        if values.dtype.kind == "i" and values.min() < 0:
            raise ExportError(
                f"plane {z} holds the negative label {values.min()}; 0 is background, objects count from 1"
            )
        return values


def label_source(
    labels: Any, like: VolumeLike | None = None, axes: str | None = None, **given: Any
) -> LabelSource:
    """Look at labels of any kind.

    Parameters
    ----------
    labels : array, Volume or LabelSource
        numpy, dask or zarr array with axes YX, ZYX or TZYX, or an opened volume of labels; a source is returned as it is.
    like : VolumeLike, optional
        The image they belong to; says where they are, and is checked to have the same shape.
    axes : str, optional
        Of an array, where they are others.
    **given
        `spacing_zyx`, `translate_zyx`, `unit`, `time_step`: win over `like`; None is not given.

    Raises
    ------
    ExportError
        If these are no labels, or they do not fit `like`.
    """
    if isinstance(labels, LabelSource):
        return labels
    if like is not None and axes is None and not isinstance(labels, Volume):
        own = own_axes(like, np.ndim(labels), like.spacing_zyx)
        axes = own.pop("axes", None)
        given = own | {name: value for name, value in given.items() if value is not None}
    volume = labels if isinstance(labels, Volume) else _as_volume(labels, axes)
    _check_labels(volume)
    if like is not None:
        check_shape(volume, like)
    origin = like if like is not None else volume
    where = {
        name: given[name] if given.get(name) is not None else getattr(origin, name)
        for name in ("spacing_zyx", "translate_zyx", "unit")
    }
    step = given.get("time_step")
    return LabelSource(
        volume,
        _axes(volume, labels if axes is None else volume),
        _triple("spacing_zyx", where["spacing_zyx"]),
        _triple("translate_zyx", where["translate_zyx"]),
        where["unit"],
        getattr(origin, "time_step", 1.0) if step is None else step,
        getattr(origin, "time_unit", ""),
    )


def own_axes(volume: VolumeLike, ndim: int, spacing_zyx: Sequence[float]) -> dict[str, Any]:
    """Options of `save_labels` for labels of a tracked volume, whose planes are time points; none for others.

    Parameters
    ----------
    volume : VolumeLike
        The image.
    ndim : int
        Dimensions of the labels.
    spacing_zyx : (float, float, float)
        As the volume has it, at the level of the labels: it begins with the time step.
    """
    if not getattr(volume, "is_tracked", False):
        return {}
    step, *sizes = spacing_zyx
    spacing = (getattr(volume, "time_step", 1.0), *sizes)
    return {"axes": exchange_time("TZYX"[-ndim:]), "spacing_zyx": spacing, "time_step": step}


def _as_volume(labels: Any, axes: str | None) -> Volume:
    shape = getattr(labels, "shape", None)
    if shape is None or not hasattr(labels, "dtype"):
        raise ExportError(f"labels must be an array or a volume, got {type(labels).__name__}")
    if 0 in shape:
        raise ExportError(f"there are no labels to save: the array has shape {tuple(shape)}")
    if not 2 <= len(shape) <= 4:
        raise ExportError(f"labels must have axes YX, ZYX or TZYX, got shape {tuple(shape)}")
    if np.dtype(labels.dtype).kind not in "bui":
        raise ExportError(
            f"labels must be integers, got {labels.dtype}; convert them with labels.astype('uint32')"
        )
    return open_volume(labels, axes=axes or "TZYX"[-len(shape) :], missing_chunks="fill")


def _check_labels(volume: Volume) -> None:
    if volume.dtype.kind not in "bui":
        raise ExportError(f"labels must be integers, got {volume.dtype} in {volume!r}")
    if volume.n_channels != 1:
        raise ExportError(f"labels have no channels, got {volume.n_channels} in {volume!r}")


def check_shape(volume: Volume, like: VolumeLike, level: int = 0) -> None:
    """Raise ExportError if labels are not as large as a level of an image."""
    ours = (volume.n_time, *volume.shape_zyx())
    theirs = (like.n_time, *like.shape_zyx(level))
    if getattr(like, "is_tracked", False):
        theirs = (theirs[1], theirs[0], *theirs[2:])
    if ours != theirs:
        raise ExportError(
            f"labels of shape (T, Z, Y, X) = {ours} do not fit the image of shape {theirs}; "
            "pass the image they were made on"
        )


def _axes(volume: Volume, labels: Any) -> str:
    if not isinstance(labels, Volume):
        return volume.axes
    if volume.n_time > 1 or "T" in volume.axes:
        return "TZYX"
    return "ZYX" if "Z" in volume.axes else "YX"


def _triple(name: str, values: Any) -> Triple:
    numbers = [float(v) for v in values]
    if len(numbers) != 3 or not np.isfinite(numbers).all() or (name == "spacing_zyx" and min(numbers) <= 0):
        raise ExportError(
            f"{name} must be three finite numbers for Z, Y, X (sizes above 0), got {list(values)}"
        )
    z, y, x = numbers
    return z, y, x


def reads_from(source: str | None, target: Path) -> bool:
    """Whether a volume's source is `target` or inside of it, by whatever path or link."""
    if source is None or not target.exists():
        return False
    own = Path(source).resolve()
    return any(place.exists() and place.samefile(target) for place in (own, *own.parents))
