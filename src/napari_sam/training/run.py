"""From a folder of labelled images to a training run, for the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from napari_sam.inference.device import keep_heap
from napari_sam.model.checkpoints import load_sam, save_safetensors
from napari_sam.training.config import TrainConfig
from napari_sam.training.filled import FILLED, fill_planes
from napari_sam.training.packed import LabelledPlane, read_folder, read_packed, write_packed
from napari_sam.training.pasted import PASTED, paste_planes
from napari_sam.training.synthetic import generate_planes
from napari_sam.training.trainer import TrainEvent

SYNTHETIC_SEED = 7
COMPOSED_PLANES = 1000
SPLIT_SEED = 0
"""Whatever the seed of a run, the same images are kept out, so that a later stage is judged on none it has learned from."""


def prepare_machine(config: TrainConfig) -> None:
    """Threads, a heap that keeps what it has (page faults would cost as much as the arithmetic), TF32 on a GPU."""
    keep_heap()
    torch.set_num_threads(config.threads)
    torch.set_float32_matmul_precision("high")


def prepare_data(folder: Path, out_dir: Path, synthetic: int, config: TrainConfig) -> list[LabelledPlane]:
    """Labelled and generated planes; both are packed in `out_dir` the first time, and only read later.

    Raises
    ------
    TrainingError
        There is nothing in `folder` to learn from.
    """
    real, generated = out_dir / "packed.npz", out_dir / f"synthetic-{synthetic}.npz"
    if not real.is_file():
        write_packed(read_folder(folder, config.validation, SPLIT_SEED), real)
    planes = read_packed(real)
    if synthetic and not generated.is_file():
        write_packed(generate_planes(synthetic, SYNTHETIC_SEED, workers=config.processes), generated)
    for kind, compose, source in (
        (PASTED, paste_planes, config.pasted),
        (FILLED, fill_planes, config.filled),
    ):
        composed = out_dir / f"{kind}-{source}.npz"
        if source and not composed.is_file():
            own = [plane for plane in planes if plane.set_name == source]
            write_packed(compose(own, COMPOSED_PLANES, SYNTHETIC_SEED, config.processes), composed)
        planes += read_packed(composed) if source else []
    return planes + (read_packed(generated) if synthetic else [])


def average_weights(files: Sequence[Path], output: Path) -> None:
    """Write the mean of the weights of runs that began with the same weights."""
    models = [load_sam(file) for file in files]
    states = [model.state_dict() for model in models]
    mean = models[0]
    for name, value in mean.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.stack([state[name] for state in states]).mean(0))
    save_safetensors(mean, output, metadata={"runs": str(len(files))})


def describe(event: TrainEvent) -> str:
    """One line for people."""
    values = " ".join(f"{name} {value:.3f}" for name, value in event.values.items())
    return f"{event.kind} {event.step} {event.fraction:.1%} {event.seconds:.0f}s {values}"
