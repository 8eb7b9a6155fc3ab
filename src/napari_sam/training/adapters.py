"""Low-rank adapters on an image encoder (Hu et al. 2021, arXiv 2106.09685), through the package peft.

Only two thin matrices beside each weight are learned. They are merged into the weights before a model is
saved, so that what is saved is a plain checkpoint.
"""

from __future__ import annotations

import copy
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn

from napari_sam.errors import DependencyError


def adapted(encoder: nn.Module, rank: int, seed: int) -> nn.Module:
    """The encoder with adapters that are drawn from a seed; everything else in it is frozen.

    Raises
    ------
    DependencyError
        peft is not installed.
    """
    peft = need_peft()
    config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=target_names(encoder, rank), bias="none")
    with torch.random.fork_rng(devices=[]):  # peft draws from the generator that everybody shares
        torch.manual_seed(seed)
        return cast(nn.Module, peft.get_peft_model(encoder, config))


def merged(encoder: nn.Module) -> nn.Module:
    """A plain copy of an adapted encoder, with the adapters in its weights."""
    return cast(nn.Module, cast(Any, copy.deepcopy(encoder)).merge_and_unload())


def target_names(encoder: nn.Module, rank: int) -> list[str]:
    """Names of the layers that get adapters: the attention of a transformer, else the wide convolutions."""
    layers = dict(encoder.named_modules())
    attention = [
        name
        for name, layer in layers.items()
        if isinstance(layer, nn.Linear) and name.rsplit(".", 1)[-1] in ("qkv", "proj")
    ]
    return attention or [
        name
        for name, layer in layers.items()
        if isinstance(layer, nn.Conv2d) and layer.groups == 1 and min(layer.weight.shape[:2]) > rank
    ]


def need_peft() -> ModuleType:
    """`peft`, or a DependencyError that says how to get it."""
    try:
        import peft
    except ImportError as error:
        raise DependencyError(
            "low-rank adapters need the package peft, which is not installed: pip install peft, or install "
            'this package with its extra "lora"; mode "decoder" needs nothing'
        ) from error
    module: ModuleType = peft
    return module
