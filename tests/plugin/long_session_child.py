"""Run by a test in a process of its own: one half of a long session, in a napari window of its own.

``begin FOLDER`` works on FOLDER/leaf.ome.zarr and waits to be killed; ``finish FOLDER`` opens the image again, goes on
with the session that is offered, saves and ends. Everything is done as a user does it: clicks of the mouse on the canvas,
buttons, rows of the table. After each thing done, FOLDER/<thing>.npy holds the labels as they are on disk and
FOLDER/<thing>.json what the session says.
"""

import json
import os
import sys
import time
from pathlib import Path

import napari
import numpy as np
import zarr
from napari.utils.notifications import NotificationSeverity, notification_manager
from PIL import Image
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_sam.testing.sessions import session_state

SIZE = (1500, 950)
SEED = 4
OBJECTS = [(57, 123), (20, 47), (102, 399), (238, 98), (397, 216)]
"""Rows and columns in plane SEED: five chloroplasts."""
LATE = (375, 294)
"""A sixth."""
CORRECTIONS = [(1, 1, (55, 155), True), (3, 8, (64, 380), True)]
"""Object, plane, place, whether it belongs to the object."""
LAST = (6, 7, (391, 270), False)
"""What is corrected after the session was opened again."""
PATIENCE = 300.0


class User:
    """Someone with a mouse before a window with the plugin."""

    def __init__(self, folder):
        self.folder = folder
        self.viewer = napari.Viewer()
        self.viewer.window._qt_window.resize(*SIZE)
        self.viewer.open(folder / "leaf.ome.zarr", plugin="napari-sam-volumes")
        _, self.widget = self.viewer.window.add_plugin_dock_widget(
            "napari-sam-volumes", "napari-sam: Segment"
        )
        self.session = self.widget.session
        self.settle()

    def settle(self):
        """Wait until everything asked for is done and shown."""
        end, quiet = time.monotonic() + PATIENCE, 0
        while quiet < 3:
            QTest.qWait(20)
            quiet = 0 if self.session.is_busy else quiet + 1
            assert time.monotonic() < end, "the session does not come to rest"

    def press(self, button):
        """A click on a button, which has to be one that can be pressed."""
        assert button.isEnabled(), button.toolTip()
        button.click()
        self.settle()

    def go(self, plane):
        """A click on the strip of planes."""
        strip = self.widget.strip
        x = round((plane + 0.5) / self.session.volume.shape_zyx()[0] * strip.width())
        QTest.mouseClick(strip, Qt.MouseButton.LeftButton, pos=QPoint(x, strip.height() // 2))
        self.settle()
        assert self.session.view.index == plane

    def click(self, yx):
        """A click on a voxel of the plane that is shown."""
        view, canvas = self.session.view, self.viewer.window._qt_viewer.canvas
        world = self.widget.controller.image.data_to_world((view.index, *yx))
        x, y, *_ = (canvas.view.transform * canvas.view.scene.transform).map([world[2], world[1]])
        before = len(self.session.marks.points)
        QTest.mouseMove(canvas.native, QPoint(round(x), round(y)))
        QTest.mouseClick(canvas.native, Qt.MouseButton.LeftButton, pos=QPoint(round(x), round(y)))
        self.settle()
        assert len(self.session.marks.points) == before + 1, "the click was not taken"
        assert self.session.shown_prediction is not None, self.widget.status.text()

    def choose(self, object_id):
        """A click on an object's row."""
        table = self.widget.object_list
        index = table.table.index(table.table.row_of(object_id), 0)
        place = table.visualRect(index).center()
        QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=place)
        self.settle()
        assert self.session.state.object_id == object_id

    def propagate_together(self, object_ids):
        """What the menu of several selected rows offers."""
        actions = dict(self.widget.object_list.actions_for(object_ids))
        actions[f"Propagate {len(object_ids)} objects"]()
        self.settle()

    def correct(self, object_id, plane, yx, positive):
        """A click in another plane, and the object is carried again."""
        self.choose(object_id)
        self.go(plane)
        self.press(self.widget.add_button if positive else self.widget.remove_button)
        self.click(yx)
        self.press(self.widget.propagate_button)

    def note(self, thing):
        """Write down what is so now: labels as they are on disk, and what the session says."""
        labels = zarr.open_array(self.session.folder / "labels.zarr", mode="r")[:]
        np.save(self.folder / f"{thing}.npy", labels.astype(np.uint16))
        complaints = [
            f"{n.severity}: {n.message}"
            for n in notification_manager.records
            if n.severity >= NotificationSeverity.WARNING
        ]
        said = {
            **session_state(self.session),
            "session": str(self.session.folder),
            "rows": self.widget.object_list.table.rowCount(),
            "strip": self.widget.strip_label.text(),
            "status": self.widget.status.text(),
            "complaints": complaints,
        }
        (self.folder / f"{thing}.json").write_text(json.dumps(said))

    def look(self, name):
        """Keep a picture of the window, if somebody wants it."""
        QTest.qWait(300)
        if folder := os.environ.get("NAPARI_SAM_PICTURES"):
            shot = self.viewer.screenshot(canvas_only=False, flash=False)[..., :3]
            Image.fromarray(shot).quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
                f"{folder}/{name}.png", optimize=True
            )


def begin(user):
    user.go(SEED)
    for yx in OBJECTS:
        user.click(yx)
        user.press(user.widget.next_button)
    user.propagate_together(range(1, 1 + len(OBJECTS)))
    user.note("five")
    user.look("session-five-objects")
    for number, correction in enumerate(CORRECTIONS, 1):
        user.correct(*correction)
        user.note(f"corrected-{number}")
    user.look("session-corrected")
    user.choose(CORRECTIONS[0][0])
    user.press(user.widget.propagate_button)
    user.note("again")
    user.press(user.widget.next_button)
    user.go(SEED)
    user.press(user.widget.add_button)
    user.click(LATE)
    user.press(user.widget.keep_button)
    user.press(user.widget.propagate_button)
    user.note("six")
    for _ in range(3):
        user.press(user.widget.undo_button)
    user.note("undone")
    (user.folder / "ready").touch()
    QTest.qWait(int(PATIENCE * 1000))  # killed here


def finish(user):
    assert user.widget.offer.isVisible()
    user.look("session-offered")
    (user.folder / "offer.txt").write_text(user.widget.offer.label.text())
    user.press(user.widget.offer.accept_button)
    user.note("reopened")
    user.look("session-reopened")
    for _ in range(3):
        user.press(user.widget.redo_button)
    user.note("redone")
    user.correct(*LAST)
    user.note("finished")
    for name in ("leaf-labels.ome.zarr", "leaf-labels.ome.tif", "leaf-labels.tif"):
        user.widget.session.save(user.folder / name)
        user.settle()
    assert user.session.close(timeout=20)
    user.viewer.close()


if __name__ == "__main__":
    {"begin": begin, "finish": finish}[sys.argv[1]](User(Path(sys.argv[2])))
