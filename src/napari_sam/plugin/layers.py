"""The layers of one session: made by the program or the user's own, held by reference, never by name."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from napari.layers import Labels, Points, Shapes
from napari.utils.colormaps import CyclicLabelColormap, DirectLabelColormap

from napari_sam.core.arrays import Array, FloatArray
from napari_sam.core.planes import BoxYXYX, PlaneRef
from napari_sam.core.spaces import layer_affine
from napari_sam.errors import VolumeError
from napari_sam.plugin.colours import own_colours
from napari_sam.plugin.partial import bands, show_box
from napari_sam.plugin.space import LayerFrame, layer_space
from napari_sam.plugin.views import AxisView
from napari_sam.session.labels import LabelArray, LabelChange
from napari_sam.session.marks import Marks, ShapeKind, ShapeMark
from napari_sam.session.objects import Colour
from napari_sam.session.preview import PreviewArray, Redraw

POLARITY = "polarity"
COLOURS = {"positive": "#2ee66b", "negative": "#ff3b5c"}
PREVIEW_COLOUR = (0.16, 0.72, 1.0, 1.0)
KINDS = {kind.value: kind for kind in ShapeKind}
SCRIBBLING = ("add_path", "add_polyline", "add_line")


class SessionLayers:
    """Points, Shapes, preview and Labels layers over one image layer.

    Parameters
    ----------
    viewer : napari.Viewer or ViewerModel
        Where the layers go.
    image : napari.layers.Image
        What is segmented.
    frame : LayerFrame
        How it lies in the world.
    on_edit : callable
        Called after the user changed points or shapes.
    soon : callable
        Runs a function in the next turn of the event loop; at once by default.
    """

    def __init__(
        self,
        viewer: Any,
        image: Any,
        frame: LayerFrame,
        on_edit: Callable[[], None],
        soon: Callable[[Callable[[], None]], None] = lambda function: function(),
    ) -> None:
        self.viewer, self.image, self.frame = viewer, image, frame
        self.points: Points | None = None
        self.shapes: Shapes | None = None
        self.preview: Labels | None = None
        self.labels: Labels | None = None
        self._own: list[Any] = []
        self._on_edit, self._soon = on_edit, soon
        self._bands: deque[tuple[Labels | None, PlaneRef, BoxYXYX, Array]] = deque()
        self._quiet, self._positive = False, True
        self._base: Any = None
        self._shown: Any = None
        self._colours: dict[int, Colour] = {}

    # Making and adopting

    def make_prompts(self) -> bool:
        """Make the prompt layers that are missing; whether any was."""
        missing = not self._is_here(self.shapes), not self._is_here(self.points)
        if missing[0]:
            self.adopt_shapes(self._add(_new_shapes(self._geometry(), f"{self.image.name} shapes")))
        if missing[1]:
            size = max(4.0, min(self._side() / 40, 40.0))
            self.adopt_points(self._add(_new_points(self._geometry(), f"{self.image.name} points", size)))
        return any(missing)

    def make_preview(self, preview: PreviewArray, level: int) -> None:
        """Show an array of previews, over everything but the prompts."""
        self._remove(self.preview)
        view = AxisView(preview, "TZYX", self.frame.axes, self._shape(preview.shape))
        colours = {0: (0, 0, 0, 0), None: (0, 0, 0, 0), 1: PREVIEW_COLOUR}
        layer = Labels(
            view,
            name=f"{self.image.name} mask",
            opacity=0.55,
            colormap=DirectLabelColormap(color_dict=colours),
            **self._geometry(level),
        )
        layer.editable = False
        self.preview = self._add(layer, above=self.labels if self._is_here(self.labels) else self.image)

    def show_labels(self, labels: LabelArray, data: Any = None) -> Labels:
        """Show a label array on disk; its layer reads planes as they are looked at.

        `data` is what the layer reads and writes instead of the array, with the same shape.
        """
        axes = "TZYX"[-labels.array.ndim :]
        data = labels.array if data is None else data
        if axes != self.frame.axes:
            shape = (1,) * (4 - len(axes)) + tuple(data.shape)
            data = AxisView(data, axes, self.frame.axes, self._shape(shape))
        self._remove(self.labels)
        layer = Labels(data, name=f"{self.image.name} objects", opacity=0.5, **self._geometry(labels.level))
        self.labels = self._add(layer, above=self.image)
        self._base = self._shown = layer.colormap
        self._colours = {}
        return layer

    def labels_of(self, layer: Labels, level: int) -> AxisView:
        """What a Labels layer of the user's holds, as (T, Z, Y, X).

        Raises
        ------
        VolumeError
            It has another shape than the image at that level.
        """
        factor, _ = self.frame.level_transform(level)
        wanted = tuple(-(-n // round(f)) for n, f in zip(self.frame.shape, factor, strict=True))
        if layer.multiscale or tuple(layer.data.shape) != wanted:
            raise VolumeError(f"the labels '{layer.name}' do not fit the image: they need the shape {wanted}")
        sizes = dict(zip(self.frame.axes, wanted, strict=True))
        return AxisView(layer.data, self.frame.axes, "TZYX", tuple(sizes.get(a, 1) for a in "TZYX"))

    def lies_elsewhere(self, layer: Labels) -> bool:
        """Whether a Labels layer has a transform of its own, another one than labels of the image have."""
        own, wanted = layer_space(layer).affine, layer_space(self.preview).affine
        return not (np.allclose(own, wanted) or np.allclose(own, np.eye(len(own))))

    def remove_labels(self) -> None:
        """Take the labels layer out of the viewer, if it was made here."""
        layer, self.labels = self.labels, None
        self._remove(layer)

    def adopt_points(self, layer: Points) -> None:
        """Take prompts from this points layer from now on."""
        self._disconnect(self.points)
        _give_polarity(layer)
        layer.events.data.connect(self._edited)
        layer.events.features.connect(self._edited)
        self.points = layer

    def adopt_shapes(self, layer: Shapes) -> None:
        """Take prompts from this shapes layer from now on."""
        self._disconnect(self.shapes)
        _give_polarity(layer)
        layer.events.data.connect(self._edited)
        layer.events.mode.connect(self._set_shape_polarity)
        layer.mouse_drag_callbacks.append(self._after_drag)
        self.shapes = layer
        self._set_shape_polarity()

    def colour_objects(self, colours: dict[int, Colour], largest: int) -> None:
        """Show these labels in colours of their own; the others, and all in a layer of the user's, as they are.

        Labels go up to `largest`. Costs nothing if nothing changed.
        """
        layer = self.labels
        if not self._is_here(layer) or layer not in self._own:
            return
        assert layer is not None
        if layer.colormap is not self._shown:  # the user has shuffled the colours
            self._base, self._colours = layer.colormap, {}
        is_short = bool(colours) and largest >= len(self._shown.colors)
        if (colours == self._colours and not is_short) or not isinstance(self._base, CyclicLabelColormap):
            return
        self._colours = colours
        self._shown = own_colours(self._base, colours, largest) if colours else self._base
        layer.colormap = self._shown

    def follow_image(self, frame: LayerFrame, level: int) -> None:
        """Lie over the image again after its transform changed; adopted layers are left where they are."""
        self.frame = frame
        levels = {id(self.preview): level, id(self.labels): level}
        for layer in self._own:
            geometry = self._geometry(levels.get(id(layer), 0))
            for name in ("scale", "translate", "rotate", "shear", "affine"):
                setattr(layer, name, geometry[name])

    def close(self, untouched: bool = False) -> None:
        """Let go of all layers; they stay in the viewer, but for the preview, and for all that nothing was done with."""
        for layer in (self.points, self.shapes):
            self._disconnect(layer)
        gone = [self.preview, *((self.points, self.shapes, self.labels) if untouched else ())]
        self.points = self.shapes = self.preview = self.labels = None
        for layer in gone:
            self._remove(layer)

    def is_used(self, layer: Any) -> bool:
        """Whether this is one of the session's layers."""
        return any(layer is used for used in (self.points, self.shapes, self.preview, self.labels))

    def forget(self, layer: Any) -> None:
        """Note that a layer was deleted from the viewer."""
        for name in ("points", "shapes", "preview", "labels"):
            if getattr(self, name) is layer:
                self._disconnect(layer)
                setattr(self, name, None)

    # Prompts

    def read_marks(self, known: Marks | None = None) -> Marks:
        """What the prompt layers hold now; a layer that was deleted holds what is `known`.

        Shapes that are still being drawn are left out.
        """
        known = known or Marks()
        points, positive = known.points, known.positive
        if self.points is not None:
            points, positive = self._read_points(self.points)
        shapes = known.shapes if self.shapes is None else tuple(self._read_shapes(self.shapes))
        return Marks(points, positive, shapes)

    def write_marks(self, marks: Marks, others: FloatArray) -> None:
        """Make the prompt layers hold these marks; `others` (ndim,) fills axes that marks lack."""
        with self._silence():
            # napari takes tens of milliseconds to take new data in, also where there is nothing new
            if self.points is not None and (len(self.points.data) or len(marks.points)):
                self.points.selected_data = set()
                data = self._to_layer(self.points, self.frame.from_tzyx(marks.points, others))
                self.points.data = data
                names = ["positive" if p else "negative" for p in marks.positive]
                self.points.features = {POLARITY: np.array(names, object)}
                if names:
                    self.points.face_color = [COLOURS[name] for name in names]
            if self.shapes is not None and (len(self.shapes.data) or marks.shapes):
                self._write_shapes(self.shapes, marks, others)

    def set_polarity(self, positive: bool) -> None:
        """Make the next points and scribbles positive or negative; selected ones are left as they are."""
        self._positive = positive
        self._set_shape_polarity()
        if self.points is None:
            return
        with self._silence():
            self.points.selected_data = set()
            self.points.feature_defaults = {POLARITY: "positive" if positive else "negative"}
            self.points.current_face_color = COLOURS["positive" if positive else "negative"]

    def _set_shape_polarity(self, event: Any = None) -> None:
        """Only a scribble can be negative; a box or an outline says where the object is."""
        layer = self.shapes
        if layer is None:
            return
        name = "positive" if self._positive or str(layer.mode) not in SCRIBBLING else "negative"
        with self._silence(), layer.block_update_properties():
            if len(layer.features) > layer.nshapes:  # napari leaves the row of a path that was given up
                layer.features = layer.features.iloc[: layer.nshapes]
            layer.feature_defaults = {**layer.feature_defaults.iloc[0], POLARITY: name}
            layer.current_edge_color = COLOURS[name]

    def use_tool(self, tool: str) -> None:
        """Select the layer and mode in which the user draws: "points" or a kind of shape."""
        layer, mode = (self.points, "add") if tool == "points" else (self.shapes, f"add_{tool}")
        if layer is not None:
            self.viewer.layers.selection.active = layer
            layer.mode = mode

    @property
    def tool(self) -> str | None:
        """What the user draws with now, as `use_tool` takes it."""
        active = active_layer(self.viewer)
        if active is None or active not in (self.points, self.shapes):
            return None
        if not str(active.mode).startswith("add"):
            return None
        return "points" if active is self.points else str(active.mode).removeprefix("add_")

    # Showing changes

    def redraw_preview(self, redraw: Redraw, values: Array) -> None:
        """Show a changed box of the preview, which is on screen."""
        self._redraw(self.preview, redraw.plane, redraw.box_yxyx, values)

    def redraw_labels(self, change: LabelChange) -> None:
        """Show a changed box of the labels, which is on screen."""
        self._redraw(self.labels, change.plane, change.box_yxyx, change.values)

    def _redraw(self, layer: Labels | None, plane: PlaneRef, box_yxyx: BoxYXYX, values: Array) -> None:
        """Show a small box at once, a large one in bands, one a turn of the event loop."""
        top = box_yxyx[0]
        for band in bands(box_yxyx):
            self._bands.append((layer, plane, band, values[band[0] - top : band[2] - top]))
        self.draw_band()

    def draw_band(self) -> None:
        """Show the next band of what was changed; ask for a further turn if there are more."""
        if not self._bands:
            return
        layer, plane, box_yxyx, values = self._bands.popleft()
        if self._is_here(layer) and self.frame.view(self.viewer.dims, plane.level) == plane:
            show_box(layer, self._rows_cols(plane), box_yxyx, values)
        if self._bands:
            self._soon(self.draw_band)

    # Details

    def _geometry(self, level: int = 0) -> dict[str, Any]:
        """Keyword arguments that lay a layer of a level over the image."""
        image = self.image
        factor, offset = self.frame.level_transform(level)
        linear = layer_affine(image.scale, np.zeros(image.ndim), image.rotate, image.shear)[:-1, :-1]
        return {
            "scale": image.scale * factor,
            "translate": image.translate + linear @ offset,
            "rotate": image.rotate,
            "shear": image.shear,
            "affine": image.affine.affine_matrix,
            "units": image.units,
            "axis_labels": image.axis_labels,
        }

    def _add(self, layer: Any, above: Any = None) -> Any:
        """Add a layer on top, or just above another, and leave the selection as it was."""
        layers = self.viewer.layers
        active = layers.selection.active
        layers.insert(len(layers) if above is None else layers.index(above) + 1, layer)
        if active is not None:
            layers.selection.active = active
        self._own.append(layer)
        return layer

    def _remove(self, layer: Any) -> None:
        if layer is not None and layer in self._own and layer in self.viewer.layers:
            self.viewer.layers.remove(layer)

    def _is_here(self, layer: Any) -> bool:
        return layer is not None and layer in self.viewer.layers

    def _side(self) -> int:
        return max(self.frame.volume.shape_zyx[1:])

    def _shape(self, tzyx: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a view in the image layer's dimensions, over an array of this (T, Z, Y, X) shape."""
        sizes = dict(zip("TZYX", tzyx, strict=True))
        return tuple(sizes.get(a, n) for a, n in zip(self.frame.axes, self.frame.shape, strict=True))

    def _rows_cols(self, plane: PlaneRef) -> tuple[int, int]:
        """The layer's dimensions that are the rows and the columns of a plane."""
        rows, cols = (self.frame.axes.index(a) for i, a in enumerate("ZYX") if i != plane.axis)
        return rows, cols

    def _to_image(self, layer: Any, data: Any) -> FloatArray:
        """Coordinates in another layer to the image layer's data; missing leading axes are the image's own."""
        world = layer_space(layer).to_world(np.asarray(data, float).reshape(-1, layer.ndim))
        missing = self.frame.ndim - world.shape[1]
        if missing > 0:
            here = self.frame.world.to_world(self.frame.position(self.viewer.dims)[None])[0]
            world = np.hstack([np.tile(here[:missing], (len(world), 1)), world])
        return self.frame.world.to_data(world)

    def _to_layer(self, layer: Any, data: FloatArray) -> FloatArray:
        return layer_space(layer).to_data(self.frame.world.to_world(data))

    def _read_points(self, layer: Points) -> tuple[FloatArray, Array]:
        data = self.frame.to_tzyx(self._to_image(layer, layer.data))
        positive = np.asarray(layer.features[POLARITY].astype(str) != "negative")
        finite = np.isfinite(data).all(axis=1)
        return data[finite], positive[finite]

    def _read_shapes(self, layer: Shapes) -> Iterator[ShapeMark]:
        drawing = len(layer.data) - 1 if getattr(layer, "_is_creating", False) else None
        polarity = list(layer.features[POLARITY].astype(str)) if POLARITY in layer.features else []
        for i, (kind, vertices) in enumerate(zip(layer.shape_type, layer.data, strict=True)):
            tzyx = self.frame.to_tzyx(self._to_image(layer, vertices))
            if i != drawing and np.ptp(tzyx, axis=0).max(initial=0) > 0:
                positive = i >= len(polarity) or polarity[i] != "negative"
                yield ShapeMark(KINDS.get(kind, ShapeKind.PATH), tzyx, positive)

    def _write_shapes(self, layer: Shapes, marks: Marks, others: FloatArray) -> None:
        layer.data = []
        for shape in marks.shapes:
            data = self._to_layer(layer, self.frame.from_tzyx(shape.vertices, others))
            colour = COLOURS["positive" if shape.positive else "negative"]
            layer.add(data, shape_type=str(shape.kind), edge_color=colour)
        if marks.shapes:
            names = ["positive" if s.positive else "negative" for s in marks.shapes]
            layer.features = {POLARITY: np.array(names, object)}

    def _edited(self, event: Any = None) -> None:
        if not self._quiet:
            self._on_edit()

    def _after_drag(self, layer: Shapes, event: Any) -> Iterator[None]:
        """A shape counts once the mouse is released."""
        yield
        while event.type == "mouse_move":
            yield
        self._edited()

    def _disconnect(self, layer: Any) -> None:
        if layer is None:
            return
        layer.events.data.disconnect(self._edited)
        if isinstance(layer, Points):
            layer.events.features.disconnect(self._edited)
            return
        layer.events.mode.disconnect(self._set_shape_polarity)
        if self._after_drag in layer.mouse_drag_callbacks:
            layer.mouse_drag_callbacks.remove(self._after_drag)

    @contextmanager
    def _silence(self) -> Iterator[None]:
        """Changes made inside are not the user's."""
        self._quiet = True
        try:
            yield
        finally:
            self._quiet = False


def active_layer(viewer: Any) -> Any:
    """The selected layer itself, None if there is none or several.

    What napari hands to a widget are proxies, which are no layer by ``is``; the list gives the layers themselves.
    """
    active = viewer.layers.selection.active
    return next((layer for layer in viewer.layers if layer == active), None)


def _give_polarity(layer: Points | Shapes) -> None:
    """Make what is in a layer of the user's positive, unless it says itself."""
    if POLARITY not in layer.features:
        layer.features = layer.features.assign(**{POLARITY: np.full(len(layer.data), "positive", object)})


def _new_points(geometry: dict[str, Any], name: str, size: float) -> Points:
    return Points(
        None,
        ndim=len(geometry["scale"]),
        name=name,
        features={POLARITY: np.empty(0, object)},
        feature_defaults={POLARITY: "positive"},
        face_color=COLOURS["positive"],
        border_color="white",
        size=size,
        **geometry,
    )


def _new_shapes(geometry: dict[str, Any], name: str) -> Shapes:
    return Shapes(
        None,
        ndim=len(geometry["scale"]),
        name=name,
        features={POLARITY: np.empty(0, object)},
        feature_defaults={POLARITY: "positive"},
        face_color="transparent",
        edge_color=COLOURS["positive"],
        edge_width=2,
        **geometry,
    )
