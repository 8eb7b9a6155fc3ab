"""A volume of 2000 planes of 4096 x 4096 pixels (67 GB), from opening to the saved file, without a window.

    python benchmarks/bench_big.py [--quick] [--table docs/benchmarks.md]

The volume is an OME-Zarr that holds real texture, a nucleus of a sample volume and its surroundings enlarged, where
the work is done: 100 planes of 1024 x 1024 pixels. Its coarse level is whole; all other chunks are absent and read
as 0, which is legal and told in a warning. In a fresh process: open, click, first mask, carry one object through 60
planes into the session's labels on disk, save as OME-Zarr. The same with a small volume, in another process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr

from common import Work, machine, peak_mb, seconds, size_of, write_table
from napari_sam.core.planes import PlaneRef
from napari_sam.io.labels import open_labels
from napari_sam.io.samples import open_sample
from napari_sam.io.volume import open_volume
from napari_sam.propagation.settings import PropagationSettings
from napari_sam.session.marks import Marks

BOUND_MB = 2500
CENTRE_ZYX, ENLARGED = (83, 34, 74), (3, 4, 4)
"""Middle of a nucleus in the sample, and by how much the sample is enlarged."""

COARSE = 8
LOOKS_S = 0.5
"""How long the user looks at a plane before clicking: its encoding has begun then."""

OFF = dict.fromkeys(("min_iou", "max_area_change", "min_predicted_iou", "min_likeness"))
"""No stop rule: the number of planes is given."""


@dataclass(frozen=True)
class Plan:
    """How large everything is."""

    planes: int = 2000
    side: int = 4096
    column: int = 100
    region: int = 1024
    carried: int = 60
    chunk: int = 512


REAL = (Plan(planes=20, side=512, column=20, region=512, carried=12), Plan())
QUICK = (
    Plan(planes=6, side=256, column=6, region=256, carried=3, chunk=256),
    Plan(planes=60, side=768, column=6, region=256, carried=3, chunk=256),
)


def texture(plan):
    """The column: (planes, region, region) uint16 whose middle is the middle of the nucleus."""
    from scipy.ndimage import zoom

    sample = open_sample("ovule_nuclei")
    low, size = np.array(CENTRE_ZYX), -(-np.array([plan.column, plan.region, plan.region]) // ENLARGED)
    whole = sample.read_box(tuple((0, n) for n in sample.shape_zyx()))
    padded = np.pad(whole, [(n, n) for n in size], mode="reflect")
    begin = low + size - size // 2
    part = padded[tuple(slice(b, b + n) for b, n in zip(begin, size))]
    large = zoom(part.astype(np.float32) * 200, ENLARGED, order=1, grid_mode=True, mode="nearest")
    return large[: plan.column, : plan.region, : plan.region].astype(np.uint16)


def make_image(path, plan):
    """Write the image and its coarse level; seconds it took."""
    begin = time.perf_counter()
    shape, coarse = (
        (plan.planes, plan.side, plan.side),
        -(-np.array([plan.planes, plan.side, plan.side]) // COARSE),
    )
    scales = [[1.0] * 3, [float(COARSE)] * 3]
    datasets = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": s}]}
        for i, s in enumerate(scales)
    ]
    axes = [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    attributes = {"ome": {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}}
    group = zarr.create_group(path, attributes=attributes)
    chunks = (1, plan.chunk, plan.chunk)
    fine = group.create_array("0", shape=shape, chunks=chunks, dtype="uint16")
    column = texture(plan)
    z0, y0 = (plan.planes - plan.column) // 2, (plan.side - plan.region) // 2
    for z, plane in enumerate(column, z0):
        fine[z, y0 : y0 + plan.region, y0 : y0 + plan.region] = plane
    write_coarse(group.create_array("1", shape=tuple(coarse.tolist()), chunks=chunks, dtype="uint16"), column)
    return time.perf_counter() - begin


def write_coarse(array, column):
    """Fill the coarse level with the column, seen from afar, again and again."""
    small = column[::COARSE, ::COARSE, ::COARSE]
    repeats = -(-np.array(array.shape[1:]) // small.shape[1:])
    for z in range(array.shape[0]):
        array[z] = np.tile(small[z % len(small)], repeats)[: array.shape[1], : array.shape[2]]


def work(path, folder, plan):
    """Everything a user does, in this process: times, peaks after each step, bytes."""
    found = {"peaks": {"start": peak_mb()}, "times": {}}
    desk = Work(folder / "session")
    session = desk.session
    mark(found, "model")
    begin = time.perf_counter()
    volume = open_volume(path)
    session.use_volume(volume, "big")
    desk.settle()
    mark(found, "open", begin)
    middle = plan.planes // 2
    click = Marks(np.array([[0, middle, plan.side // 2, plan.side // 2]], float), np.array([True]))
    shown = time.perf_counter()
    session.show(PlaneRef(0, middle))
    desk.wait(lambda: time.perf_counter() > shown + LOOKS_S)
    begin = time.perf_counter()
    session.set_marks(click)
    desk.wait(lambda: bool(session.record.pending))
    mark(found, "first mask", begin)
    desk.settle()
    mark(found, "plane on screen", shown)
    session.commit()
    desk.settle()
    session.state.first_plane = middle - plan.carried // 2
    session.state.last_plane = session.state.first_plane + plan.carried - 1
    begin = time.perf_counter()
    session.propagate(PropagationSettings(**OFF))
    desk.settle()
    mark(found, "propagate", begin)
    begin = time.perf_counter()
    session.save(folder / "saved.ome.zarr")
    desk.settle()
    mark(found, "save", begin)
    found["planes"] = len(session.record.written)
    found["voxels"] = sum(region.area for region in session.record.written.values())
    labels = Path(session.labels.array.store.root)
    session.close(timeout=60)
    found["bytes"] = {
        "image": size_of(path),
        "labels": size_of(labels),
        "saved": size_of(folder / "saved.ome.zarr"),
        "embeddings": size_of(os.environ["NAPARI_SAM_CACHE"]),
    }
    found["same"] = same_labels(labels, folder / "saved.ome.zarr" / "0", session.state, plan)
    return found


def mark(found, step, begin=None):
    """Note memory and time after a step."""
    found["peaks"][step] = peak_mb()
    if begin is not None:
        found["times"][step] = time.perf_counter() - begin


def same_labels(labels, saved, state, plan):
    """Whether what was saved is what the session holds, in the planes of the object and one on either side."""
    own, other = open_labels(labels), zarr.open_array(saved, mode="r")
    planes = slice(max(0, state.first_plane - 1), state.last_plane + 2)
    middle = slice((plan.side - plan.region) // 2, (plan.side + plan.region) // 2)
    box = (planes, middle, middle)
    return own.shape == other.shape and bool(np.array_equal(own[box], other[box]))


def fresh(path, folder, plan):
    """`work` in a process of its own, with an empty cache."""
    folder.mkdir()
    environment = os.environ | {"NAPARI_SAM_CACHE": str(folder / "cache")}
    command = [sys.executable, __file__, "--child", str(path), str(folder), json.dumps(vars(plan))]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def table(plans, results):
    """Markdown, one column a volume."""
    rows = [
        ("image on disk", lambda p, r: f"{r['bytes']['image'] / 1e6:.0f} MB"),
        ("open the image", lambda p, r: seconds(r["times"]["open"])),
        (
            f"first mask after a click, {LOOKS_S} s after the plane is shown",
            lambda p, r: seconds(r["times"]["first mask"]),
        ),
        ("until the whole plane on screen is encoded", lambda p, r: seconds(r["times"]["plane on screen"])),
        ("planes that the object was carried through", lambda p, r: str(r["planes"])),
        ("planes per second, encoding included", lambda p, r: f"{r['planes'] / r['times']['propagate']:.2f}"),
        ("save as OME-Zarr", lambda p, r: seconds(r["times"]["save"])),
        ("saved labels equal the session's", lambda p, r: "yes" if r["same"] else "NO"),
        ("labels of the session on disk", lambda p, r: f"{r['bytes']['labels'] / 1e6:.2f} MB"),
        ("saved labels on disk", lambda p, r: f"{r['bytes']['saved'] / 1e6:.2f} MB"),
        ("embeddings on disk", lambda p, r: f"{r['bytes']['embeddings'] / 1e6:.0f} MB"),
        ("peak memory with the model loaded", lambda p, r: f"{r['peaks']['model']:.0f} MB"),
        ("peak memory at the first mask", lambda p, r: f"{r['peaks']['first mask']:.0f} MB"),
        ("peak memory at the end", lambda p, r: f"{r['peaks']['save']:.0f} MB (bound: {BOUND_MB} MB)"),
    ]
    heads = [f"{p.planes} planes of {p.side} x {p.side}" for p in plans]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---|' * len(plans)}"]
    for name, value in rows:
        lines.append(f"| {name} | {' | '.join(value(p, r) for p, r in zip(plans, results))} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the script out")
    parser.add_argument("--table", type=Path, help="write the table into this file, between its markers")
    parser.add_argument("--json", action="store_true", help="print what was measured as JSON too")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        path, folder, plan = given.child
        warnings.simplefilter("ignore")  # absent chunks are meant
        print(json.dumps(work(Path(path), Path(folder), Plan(**json.loads(plan)))))
        return
    plans, results, said = QUICK if given.quick else REAL, [], machine()
    with tempfile.TemporaryDirectory() as name:
        for number, plan in enumerate(plans):
            path = Path(name) / f"{number}.ome.zarr"
            print(f"{plan}: image written in {make_image(path, plan):.1f} s", file=sys.stderr, flush=True)
            results.append(fresh(path, Path(name) / str(number), plan))
            if given.json:
                print(json.dumps(results[-1]), flush=True)
    text = f"{said}.\n\n{table(plans, results)}\n"
    print(text)
    if given.table:
        write_table(given.table, "big", "A volume of 67 GB", text)


if __name__ == "__main__":
    main()
