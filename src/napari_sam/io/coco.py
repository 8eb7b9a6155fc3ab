"""Labels as COCO JSON: one image a plane, one annotation an object and plane, masks as compressed run lengths.

The run lengths count pixels column by column, background first; compressed, each count is the difference
to the count two before it, in groups of five bits, lowest first, as printable characters from "0" on.
https://cocodataset.org/#format-data
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_sam.core.arrays import Array, BoolArray
from napari_sam.core.planes import PlaneRef, Region, Shape2D
from napari_sam.core.protocols import VolumeLike
from napari_sam.errors import ExportError
from napari_sam.io.atomic import check_new, replacing
from napari_sam.io.label_source import LabelSource, label_source

Progress = Generator[tuple[int, int], None, Path]


def run_lengths(region: Region) -> NDArray[np.int64]:
    """Lengths of the runs of a mask in its plane, column by column, background first: (n,) int."""
    height, width = region.plane_shape
    y0, x0 = region.box_yxyx[:2]
    edges = np.diff(np.pad(region.crop, ((1, 1), (0, 0))).astype(np.int8), axis=0).T
    (columns, first), (_, last) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    starts, ends = ((columns + x0) * height + rows + y0 for rows in (first, last))
    joined = starts[1:] == ends[:-1]  # a run that goes on at the top of the next column
    starts, ends = np.delete(starts, np.flatnonzero(joined) + 1), np.delete(ends, np.flatnonzero(joined))
    bounds = np.stack([starts, ends], 1).ravel()
    lengths = np.diff(np.concatenate([[0], bounds, [height * width]]))
    return lengths if lengths[-1] else lengths[:-1]


def compressed(lengths: NDArray[np.int64]) -> str:
    """Run lengths as the text that COCO tools read."""
    differences = [int(n) for n in lengths]
    differences[3:] = [a - b for a, b in zip(differences[3:], differences[1:])]
    return "".join(_characters(value) for value in differences)


def _characters(value: int) -> str:
    text = []
    more = True
    while more:
        bits = value & 0x1F
        value >>= 5
        more = value != (-1 if bits & 0x10 else 0)
        text.append(chr(48 + (bits | 0x20 * more)))
    return "".join(text)


@dataclass(frozen=True, slots=True)
class CocoOptions:
    """What a COCO file says beside the masks.

    Parameters
    ----------
    axis : int
        The planes are perpendicular to it: 0 is Z, 1 is Y, 2 is X.
    classes : mapping of int to str
        Class of each object, by label; the others are "object".
    names : mapping of int to str
        Name of each object.
    image_name : str
        How the image of a plane is called, made with `axis`, `index` and `time`.
    empty_planes : bool
        Whether planes without objects are listed.
    overwrite : bool
        Replace a file that is there.
    """

    axis: int = 0
    classes: Mapping[int, str] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    image_name: str = "{axis}{index:05d}.png"
    empty_planes: bool = True
    overwrite: bool = False


def iter_save_coco(
    labels: Any, path: str | Path, like: VolumeLike | None = None, options: CocoOptions | None = None
) -> Progress:
    """Write COCO JSON; yields (done, total) after each plane, returns the path. One plane is in memory.

    Parameters
    ----------
    labels, like
        As `napari_sam.save_labels` takes them.
    path : path
        Ends in .json.
    options : CocoOptions, optional
        Axis, classes and names.

    Raises
    ------
    ExportError
        `path` exists or cannot be written; these are no labels. What was there before is unchanged.
    """
    options = options or CocoOptions()
    target = Path(path).expanduser()
    check_new(target, options.overwrite)
    source = label_source(labels, like)
    if options.axis not in (0, 1, 2):
        raise ExportError(f"planes lie along axis 0 (Z), 1 (Y) or 2 (X), got {options.axis!r}")
    with replacing(target) as beside, beside.open("w", encoding="utf-8") as file:
        yield from _Writer(source, options, file).write()
    return target


class _Writer:
    """Writes annotations as they are found; images and categories are known at the end."""

    def __init__(self, source: LabelSource, options: CocoOptions, file: IO[str]) -> None:
        self.source, self.options, self.file = source, options, file
        self.images: list[dict[str, Any]] = []
        self.categories: dict[str, int] = {"object": 1}
        for name in sorted(set(options.classes.values()) - {"object", ""}):
            self.categories[name] = len(self.categories) + 1

    def write(self) -> Iterator[tuple[int, int]]:
        n_time, n_planes = self.source.shape[0], self.source.shape[1 + self.options.axis]
        planes = [PlaneRef(self.options.axis, i, 0, t) for t in range(n_time) for i in range(n_planes)]
        self.file.write('{"annotations": [')
        n_annotations = 0
        for done, plane in enumerate(planes, 1):
            found = list(plane_objects(self.source.volume.read_plane(plane)))
            if found or self.options.empty_planes:
                self._add_image(plane, done, self.source.volume.plane_shape(plane.axis))
            for label, region in found:
                n_annotations += 1
                self.file.write(",\n" if n_annotations > 1 else "\n")
                json.dump(self._annotation(n_annotations, done, label, region), self.file)
            yield done, len(planes)
        rest = {
            "images": self.images,
            "categories": [{"id": i, "name": name} for name, i in self.categories.items()],
            "info": {"description": "labels of planes", "axis": self.options.axis, **self._where()},
        }
        self.file.write("\n], " + json.dumps(rest)[1:] + "\n")

    def _add_image(self, plane: PlaneRef, image_id: int, shape: Shape2D) -> None:
        name = self.options.image_name.format(axis="zyx"[plane.axis], index=plane.index, time=plane.time)
        name = f"t{plane.time:04d}_{name}" if self.source.shape[0] > 1 else name
        entry = {"id": image_id, "file_name": name, "height": shape[0], "width": shape[1]}
        self.images.append(entry | {"plane": plane.index, "time": plane.time})

    def _annotation(self, number: int, image_id: int, label: int, region: Region) -> dict[str, Any]:
        y0, x0, y1, x1 = region.box_yxyx
        name = self.options.names.get(label)
        return {
            "id": number,
            "image_id": image_id,
            "category_id": self.categories[self.options.classes.get(label) or "object"],
            "object_id": label,
            **({"name": name} if name else {}),
            "segmentation": {"size": list(region.plane_shape), "counts": compressed(run_lengths(region))},
            "area": region.area,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "iscrowd": 0,
        }

    def _where(self) -> dict[str, Any]:
        source = self.source
        return {"spacing_zyx": list(source.spacing_zyx), "unit": source.unit}


def plane_objects(plane: Array) -> Iterator[tuple[int, Region]]:
    """Every label of a plane and its region, by label.

    Raises
    ------
    ExportError
        The plane holds a negative label.
    """
    if plane.dtype.kind == "i" and plane.min() < 0:
        raise ExportError(f"negative label {plane.min()}; 0 is background, objects count from 1")
    at = np.flatnonzero(plane)
    labels, which = np.unique(plane.ravel()[at], return_inverse=True)
    dense = np.zeros(plane.shape, np.int32)
    dense.ravel()[at] = which + 1
    shape = (int(plane.shape[0]), int(plane.shape[1]))
    for number, (label, box) in enumerate(zip(labels.tolist(), ndimage.find_objects(dense)), 1):
        crop: BoolArray = dense[box] == number
        rows, columns = box
        yield label, Region(shape, (rows.start, columns.start, rows.stop, columns.stop), crop)
