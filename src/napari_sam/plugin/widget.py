"""The dock widget `napari-sam: Segment`: shows a controller's session and passes on what is pressed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QButtonGroup,
    QFileDialog,
    QLabel,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QWidget,
)

from napari_sam.core.models import ModelSpec
from napari_sam.core.namesake import check_no_namesake
from napari_sam.core.planes import PlaneRef
from napari_sam.plugin.advice import advice
from napari_sam.plugin.controller import SegmentController
from napari_sam.plugin.dispatch import Soon
from napari_sam.plugin.layers import COLOURS, active_layer
from napari_sam.plugin.models import model_details
from napari_sam.plugin.objects import ObjectTable
from napari_sam.plugin.parts import Form, allow, button, choice, dot, fill, quiet, row, scrolling, section
from napari_sam.plugin.plane_range import PlaneRange
from napari_sam.plugin.reopening import SessionOffer
from napari_sam.plugin.saving import SaveButtons
from napari_sam.plugin.space import axes_choices, axes_text
from napari_sam.plugin.strip import PlaneStrip
from napari_sam.propagation.settings import Direction
from napari_sam.session.doubt import describe, doubts
from napari_sam.session.engine import Backend
from napari_sam.session.finding import SessionInfo
from napari_sam.session.resolve import Blocked, ResolvedSession, parallel
from napari_sam.session.state import OverlapPolicy

if TYPE_CHECKING:
    from napari.viewer import Viewer

A_FILE = "a file"
AUTOMATIC = "automatic"
DEVICES = (("automatic", "auto"), ("CPU", "cpu"), ("CUDA GPU", "cuda"), ("Apple GPU", "mps"))
TOOLS = (
    ("Point", "points", "Click on the object."),
    ("Box", "rectangle", "Drag a box around the object."),
    ("Ellipse", "ellipse", "Drag an ellipse over the object."),
    ("Polygon", "polygon", "Click the corners of a rough outline; double click to finish."),
    ("Scribble", "path", "Draw a line with the mouse along the object, or beside it while Remove is on."),
)
POLICIES = (
    ("are protected", OverlapPolicy.BACKGROUND_ONLY),
    ("are overwritten", OverlapPolicy.OVERWRITE),
)
DIRECTIONS = (
    ("both ways", Direction.BOTH),
    ("towards higher planes", Direction.FORWARD),
    ("towards lower planes", Direction.BACKWARD),
)


class SegmentWidget(QWidget):  # type: ignore[misc]
    """Segment objects by clicking.

    Parameters
    ----------
    napari_viewer : napari.Viewer
        The viewer it works in.
    backend : Backend, optional
        Fakes for tests; the real networks by default.

    Raises
    ------
    DependencyError
        The older, unrelated distribution ``napari-sam`` is installed, whose package has the same name.
    """

    def __init__(self, napari_viewer: Viewer, backend: Backend | None = None) -> None:
        super().__init__()
        check_no_namesake()
        self.viewer = napari_viewer
        self.controller = SegmentController(napari_viewer, backend)
        self.session = self.controller.session
        self._fill_soon = Soon(self._fill_images)  # napari selects a new layer after it told us of it
        self._build()
        self._follow_layers()
        self.controller.refreshed.connect(self.refresh)
        self.controller.image_replaced.connect(self._show_image)
        self.session.sessions_found.connect(self._offer)
        self.session.reopened.connect(self._show_settings)
        self.destroyed.connect(self.controller.close)
        self._fill_images()
        if self.image_box.currentData() is None:
            self._choose_image()

    # Building

    def _build(self) -> None:
        self.setMinimumWidth(330)
        layout = scrolling(self)
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.status.setMinimumHeight(54)
        self.status.setAlignment(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft)
        self.status.setStyleSheet(
            "QLabel {border: 1px solid #4c9bd6; border-radius: 4px; padding: 5px; font-weight: 600;}"
        )
        layout.addWidget(self.status)
        self.offer = SessionOffer(self._go_on)
        layout.addWidget(self.offer)
        layout.addWidget(section("Image and model", self._image_form()))
        layout.addWidget(section("Object", *self._object_parts()))
        self.planes_section = section("Planes", *self._plane_parts(), *self._propagate_parts())
        layout.addWidget(self.planes_section)
        layout.addWidget(section("Objects", *self._list_parts()))
        layout.addWidget(self._progress_row())
        self.open_button = button(
            "Open session …", "Go on with the work in a session folder.", self._open_session
        )
        self.save_buttons = SaveButtons(self.session, lambda: self.object_list.selected_ids)
        layout.addWidget(row(self.save_buttons, self.open_button))
        layout.addStretch(1)

    def _image_form(self) -> Form:
        form = self._form = Form()
        self.image_box = choice(self._choose_image)
        self.axes_box, self.channel_box = (choice(self._rechoose) for _ in range(2))
        self.level_box = choice(self._choose_level)
        form.add("Image", self.image_box, "The image layer to segment.")
        form.add(
            "Axes",
            self.axes_box,
            "What the dimensions of the image mean: T time, C channel, Z Y X space. "
            "Tracking carries objects through time as otherwise through planes.",
        )
        form.add("Channel", self.channel_box, "The channel that the model sees, or all of them mixed.")
        form.add(
            "Level",
            self.level_box,
            "Resolution that the model looks at. Automatic: as the image is shown, and as the size of the object "
            "asks for where a box, an outline or a mask tells it. Labels are at full resolution all the same.",
        )
        self.model_box, self.device_box = choice(self._choose_model), choice(self._choose_model)
        fill(self.device_box, DEVICES, "auto")
        form.add("Model", self.model_box, "The network. Larger ones are slower and often better.")
        self.model_label = QLabel()
        self.model_label.setWordWrap(True)
        form.add("", self.model_label)
        form.add("Device", self.device_box, "Where the network runs; automatic takes a GPU if there is one.")
        self.size_box = QSpinBox()
        self.size_box.setRange(0, 9999)
        self.size_box.setSuffix(" px")
        self.size_box.setSpecialValueText("any")
        self.size_box.setKeyboardTracking(False)
        self.size_box.valueChanged.connect(self._choose_model)
        form.add(
            "Object size",
            self.size_box,
            "About how many pixels the objects measure across. Below 20, planes are encoded finer and slower, "
            "and small objects are found better; very large objects are encoded coarser.",
        )
        return form

    def _object_parts(self) -> list[QWidget]:
        actions = self.controller.actions
        self.object_label = QLabel()
        self.add_button = self._polarity_button(
            "Add", "The next points and scribbles say: this belongs to the object.", True
        )
        self.remove_button = self._polarity_button(
            "Remove",
            "The next points and scribbles say: this does not. In the middle of a mask that was carried here, one takes it away.",
            False,
        )
        polarity = QButtonGroup(self)
        for each in (self.add_button, self.remove_button):
            polarity.addButton(each)
        self.tool_buttons = {
            kind: button(text, tip, partial(self._use_tool, kind)) for text, kind, tip in TOOLS
        }
        for each in self.tool_buttons.values():
            each.setCheckable(True)
        self.cycle_button = button("Other answer", "Show the model's next answer.", actions["cycle"], "cycle")
        self.keep_button = button("Keep", "Write the mask into the labels.", actions["keep"], "keep")
        self.next_button = button(
            "Next object", "Keep the mask and start a new object.", actions["next"], "next"
        )
        self.undo_button = button("Undo", "Take the last step back.", actions["undo"], "undo")
        self.redo_button = button("Redo", "Make it again.", actions["redo"], "redo")
        self.clear_button = button("Clear", "Remove the prompts of this object.", self.session.clear_marks)
        self.policy_box = choice(self._choose_policy)
        fill(self.policy_box, POLICIES)
        form = Form()
        form.add("Other objects", self.policy_box, "Whether a new mask may replace objects that are there.")
        return [
            self.object_label,
            row(self.add_button, self.remove_button),
            row(*self.tool_buttons.values()),
            row(self.cycle_button, self.keep_button, self.next_button),
            row(self.undo_button, self.redo_button, self.clear_button),
            form,
        ]

    def _polarity_button(self, text: str, tooltip: str, positive: bool) -> QPushButton:
        made = button(text, tooltip, lambda: self._set_polarity(positive), "polarity")
        made.setCheckable(True)
        made.setIcon(dot(COLOURS["positive" if positive else "negative"]))
        return made

    def _propagate_parts(self) -> list[QWidget]:
        self.plane_range = PlaneRange(self._choose_range)
        self.direction_box = choice(self._choose_direction)
        fill(self.direction_box, DIRECTIONS)
        form = Form()
        form.add("Range", self.plane_range.widget, "Planes that may be reached.")
        form.add("Direction", self.direction_box, "Which way to go from the planes with prompts.")
        self.propagate_button = button(
            "Propagate", "Carry the object to its neighbours.", self.session.propagate, "propagate"
        )
        return [form, self.propagate_button]

    def _plane_parts(self) -> list[QWidget]:
        self.strip = PlaneStrip()
        self.strip.clicked.connect(self._go_to_plane)
        self.strip_label = QLabel()
        self.encode_button = button(
            "Encode all",
            "Encode every plane now, so that each click answers at once.",
            self.session.encode_all,
        )
        self.strip.explain = self._explain_plane
        self.doubtful_button = button(
            "Next doubtful", "Go to the next plane worth a look.", self.controller.next_doubtful, "doubtful"
        )
        return [self.strip, self.strip_label, row(self.doubtful_button, self.encode_button)]

    def _explain_plane(self, index: int) -> str:
        view, record = self.session.view, self.session.record
        plane = view.at(index) if not isinstance(view, Blocked) else None
        found = record.scores.get(plane) if plane is not None and plane in record.written else None
        text = describe(found) if found is not None else ""
        return f"plane {index}: {text}" if text else ""

    def _list_parts(self) -> list[QWidget]:
        self.object_list = ObjectTable(self.controller)
        self.object_list.chosen.connect(self.controller.choose_object)
        self.erase_button = button(
            "Delete object", "Remove the active object's labels and prompts.", self.session.erase_object
        )
        self.adopt_button = button(
            "Use selected layer",
            "Take prompts from the selected Points or Shapes layer, or copy the labels of the selected Labels layer.",
            self._adopt,
        )
        self.take_button = button(
            "Objects from labels",
            "Make every label that is there an object.",
            self.session.editing.take_labels,
        )
        return [self.object_list, row(self.erase_button, self.adopt_button, self.take_button)]

    def _progress_row(self) -> QWidget:
        self.progress_bar = QProgressBar()
        self.cancel_button = button("Cancel", "Stop; what is done stays.", self.session.cancel, "cancel")
        self.progress_row = row(self.progress_bar, self.cancel_button)
        policy = self.progress_row.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.progress_row.setSizePolicy(policy)
        return self.progress_row

    # What is pressed

    def _follow_layers(self) -> None:
        self.viewer.layers.selection.events.active.connect(self.refresh)
        events = self.viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered, events.renamed):
            event.connect(self._fill_soon)

    def _fill_images(self, event: Any = None) -> None:
        if self.controller.closed:
            return
        images = [layer for layer in self.viewer.layers if isinstance(layer, Image)]
        fill(self.image_box, [(layer.name, layer) for layer in images], self.controller.image)
        if self.image_box.currentData() is not self.controller.image:
            self._choose_image()

    def _choose_image(self) -> None:
        self.controller.choose_image(self.image_box.currentData())
        self._show_image()

    def _show_image(self) -> None:
        """What can be chosen of the image that work begins on."""
        layer = self.image_box.currentData()
        axes = axes_choices(layer) if layer is not None else ()
        fill(self.axes_box, [(axes_text(a), a) for a in axes])
        fill(self.channel_box, [("all mixed", None)])
        fill(self.level_box, [(AUTOMATIC, None)])
        self._fill_details()
        self.refresh()

    def _fill_details(self) -> None:
        """Channels and levels of the image that was opened."""
        volume = self.session.volume
        channels = volume.n_channels if volume is not None and not volume.is_rgb else 1
        if self.channel_box.currentData() is None:
            items = [("all mixed", None), *((str(c), c) for c in range(channels if channels > 1 else 0))]
            fill(self.channel_box, items)
        levels = range(self.session.state.level, volume.n_levels) if volume is not None else ()
        choices = [(AUTOMATIC, None), *((_level_text(volume, k), k) for k in levels)]
        fill(self.level_box, choices, self.session.state.seen_level)
        for box, at_least in ((self.axes_box, 2), (self.channel_box, 2), (self.level_box, 3)):
            self._form.show_row(box, box.count() >= at_least)
        self._fill_range()

    def _fill_range(self) -> None:
        volume, view = self.session.volume, self.session.view
        if isinstance(view, PlaneRef):  # else the axis is not known yet
            self.plane_range.show_axis((volume, view.axis, view.level), self._axis_size())

    def _rechoose(self) -> None:
        """Begin again with other axes or another channel."""
        self.controller.choose_image(
            self.image_box.currentData(), self.axes_box.currentData(), self.channel_box.currentData()
        )
        self._fill_details()
        self.refresh()

    def _choose_level(self) -> None:
        self.session.state.seen_level = self.level_box.currentData()

    def _choose_model(self) -> None:
        name, before = self.model_box.currentData(), self.session.state.model.name
        if name == A_FILE:
            name, _ = QFileDialog.getOpenFileName(
                self, "Choose a checkpoint", "", "Checkpoints (*.pt *.pth *.safetensors)"
            )
            fill(self.model_box, [])  # filled again with what was chosen
        self.session.state.model = ModelSpec(
            name or before, self.device_box.currentData(), object_diameter=self.size_box.value() or None
        )
        self.refresh()

    def _choose_policy(self) -> None:
        self.session.state.policy = self.policy_box.currentData()

    def _choose_direction(self) -> None:
        self.session.state.direction = self.direction_box.currentData()

    def _choose_range(self) -> None:
        self.session.state.first_plane = self.plane_range.first.value()
        self.session.state.last_plane = self.plane_range.last.value()

    def _set_polarity(self, positive: bool) -> None:
        self.session.state.positive = positive

    def _use_tool(self, tool: str) -> None:
        self.controller.use_tool(tool)

    def _adopt(self) -> None:
        self.controller.adopt(active_layer(self.viewer))

    def _go_to_plane(self, index: int) -> None:
        self.controller.go_to_plane(index)

    def _offer(self, infos: Any) -> None:
        self.offer.show_sessions(infos)

    def _go_on(self, info: SessionInfo) -> None:
        if self.controller.image is not None:
            self.controller.go_on(info.folder, self.controller.image, info.image, info.level)

    def _open_session(self) -> None:
        folder = QFileDialog.getExistingDirectory(
            self, "Open a session", str(self.controller.sessions_folder)
        )
        if folder:
            self.controller.open_session(folder)
            self._fill_images()
            self.offer.show_sessions(())

    def _show_settings(self, recovered: Any = None) -> None:
        """Show the settings of a session that was reopened."""
        state = self.session.state
        planes = state.first_plane, state.last_plane
        self._fill_images()
        self._fill_details()
        fill(self.policy_box, POLICIES, state.policy)
        fill(self.direction_box, DIRECTIONS, state.direction)
        fill(self.model_box, [])  # filled again with what is used now
        fill(self.device_box, DEVICES, state.model.device)
        with quiet(self.size_box):
            self.size_box.setValue(round(state.model.object_diameter or 0))
        self.plane_range.show(*planes)
        self.refresh()

    def closeEvent(self, event: Any) -> None:
        """End the session with its window."""
        self.controller.close()
        super().closeEvent(event)

    # What is shown

    def refresh(self, event: Any = None) -> None:
        """Show the session as it is now."""
        if self.controller.closed:
            return
        resolved = self.session.resolved
        self.status.setText(advice(self.session, self._tool))
        self._show_models()
        self._show_object(resolved)
        self._show_planes(resolved)
        self._show_progress()

    def _show_models(self) -> None:
        models, spec = self.session.models, self.session.state.model
        names = list(dict.fromkeys([*(m.name for m in models), spec.name]))
        if self.model_box.count() != len(names) + 1 or self.model_box.currentData() != spec.name:
            items = [(Path(name).name, name) for name in names]
            fill(self.model_box, [*items, ("a checkpoint file ...", A_FILE)], spec.name)
        self.model_label.setText(model_details(spec, models))

    def _show_object(self, resolved: ResolvedSession | Blocked) -> None:
        session, record = self.session, self.session.record
        blocked = resolved.reason if isinstance(resolved, Blocked) else None
        count = len([r for r in session.objects.values() if r.written])
        self.object_label.setText(f"<b>Object {record.object_id}</b>  ({count} kept so far)")
        self.object_list.show_objects(session.objects.values(), record)
        mine = self.controller.can_adopt(active_layer(self.viewer))
        allow(
            self.adopt_button, None if mine else "select a Points, Shapes or Labels layer that is not in use"
        )
        allow(self.erase_button, None if not record.is_empty else "this object is empty")
        for each, on in (
            (self.add_button, session.state.positive),
            (self.remove_button, not session.state.positive),
        ):
            each.setChecked(on)
        for kind, each in self.tool_buttons.items():
            each.setChecked(kind == self._tool)
        nothing = None if record.pending else "there is no new mask"
        allow(self.keep_button, blocked or nothing)
        several = session.shown_prediction is not None and len(session.shown_prediction.candidates) > 1
        allow(self.cycle_button, blocked or (None if several else "the model gave one answer only"))
        allow(self.next_button, blocked or (None if not record.is_empty else "this object is still empty"))
        allow(self.undo_button, None if session.history.next_undo else "nothing to undo")
        allow(self.redo_button, None if session.history.next_redo else "nothing to redo")
        allow(self.clear_button, None if not record.marks.is_empty else "there are no prompts")
        waiting = resolved.propagate_blocked if isinstance(resolved, ResolvedSession) else resolved
        allow(self.propagate_button, waiting.reason if waiting else None)
        self.save_buttons.refresh()

    def _show_planes(self, resolved: ResolvedSession | Blocked) -> None:
        self.planes_section.setVisible(isinstance(resolved, Blocked) or self._axis_size() > 1)
        if isinstance(resolved, Blocked):
            return
        self._fill_range()
        plane, size = resolved.plane, self._axis_size()
        encoded = [p.index for p in self.session.encoded if parallel(p, plane)]
        labelled = [p.index for p in self.session.record.written if parallel(p, plane)]
        doubtful = doubts(self.session.record, plane)
        self.strip.show_planes(size, plane.index, encoded, labelled, doubtful)
        nothing = None if any(doubtful.values()) else "no plane of this object is doubtful"
        allow(self.doubtful_button, nothing)
        self.strip_label.setText(f"plane {plane.index}, {len(encoded)} of {size} encoded")

    def _show_progress(self) -> None:
        job = self.session.progress.current
        self.progress_row.setVisible(job is not None)
        if job is not None:
            self.progress_bar.setRange(0, job.total)
            self.progress_bar.setValue(job.done)
            self.progress_bar.setFormat(job.text)
            self.progress_bar.setToolTip(job.title)

    @property
    def _tool(self) -> str | None:
        return self.controller.layers.tool if self.controller.layers is not None else None

    def _axis_size(self) -> int:
        volume, view = self.session.volume, self.session.view
        return 1 if volume is None or isinstance(view, Blocked) else volume.shape_zyx(view.level)[view.axis]


def _level_text(volume: Any, level: int) -> str:
    return f"{level} ({' x '.join(str(n) for n in volume.shape_zyx(level))})"
