"""Ties a napari viewer, the layers and a session together. Knows no buttons."""

from __future__ import annotations

import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

from napari.layers import Labels, Points, Shapes
from napari.utils.notifications import show_error, show_info, show_warning
from psygnal import Signal

from napari_sam.core.planes import PlaneRef
from napari_sam.embedding import cache_dir
from napari_sam.errors import NapariSamError
from napari_sam.plugin.dispatch import QtDispatcher, Soon
from napari_sam.plugin.keys import bind_keys, bind_undo
from napari_sam.plugin.layers import SessionLayers
from napari_sam.plugin.reopening import find_layer, interrupted_text
from napari_sam.plugin.space import LayerFrame, axes_choices, open_layer
from napari_sam.session.doubt import doubts, next_doubtful
from napari_sam.session.engine import Backend, SamBackend
from napari_sam.session.image import ImageRef
from napari_sam.session.labels import LabelArray, LabelChange
from napari_sam.session.preview import Redraw
from napari_sam.session.recovery import Recovered
from napari_sam.session.resolve import Blocked, check_plane, editable_level
from napari_sam.session.session import Session
from napari_sam.session.shown import WHOLE, Shown

NO_IMAGE = Blocked("Choose an image layer, or open one (File > Open Sample has two).")
MOVED = ("scale", "translate", "rotate", "shear", "affine")


class SegmentController:
    """One session in one viewer.

    Parameters
    ----------
    viewer : napari.Viewer
        Where it happens.
    backend : Backend, optional
        Fakes for tests; the real networks by default.
    folder : path, optional
        Of the session; a new one in the user's cache by default.

    Attributes
    ----------
    refreshed : Signal()
        Something that is shown beside the image may be different; at most every 30 ms.
    image_replaced : Signal()
        The image layer was given other pixels; work on it has begun anew.
    closed : bool
        Whether the session has ended.
    """

    refreshed = Signal()
    image_replaced = Signal()

    def __init__(self, viewer: Any, backend: Backend | None = None, folder: str | Path | None = None) -> None:
        self.viewer = viewer
        self._camera = getattr(viewer, "scene", viewer).camera  # napari before 0.9 has no scene
        self.image: Any = None
        self._pixels: Any = None
        self.layers: SessionLayers | None = None
        self._dispatch = QtDispatcher()
        folder = Path(folder) if folder is not None else _new_folder()
        self._root = folder.parent
        self._chosen: tuple[Any, str | None, int | None, int | None] = (None,) * 4
        self._reopening = False
        self.session = Session(backend or SamBackend(), self._dispatch, folder)
        self._refresh_soon = Soon(self.refreshed.emit, 30)
        self._edit_soon = Soon(self._take_marks)
        self._read_soon = Soon(self._read_labels, 200)
        self._shown_soon = Soon(self.show_view, 200)
        self._connect()
        self._unbind = bind_keys(viewer, self.actions)
        self.closed = False
        self.session.list_models()
        self.session.load_model()

    @property
    def actions(self) -> dict[str, Any]:
        """Action -> function, for keys and buttons."""
        session = self.session
        return {
            "polarity": self.toggle_polarity,
            "cycle": session.cycle,
            "keep": session.commit,
            "next": session.next_object,
            "undo": session.undo,
            "redo": session.redo,
            "propagate": session.propagate,
            "cancel": session.cancel,
            "doubtful": self.next_doubtful,
        }

    # Choosing

    @property
    def sessions_folder(self) -> Path:
        """Where session folders are made."""
        return self._root

    def choose_image(
        self, layer: Any, axes: str | None = None, channel: int | None = None, level: int | None = None
    ) -> None:
        """Begin work on an image layer; on none if `layer` is None or cannot be used.

        Parameters
        ----------
        layer : napari.layers.Image or None
            The image.
        axes : str, optional
            What its dimensions mean; the likeliest by default.
        channel : int, optional
            One channel of several; all of them mixed by default.
        level : int, optional
            Multiscale level of the labels; full resolution, where its planes are not too large, by default.
        """
        self._leave_image(untouched=self.session.is_untouched)
        if layer is not self._chosen[0]:
            self.session.state.seen_level = None
        self._chosen = layer, axes, channel, level
        if layer is None:
            self.session.show(NO_IMAGE)
            return
        choices = axes_choices(layer)
        if not choices:
            self.session.show(
                Blocked(f"'{layer.name}' has {layer.ndim} dimension(s); images have two to five.")
            )
            return
        try:
            self._enter_image(layer, axes or choices[0], channel, level)
        except NapariSamError as error:
            self._leave_image()
            self.session.show(Blocked(f"'{layer.name}' cannot be segmented: {error}"))

    def _enter_image(self, layer: Any, axes: str, channel: int | None, level: int | None) -> None:
        volume = open_layer(layer, axes, channel)
        frame = LayerFrame.of(layer, axes, volume)
        self.image, self._pixels = layer, layer.data
        layer.events.data.connect(self._pixels_replaced)
        view = frame.view(self.viewer.dims, 0)
        if level is None:
            level = editable_level(volume, view.axis if isinstance(view, PlaneRef) else 0)
        self.session.state.level = level
        reference = ImageRef.of(volume, layer.name, path=layer.source.path, channel=channel)
        flat = "Z" not in axes and "T" not in axes
        self.session.use_volume(volume, layer.name, flat=flat, image=reference)
        self.session.find_sessions(self._root, reference)
        view = frame.view(self.viewer.dims, level)
        blocked = check_plane(view, volume) if isinstance(view, PlaneRef) else None
        if blocked is not None:  # layers as large as such a plane would stall napari
            self.session.show(blocked)
            return
        self.layers = SessionLayers(self.viewer, layer, frame, self._edit_soon, self._dispatch)
        self.layers.make_preview(self.session.preview, level)
        self.use_tool("points")
        for name in MOVED:
            getattr(layer.events, name).connect(self._image_moved)
        self.show_view()
        self._shown_soon()  # what is seen of it is known once it was drawn

    def _leave_image(self, untouched: bool = False) -> None:
        if self.image is not None:
            self.image.events.data.disconnect(self._pixels_replaced)
            for name in MOVED:
                getattr(self.image.events, name).disconnect(self._image_moved)
        if self.layers is not None:
            self.layers.close(untouched)
        self.image = self._pixels = self.layers = None
        self.session.leave_volume()

    def open_session(self, folder: str | Path) -> None:
        """Go on with a session in a folder; its image is opened if it is not in the viewer."""
        try:
            layer, image, level = find_layer(self.viewer, folder)
        except NapariSamError as error:
            self._on_failed(error)
            return
        self.go_on(folder, layer, image, level)

    def go_on(self, folder: str | Path, layer: Any, image: ImageRef, level: int) -> None:
        """Go on with a session on an image layer; what was begun on it now is left."""
        if layer is not self.image or level != self.session.state.level:
            axes = (image.axes or "").replace("S", "")
            self.choose_image(layer, axes if axes in axes_choices(layer) else None, image.channel, level)
        volume = self.session.volume
        if self.layers is None or volume is None or Path(folder) == self.session.folder:
            return
        self._reopening = True
        self.layers.remove_labels()
        self.session.reopen(folder, volume)

    def adopt(self, layer: Any) -> None:
        """Work with a Points or Shapes layer of the user's from now on, or copy what is in a Labels layer of his.

        The Labels layer is hidden then, and stays as it is.

        Raises
        ------
        VolumeError
            A Labels layer does not fit the image.
        """
        if self.layers is None or self.session.volume is None:
            return
        if isinstance(layer, Labels):
            self.session.editing.import_labels(self.layers.labels_of(layer, self.session.state.level))
            if self.layers.lies_elsewhere(layer):
                show_warning(
                    f"'{layer.name}' lies elsewhere on screen than the image; "
                    "its labels were taken voxel by voxel. Undo takes them back."
                )
            layer.visible = False
        elif isinstance(layer, Points):
            self.layers.adopt_points(layer)
            self._edit_soon()
        elif isinstance(layer, Shapes):
            self.layers.adopt_shapes(layer)
            self._edit_soon()

    def can_adopt(self, layer: Any) -> bool:
        """Whether `adopt` would take this layer: a user's Points, Shapes or Labels."""
        return (
            self.layers is not None
            and isinstance(layer, Points | Shapes | Labels)
            and not self.layers.is_used(layer)
        )

    def go_to_plane(self, index: int, time: int | None = None) -> None:
        """Move the viewer's sliders to a plane along the axis that is sliced, at this time or another one."""
        view, layers = self.session.view, self.layers
        if layers is not None and isinstance(view, PlaneRef):
            frame, dims = layers.frame, self.viewer.dims
            axis = frame.axes.index("ZYX"[view.axis])
            factor, offset = frame.level_transform(view.level)
            position = frame.position(dims)
            position[axis] = index * factor[axis] + offset[axis]
            moved = [axis]
            if time is not None and "T" in frame.axes:
                moved.append(frame.axes.index("T"))
                position[moved[-1]] = time
            world = frame.world.to_world(position[None])[0]
            dims.set_point([a + dims.ndim - frame.ndim for a in moved], world[moved].tolist())

    def choose_object(self, object_id: int) -> None:
        """Go on with an object, and go to where it is."""
        self.session.state.object_id = object_id
        view, record = self.session.view, self.session.record
        if not isinstance(view, PlaneRef):
            return
        own = {p for p in (*record.written, *record.asked) if (p.axis, p.level) == (view.axis, view.level)}
        if own and view not in own:
            near = min(own, key=lambda p: (abs(p.time - view.time), abs(p.index - view.index)))
            self.go_to_plane(near.index, near.time)

    def next_doubtful(self) -> None:
        """Go to the active object's next plane that is worth a look."""
        view = self.session.view
        if isinstance(view, PlaneRef):
            index = next_doubtful(doubts(self.session.record, view), view.index)
            if index is not None:
                self.go_to_plane(index)

    @property
    def shows_only_active(self) -> bool:
        """Whether the other objects are hidden."""
        layer = self.layers.labels if self.layers is not None else None
        return bool(layer is not None and layer.show_selected_label)

    def toggle_others(self) -> None:
        """Hide the other objects, or show them again."""
        if self.layers is not None and self.layers.labels is not None:
            self.layers.labels.selected_label = self.session.state.object_id
            self.layers.labels.show_selected_label = not self.shows_only_active

    def use_tool(self, tool: str) -> None:
        """Let the user draw prompts: "points" or a kind of shape; layers that were deleted are made again."""
        if self.layers is None:
            return
        if self.layers.make_prompts():
            for layer in (self.layers.points, self.layers.shapes):
                bind_undo(layer, self.session.undo, self.session.redo)
            self._on_marks()
        self.layers.use_tool(tool)
        self._refresh_soon()

    def toggle_polarity(self) -> None:
        """Change what the next point means."""
        self.session.state.positive = not self.session.state.positive

    def close(self, *_: Any) -> None:
        """End the session; layers stay in the viewer."""
        if self.closed:
            return
        self.closed = True
        self.session.close(timeout=0)
        self._disconnect()
        self._unbind()
        self._leave_image()
        self._refresh_soon.stop()
        self._edit_soon.stop()
        self._read_soon.stop()
        self._shown_soon.stop()

    # From the viewer

    def _connect(self) -> None:
        session, dims = self.session, self.viewer.dims.events
        for event in (dims.current_step, dims.order, dims.ndisplay, dims.ndim):
            event.connect(self.show_view)
        for event in (self._camera.events.zoom, self._camera.events.center):
            event.connect(self._shown_soon)
        self.viewer.layers.events.removed.connect(self._layer_removed)
        self.refreshed.connect(self._colour_objects)
        session.changed.connect(self._refresh_soon)
        session.planes_encoded.connect(self._refresh_soon)
        session.preview_changed.connect(self._on_preview)
        session.labels_ready.connect(self._on_labels)
        session.labels_changed.connect(self._on_labels_changed)
        session.marks_changed.connect(self._on_marks)
        session.failed.connect(self._on_failed)
        session.saved.connect(self._on_saved)
        session.reopened.connect(self._on_reopened)
        session.image_changed.connect(self._on_image_changed)
        session.state.events.positive.connect(self._on_polarity)

    def _disconnect(self) -> None:
        dims = self.viewer.dims.events
        for event in (dims.current_step, dims.order, dims.ndisplay, dims.ndim):
            event.disconnect(self.show_view)
        for event in (self._camera.events.zoom, self._camera.events.center):
            event.disconnect(self._shown_soon)
        self.viewer.layers.events.removed.disconnect(self._layer_removed)
        self.session.state.events.positive.disconnect(self._on_polarity)
        self.session.changed.disconnect(self._refresh_soon)
        self.session.planes_encoded.disconnect(self._refresh_soon)

    def show_view(self, event: Any = None) -> None:
        """Tell the session which plane is on screen, how much of it is seen and how large."""
        if self.layers is not None:
            view = self.layers.frame.view(self.viewer.dims, self.session.state.level)
            self.session.show(view, self._shown(view) if isinstance(view, PlaneRef) else WHOLE)

    def _shown(self, plane: PlaneRef) -> Shown:
        assert self.layers is not None
        frame, preview = self.layers.frame, self.layers.preview
        part = frame.part(plane, preview.corner_pixels) if preview is not None else None
        return Shown(frame.shown_scale(plane, self._camera.zoom), part)

    def _take_marks(self) -> None:
        if self.layers is not None:
            self.session.set_marks(self.layers.read_marks(self.session.marks))

    def _image_moved(self, event: Any = None) -> None:
        """Keep every layer over the image when its transform changes."""
        if self.layers is not None and self.session.volume is not None:
            frame = LayerFrame.of(self.image, self.layers.frame.axes, self.session.volume)
            self.layers.follow_image(frame, self.session.state.level)
            self.show_view()

    def _pixels_replaced(self, event: Any = None) -> None:
        """Begin anew when the image layer is given another array: masks of the old one would lie on the new one."""
        layer, axes, channel, _ = self._chosen
        if layer.data is self._pixels:
            return
        if not self.session.is_untouched:
            show_warning(
                f"'{layer.name}' shows other pixels now, so work on it begins anew. "
                f"What was done before is kept in {self.session.folder}"
            )
        self.choose_image(layer, axes if axes in axes_choices(layer) else None, channel)
        self.image_replaced.emit()

    def _layer_removed(self, event: Any) -> None:
        if event.value is self.image:
            self.choose_image(None)
        elif self.layers is not None:
            self.layers.forget(event.value)
        self._refresh_soon()

    # From the session

    def _on_preview(self, redraw: Redraw) -> None:
        if self.layers is None:
            return
        if self.layers.preview is None:
            self.layers.make_preview(self.session.preview, self.session.state.level)
        elif redraw.plane == self.session.view:
            self.layers.redraw_preview(redraw, _cut(self.session.preview, redraw))

    def _on_labels(self, labels: LabelArray) -> None:
        if self.layers is not None and self.layers.labels is None:
            layer = self.layers.show_labels(labels, self.session.hand.editable())
            layer.events.paint.connect(self._on_paint)
            bind_undo(layer, self.session.undo, self.session.redo)

    def _colour_objects(self) -> None:
        if self.layers is not None:
            records = self.session.objects.items()
            colours = {i: record.colour for i, record in records if record.colour is not None}
            self.layers.colour_objects(colours, self.session.next_free_id)

    def _on_labels_changed(self, change: LabelChange) -> None:
        if self.layers is None or self.session.labels is None:
            return
        self._on_labels(self.session.labels)
        view = self.session.view
        if change.plane == view:
            self.layers.redraw_labels(change)
        elif isinstance(view, PlaneRef) and change.plane.axis != view.axis:
            self._read_soon()

    def _read_labels(self) -> None:
        """Look again at labels that changed in planes across the one on screen."""
        if self.layers is not None and self.layers.labels is not None:
            self.layers.labels.refresh(extent=False)

    def _on_paint(self, event: Any) -> None:
        """Labels that the user paints belong to him; a stroke is one step.

        napari tells of a stroke after it was drawn with the mouse, but before it is written when it was not, so it is
        looked at in the next turn of the event loop.
        """
        self.session.note_label(int(event.source.selected_label))
        self._dispatch(self.session.hand.finish)

    def _on_marks(self) -> None:
        if self.layers is not None:
            others = self.layers.frame.position(self.viewer.dims)
            self.layers.write_marks(self.session.marks, others)
            if self.layers.labels is not None:
                self.layers.labels.selected_label = self.session.state.object_id
            self._on_polarity(self.session.state.positive)

    def _on_polarity(self, positive: bool) -> None:
        if self.layers is not None:
            self.layers.set_polarity(positive)

    def _on_reopened(self, recovered: Recovered) -> None:
        self._reopening = False
        if self.layers is None:
            return
        self.layers.make_preview(self.session.preview, self.session.state.level)
        self.show_view()
        for interrupted in recovered.story.interrupted:
            show_info(interrupted_text(interrupted))

    def _on_image_changed(self, planes: tuple[PlaneRef, ...]) -> None:
        some = ", ".join(str(plane.index) for plane in planes[:3])
        show_warning(
            f"The image is not what it was when this session was begun: plane {some} differs. "
            "Prompts and labels may not fit any more."
        )

    def _on_failed(self, error: Exception) -> None:
        show_error(str(error) if isinstance(error, NapariSamError) else f"{type(error).__name__}: {error}")
        if self._reopening:  # begin anew instead
            self._reopening = False
            self.choose_image(*self._chosen)

    def _on_saved(self, path: Path) -> None:
        show_info(f"Saved {path}")


def _cut(preview: Any, redraw: Redraw) -> Any:
    y0, x0, y1, x1 = redraw.box_yxyx
    index: list[Any] = [slice(y0, y1), slice(x0, x1)]
    index.insert(redraw.plane.axis, redraw.plane.index)
    return preview[(redraw.plane.time, *index)]


def _new_folder() -> Path:
    return cache_dir() / "sessions" / f"{datetime.now():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"
