"""Beside micro-sam: the same network with the same random weights, the same planes, the same machine, in one run.

    python benchmarks/bench_peer.py --peer-python PATH [--quick] [--table docs/benchmarks.md]

PATH is the python of an environment of its own with micro-sam (about 2.6 GB)::

    python3 -m venv peer-env
    peer-env/bin/pip install torch==2.13.0 micro-sam==1.8.14 mobilesam-mirror==1.0.0

Both run MobileSAM's network (vit_t). Every measurement is made in a fresh process, ours and micro-sam's in turn.
micro-sam encodes all planes before the first click; where that would take too long, the time of a plane is measured
and multiplied, and the table says so.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from common import Work, forget_peak, machine, peak_mb, seconds, size_of, write_table

ROOT = Path(__file__).resolve().parents[1]
SIDE, CLICKS = 512, 5
DEEP = 500
"""Planes of the volume that is opened for one click."""
ENOUGH = 20
"""Planes more that tell how memory grows."""


def click_yx(number):
    """Where the n-th click goes."""
    return SIDE // 2 + 7 * (number % 5) - 14, SIDE // 2 + 5 * (number % 7) - 15


class Ours:
    """The program as a user has it: a session over the cache, and the widget in napari."""

    def __init__(self, weights, folder):
        self.weights, self.folder = weights, folder
        os.environ["NAPARI_SAM_CACHE"] = str(folder / "cache")

    def _open(self, path):
        from napari_sam.io.volume import open_volume

        self.session.use_volume(open_volume(path), "planes")
        self.work.settle()

    def _begin(self):
        self.work = Work(self.folder / "session", str(self.weights))
        self.session = self.work.session

    def _click(self, plane, number):
        from napari_sam.session.marks import Marks

        before, (y, x) = self.session.shown_prediction, click_yx(number)
        self.session.set_marks(Marks(np.array([[0, plane.index, y, x]], float), np.array([True])))
        return self.work.wait(lambda: self.session.shown_prediction is not before)

    def first(self, path):
        """Seconds from opening the volume to the mask of one click in its middle."""
        from napari_sam.core.planes import PlaneRef

        self._begin()
        begin = time.perf_counter()
        self._open(path)
        plane = PlaneRef(0, self.session.volume.shape_zyx()[0] // 2)
        self.session.show(plane)
        self._click(plane, 0)
        return {"first": time.perf_counter() - begin}

    def volume(self, path):
        """Encode every plane, then click on one."""
        from napari_sam.core.planes import PlaneRef

        self._begin()
        start = peak_mb()
        forget_peak()
        begin = time.perf_counter()
        self._open(path)
        n_planes = self.session.volume.shape_zyx()[0]
        plane = PlaneRef(0, n_planes // 2)
        self.session.show(plane)
        self.session.encode_all()
        self.work.settle()
        spent = time.perf_counter() - begin
        prompts = [self._click(plane, number) for number in range(3 * CLICKS)]
        return {
            "loaded": start,
            "peak": peak_mb(),
            "plane": spent / n_planes,
            "prompt": median(prompts[1:]),
            "bytes": size_of(self.folder / "cache") / n_planes,
        }

    def window(self, path):
        """Longest stalls of the window while a click is answered in a plane that nobody has encoded."""
        import napari
        import zarr

        from napari_sam.core.models import ModelSpec
        from napari_sam.plugin import SegmentWidget

        viewer = napari.Viewer(show=False)
        viewer.add_image(zarr.open_array(path, mode="r"), name="planes")
        widget = SegmentWidget(viewer)
        viewer.window.add_dock_widget(widget)
        session = widget.session
        session.state.idle_reach = 0
        session.state.model = ModelSpec(str(self.weights))
        turn(lambda: not session.is_busy)
        points, stalls = widget.controller.layers.points, []
        for number in range(CLICKS):
            viewer.dims.set_point(0, number)  # what napari does when a slider moves is not ours
            at = [number, *click_yx(number)]
            stalls.append(
                stall_of(lambda at=at: points.add(at), lambda: session.shown_prediction is not None)
            )
            turn(lambda: not session.is_busy)
            session.next_object()
        session.cancel()
        session.close(timeout=60)
        viewer.close()
        return {"click stall": median(stalls), "encode stall": max(stalls)}


class Peer:
    """micro-sam, through what its annotator itself calls."""

    def __init__(self, weights, folder):
        self.weights, self.folder = weights, folder
        os.environ["MICROSAM_CACHEDIR"] = str(folder / "models")
        sys.path.insert(0, str(ROOT / "tests" / "parity"))
        import torchvision_shim

        torchvision_shim.install()

    def write_weights(self, _path):
        """Random weights that both sides load."""
        import torch
        from mobile_sam import sam_model_registry
        from references import randomise

        torch.manual_seed(0)
        model = sam_model_registry["vit_t"]()
        randomise(model)
        torch.save(model.state_dict(), self.weights)
        return {}

    def _begin(self):
        import micro_sam
        from micro_sam import prompt_based_segmentation, util

        self.util, self.segment = util, prompt_based_segmentation.segment_from_points
        self.predictor = util.get_sam_model(
            model_type="vit_t", device="cpu", checkpoint_path=str(self.weights)
        )
        return micro_sam.__version__

    def _click(self, embeddings, plane, number):
        begin = time.perf_counter()
        points = np.array([click_yx(number)], float)
        self.segment(self.predictor, points, np.ones(1, int), image_embeddings=embeddings, i=plane)
        return time.perf_counter() - begin

    def first(self, path):
        """Read the whole volume; and, by itself, what one plane alone takes when it is all there is."""
        import zarr

        version = self._begin()
        begin = time.perf_counter()
        image = zarr.open_array(path, mode="r")[:]
        read = time.perf_counter() - begin
        begin = time.perf_counter()
        embeddings = self.util.precompute_image_embeddings(
            self.predictor, image[len(image) // 2], ndim=2, verbose=False
        )
        self._click(embeddings, None, 0)
        return {"read": read, "one plane": time.perf_counter() - begin, "version": version}

    def volume(self, path):
        """Encode every plane into a zarr as its annotator does, then click on one."""
        import zarr

        self._begin()
        start = peak_mb()
        forget_peak()
        begin = time.perf_counter()
        image = zarr.open_array(path, mode="r")[:]
        place = str(self.folder / "embeddings.zarr")
        embeddings = self.util.precompute_image_embeddings(
            self.predictor, image, save_path=place, verbose=False
        )
        spent = time.perf_counter() - begin
        prompts = [self._click(embeddings, len(image) // 2, number) for number in range(3 * CLICKS)]
        return {
            "loaded": start,
            "peak": peak_mb(),
            "plane": spent / len(image),
            "prompt": median(prompts[1:]),
            "bytes": size_of(place) / len(image),
        }

    def window(self, path):
        """Longest stalls of the window while its button encodes a few planes, and while a click is answered."""
        import napari
        import zarr
        from micro_sam.sam_annotator.annotator_3d import Annotator3d

        viewer = napari.Viewer(show=False)
        viewer.add_image(zarr.open_array(path, mode="r")[:CLICKS], name="planes")
        annotator = Annotator3d(viewer)
        viewer.window.add_dock_widget(annotator)
        widgets = annotator._widgets
        embed = widgets["embeddings"]
        embed.model_type, embed.device, embed.custom_weights = "vit_t", "cpu", str(self.weights)

        def encode():
            embed(skip_validate=True)
            annotator._update_image()

        encoding = stall_of(encode)
        stalls, points, shown = [], viewer.layers["point_prompts"], viewer.layers["current_object"]
        for number in range(CLICKS):
            viewer.dims.set_point(0, number)

            def click(number=number):
                points.add([number, *click_yx(number)])
                widgets["segment"](viewer)

            stalls.append(stall_of(click))
        viewer.close()
        return {"click stall": median(stalls), "encode stall": encoding, "answered": bool(shown.data.any())}


class Meter:
    """Longest time between two turns of Qt's event loop, from a timer that wants one every 5 ms."""

    def __init__(self):
        from qtpy.QtCore import QTimer

        self.longest, self._last = 0.0, time.perf_counter()
        self._timer = QTimer()
        self._timer.timeout.connect(self._tick)
        self._timer.start(5)

    def _tick(self):
        now = time.perf_counter()
        self.longest, self._last = max(self.longest, now - self._last), now

    def stop(self):
        self._timer.stop()
        return self.longest


def turn(until, timeout=600.0):
    """Turn the event loop until something holds."""
    from qtpy.QtWidgets import QApplication

    end = time.perf_counter() + timeout
    while not until():
        QApplication.processEvents()
        time.sleep(0.001)
        if time.perf_counter() > end:
            raise TimeoutError("the window did not come to rest")


def rest(pause=0.2):
    """Turn the event loop for a while."""
    end = time.perf_counter() + pause
    turn(lambda: time.perf_counter() > end)


def stall_of(action, done=lambda: True):
    """Longest stall from an action until `done` holds, and a little longer, so that the last one is seen."""
    rest()
    meter = Meter()
    action()
    turn(done)
    rest(0.05)
    return meter.stop()


# The two sides of the table


def make_planes(path, n_planes):
    """A zarr of the benchmark of memory: a bright rod in noise."""
    from bench_memory import make_volume

    make_volume(path, n_planes)
    return path


def fresh(python, side, call, path, place):
    """One measurement in a process of its own; what went wrong under "failed"."""
    folder = place / f"{side}-{call}-{path.stem}"
    folder.mkdir()
    command = [python, __file__, "--worker", side, call, str(path), str(place / "weights.pth"), str(folder)]
    if call == "window" and not os.environ.get("DISPLAY"):
        command = ["xvfb-run", "-a", *command]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    print(f"{side} {call} {path.stem}: {result.stdout.strip()[-300:]}", file=sys.stderr, flush=True)
    if result.returncode:
        return {"failed": (result.stderr.strip() or "no message").splitlines()[-1][:200]}
    return json.loads(result.stdout.splitlines()[-1])


def measure(peer_python, sizes, place):
    """All measurements, ours and micro-sam's in turn: {side: {name: value}}."""
    pythons = {"ours": sys.executable, "peer": peer_python}
    made = fresh(peer_python, "peer", "write_weights", place, place)
    if "failed" in made:
        raise SystemExit(made["failed"])
    volumes = [("volume", n) for n in sizes] + [("window", CLICKS), ("first", DEEP)]
    found = {"ours": {}, "peer": {}}
    for call, n_planes in volumes:
        path = make_planes(place / f"{call}{n_planes}.zarr", n_planes)
        for side, python in pythons.items():
            result = fresh(python, side, call, path, place)
            suffix = f" {n_planes}" if call == "volume" else ""
            found[side] |= {f"{name}{suffix}": value for name, value in result.items() if name != "failed"}
            if "failed" in result:
                found[side][f"{call} failed"] = result["failed"]
    return found


def rows(found, sizes):
    """(what, ours, theirs, how to write it, remark) of the table; None where there is no value."""
    few, many = sizes
    ours, peer = found["ours"], found["peer"]
    plane = peer.get(f"plane {few}")
    all_planes = plane and peer.get("read") and peer["read"] + DEEP * plane + peer[f"prompt {few}"]
    grown = {s: _growth(found[s], few, many) for s in found}
    workspace = "most of it is the encoder at work on one plane, on both sides"
    megabytes, kilobytes = "{:.0f} MB".format, lambda value: f"{value / 1000:.0f} kB"
    return [
        (f"open a zarr of {DEEP} planes to the mask of one click", ours.get("first"), all_planes, seconds,
         f"micro-sam encodes all planes first: **extrapolated**, {plane or 0:.3g} s a plane (from {few}) x {DEEP}"),
        ("the same, micro-sam given that one plane only", ours.get("first"), peer.get("one plane"), seconds,
         "ours opens the volume, makes labels and a journal in this time as well; micro-sam as for a 2D image"),
        ("encode a plane into the cache on disk", ours.get(f"plane {few}"), plane, seconds, ""),
        ("a prompt, embedding cached", ours.get(f"prompt {few}"), peer.get(f"prompt {few}"), seconds,
         "ours from the mark set to the mask back in the session: threads and journal included"),
        (f"peak memory, {few} planes", ours.get(f"peak {few}"), peer.get(f"peak {few}"), megabytes, workspace),
        (f"peak memory, {many} planes", ours.get(f"peak {many}"), peer.get(f"peak {many}"), megabytes, workspace),
        ("memory that one plane more takes", grown["ours"], grown["peer"], "{:.2f} MB".format,
         "ours keeps embeddings in memory up to a tenth of the machine's, at most 2 GiB; micro-sam keeps all"),
        ("cache on disk, a plane", ours.get(f"bytes {few}"), peer.get(f"bytes {few}"), kilobytes, ""),
        ("longest stall of the window, a click", ours.get("click stall"), peer.get("click stall"), seconds,
         "ours encodes the plane meanwhile; micro-sam has it encoded, and decodes in the window's thread"),
        (f"longest stall of the window, {CLICKS} planes encoded", ours.get("encode stall"),
         peer.get("encode stall"), seconds, "micro-sam encodes in the window's thread: it grows with the planes"),
    ]  # fmt: skip


def _growth(values, few, many):
    """MB a plane; None where it is not known, or there are too few planes to tell."""
    known = f"peak {few}" in values and f"peak {many}" in values and many - few >= ENOUGH
    return (values[f"peak {many}"] - values[f"peak {few}"]) / (many - few) if known else None


def table(found, sizes):
    """Markdown."""
    lines = ["| what | ours | micro-sam | ratio | remark |", "|---|---|---|---|---|"]
    for what, ours, theirs, written, remark in rows(found, sizes):
        if ours is theirs is None and sizes[1] - sizes[0] < ENOUGH:
            continue
        cells = [written(value) if value is not None else "not measured" for value in (ours, theirs)]
        ratio = f"{theirs / ours:.1f}" if ours and theirs and ours > 0 else ""
        lines.append(f"| {what} | {cells[0]} | {cells[1]} | {ratio} | {remark} |")
    for side in found:
        failed = [f"{side}, {name}: {said}" for name, said in found[side].items() if name.endswith("failed")]
        lines += [f"\n{one}" for one in failed]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", default=os.environ.get("NAPARI_SAM_PEER_PYTHON"))
    parser.add_argument("--quick", action="store_true", help="few planes, to try the script out")
    parser.add_argument("--table", type=Path, help="write the table into this file, between its markers")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        side, call, path, weights, folder = given.worker
        worker = {"ours": Ours, "peer": Peer}[side](Path(weights), Path(folder))
        print(json.dumps(getattr(worker, call)(path)), flush=True)
        return
    if not given.peer_python:
        parser.error("--peer-python is needed: the python of an environment with micro-sam")
    sizes, said = ((2, 4) if given.quick else (20, 80)), machine()
    with tempfile.TemporaryDirectory() as name:
        found = measure(given.peer_python, sizes, Path(name))
    version = found["peer"].get("version", "?")
    said += f". micro-sam {version}, vit_t with random weights, planes of {SIDE} x {SIDE}"
    said += "; small sizes (`--quick`)" if given.quick else ""
    text = f"{said}.\n\n{table(found, sizes)}\n"
    print(text)
    if given.table:
        write_table(given.table, "peer", "Beside micro-sam", text)


if __name__ == "__main__":
    main()
