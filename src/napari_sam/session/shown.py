"""How finely the model looks at a plane that is on screen."""

from __future__ import annotations

from dataclasses import dataclass

from napari_sam.core.planes import BoxYXYX, PlaneRef, Shape2D
from napari_sam.core.protocols import VolumeLike
from napari_sam.inference.levels import scale_of
from napari_sam.inference.sight import FULL, Sight
from napari_sam.inference.tiles import meeting, plan_tiles
from napari_sam.session.state import SessionState

CLOSER = 2
"""Objects of ten pixels on the screen are clicked at; models want twenty and more, see `inference.tiles`."""


@dataclass(frozen=True, slots=True)
class Shown:
    """How much of the plane on screen is seen, and how large.

    Parameters
    ----------
    scale : int
        Pixels of the plane, along a side, in a pixel of the screen.
    part : (y0, x0, y1, x1), optional
        What is seen, in pixels of the plane; it may reach beyond it. All of it when None.
    """

    scale: int = 1
    part: BoxYXYX | None = None

    @property
    def sight(self) -> Sight:
        """How finely the model looks, as long as nothing more is known: more finely than the user."""
        return Sight(max(1, self.scale // CLOSER), is_fixed=False)

    def tiles(self, plane_shape: Shape2D, tile_size: int, scale: float) -> tuple[BoxYXYX, ...]:
        """Tiles at a scale that are seen."""
        boxes = plan_tiles(plane_shape, tile_size, scale=scale)
        return boxes if self.part is None else meeting(boxes, self.part)


WHOLE = Shown()


def wished(state: SessionState, volume: VolumeLike, plane: PlaneRef, shown: Shown) -> Sight:
    """How the user wants a plane to be looked at.

    Parameters
    ----------
    state : SessionState
        Says a level, or the size of objects, which the model then reckons with at full resolution.
    volume : VolumeLike
        The image.
    plane : PlaneRef
        The plane on screen.
    shown : Shown
        How large it is there.
    """
    if state.seen_level is not None:
        return Sight(scale_of(volume, plane, min(state.seen_level, volume.n_levels - 1)))
    if state.model.object_diameter is not None:
        return FULL
    return shown.sight
