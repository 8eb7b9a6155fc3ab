"""Two real volumes that come with the package, each with the labels published with it.

Where they come from and their licences are in ``samples/README.md``. The default model was not trained on
them, but on others of their kind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from napari_sam.errors import VolumeError
from napari_sam.io.volume import Volume, open_volume

SAMPLES = ("chloroplasts", "ovule_nuclei")

SampleKind = Literal["image", "labels"]

_FOLDER = Path(__file__).resolve().parents[1] / "samples"


def sample_path(name: str, kind: SampleKind = "image") -> Path:
    """Path of a sample's image, or of the labels that belong to it.

    Parameters
    ----------
    name : {"chloroplasts", "ovule_nuclei"}
        Which sample.
    kind : {"image", "labels"}
        Which of its two files; both are OME-TIFF with axes ZYX and of equal shape.

    Raises
    ------
    VolumeError
        If there is no such sample, or its file is not in the installed package.
    """
    if name not in SAMPLES or kind not in ("image", "labels"):
        raise VolumeError(f"there is no sample {name!r} with {kind!r}; choose one of {list(SAMPLES)}")
    path = _FOLDER / f"{name}_{kind}.ome.tif"
    if not path.is_file():
        raise VolumeError(f"the sample {path} is missing; install the package again")
    return path


def open_sample(name: str, kind: SampleKind = "image") -> Volume:
    """Open a sample's image or labels lazily; errors as `sample_path`."""
    return open_volume(sample_path(name, kind))
