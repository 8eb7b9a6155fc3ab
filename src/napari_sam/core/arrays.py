"""Small helpers that make arrays inside frozen values safe to share."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.floating[Any]]


def frozen_array(array: Any, dtype: Any = None) -> Array:
    """Return `array` as a read-only array that owns its data, copied unless it is one already.

    Nobody can write to the result through the array it was made from, nor through that array's base; nor
    does it keep a large array alive of which it is a part. (A view that was taken of a writable array
    before its owner made it read-only cannot be detected.)

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
    if result.flags.writeable or not result.flags.owndata:
        converted = result is not array and isinstance(array, (np.ndarray, list, tuple))
        if not (converted and result.flags.owndata):
            result = result.copy()
        result.flags.writeable = False
    return result


class ArrayValue:
    """Base of frozen dataclasses that hold arrays: a copy from a pickle is read-only, too.

    numpy forgets that an array is read-only when it is pickled, so these values are rebuilt by their
    constructor.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]
