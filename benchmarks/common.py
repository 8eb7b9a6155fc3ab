"""What the benchmark scripts share: the machine in a line, memory and disk, a session without a window, tables."""

from __future__ import annotations

import os
import platform
import queue
import time
from collections.abc import Callable
from pathlib import Path


def machine():
    """What it runs on, and how busy that is."""
    flags = Path("/proc/cpuinfo").read_text()
    model = next((x.split(":")[1].strip() for x in flags.splitlines() if x.startswith("model name")), "")
    best = "AVX-512 bf16" if "avx512_bf16" in flags else "AVX-512" if "avx512f" in flags else "AVX2"
    return f"{model or platform.processor()}, {os.cpu_count()} cores, {best}; load {os.getloadavg()[0]:.1f}"


def write_table(path, name, title, text):
    """Replace what stands between the markers of `name`, or add them under `title` at the end of the file."""
    start, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    old = path.read_text() if path.exists() else "# Benchmarks\n"
    if start not in old:
        old += f"\n## {title}\n\n{start}{end}"
    path.write_text(old[: old.index(start)] + start + text.strip() + "\n" + old[old.index(end) :])


def peak_mb():
    """Peak memory of this process so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1000


def forget_peak():
    """Count the peak from here on."""
    Path("/proc/self/clear_refs").write_text("5")


def size_of(folder):
    """Bytes of all files in a folder."""
    return sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())


def seconds(value):
    """A time as people read it."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.3g} s" if value < 600 else f"{value / 60:.0f} min"


class Work:
    """A session with the real networks and no window: events are let in while something is waited for.

    Parameters
    ----------
    folder : Path
        For the session.
    model : str
        Name or file.
    """

    def __init__(self, folder, model="default"):
        from napari_sam.core.models import ModelSpec
        from napari_sam.session.engine import SamBackend
        from napari_sam.session.session import Session

        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.session = Session(SamBackend(), self._queue.put, folder)
        self.session.failed.connect(self._fail)
        self.session.state.idle_reach = 0
        self.session.state.model = ModelSpec(model)
        self.session.load_model()
        self.settle()

    def wait(self, condition, timeout=3600.0):
        """Let events in until the condition holds; seconds it took."""
        begin = time.perf_counter()
        while not condition():
            if time.perf_counter() - begin > timeout:
                raise TimeoutError("the session did not come to an end")
            try:
                self._queue.get(timeout=0.01)()
            except queue.Empty:
                continue
        return time.perf_counter() - begin

    def settle(self):
        """Wait until nothing runs."""
        return self.wait(lambda: not self.session.is_busy)

    @staticmethod
    def _fail(error):
        raise error
