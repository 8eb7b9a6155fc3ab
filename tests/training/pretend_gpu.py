"""A GPU that is not there: tensors that say they are on it, and operations that refuse tensors on two devices.

The arithmetic is done on the CPU. Where there is no GPU this is what can be known about code for one: that whatever
meets is on the same device, and comes back before numpy sees it. A device of the kind "meta" is the one that torch asks
nothing of.
"""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode

GPU = torch.device("meta")
_aten = torch.ops.aten
MAY_MIX = {_aten._to_copy.default, _aten.copy_.default, _aten.index.Tensor, _aten.index_put_.default}
"""Copies between devices, and indices, which torch moves by itself."""


class OnGpu(torch.Tensor):
    """A tensor of the CPU that says it is on the GPU."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            dispatch_device=True,
        )

    def __init__(self, inner):
        self.on_cpu = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func, args, kwargs):
    if func is torch.ops.prim.device.default:
        return GPU
    tensors = [x for x in tree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    there = [x for x in tensors if isinstance(x, OnGpu)]
    here = [x for x in tensors if not isinstance(x, OnGpu) and x.ndim]
    if there and here and func not in MAY_MIX:
        raise RuntimeError(f"{func} of tensors on two devices")
    asked = kwargs.get("device")
    is_there = bool(there) if asked is None else torch.device(asked) == GPU
    if asked is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    plain_args, plain_kwargs = tree.tree_map_only(OnGpu, lambda x: x.on_cpu, (args, kwargs))
    found = func(*plain_args, **plain_kwargs)
    if func._schema.is_mutable:
        known = {id(x.on_cpu): x for x in there}
        return tree.tree_map_only(torch.Tensor, lambda x: known.get(id(x), x), found)
    return tree.tree_map_only(torch.Tensor, OnGpu, found) if is_there else found


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """`torch.tensor` makes numbers on a device before it tells anybody."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.tensor and kwargs.get("device") == GPU:
            return func(*args, **kwargs | {"device": "cpu"}).to(GPU)
        return func(*args, **kwargs)


class PretendGpu:
    """The context in which there is one."""

    def __enter__(self):
        self._modes = _Operations(), _Literals()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        for mode in self._modes:
            mode.__enter__()

    def __exit__(self, *failure):
        for mode in reversed(self._modes):
            mode.__exit__(*failure)
        torch.__future__.set_overwrite_module_params_on_conversion(False)


class GeneratorOfCpu(torch.Generator):
    """Of random numbers on the GPU, as it is."""

    def __new__(cls, device=None):
        return super().__new__(cls)
