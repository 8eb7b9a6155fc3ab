"""The keys: letters that napari itself leaves free, on the viewer and in every kind of layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

KEYS = {
    "polarity": "Q",
    "cycle": "W",
    "keep": "K",
    "next": "N",
    "undo": "U",
    "redo": "Shift-U",
    "propagate": "G",
    "cancel": "Shift-G",
    "doubtful": "J",
}
"""Action -> key, in napari's spelling."""


def shown(action: str) -> str:
    """A key as buttons and texts show it."""
    return KEYS[action].replace("-", "+")


def bind_keys(viewer: Any, actions: Mapping[str, Callable[[], None]]) -> Callable[[], None]:
    """Bind every key of `KEYS` to its action on a viewer; returns a function that frees them again."""
    for name, key in KEYS.items():
        viewer.bind_key(key, _calling(actions[name]), overwrite=True)

    def unbind() -> None:
        for key in KEYS.values():
            viewer.bind_key(key, None, overwrite=True)

    return unbind


def bind_undo(layer: Any, undo: Callable[[], None], redo: Callable[[], None]) -> None:
    """Give a Points or Shapes layer of ours the usual keys as well; napari binds them in Labels layers only."""
    layer.bind_key("Control-Z", _calling(undo), overwrite=True)
    layer.bind_key("Control-Shift-Z", _calling(redo), overwrite=True)


def _calling(action: Callable[[], None]) -> Callable[[Any], None]:
    def call(viewer: Any) -> None:
        action()

    return call
