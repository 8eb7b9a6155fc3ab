"""Peak memory of ``napari-sam embed`` and ``segment --propagate`` against the number of planes.

Each command runs in a fresh process on zarr volumes of 512 x 512 planes that hold a bright rod from end to
end; the peak is what the system recorded (VmHWM). Memory must not grow with the number of planes::

    python benchmarks/bench_memory.py --planes 40 400

prints one row a command: peaks in MB, their ratio, and how many planes the propagation reached.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import zarr

SIDE, RADIUS = 512, 60

CHILD = """
import sys
from napari_sam.cli.app import run
code = run(sys.argv[1:])
lines = open("/proc/self/status").read().splitlines()
peak = next(line for line in lines if line.startswith("VmHWM"))
print("PEAK_KB", peak.split()[1])
sys.exit(code)
"""


def make_volume(path: Path, n_planes: int) -> None:
    """A bright rod, slowly wandering, in noise; every plane differs."""
    volume = zarr.create_array(str(path), shape=(n_planes, SIDE, SIDE), chunks=(1, SIDE, SIDE), dtype="uint8")
    rng = np.random.default_rng(0)
    rows, cols = np.ogrid[:SIDE, :SIDE]
    for z in range(n_planes):
        x = SIDE / 2 + 40 * np.sin(z / 30)
        rod = (rows - SIDE / 2) ** 2 + (cols - x) ** 2 < RADIUS**2
        volume[z] = np.clip(rng.normal(60, 12, (SIDE, SIDE)) + 110 * rod, 0, 255)


def make_prompts(path: Path, n_planes: int) -> None:
    """One click in the middle plane, no threshold."""
    middle = n_planes // 2
    point = [SIDE / 2, SIDE / 2 + 40 * np.sin(middle / 30)]
    objects = [{"id": 1, "prompts": [{"plane": middle, "positive": [point]}]}]
    off = {"min_iou": None, "max_area_change": None, "min_predicted_iou": None, "min_likeness": None}
    path.write_text(json.dumps({"objects": objects, "propagation": off}))


def peak_mb(*arguments: str) -> tuple[float, str]:
    """Peak memory in MB and the output of one command in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise SystemExit(result.stderr)
    *said, last = result.stdout.strip().splitlines()
    return int(last.split()[1]) / 1000, "; ".join(said)


def main() -> None:
    """Measure both commands on all sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--planes", type=int, nargs="+", default=[40, 400])
    parser.add_argument("--model", default="default")
    options = parser.parse_args()
    peaks: dict[str, list[float]] = {"embed": [], "segment --propagate": []}
    for n_planes in options.planes:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            make_volume(place / "rod.zarr", n_planes)
            make_prompts(place / "prompts.json", n_planes)
            shared = ("--model", options.model, "--cache", str(place / "cache"))
            image, prompts, out = (str(place / name) for name in ("rod.zarr", "prompts.json", "out.ome.zarr"))
            runs = {
                "embed": ("embed", image, *shared),
                "segment --propagate": (
                    "segment",
                    image,
                    "--prompts",
                    prompts,
                    "--output",
                    out,
                    "--propagate",
                    *shared,
                ),
            }
            for name, arguments in runs.items():
                megabytes, said = peak_mb(*arguments)
                peaks[name].append(megabytes)
                print(f"{name}, {n_planes} planes: {megabytes:.0f} MB ({said})", flush=True)
    for name, found in peaks.items():
        print(f"{name}: {' -> '.join(f'{mb:.0f} MB' for mb in found)}, ratio {found[-1] / found[0]:.3f}")


if __name__ == "__main__":
    main()
