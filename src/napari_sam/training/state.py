"""What a training run carries from step to step, and how it is written to disk and read back."""

from __future__ import annotations

import copy
import os
import pickle
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from napari_sam.errors import TrainingError
from napari_sam.inference.device import choose_runtime
from napari_sam.model.configs import CONFIGS
from napari_sam.model.sam import Sam, build_sam
from napari_sam.training.config import TrainConfig
from napari_sam.training.dense import DenseHead
from napari_sam.training.initialise import look_at_positions, start_from

MAY_CHANGE = {
    "start",
    "hours",
    "max_steps",
    "device",
    "threads",
    "workers",
    "precision",
    "log_every",
    "checkpoint_minutes",
    "validate_minutes",
}
"""Settings that may be others when a run goes on; what it started from may be gone."""


@dataclass(slots=True)
class TrainState:
    """Networks, optimiser and counters of a run.

    Parameters
    ----------
    sam, average : Sam
        The model that learns, and its exponential moving average, which is the one that is used.
    head : DenseHead
        Auxiliary, never shipped.
    optimizer : torch.optim.Optimizer
    start : Sam, optional
        What the run is held to: the model as it was at the start.
    step : int
        Steps done.
    elapsed : float
        Seconds of training, over all resumptions.
    interactive_since : int
        Step at which the mask decoder began to learn, -1 before.
    best : float
        Best validation figure so far.
    """

    sam: Sam
    average: Sam
    head: DenseHead
    optimizer: torch.optim.Optimizer
    start: Sam | None = None
    step: int = 0
    elapsed: float = 0.0
    interactive_since: int = -1
    best: float = 0.0

    @property
    def parts(self) -> dict[str, Any]:
        """What is kept by its `state_dict`."""
        names = ("sam", "average", "head", "optimizer", "start")
        return {name: part for name in names if (part := getattr(self, name)) is not None}


def new_state(config: TrainConfig) -> TrainState:
    """Fresh networks, drawn from the seed."""
    if config.model not in CONFIGS:
        raise TrainingError(f"there is no architecture {config.model!r}; known are {sorted(CONFIGS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        sam = build_sam(CONFIGS[config.model])
        look_at_positions(sam)
        if config.start:
            start_from(sam, config.start)
        head = DenseHead(CONFIGS[config.model].prompt_dim)
    sam.image_encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    device = choose_runtime(config.device).device
    sam, head = sam.to(device), head.to(device)
    average = copy.deepcopy(sam).requires_grad_(False).eval()
    return TrainState(sam, average, head, make_optimizer(sam, head, config))


def make_optimizer(sam: Sam, head: DenseHead, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices only, the decoder in a group of its own for its later warm-up."""
    groups: list[dict[str, Any]] = []
    for part, modules in (
        ("encoder", (sam.image_encoder, head)),
        ("decoder", (sam.prompt_encoder, sam.mask_decoder)),
    ):
        parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
        for decay, keep in ((config.weight_decay, True), (0.0, False)):
            members = [p for p in parameters if (p.ndim > 1) == keep]
            groups.append({"params": members, "weight_decay": decay, "part": part})
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.99), fused=True)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move the average towards the model, faster at the start; statistics of normalisation likewise."""
    keep = min(decay, (1 + step) / (10 + step))
    pairs = list(zip(average.state_dict().values(), model.state_dict().values(), strict=True))
    means, values = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
    get_ema_multi_avg_fn(keep)(means, values, 1)  # type: ignore[no-untyped-call]
    for count, value in (pair for pair in pairs if not pair[0].is_floating_point()):
        count.copy_(value)


def save_state(state: TrainState, config: TrainConfig, path: Path) -> None:
    """Write everything needed to go on, in one step (a failed write leaves the old file)."""
    content = {name: part.state_dict() for name, part in state.parts.items()} | {
        "counters": [state.step, state.elapsed, state.interactive_since, state.best],
        "config": config.to_json(),
    }
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        torch.save(content, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_state(path: Path, config: TrainConfig, fresh: TrainState | None = None) -> TrainState:
    """Read what `save_state` wrote.

    Parameters
    ----------
    path : Path
    config : TrainConfig
        Of the run that goes on.
    fresh : TrainState, optional
        What to read it into, if it is not as `new_state` makes one.

    Raises
    ------
    TrainingError
        The file is damaged, or belongs to a run with other settings.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        _need_same_settings(path, TrainConfig.from_json(content["config"]), config)
        # where it started from does not matter any more
        state = fresh or new_state(replace(config, start=""))
        for name, part in state.parts.items():
            part.load_state_dict(content[name])
    except (RuntimeError, KeyError, ValueError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{path} cannot be continued from: {error}; start in another folder") from error
    step, state.elapsed, since, state.best = content["counters"]
    state.step, state.interactive_since = int(step), int(since)
    return state


def _need_same_settings(path: Path, before: TrainConfig, now: TrainConfig) -> None:
    names = sorted(entry.name for entry in fields(TrainConfig) if entry.name not in MAY_CHANGE)
    changed = [
        f"{n} was {getattr(before, n)!r}, is {getattr(now, n)!r}"
        for n in names
        if getattr(before, n) != getattr(now, n)
    ]
    if changed:
        raise TrainingError(
            f"{path} belongs to a run with other settings ({'; '.join(changed)}); start in another folder, or go on "
            "with the recipe that it began with"
        )
