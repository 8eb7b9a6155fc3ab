"""What the model chooser shows."""

from __future__ import annotations

from collections.abc import Sequence

from napari_sam.core.models import ModelSpec
from napari_sam.session.engine import ModelInfo


def model_details(spec: ModelSpec, models: Sequence[ModelInfo]) -> str:
    """One line about a model: size, licence, whether choosing it downloads something, what it is good for."""
    info = next((m for m in models if m.name == spec.name), None)
    if info is None:
        return "a checkpoint file" if spec.name != "default" else ""
    place = "on disk" if info.on_disk else "is downloaded when chosen"
    facts = ", ".join(part for part in (_size(info.size), info.licence, place) if part)
    return f"{facts}. {info.good_for}".strip()


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes else ""
