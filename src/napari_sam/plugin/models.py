"""What the model and device choosers show."""

from __future__ import annotations

from napari_sam.core.models import ModelSpec


def model_choices() -> list[tuple[str, str]]:
    """Text and name of every model in the registry."""
    return [("default", "default")]


def model_details(spec: ModelSpec) -> str:
    """One line about a model: size, licence, and whether choosing it downloads something."""
    return spec.name
