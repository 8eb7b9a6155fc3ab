"""Where the network runs and how precisely, chosen by what was measured to be fastest.

On a CPU three things matter more than anything in the network: a heap that keeps large blocks (otherwise
the system gives them back after every layer and clears them again before the next one, which costs about
as much as the arithmetic), one thread a physical core, and half precision only where the processor has
instructions for it.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from dataclasses import dataclass

import psutil
import torch

from napari_sam.errors import DeviceError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD = 64 * 1024**2


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where a network runs.

    Parameters
    ----------
    device : torch.device
        For all three parts.
    dtype : torch.dtype
        Of the image encoder; prompt encoder and mask decoder always run in float32.
    """

    device: torch.device
    dtype: torch.dtype

    @property
    def dtype_name(self) -> str:
        """One of "float32", "bfloat16", "float16"."""
        return str(self.dtype).removeprefix("torch.")


def choose_runtime(device: str = "auto", dtype: str = "auto") -> Runtime:
    """Resolve "auto" and check that what was asked for is there.

    Parameters
    ----------
    device : str
        "auto" (CUDA, then MPS, then CPU), "cpu", "cuda", "cuda:1", "mps".
    dtype : str
        "auto", "float32", "bfloat16", "float16".

    Raises
    ------
    DeviceError
        The device is not there, or the precision has no name here.
    """
    chosen = _device(device)
    if dtype == "auto":
        return Runtime(chosen, fastest_dtype(chosen))
    if dtype not in DTYPES:
        raise DeviceError(f"dtype {dtype!r} is none of {['auto', *DTYPES]}")
    return Runtime(chosen, DTYPES[dtype])


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if _has_cuda() else "mps" if _has_mps() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"device {name!r} is not known; use auto, cpu, cuda, cuda:1 or mps") from error
    there = {"cpu": True, "cuda": _has_cuda(), "mps": _has_mps()}
    if not there.get(device.type, False):
        raise DeviceError(f"device {name!r} is not available on this machine; use 'auto' or 'cpu'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(f"device {name!r} is not available; there are {torch.cuda.device_count()} GPUs")
    return device


def fastest_dtype(device: torch.device) -> torch.dtype:
    """The precision that the image encoder is fastest in, without visible loss."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "mps":
        return torch.float16
    return torch.bfloat16 if _cpu_has_bf16() else torch.float32


def prepare_cpu() -> None:
    """Choose threads and heap for CPU work, once in a process."""
    _use_physical_cores()
    keep_heap()


@functools.cache
def _use_physical_cores() -> None:
    """One thread a physical core that this process may use: a second one on the same core only waits."""
    allowed = len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else 10**6
    cores = min(psutil.cpu_count(logical=False) or 1, allowed)
    if torch.get_num_threads() > cores:
        torch.set_num_threads(cores)


@functools.cache
def keep_heap() -> bool:
    """Tell glibc to keep freed memory instead of giving it back after every layer.

    The activations of an image encoder are blocks of tens of megabytes. glibc maps each of them anew, and
    the kernel clears every page again: measured, encoding took up to twice as long. The price is that a
    process stays as large as it once was. Nothing happens where there is no glibc.

    Returns
    -------
    bool
        Whether the heap is kept.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    done = (
        mallopt(_M_TOP_PAD, _TOP_PAD),
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1),
        mallopt(_M_MMAP_MAX, 0),
    )
    return all(done)


def _has_cuda() -> bool:
    return torch.cuda.is_available()


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def _cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 natively (AVX-512 BF16 or AMX); emulated it is slower."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(
        capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("amx_tile")
    )
