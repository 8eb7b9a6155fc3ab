"""Models that have a name: where their weights come from, and how to tell that they are the right ones.

A file is never shipped but for "default"; it is fetched when it is first used and checked against its
published hash. Models that the user made (`napari-sam finetune`) lie in a folder of their own and are found by
their names as well, see `user_models`. Anything else is named by its path.
"""

from __future__ import annotations

import functools
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import platformdirs

from napari_sam.core.models import InputRecipe
from napari_sam.embedding import cache_dir
from napari_sam.errors import InputWarning, ModelNotFoundError

Progress = bool | Callable[[int, int], None]
"""True shows a bar; a function is called with the bytes so far and the bytes in all (0 if unknown)."""

_SAM = "https://dl.fbaipublicfiles.com/segment_anything/"
_EBI = "https://uk1s3.embassy.ebi.ac.uk/public-datasets/bioimage.io/"
_MOBILE = "https://github.com/ChaoningZhang/MobileSAM/raw/f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights/mobile_sam.pt"
_MEDSAM = "https://zenodo.org/records/10689643/files/medsam_vit_b.pth"

_KIRILLOV = "Kirillov et al. 2023, Segment Anything, arXiv 2304.02643"
_ZHANG = "Zhang et al. 2023, Faster Segment Anything, arXiv 2306.14289"
_ARCHIT = "Archit et al. 2025, Segment Anything for Microscopy, doi 10.1038/s41592-024-02580-4"
_MA = "Ma et al. 2024, Segment Anything in Medical Images, doi 10.1038/s41467-024-44824-z"
_ASK = "not stated by its publisher; ask before passing it on"


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model with a name.

    Parameters
    ----------
    name : str
        What `load_model` takes.
    architecture : str
        Name of its configuration.
    file_name : str
        Name of the weight file on disk.
    url : str
        Where it is fetched from; empty for the model that ships.
    hash : str
        "algorithm:hexadecimal digits" as its publisher gives it (sha256, md5 or xxh128).
    size : int
        Bytes; of models whose publisher gives none, those of their architecture.
    licence, citation : str
        Of the weights.
    good_for : str
        One line for somebody who chooses.
    recipe : InputRecipe
        How pixels are prepared.
    folder : Path, optional
        Where a model of the user lies.
    """

    name: str
    architecture: str
    file_name: str
    url: str
    hash: str
    size: int
    licence: str
    citation: str
    good_for: str
    recipe: InputRecipe = field(default=InputRecipe.SAM)
    folder: Path | None = None


_SIZES = {"vit_t": 40_728_226, "vit_b": 375_042_383, "vit_l": 1_249_524_607, "vit_h": 2_564_550_879}


def _sam(letter: str, tail: str, sha256: str, good_for: str) -> ModelEntry:
    name = f"vit_{letter}"
    file = f"sam_{name}_{tail}.pth"
    return ModelEntry(
        name, name, file, _SAM + file, f"sha256:{sha256}", _SIZES[name], "Apache-2.0", _KIRILLOV, good_for
    )


def _micro_sam(name: str, folder: str, xxh128: str, good_for: str) -> ModelEntry:
    architecture = name[:5]
    return ModelEntry(
        name,
        architecture,
        f"{name}.pt",
        f"{_EBI}{folder}/files/{architecture}.pt",
        f"xxh128:{xxh128}",
        _SIZES[architecture],
        _ASK,
        _ARCHIT,
        good_for,
        InputRecipe.MICRO_SAM,
    )


_ENTRIES = (
    ModelEntry(
        "default",
        "medium",
        "default.safetensors",
        "",
        "",
        23_273_928,
        "BSD-3-Clause",
        "ships with this program, see the model card",
        "cells, nuclei and organelles; small and quick, nothing to fetch",
    ),
    ModelEntry(
        "vit_t",
        "vit_t",
        "mobile_sam.pt",
        _MOBILE,
        "sha256:6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        _SIZES["vit_t"],
        "Apache-2.0",
        _ZHANG,
        "everyday images; quick on a CPU",
    ),
    _sam(
        "b",
        "01ec64",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        "everyday images; wants a GPU",
    ),
    _sam(
        "l",
        "0b3195",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        "everyday images, a little better than vit_b; needs a GPU",
    ),
    _sam(
        "h",
        "4b8939",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        "everyday images, the largest; needs a GPU",
    ),
    _micro_sam(
        "vit_t_lm",
        "faithful-chicken/1.1",
        "72ec5074774761a6e5c05a08942f981e",
        "light microscopy; quick on a CPU",
    ),
    _micro_sam("vit_b_lm", "diplomatic-bug/1.2", "fe9252a29f3f4ea53c15a06de471e186", "light microscopy"),
    _micro_sam(
        "vit_l_lm", "idealistic-rat/1.2", "017f20677997d628426dec80a8018f9d", "light microscopy; needs a GPU"
    ),
    _micro_sam(
        "vit_t_em_organelles",
        "greedy-whale/1",
        "253474720c497cce605e57c9b1d18fd9",
        "mitochondria and nuclei in electron microscopy; quick on a CPU",
    ),
    _micro_sam(
        "vit_b_em_organelles",
        "noisy-ox/1.2",
        "f3bf2ed83d691456bae2c3f9a05fb438",
        "mitochondria and nuclei in electron microscopy",
    ),
    _micro_sam(
        "vit_l_em_organelles",
        "humorous-crab/1.2",
        "810b084b6e51acdbf760a993d8619f2d",
        "mitochondria and nuclei in electron microscopy; needs a GPU",
    ),
    ModelEntry(
        "medsam_vit_b",
        "vit_b",
        "medsam_vit_b.pth",
        _MEDSAM,
        "md5:3bb6db55bd0c9ca30b61248bca72f8d6",
        _SIZES["vit_b"],
        "Apache-2.0",
        _MA,
        "CT, MR and other medical images; takes boxes, not points",
        InputRecipe.MEDSAM,
    ),
)


class _Models(Mapping[str, ModelEntry]):
    """The published models, then those of the user as they are on disk now."""

    def __getitem__(self, name: str) -> ModelEntry:
        return _PUBLISHED[name] if name in _PUBLISHED else user_models()[name]

    def __iter__(self) -> Iterator[str]:
        yield from _PUBLISHED
        yield from (name for name in user_models() if name not in _PUBLISHED)

    def __len__(self) -> int:
        return sum(1 for _ in self)


_PUBLISHED = {entry.name: entry for entry in _ENTRIES}

MODELS: Mapping[str, ModelEntry] = _Models()
"""Every model that has a name."""


def user_model_dir() -> Path:
    """Folder of the models that the user made: $NAPARI_SAM_MODELS, else in the user's data folder.

    It is apart from the cache, which may be emptied.
    """
    named = os.environ.get("NAPARI_SAM_MODELS")
    base = platformdirs.user_data_dir("napari-sam-volumes", appauthor=False)
    return Path(named) if named else Path(base) / "models"


def user_models() -> dict[str, ModelEntry]:
    """The models in `user_model_dir`, by the names of their files.

    Warns
    -----
    InputWarning
        A file there cannot be read; it is left out.
    """
    folder = user_model_dir()
    paths = sorted(folder.glob("[!.]*.safetensors")) if folder.is_dir() else []
    found = [_user_entry(path, path.stat().st_mtime_ns) for path in paths]
    return {entry.name: entry for entry in found if entry is not None}


@functools.lru_cache(maxsize=256)
def _user_entry(path: Path, changed: int) -> ModelEntry | None:
    """Read once for each version of a file."""
    facts = file_facts(path)
    if facts is None:
        warnings.warn(
            f"{path} is not a complete model; it is left out of the list", InputWarning, stacklevel=4
        )
        return None
    return ModelEntry(
        name=path.stem,
        architecture=facts.get("architecture", ""),
        file_name=path.name,
        url="",
        hash="",
        size=path.stat().st_size,
        licence=facts.get("licence", "your own"),
        citation="",
        good_for=facts.get("good_for", "made by you"),
        recipe=recipe_of(path),
        folder=path.parent,
    )


def file_facts(path: Path) -> dict[str, str] | None:
    """What a .safetensors file says about itself, without its tensors; None if it is not one."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = file.read(length) if length < min(path.stat().st_size, 1 << 26) else b""
    try:
        facts = json.loads(header).get("__metadata__", {})
    except (ValueError, AttributeError):
        return None
    return {str(key): str(value) for key, value in facts.items()}


def recipe_of(path: Path) -> InputRecipe:
    """How a checkpoint file wants its pixels: as it says itself, else as SAM."""
    facts = file_facts(path) if path.suffix == ".safetensors" else None
    said = (facts or {}).get("recipe", "")
    return InputRecipe(said) if said in set(InputRecipe) else InputRecipe.SAM


def find_model(name: str) -> ModelEntry | Path:
    """The entry of a name, or the path of an existing file.

    Raises
    ------
    ModelNotFoundError
        Neither.
    """
    if name in MODELS:
        return MODELS[name]
    path = Path(name).expanduser()
    if path.is_file():
        return path
    raise ModelNotFoundError(
        f"{name!r} is neither a model nor a file; models are {', '.join(MODELS)}, or give the path of a checkpoint"
    )


def model_dir() -> Path:
    """Folder that weights are fetched into."""
    return cache_dir() / "models"


def model_file(name: str) -> Path:
    """Where the weights of a model are, or will be once they were fetched; a path stands for itself."""
    found = find_model(name)
    if isinstance(found, Path):
        return found
    if found.folder is not None:
        return found.folder / found.file_name
    if not found.url:
        return Path(str(files("napari_sam.model"))) / "weights" / found.file_name
    return model_dir() / found.file_name


def is_on_disk(name: str) -> bool:
    """Whether a model can be loaded without fetching anything."""
    return model_file(name).is_file()


def fetch_model(name: str, progress: Progress = False) -> Path:
    """Make sure that the weights of a model are on disk and return their path, see `download.fetch`."""
    from napari_sam.inference.download import fetch

    found, path = find_model(name), model_file(name)
    if isinstance(found, Path):
        return found
    if not found.url and not path.is_file():
        raise ModelNotFoundError(f"the weights of {name!r} are missing at {path}; install the program again")
    return path if not found.url else fetch(found.url, path, found.hash, progress)


def fetch_model_steps(name: str) -> Iterator[tuple[int, int]]:
    """`fetch_model` in steps that can be given up, see `download.fetch_steps`; none if nothing is fetched."""
    from napari_sam.inference.download import fetch_steps

    found = find_model(name)
    if isinstance(found, ModelEntry) and found.url:
        yield from fetch_steps(found.url, model_file(name), found.hash)
