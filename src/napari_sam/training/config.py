"""Every number of a training run, as one frozen value that is stored beside the weights."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from napari_sam.errors import TrainingError

RECIPES = Path(__file__).parent / "recipes"
STAGES = ("default", "grown", "deeper", "organelles", "tissue", "mixed", "thin")
"""The recipes of the model in the package, one after the other: a small network, deeper ones grown from it, two lessons, all together twice."""


def _default_weights() -> dict[str, float]:
    return {}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    The defaults follow the SAM paper (appendix A) where it says something; what is chosen otherwise has
    its reason beside it.

    Parameters
    ----------
    model : str
        Name in `napari_sam.model.CONFIGS`.
    start : str
        Weight file to start from, of this architecture or of the same one with fewer residual blocks. Empty draws
        the weights, or takes those of the stage before.
    seed : int
        Everything random follows from it and from the number of the step.
    hours : float
        Wall-clock budget; the learning rate follows the share of it that is used up, so that a run always
        ends annealed, on a slow machine as on a fast one.
    max_steps : int
        Ends the run earlier, and then the schedule follows steps instead of time (repeatable runs). 0: none.
    stages : tuple of (float, int, int)
        From which share of the budget on crops have which side, in model pixels, and how many are in a step.
        Small crops first, because many different ones are seen in the same time; the position encoding is
        taken from a random window of the model's full input.
    """

    model: str = "micro"
    start: str = ""
    seed: int = 0
    hours: float = 1.5
    max_steps: int = 0
    stages: tuple[tuple[float, int, int], ...] = ((0.0, 160, 12), (0.5, 224, 7), (0.85, 320, 4))

    # what is shown
    objects: int = 4
    """Objects of each crop: the encoder is paid once for all of them."""
    synthetic: float = 0.3
    """Share of generated crops."""
    set_weights: dict[str, float] = field(default_factory=_default_weights)
    """Relative share of each set; the square root of its number of objects where nothing is said."""
    pasted: str = ""
    """Set whose objects are pasted into generated cells, see `training/pasted.py`; these are the set "pasted"."""
    filled: str = ""
    """Set whose objects' insides fill generated neurites, see `training/filled.py`; these are the set "filled"."""
    validation: float = 0.06
    """Share of the images of every set that is kept out of training, to choose checkpoints by."""
    object_diameter: tuple[float, float] = (12.0, 160.0)
    """Size of the central object in a crop, square root of its area in model pixels."""
    inference_scale: float = 0.5
    """Share of crops at about the scale in which a user's plane is encoded; the rest by object size."""
    mild: bool = False
    """Whether intensities change only as they do between images of one microscope; see `augment`."""
    model_input: int = 512
    """Planes whose longest side is below this are encoded enlarged to it."""

    # how it is prompted
    rounds: tuple[int, ...] = (2, 3, 4)
    """Numbers of decoder rounds a step may have: the first prompt, then corrections."""
    box_share: float = 0.4
    mask_share: float = 0.2
    """Shares of first prompts that are a jittered box, or a mask as in propagation; the rest are points."""
    ended_share: float = 0.03
    """Share of objects that have ended: the prompt holds a mask where there is none, and the truth is empty."""
    deepest_share: float = 0.5
    """Share of clicks near the deepest pixel, where users click; the rest anywhere inside."""
    mask_only_share: float = 0.1
    """Share of later rounds without a new click, the previous mask alone."""

    # what is learned
    focal_weight: tuple[float, float] = (2.0, 20.0)
    """At the start and from `EASED` of the run on: it pulls an ignorant decoder to empty masks."""
    dice_weight: float = 1.0
    others_share: float = 0.0
    """Of the loss of the three answers to one point: how much of it is the mean of all; the rest is the best one's."""
    iou_weight: float = 1.0
    balanced_weight: tuple[float, float] = (1.0, 0.1)
    """Weight of the balanced cross-entropy, likewise; see `losses.balanced_loss`."""
    dense_weight: tuple[float, float] = (1.0, 0.2)
    """Weight of the auxiliary dense head at the start and at the end."""
    rehearsal: float = 0.0
    """Above 0 the run goes on from `start` in small steps, and this is the weight with which it is held to the answers that it
    gave at the start; see `trainer._HeldRun`. Of `stages` the side of the first counts then."""
    runs: int = 1
    """Runs with seeds that follow each other, whose weights are averaged (Wortsman et al. 2022, arXiv 2203.05482): from the same
    start they end near enough to each other."""
    warm_start: float = 0.06
    """Share of the budget in which the encoder learns from the dense head alone."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warm_up: float = 0.02
    """Share of the budget with a rising learning rate."""
    final_rate: float = 0.01
    """Last learning rate as a share of the highest."""
    clip_norm: float = 1.0
    ema: float = 0.998
    accumulate: int = 1
    """Batches whose gradients are added up for one step, where a larger one does not fit into memory."""

    # how it runs
    device: str = "auto"
    """"auto" (a GPU if there is one), "cpu", "cuda"."""
    threads: int = 2
    workers: int = 1
    """Processes that prepare batches, at most one a core; their number changes nothing else."""
    precision: str = "float32"
    """Of the networks: "float32", "bfloat16" or "auto", the faster one; weights and losses stay float32. Not for encoders
    with layers of 8 channels, as tests have: their gradients in bfloat16 were seen to write beyond their memory (oneDNN)."""
    log_every: int = 20
    checkpoint_minutes: float = 5.0
    validate_minutes: float = 10.0
    validation_crops: int = 48

    def __post_init__(self) -> None:
        if not 0 <= self.synthetic <= 1 or not 0 <= self.validation < 1:
            raise TrainingError("synthetic and validation are shares between 0 and 1")
        if not self.stages or self.stages[0][0] != 0:
            raise TrainingError(f"the first stage must start at 0, got {self.stages}")
        if any(side < 32 or side % 32 or images < 1 for _, side, images in self.stages):
            raise TrainingError(f"crop sides must be multiples of 32, with at least one image: {self.stages}")
        if self.rehearsal < 0:
            raise TrainingError(f"rehearsal is a weight, 0 or more, got {self.rehearsal}")
        if min(self.objects, self.runs, *self.rounds) < 1:
            raise TrainingError("objects, rounds and runs must be at least 1")

    @property
    def processes(self) -> int:
        """How many of `workers` this machine has cores for."""
        return min(self.workers, os.cpu_count() or 1)

    def stage(self, fraction: float) -> tuple[int, int]:
        """Side of the crops and their number at a share of the budget."""
        _, side, images = [stage for stage in self.stages if stage[0] <= max(fraction, 0)][-1]
        return side, images

    def to_json(self) -> str:
        """Text that `from_json` reads back to an equal value."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Read a recipe; unknown names are an error, missing ones take their default."""
        values: dict[str, Any] = json.loads(text)
        known = {entry.name for entry in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise TrainingError(
                f"the recipe has settings that do not exist: {unknown}; known are {sorted(known)}"
            )
        return cls(**{name: _tuples(value) for name, value in values.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list) else value


def learning_rate_share(fraction: float, config: TrainConfig) -> float:
    """Linear rise, then half a cosine down to `final_rate`."""
    if fraction < config.warm_up:
        return max(fraction / config.warm_up, 0.01)
    done = min((fraction - config.warm_up) / max(1 - config.warm_up, 1e-6), 1.0)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * done))


def load_recipe(name_or_path: str = "default") -> TrainConfig:
    """Read a recipe by its name in the package, or a JSON file."""
    path = Path(name_or_path)
    if not path.suffix:
        path = RECIPES / f"{name_or_path}.json"
    if not path.is_file():
        raise TrainingError(f"there is no recipe {path}; give a JSON file or a name in {RECIPES}")
    return TrainConfig.from_json(path.read_text())
