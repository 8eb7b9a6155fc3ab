"""Running a command's work on a dask.distributed cluster.

Workers get plain values (`jobs.Job`, plane references, prompts) and the name of a function. They need this
package, and the same paths to the volume, the model file and the cache folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any, TypeVar

from napari_sam.errors import DependencyError, DeviceError

Result = TypeVar("Result")

_CONNECT_S = 15


def map_on_cluster(address: str, function: Callable[[Any], Result], items: Iterable[Any]) -> Iterator[Result]:
    """Yield ``function(item)`` of all items as they are done; closing cancels what has not begun.

    Raises
    ------
    DependencyError
        dask.distributed is not installed.
    DeviceError
        No scheduler answers at `address`, or it is lost, or the workers died again and again.
    """
    with _connected(address) as client:
        from distributed import KilledWorker, as_completed

        futures = client.map(function, list(items), pure=False)
        try:
            for future in as_completed(futures):
                yield future.result()
        except KilledWorker as error:
            raise DeviceError(
                f"workers of {address} died while they worked on it, most often for lack of memory; look at their logs, "
                "and give each more memory, or use fewer at a time"
            ) from error
        except CancelledError as error:
            raise DeviceError(
                f"the dask scheduler at {address} was lost, or dropped the work; start it and its workers again"
            ) from error
        finally:
            client.cancel([future for future in futures if not future.done()])


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError as error:
        raise DependencyError(
            "--scheduler needs dask.distributed; install it: pip install distributed"
        ) from error
    try:
        client = Client(address, timeout=_CONNECT_S)
    except (OSError, ValueError) as error:
        raise DeviceError(
            f"no dask scheduler answers at {address}: {error}; start one with `dask scheduler`"
        ) from error
    with client:
        yield client
