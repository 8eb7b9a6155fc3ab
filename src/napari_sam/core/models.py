"""Which model is meant, as plain data that can be pickled, journalled and shown."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
    """

    name: str = "default"
    device: str = "auto"
    dtype: str = "auto"
