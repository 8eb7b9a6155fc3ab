"""Small helpers that make arrays inside frozen values safe to share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.floating[Any]]


def frozen_array(array: Any, dtype: Any = None) -> Array:
    """Return `array` as a read-only array, copied only if somebody else could still write to it.

    Parameters
    ----------
    array : array_like
        Anything `numpy.asarray` takes.
    dtype : dtype, optional
        Convert to this type.

    Returns
    -------
    numpy.ndarray
        Read-only.
    """
    result = np.asarray(array, dtype=dtype)
    if result.flags.writeable:
        result = result.copy() if result is array or result.base is not None else result
        result.flags.writeable = False
    return result
