"""Segment objects in 3D image volumes with the Segment Anything Model.

Public names are imported on first use, so that ``import napari_sam`` loads neither torch nor napari.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Contrast": "napari_sam.core.contrast",
    "ImageEmbedding": "napari_sam.core.results",
    "MaskPrediction": "napari_sam.core.results",
    "ModelSpec": "napari_sam.core.models",
    "PlaneRef": "napari_sam.core.planes",
    "PromptSet": "napari_sam.core.prompts",
    "PropagationStep": "napari_sam.core.results",
    "SeenImage": "napari_sam.inference.seen",
    "Volume": "napari_sam.io.volume",
    "evaluate": "napari_sam.cli.measure",
    "finetune": "napari_sam.training.finetune",
    "load_model": "napari_sam.inference.predictor",
    "open_volume": "napari_sam.io.volume",
    "propagate": "napari_sam.propagation.api",
    "save_labels": "napari_sam.io.save",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from napari_sam.cli.measure import evaluate
    from napari_sam.core.contrast import Contrast
    from napari_sam.core.models import ModelSpec
    from napari_sam.core.planes import PlaneRef
    from napari_sam.core.prompts import PromptSet
    from napari_sam.core.results import ImageEmbedding, MaskPrediction, PropagationStep
    from napari_sam.inference.predictor import load_model
    from napari_sam.inference.seen import SeenImage
    from napari_sam.io.save import save_labels
    from napari_sam.io.volume import Volume, open_volume
    from napari_sam.propagation.api import propagate
    from napari_sam.training.finetune import finetune


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'napari_sam' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """All public names, imported or not."""
    return sorted(__all__)
