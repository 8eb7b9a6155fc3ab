"""Going on with less when memory runs out: a smaller batch, then half precision, then the CPU.

Every step down is a `FallbackWarning` and lasts as long as the predictor.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Lock
from typing import TypeVar

import torch

from napari_sam.errors import DeviceMemoryError, FallbackWarning
from napari_sam.inference.device import Runtime

Item = TypeVar("Item")
Result = TypeVar("Result")

Run = Callable[[Sequence[Item], Runtime], list[Result]]


_SAYINGS = ("out of memory", "not enough memory", "allocate memory")  # GPUs; Windows; Linux and macOS


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; that of torch's CPU allocator has no class of its own."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(saying in str(error) for saying in _SAYINGS)


class Stepper:
    """Runs a batch function and steps down when memory runs out.

    Parameters
    ----------
    runtime : Runtime
        What to begin with.
    batch_size : int
        Most items in one call to begin with.
    """

    def __init__(self, runtime: Runtime, batch_size: int) -> None:
        self.runtime = runtime
        self.batch_size = batch_size
        self._lock = Lock()

    def run(self, items: Sequence[Item], run: Run[Item, Result]) -> list[Result]:
        """Give `run` all items in batches.

        Raises
        ------
        DeviceMemoryError
            There is not enough memory even for one item on the CPU.
        """
        results: list[Result] = []
        while len(results) < len(items):
            batch = items[len(results) : len(results) + self.batch_size]
            runtime = self.runtime
            try:
                results.extend(run(batch, runtime))
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._step_down(len(batch), runtime, error)
        return results

    def to_cpu(self, error: BaseException) -> Runtime:
        """Go to the CPU at once, after prompts could not be decoded for lack of memory.

        Raises
        ------
        DeviceMemoryError
            It was the CPU already.
        """
        with self._lock:
            before = self.runtime
            self.runtime = Runtime(torch.device("cpu"), torch.float32)
        if before.device.type == "cpu":
            raise DeviceMemoryError(
                f"out of memory while decoding: {error}. Ask for fewer objects at a time"
            ) from error
        message = f"out of memory on {before.device}: working on the CPU from now on, which is slower"
        warnings.warn(message, FallbackWarning, stacklevel=3)
        return self.runtime

    def _step_down(self, n_items: int, runtime: Runtime, error: BaseException) -> None:
        if runtime.device.type == "cuda":
            torch.cuda.empty_cache()
        with self._lock:
            if self.runtime != runtime:  # another thread has stepped down already
                return
            message = self._next(n_items)
        if message is None:
            raise DeviceMemoryError(
                f"out of memory on {runtime.device} with one image at {runtime.dtype_name}: {error}. "
                "Close other programs or use a smaller model"
            ) from error
        warnings.warn(f"out of memory on {runtime.device}: {message}", FallbackWarning, stacklevel=4)

    def _next(self, n_items: int) -> str | None:
        """Change to the next smaller setting and say what it is; None if there is none."""
        now = self.runtime
        if n_items > 1:
            self.batch_size = n_items // 2
            return f"encoding {self.batch_size} images at a time from now on"
        if now.device.type != "cpu" and now.dtype == torch.float32:
            half = torch.float16 if now.device.type == "mps" else torch.bfloat16
            self.runtime = replace(now, dtype=half)
            return f"encoding at {self.runtime.dtype_name} from now on"
        if now.device.type != "cpu":
            self.runtime = Runtime(torch.device("cpu"), torch.float32)
            return "working on the CPU from now on, which is slower"
        return None
