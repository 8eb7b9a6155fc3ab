"""Where a fine-tuned model comes from, where it goes, and what its file says about itself."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import napari_sam
from napari_sam.core.models import InputRecipe
from napari_sam.errors import TrainingError
from napari_sam.inference.registry import (
    MODELS,
    fetch_model,
    file_facts,
    find_model,
    recipe_of,
    user_model_dir,
)
from napari_sam.model.checkpoints import load_sam, save_safetensors
from napari_sam.model.sam import Sam


@dataclass(frozen=True, slots=True, eq=False)
class Parent:
    """The model that fine-tuning starts from.

    Parameters
    ----------
    name : str
        As it was given.
    digest : str
        "sha256:..." of its file.
    recipe : InputRecipe
        How pixels are prepared.
    licence : str
        Of its weights.
    sam : Sam
        Freshly loaded; fine-tuning changes it.
    is_half : bool
        Whether its image encoder is the same in half precision.
    """

    name: str
    digest: str
    recipe: InputRecipe
    licence: str
    sam: Sam
    is_half: bool


def load_parent(model: str | Path) -> Parent:
    """Load a model by its name or file, fetching it first if need be."""
    found = find_model(str(model))
    path = fetch_model(str(model))
    sam = load_sam(path)
    if isinstance(found, Path):
        licence = (file_facts(path) or {}).get("licence", "") if path.suffix == ".safetensors" else ""
        name, recipe = path.stem, recipe_of(path)
    else:
        name, recipe, licence = found.name, found.recipe, found.licence
    return Parent(name, f"sha256:{_sha256(path)}", recipe, licence or "not stated", sam, _is_half(sam))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_half(sam: Sam) -> bool:
    """Whether `save_safetensors` at half precision keeps the encoder; it keeps vectors and positions anyway."""
    matrices = [
        value
        for key, value in sam.image_encoder.state_dict().items()
        if value.ndim > 1 and "positional_encoding" not in key
    ]
    return all(torch.equal(value.half().float(), value) for value in matrices)


@dataclass(slots=True)
class Target:
    """The file of a new model.

    Parameters
    ----------
    path : Path
        In the user's folder of models; its stem is the model's name.
    copy : Path, optional
        Where a copy goes.
    data : str
        What it learns from.
    written : bool
        Whether the file is there.
    """

    path: Path
    copy: Path | None
    data: str
    written: bool = False

    @classmethod
    def choose(
        cls, name: str, parent: Parent, data: str, output: str | Path | None, overwrite: bool
    ) -> Target:
        """Check the name, or make one.

        Raises
        ------
        TrainingError
            The name cannot be used or is taken, or the copy cannot be written where it should.
        """
        copy = Path(output).expanduser() if output is not None else None
        if copy is not None and (copy.suffix != ".safetensors" or not copy.absolute().parent.is_dir()):
            raise TrainingError(f"the output must be a .safetensors file in a folder that exists, got {copy}")
        if copy is not None and copy.exists() and not overwrite:
            raise TrainingError(f"{copy} exists; choose another name, or allow to overwrite it")
        chosen = name or _free_name(f"{parent.name}-{data}")
        _check_name(chosen, overwrite)
        return cls(user_model_dir() / f"{chosen}.safetensors", copy, data)

    @property
    def name(self) -> str:
        """Of the new model."""
        return self.path.stem

    def write(
        self, sam: Sam, parent: Parent, settings: Any, figures: dict[str, Any], encoder_is_old: bool
    ) -> None:
        """Write the weights with everything that tells where they come from.

        The image encoder of the parent, where it did not change, is kept to the last bit, so that its
        embeddings stay valid.
        """
        exact = encoder_is_old and not parent.is_half
        self.path.parent.mkdir(parents=True, exist_ok=True)
        facts = {
            "name": self.name,
            "good_for": _good_for(parent.name, self.data, figures),
            "parent": parent.name,
            "parent_digest": parent.digest,
            "recipe": str(parent.recipe),
            "licence": parent.licence,
            "data": self.data,
            "settings": json.dumps(asdict(settings)),
            "figures": json.dumps(figures),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "program": f"napari-sam-volumes {napari_sam.__version__}",
        }
        save_safetensors(sam, self.path, torch.float32 if exact else torch.float16, facts)
        if self.copy is not None:
            shutil.copyfile(self.path, self.copy)
        self.written = True


def _check_name(name: str, overwrite: bool) -> None:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise TrainingError(f"{name!r} cannot be the name of a model; use letters, digits, '-', '_' and '.'")
    entry = MODELS.get(name)
    if entry is not None and entry.folder is None:
        raise TrainingError(f"{name!r} is a model that is published; choose another name")
    if entry is not None and not overwrite:
        raise TrainingError(
            f"you have a model {name!r} already; choose another name, or allow to overwrite it"
        )


def _free_name(wanted: str) -> str:
    base = re.sub(r"[^\w.-]+", "-", wanted).strip("-.") or "model"
    tried, number = base, 2
    while tried in MODELS:
        tried, number = f"{base}-{number}", number + 1
    return tried


def _good_for(parent: str, data: str, figures: dict[str, Any]) -> str:
    start, best = figures.get("start") or {}, figures.get("best") or {}
    told = f"{parent} fine-tuned on {data}"
    if not start or not best:
        return told
    return f"{told}: mIoU after 1 click {start['click1']:.2f} before, {best['click1']:.2f} after (on what was kept out)"
