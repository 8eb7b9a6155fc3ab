"""Speed and agreement with the reference packages on a CPU, interleaved in one run.

    python benchmarks/bench_reference.py --reference-python PATH [--rounds 5] [--table docs/benchmarks.md]

The reference runs as it ships (float32, plain heap) in its own environment, which needs torch,
segment-anything, mobilesam-mirror and timm; ours runs as `load_model(..., dtype="auto")` sets it up. Both
get the same random weights and the same image of 1024 x 1024 pixels. They take turns, so that whatever else
the machine does hits both; medians are compared.

The last rows compare the model in the package, on a plane of 512 x 512, with what a MobileSAM of its package
needs for that plane. These are different networks, so only their time is compared.
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

from common import machine, write_table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PACKAGES = {"vit_b": "segment_anything", "vit_t": "mobile_sam"}
N_OBJECTS = 16


class Reference:
    """segment-anything or MobileSAM's package, through its own predictor."""

    def load(self, architecture, weights):
        sys.path.insert(0, str(ROOT / "tests" / "parity"))
        import torchvision_shim

        torchvision_shim.install()
        import torch
        from references import randomise

        package = __import__(PACKAGES[architecture])
        torch.manual_seed(0)
        model = package.sam_model_registry[architecture]()
        randomise(model)
        torch.save(model.state_dict(), weights)
        self.predictor = package.SamPredictor(model)

    def encode(self, image):
        self.predictor.set_image(image)
        return self.predictor.get_image_embedding()[0].numpy()

    def decode(self, points_yx):
        answers = [
            self.predictor.predict(point[None, ::-1].copy(), np.ones(1, int), multimask_output=True)
            for point in points_yx
        ]
        return np.stack([masks[scores.argmax()] for masks, scores, _ in answers])


class Ours:
    """The program itself, set up as it sets itself up."""

    def load(self, architecture, weights):
        import napari_sam as ns

        self.prompt_set = ns.PromptSet
        self.contrast = ns.Contrast((0,) * 3, (255,) * 3, is_rgb=True)
        self.model = ns.load_model(weights, device="cpu", dtype="auto")
        self.settings = self.model.dtype

    def encode(self, image):
        self.embedding = self.model.encode(image, self.contrast)
        return self.embedding.array

    def decode(self, points_yx):
        prompts = [self.prompt_set(point[None]) for point in points_yx]
        return np.stack([answer.mask for answer in self.model.predict_many(self.embedding, prompts)])


def work(side):
    """Answer one request a line; never returns."""
    worker = {"reference": Reference, "ours": Ours}[side]()
    for line in sys.stdin:
        request = json.loads(line)
        arguments = [np.load(a) if str(a).endswith(".npy") else a for a in request["arguments"]]
        start = time.perf_counter()
        result = getattr(worker, request["call"])(*arguments)
        seconds = time.perf_counter() - start
        if result is not None:
            np.save(request["out"], result)
        print("@" + json.dumps({"seconds": seconds, "settings": getattr(worker, "settings", "")}), flush=True)


class Process:
    """A worker in its own environment."""

    def __init__(self, python, side, folder):
        command = [python, __file__, "--worker", side]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.side, self.folder, self.settings = side, folder, ""

    def __call__(self, call, *arguments):
        out = str(self.folder / f"{self.side}-{call}.npy")
        request = {"call": call, "arguments": [str(a) for a in arguments], "out": out}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("@"):
                answer = json.loads(line[1:])
                self.settings = answer["settings"]
                return answer["seconds"]
        raise RuntimeError(f"the {self.side} worker ended")

    def result(self, call):
        return np.load(self.folder / f"{self.side}-{call}.npy")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def picture(side):
    """A plane of a sample volume as a square RGB image."""
    from skimage.transform import resize

    import napari_sam as ns
    from napari_sam.io.samples import sample_path

    volume = ns.open_volume(sample_path("chloroplasts"))
    plane = volume.read_plane(ns.PlaneRef(0, volume.shape_zyx()[0] // 2))
    grey = resize(ns.Contrast.from_samples([plane]).apply(plane)[..., 0], (side, side), preserve_range=True)
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def measure(architecture, reference_python, rounds, model=None):
    """Medians and agreement for one architecture, or for a model of ours beside it."""
    side, n_points = (512, 1) if model else (1024, N_OBJECTS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "image.npy", picture(side))
        points = np.random.default_rng(0).uniform(0.1 * side, 0.9 * side, (n_points, 2)).round()
        np.save(folder / "points.npy", points)
        workers = [Process(reference_python, "reference", folder), Process(sys.executable, "ours", folder)]
        for worker in workers:
            weights = model if model and worker.side == "ours" else folder / "weights.pth"
            worker("load", architecture, weights)
        times = {}
        for turn in range(rounds + 1):  # the first is for warming up
            for call, file in (("encode", "image.npy"), ("decode", "points.npy")):
                for worker in workers:
                    seconds = worker(call, folder / file)
                    if turn:
                        times.setdefault((call, worker.side), []).append(seconds)
        row = {"name": architecture, "points": n_points, "settings": workers[1].settings}
        row |= {f"{call} {where}": median(values) for (call, where), values in times.items()}
        row |= {"name": f"`{model}` beside {architecture}"} if model else agreement(*workers)
        for worker in workers:
            worker.close()
        return row


def agreement(reference, ours):
    """How far the embeddings differ, and how well the masks overlap."""
    there, here = reference.result("encode"), ours.result("encode")
    masks = list(zip(reference.result("decode"), ours.result("decode")))
    iou = [np.count_nonzero(a & b) / max(1, np.count_nonzero(a | b)) for a, b in masks]
    difference = float(np.linalg.norm(here - there) / np.linalg.norm(there))
    return {"agreement": f"{difference:.1e} | {np.mean(iou):.4f}"}


def table(rows):
    """Markdown."""
    lines = [
        "| model | what | reference | ours | times faster | precision | relative embedding difference | mask IoU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for call, what in (("encode", "encode one plane"), ("decode", f"{row['points']} single points")):
            there, here = row[f"{call} reference"], row[f"{call} ours"]
            lines.append(
                f"| {row['name']} | {what} | {there:.3g} s | {here:.3g} s | {there / here:.1f} | "
                f"{row['settings']} | {row.get('agreement', ' | ')} |"
            )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--reference-python", default=os.environ.get("NAPARI_SAM_REFERENCE_PYTHON"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--architectures", nargs="+", default=["vit_b", "vit_t"])
    parser.add_argument("--table", type=Path, help="write the table into this file, between its markers")
    parser.add_argument("--worker", choices=["reference", "ours"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
        return
    if not options.reference_python:
        parser.error(
            "--reference-python is needed: the python of the environment with the reference packages"
        )
    rows = [measure(a, options.reference_python, options.rounds) for a in options.architectures]
    rows.append(measure("vit_t", options.reference_python, options.rounds, model="default"))
    text = f"{machine()}; medians of {options.rounds} rounds.\n\n{table(rows)}\n"
    print(text)
    if options.table:
        write_table(options.table, "reference", "Against the reference packages", text)


if __name__ == "__main__":
    main()
