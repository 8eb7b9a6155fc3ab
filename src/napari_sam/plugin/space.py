"""From a napari layer to our spaces: which axis is what, and where a world coordinate lands in the volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_sam.core.arrays import FloatArray
from napari_sam.core.planes import BoxYXYX, PlaneRef
from napari_sam.core.protocols import VolumeLike
from napari_sam.core.spaces import LayerSpace, VolumeSpace, layer_affine, nearest_index
from napari_sam.io.axes import TRACKING, seen_axes
from napari_sam.io.volume import Volume, open_volume
from napari_sam.session.resolve import Blocked

CHOICES = {
    2: ("YX",),
    3: ("ZYX", "TYX", "CYX"),
    4: ("TZYX", "CZYX", "ZCYX", "TCYX"),
    5: ("TCZYX", "TZCYX", "CTZYX"),
}
"""What the dimensions of a layer may mean, the likeliest first."""


def axes_choices(layer: Any) -> tuple[str, ...]:
    """Possible meanings of an image layer's dimensions, the likeliest first; colour samples not counted.

    Names given to the layer's axes win. A layer of one dimension, or of more than five, has none. Where there is time,
    there is a choice to track objects through it.
    """
    named = "".join(str(label) for label in layer.axis_labels).upper()
    known = len(named) == layer.ndim == len(set(named)) and set("YX") <= set(named) <= set("TCZYX")
    rest = CHOICES.get(layer.ndim, ())
    choices = (named, *(c for c in rest if c != named)) if known else rest
    return *choices, *(c + TRACKING for c in choices if "T" in c)


def axes_text(axes: str) -> str:
    """A choice of axes for people."""
    letters, tracking, _ = axes.partition(TRACKING)
    return f"{letters}, track through T" if tracking else letters


def layer_space(layer: Any) -> LayerSpace:
    """World <-> level-0 data of any napari layer.

    Raises
    ------
    SpaceError
        Its transform cannot be inverted.
    """
    parts = layer.scale, layer.translate, layer.rotate, layer.shear, layer.affine.affine_matrix
    return LayerSpace(layer_affine(*parts), layer.ndim)


def open_layer(layer: Any, axes: str, channel: int | None = None) -> Volume:
    """The volume of an image layer, lazy; reads no pixels.

    Raises
    ------
    VolumeError
        The layer's data cannot be read as a volume.
    """
    data = list(layer.data) if layer.multiscale else layer.data
    own, tracking, _ = axes.partition(TRACKING)
    letters = (own + "S" if layer.rgb else own) + tracking
    spacing = [_of_axis(layer.scale, axes, a, 1.0) for a in "ZYX"]
    translate = [_of_axis(layer.translate, axes, a, 0.0) for a in "ZYX"]
    unit = str(layer.units[axes.index("Y")])
    volume = open_volume(
        data,
        letters,
        spacing=[abs(s) for s in spacing],
        translate=translate,
        unit="" if unit == "pixel" else unit,
        time_step=abs(_of_axis(layer.scale, axes, "T", 1.0)),
        rgb=bool(layer.rgb),
    )
    return volume if channel is None else volume.subset(channels=channel)


def _of_axis(values: Any, axes: str, letter: str, default: float) -> float:
    return float(values[axes.index(letter)]) if letter in axes else default


@dataclass(frozen=True, slots=True, eq=False)
class LayerFrame:
    """How an image layer lies in the world and in its volume.

    Parameters
    ----------
    axes : str
        One letter of TCZYX for each of the layer's dimensions; T and Z are exchanged while tracking.
    shape : tuple of int
        Of the layer at level 0, colour samples not counted.
    world : LayerSpace
        World <-> layer data.
    volume : VolumeSpace
        Layer data <-> planes.
    """

    axes: str
    shape: tuple[int, ...]
    world: LayerSpace
    volume: VolumeSpace

    @classmethod
    def of(cls, layer: Any, axes: str, volume: VolumeLike) -> LayerFrame:
        """The frame of an image layer whose dimensions mean `axes`."""
        axes = seen_axes(axes)
        z, y, x = (axes.index(a) if a in axes else None for a in "ZYX")
        time = axes.index("T") if "T" in axes else None
        space = VolumeSpace.of(volume, (z, y, x), layer.ndim, time)
        shape = layer.data[0].shape if layer.multiscale else layer.data.shape
        return cls(axes, tuple(int(n) for n in shape[: layer.ndim]), layer_space(layer), space)

    @property
    def ndim(self) -> int:
        """Number of the layer's dimensions."""
        return len(self.axes)

    def to_tzyx(self, points_data: Any) -> FloatArray:
        """(n, ndim) layer data coordinates as marks have them: (n, 4), absent axes 0."""
        points = np.asarray(points_data, np.float64).reshape(-1, self.ndim)
        result = np.zeros((len(points), 4))
        for i, letter in enumerate("TZYX"):
            if letter in self.axes:
                result[:, i] = points[:, self.axes.index(letter)]
        return result

    def from_tzyx(self, points: FloatArray, others: FloatArray) -> FloatArray:
        """(n, 4) marks as (n, ndim) layer data coordinates; `others` (ndim,) fills the axes that marks lack."""
        result = np.tile(others, (len(points), 1))
        for i, letter in enumerate("TZYX"):
            if letter in self.axes:
                result[:, self.axes.index(letter)] = points[:, i]
        return result

    def position(self, dims: Any) -> FloatArray:
        """(ndim,) layer data coordinate of the viewer's sliders."""
        position: FloatArray = self.world.to_data(np.asarray([dims.point], np.float64))[0]
        return position

    def view(self, dims: Any, level: int) -> PlaneRef | Blocked:
        """The plane on screen, or why there is none.

        Parameters
        ----------
        dims : napari.components.Dims
            Of the viewer.
        level : int
            Multiscale level that is segmented.
        """
        if dims.ndisplay != 2:
            return Blocked("Segmenting works in 2D: leave the 3D view (the cube button, below left).")
        offset = dims.ndim - self.ndim
        if offset < 0 or min(dims.displayed) < offset:
            return Blocked("The viewer shows an axis that the image does not have; roll the axes back.")
        shown = {self.axes[d - offset] for d in dims.displayed}
        if not shown < set("ZYX"):
            named = " and ".join(sorted(shown))
            return Blocked(
                f"The viewer shows the axes {named}; roll the axes so that it shows two of Z, Y, X."
            )
        if not self._is_straight([d - offset for d in dims.displayed]):
            return Blocked(
                "The image is rotated or sheared out of the plane on screen, which napari cannot show; "
                "roll the axes, or take the rotation off."
            )
        return self._plane("ZYX".index((set("ZYX") - shown).pop()), self.position(dims), level)

    def shown_scale(self, plane: PlaneRef, zoom: float) -> int:
        """Pixels of a plane, along a side, in a pixel of the screen: a power of two, 1 where they are larger.

        Parameters
        ----------
        plane : PlaneRef
            The plane on screen.
        zoom : float
            Pixels of the screen per world unit, as a camera has it.
        """
        letters = "ZYX".replace("ZYX"[plane.axis], "")
        factor, _ = self.level_transform(plane.level)
        sizes = np.linalg.norm(self.world.affine[:-1, :-1] * factor, axis=0)
        height, width = (sizes[self.axes.index(letter)] for letter in letters)
        return 1 << max(0, int(np.floor(-np.log2(zoom * np.sqrt(height * width)) + 1e-6)))

    def part(self, plane: PlaneRef, corners: Any) -> BoxYXYX | None:
        """The part of a plane between two voxels of a layer of its level, (2, ndim) indices; None if they are one."""
        rows, cols = (self.axes.index(letter) for letter in "ZYX".replace("ZYX"[plane.axis], ""))
        (y0, x0), (y1, x1) = np.asarray(corners)[:, [rows, cols]].tolist()
        return (y0, x0, y1 + 1, x1 + 1) if y1 > y0 and x1 > x0 else None

    def _is_straight(self, shown: list[int]) -> bool:
        """Whether the layer's transform keeps the shown axes and the others apart, as napari's slicing does."""
        linear = self.world.affine[:-1, :-1]
        others = [d for d in range(self.ndim) if d not in shown]
        mixed = (linear[np.ix_(others, shown)], linear[np.ix_(shown, others)])
        return all(np.abs(part).max(initial=0) <= 1e-8 * np.abs(linear).max() for part in mixed)

    def _plane(self, axis: int, position: FloatArray, level: int) -> PlaneRef | Blocked:
        along = self.volume.to_zyx(position[None], level)[0, axis]
        index, time = int(nearest_index(along)), int(self.volume.time_of(position[None])[0])
        if index < 0 or time < 0:
            return Blocked("The plane on screen lies outside the image; move the slider.")
        return PlaneRef(axis, index, level, time)

    def level_transform(self, level: int) -> tuple[FloatArray, FloatArray]:
        """Factor and offset (ndim,) of a level in the layer's dimensions: x0 = factor * x + offset."""
        factor, offset = np.ones(self.ndim), np.zeros(self.ndim)
        for i, letter in enumerate("ZYX"):
            if letter in self.axes:
                factor[self.axes.index(letter)] = self.volume.levels[level].factor_zyx[i]
                offset[self.axes.index(letter)] = self.volume.levels[level].offset_zyx[i]
        return factor, offset
