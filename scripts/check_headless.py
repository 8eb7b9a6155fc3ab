"""Fail if napari or Qt is importable here: this environment is to prove that everything else needs neither."""

import importlib.util
import sys

present = [name for name in ("napari", "qtpy", "PyQt6", "PySide6") if importlib.util.find_spec(name)]
if present:
    sys.exit(f"these must not be installed in the environment without a window: {', '.join(present)}")
