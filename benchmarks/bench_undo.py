"""How long it takes to undo the propagation of one object through many planes, and whether every bit comes back.

    python benchmarks/bench_undo.py [--planes 500] [--radius 30] [--side 2048] [--corner]

A tube of the given radius is carried through all planes by a predictor that knows the answer, so what is measured is
the program: journal, label array, history. It stands in the middle of a chunk of the labels, or, the worst that can
be, where four chunks meet. Prints one line of JSON.
"""

import argparse
import json
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.results import LabelEdit
from napari_sam.io.labels import CHUNK_SIDE
from napari_sam.session import requests as ask
from napari_sam.session.labels import LabelArray
from napari_sam.session.state import OverlapPolicy
from napari_sam.testing.fakes import ArrayVolume
from napari_sam.testing.sessions import Desk


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--planes", type=int, default=500)
    options.add_argument("--radius", type=int, default=30)
    options.add_argument("--side", type=int, default=2048)
    options.add_argument("--corner", action="store_true", help="where four chunks meet")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), given.planes, given.radius, given.side, given.corner)))


def measure(folder: Path, planes: int, radius: int, side: int, at_corner: bool) -> dict:
    """Seconds to write, undo and redo one object, and what history and journal weigh."""
    desk = Desk(folder / "session")
    image = np.broadcast_to(np.zeros((1, 1, 1), np.uint8), (planes, side, side))
    desk.session.use_volume(ArrayVolume(image))
    desk.settle()
    labels = desk.session.labels
    assert labels is not None
    centre = side // 2 + (0 if at_corner else CHUNK_SIDE // 2)
    neighbour = disc(side, centre, centre + radius, radius)
    order(desk, labels, [LabelEdit(PlaneRef(0, z), neighbour, 2) for z in range(0, planes, 2)])
    middle = slice(max(0, centre - 3 * radius), centre + 3 * radius)
    before = checksums(labels, middle)
    edits = [LabelEdit(PlaneRef(0, z), region_of(side, centre, radius, z), 1) for z in range(planes)]
    result = {"planes": planes, "radius": radius, "at_corner": at_corner, "write": order(desk, labels, edits)}
    step = desk.session.history.next_undo
    result["step_bytes_in_memory"] = step.nbytes if step is not None else 0
    after = checksums(labels, middle)
    result["undo"] = timed(desk, desk.session.undo)
    result["undo_is_exact"] = checksums(labels, middle) == before
    result["redo"] = timed(desk, desk.session.redo)
    result["redo_is_exact"] = checksums(labels, middle) == after
    path = desk.session.journal.path
    assert path is not None
    result["journal_bytes"] = path.stat().st_size
    desk.session.close(timeout=60)
    return result


def order(desk: Desk, labels: LabelArray, edits: list[LabelEdit]) -> dict:
    """Write edits as one step, and wait for it."""
    request = ask.WriteLabels(labels=labels, edits=tuple(edits), policy=OverlapPolicy.OVERWRITE, replaces={})
    return timed(desk, lambda: desk.session.writer.order("propagation", request))


def timed(desk: Desk, action) -> dict:
    """Seconds by the clock, and of the processor (less where the machine is busy with other things)."""
    begin, cpu = time.perf_counter(), time.process_time()
    action()
    desk.settle(600)
    return {"s": round(time.perf_counter() - begin, 3), "cpu_s": round(time.process_time() - cpu, 3)}


def disc(side: int, y: float, x: float, radius: int) -> Region:
    """A round mask."""
    y0, x0 = int(y) - radius - 1, int(x) - radius - 1
    rows, cols = np.ogrid[y0 : y0 + 2 * radius + 3, x0 : x0 + 2 * radius + 3]
    crop = (rows - y) ** 2 + (cols - x) ** 2 < radius**2
    return Region((side, side), (y0, x0, y0 + crop.shape[0], x0 + crop.shape[1]), crop)


def region_of(side: int, centre: int, radius: int, z: int) -> Region:
    """A disc that wanders a little."""
    y, x = centre + radius / 2 * np.sin(z / 20), centre + radius / 2 * np.cos(z / 27)
    return disc(side, y, x, radius)


def checksums(labels: LabelArray, middle: slice) -> list[int]:
    """Of the part of each plane in which something is; nothing else was ever written."""
    return [zlib.crc32(np.array(labels.array[z, middle, middle]).data) for z in range(labels.array.shape[0])]


if __name__ == "__main__":
    main()
