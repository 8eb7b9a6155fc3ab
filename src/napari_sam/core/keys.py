"""The one test of whether a stored embedding may be used: equal keys, equal embedding."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from operator import index

import numpy as np

from napari_sam.core.arrays import Array
from napari_sam.core.planes import BoxYXYX


@dataclass(frozen=True, slots=True)
class EmbeddingKey:
    """Identity of one stored embedding record (one plane, one tile).

    Parameters
    ----------
    model_digest : str
        Digest of the weights (all tensors of the image encoder).
    architecture : str
        Name of the model configuration.
    compute_dtype : str
        Precision the encoder ran in.
    contrast : str
        Digest of the Contrast that was applied.
    axis, level : int
        Orientation and multiscale level of the plane.
    tile_yxyx : (int, int, int, int)
        The part of the plane that was encoded.
    pixels : str
        Digest of the pixels of that part, before contrast.
    preprocessing : int
        Version of the preprocessing code; raised when its output changes.
    scale : int
        Pixels of the plane, along a side, that went into one pixel of what was encoded.
    side : int
        From which side it was looked at, see `core.sides`.
    """

    model_digest: str
    architecture: str
    compute_dtype: str
    contrast: str
    axis: int
    level: int
    tile_yxyx: BoxYXYX
    pixels: str
    preprocessing: int
    scale: int = 1
    side: int = 0

    def __post_init__(self) -> None:
        for name in ("axis", "level", "preprocessing", "scale", "side"):
            object.__setattr__(self, name, index(getattr(self, name)))
        y0, x0, y1, x1 = map(index, self.tile_yxyx)
        object.__setattr__(self, "tile_yxyx", (y0, x0, y1, x1))

    @property
    def hex(self) -> str:
        """40 hexadecimal digits that name the record on disk."""
        values = asdict(self)
        for name, usual in (("scale", 1), ("side", 0)):
            if values[name] == usual:
                del values[name]  # so that records from before there was a choice are found
        text = json.dumps(values, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:40]


def digest_array(array: Array) -> str:
    """Hexadecimal digest of an array's dtype, shape and bytes (blake2b, 16 bytes)."""
    digest = hashlib.blake2b(f"{array.dtype.str}{array.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
