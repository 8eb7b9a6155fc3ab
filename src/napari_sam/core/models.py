"""Which model is meant, as plain data that can be pickled, journalled and shown."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf

from napari_sam.errors import PromptError


class InputRecipe(StrEnum):
    """How a family of checkpoints wants its pixels (they differ, and mixing them up costs accuracy)."""

    SAM = "sam"
    """Longest side resized to the input size, mean and std on 0..255, zero padding right and bottom."""
    MICRO_SAM = "micro_sam"
    """Minimum and maximum of each channel stretched to 0..255, then as SAM."""
    MEDSAM = "medsam"
    """Stretched to a square without keeping the aspect, minimum and maximum to 0..1, no mean and std."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything a worker needs to load a model: a value, never the network itself.

    Parameters
    ----------
    name : str
        Registry name, or the path of a checkpoint file.
    device : str
        "auto", "cpu", "cuda", "cuda:1", "mps".
    dtype : str
        "auto", "float32", "bfloat16", "float16": precision of the image encoder.
    object_diameter : float, optional
        About how many pixels the objects measure across. Planes are then encoded at a scale at which the model
        sees such objects well; at full resolution when left out.

    Raises
    ------
    PromptError
        The diameter is not a positive number.
    """

    name: str = "default"
    device: str = "auto"
    dtype: str = "auto"
    object_diameter: float | None = None

    def __post_init__(self) -> None:
        if self.object_diameter is not None and not 0 < self.object_diameter < inf:
            raise PromptError(
                f"the diameter of objects must be a positive number of pixels, got {self.object_diameter}; "
                "leave it out if it is not known"
            )
