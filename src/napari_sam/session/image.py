"""Which image a session is about, and whether its pixels changed since.

There is no hash of a whole volume, which would have to be read for it: every plane that the work used is
digested when it is read, and compared when it is read again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from napari_sam.core.arrays import Array
from napari_sam.core.planes import PlaneRef
from napari_sam.core.protocols import VolumeLike
from napari_sam.io.axes import TRACKING


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image by name, place and shape.

    Parameters
    ----------
    name : str
        For people.
    path : str, optional
        Absolute; None for an image in memory.
    axes : str, optional
        What its dimensions mean, as `open_volume` takes it.
    channel : int, optional
        The one channel that is used; all when None.
    shape : tuple of int
        (T, Z, Y, X, C) at level 0.
    n_levels : int
        Number of multiscale levels.
    """

    name: str
    path: str | None
    axes: str | None
    channel: int | None
    shape: tuple[int, ...]
    n_levels: int = 1

    @classmethod
    def of(
        cls,
        volume: VolumeLike,
        name: str = "image",
        path: str | Path | None = None,
        axes: str | None = None,
        channel: int | None = None,
    ) -> ImageRef:
        """The reference to an open volume; path and axes are the volume's own by default."""
        path = path or volume.source
        known = axes or getattr(volume, "axes", None)
        shape = (volume.n_time, *volume.shape_zyx(), volume.n_channels)
        place = str(Path(path).absolute()) if path is not None else None
        return cls(name, place, known, channel, shape, volume.n_levels)

    def is_same_as(self, other: ImageRef) -> bool:
        """Whether this may be the same image, seen the same way: same name, file, shape and channel."""
        mine, theirs = ((r.name, r.path, r.shape, r.channel, r.is_tracked) for r in (self, other))
        return mine == theirs

    @property
    def is_tracked(self) -> bool:
        """Whether time points take the place of planes along Z."""
        return self.axes is not None and self.axes.endswith(TRACKING)

    def to_json(self, folder: Path) -> dict[str, Any]:
        """Plain values, with the path relative to the session's folder as well."""
        relative = None
        if self.path is not None:
            try:
                relative = Path(os.path.relpath(self.path, folder.absolute())).as_posix()
            except ValueError:  # another drive on Windows
                relative = None
        return {
            "name": self.name,
            "path": self.path,
            "relative": relative,
            "axes": self.axes,
            "channel": self.channel,
            "shape": list(self.shape),
            "levels": self.n_levels,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], folder: Path) -> ImageRef:
        """What `to_json` wrote; a file that moved along with the folder is found."""
        path, relative = value["path"], value["relative"]
        if relative is not None:
            beside = Path(os.path.normpath(folder.absolute() / relative))
            path = str(beside) if beside.exists() or path is None or not Path(path).exists() else path
        return cls(
            value["name"], path, value["axes"], value["channel"], tuple(value["shape"]), value["levels"]
        )


def digest_pixels(plane: Array) -> str:
    """Digest of the pixels of a plane: type, shape and values."""
    data = np.ascontiguousarray(plane)
    digest = xxhash.xxh3_128(f"{data.dtype.str}{data.shape}".encode())
    digest.update(data.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class WatchedVolume:
    """A volume whose planes are digested as they are read.

    Parameters
    ----------
    volume : VolumeLike
        What is read.
    known : mapping of PlaneRef to str
        Digests from earlier.
    on_new, on_changed : callable
        Told of a plane (and its digest) that was not known, and of one that is not as it was.
    """

    def __init__(
        self,
        volume: VolumeLike,
        known: Mapping[PlaneRef, str],
        on_new: Callable[[PlaneRef, str], object],
        on_changed: Callable[[PlaneRef, str], object],
    ) -> None:
        self._volume = volume
        self._known = dict(known)
        self._on_new, self._on_changed = on_new, on_changed

    def read_plane(self, plane: PlaneRef) -> Array:
        """Read one plane and compare it with what is known."""
        pixels = self._volume.read_plane(plane)
        digest = digest_pixels(pixels)
        before = self._known.get(plane)
        if before != digest:
            self._known[plane] = digest
            (self._on_new if before is None else self._on_changed)(plane, digest)
        return pixels

    def __getattr__(self, name: str) -> Any:
        return getattr(self._volume, name)


def changed_planes(volume: VolumeLike, known: Mapping[PlaneRef, str], at_most: int = 3) -> list[PlaneRef]:
    """Which of a few planes that the work used are not as they were; spread over all that are known."""
    planes = sorted(known)
    step = max(1, (len(planes) - 1) // max(1, at_most - 1))
    return [p for p in planes[::step][:at_most] if digest_pixels(volume.read_plane(p)) != known[p]]
