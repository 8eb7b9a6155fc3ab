"""The buttons that write files: labels, and what is exported of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QMenu, QMessageBox, QWidget

from napari_sam.core.planes import PlaneRef
from napari_sam.io.export import ExportOptions
from napari_sam.io.meshes import MeshFormat
from napari_sam.io.save import SaveOptions
from napari_sam.plugin.parts import allow, button

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sam.session.session import Session


@dataclass(frozen=True, slots=True)
class Choice:
    """One line of the export menu.

    Parameters
    ----------
    text, tooltip : str
        What the user reads.
    filters : str
        Kinds of files as Qt's dialog takes them.
    name : str
        Of the file that is proposed.
    meshes : MeshFormat, optional
        Of the files in a folder, which is asked for instead of a file.
    only_selected : bool
        Whether the selected objects alone are written.
    """

    text: str
    tooltip: str
    filters: str = ""
    name: str = ""
    meshes: MeshFormat | None = None
    only_selected: bool = False


LABELS = Choice(
    "Save labels",
    "Write OME-Zarr or OME-TIFF.",
    "OME-Zarr (*.ome.zarr);;OME-TIFF (*.ome.tif);;TIFF (*.tif)",
    "labels.ome.zarr",
)
ONE_FILE = "Wavefront OBJ (*.obj);;STL (*.stl)"
EXPORTS = (
    Choice(
        "Table of measurements",
        "A row for each object: name, class, volume, surface, place and intensities, in physical units.",
        "Table (*.csv)",
        "objects.csv",
    ),
    Choice("Meshes in one file", "The surfaces of all objects, in physical units.", ONE_FILE, "objects.obj"),
    Choice(
        "Meshes of the selected objects",
        "The surfaces of the objects whose rows are selected in the table.",
        ONE_FILE,
        "selected.obj",
        only_selected=True,
    ),
    Choice("Meshes, one OBJ file an object", "A folder of surfaces.", meshes=MeshFormat.OBJ),
    Choice("Meshes, one STL file an object", "A folder of surfaces.", meshes=MeshFormat.STL),
    Choice(
        "COCO annotations",
        "Masks, boxes and classes in every plane along the axis on screen.",
        "COCO (*.json)",
        "objects.json",
    ),
)


class SaveButtons(QWidget):  # type: ignore[misc]
    """`Save labels …` and `Export …`; what is written goes on beside the window, and can be cancelled.

    Parameters
    ----------
    session : Session
        Whose labels they are.
    selected_ids : callable
        Gives the objects that are selected.
    """

    def __init__(self, session: Session, selected_ids: Callable[[], list[int]]) -> None:
        super().__init__()
        self._session, self._selected_ids = session, selected_ids
        self.save_button = button(f"{LABELS.text} …", LABELS.tooltip, partial(self._write, LABELS))
        self.export_button = button(
            "Export …", "Write measurements, meshes or annotations of the objects.", lambda: None
        )
        self.export_button.setMenu(self._make_menu())
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for each in (self.save_button, self.export_button):
            layout.addWidget(each)

    def _make_menu(self) -> QMenu:
        menu = QMenu(self)
        menu.setToolTipsVisible(True)
        for choice in EXPORTS:
            action = menu.addAction(f"{choice.text} …", partial(self._write, choice))
            action.setToolTip(choice.tooltip)
        return menu

    def refresh(self) -> None:
        """Say what can be written now."""
        session = self._session
        missing = None if session.labels is not None else "there are no labels yet"
        allow(self.save_button, missing)
        kept = any(record.written for record in session.objects.values())
        allow(self.export_button, missing or (None if kept else "no object is kept yet"))

    def _write(self, choice: Choice) -> None:
        path = self._ask_path(choice)
        if path is not None:
            view = self._session.view
            options = ExportOptions(
                SaveOptions(overwrite=bool(_there(path, choice))),
                axis=view.axis if isinstance(view, PlaneRef) else 0,
                meshes=choice.meshes,
                objects=self._selected_ids() if choice.only_selected else None,
                time=self._time(),
            )
            self._session.export(path, options)

    def _time(self) -> int | None:
        """The time point on screen; None where the plane on screen has all of them."""
        view, volume = self._session.view, self._session.volume
        if not isinstance(view, PlaneRef):
            return None
        if not getattr(volume, "is_tracked", False):
            return view.time
        return view.index if view.axis == 0 else None

    def _ask_path(self, choice: Choice) -> Path | None:
        """Where to write; None if the user does not want to."""
        if choice.meshes is not None:
            chosen = QFileDialog.getExistingDirectory(self, choice.text, str(Path.home()))
        else:
            chosen, _ = QFileDialog.getSaveFileName(
                self,
                choice.text,
                str(Path.home() / choice.name),
                choice.filters,
                options=QFileDialog.Option.DontConfirmOverwrite,
            )
        if not chosen:
            return None
        path = Path(chosen)
        if choice.meshes is None and not path.suffix:
            path = path.with_name(path.name + "".join(Path(choice.name).suffixes))
        there = _there(path, choice)
        return path if not there or self._may_replace(choice, there) else None

    def _may_replace(self, choice: Choice, name: str) -> bool:
        answer = QMessageBox.question(self, choice.text, f"{name} exists. Replace it?")
        return bool(answer == QMessageBox.StandardButton.Yes)


def _there(path: Path, choice: Choice) -> str:
    """Name of what would be replaced; empty if nothing would be."""
    if choice.meshes is None:
        return path.name if path.exists() else ""
    return next((found.name for found in sorted(path.glob(f"object_*.{choice.meshes}"))), "")
