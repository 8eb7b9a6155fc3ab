"""Weight files: reading every published layout, telling architectures apart, writing our own.

Pickles are only ever opened with `weights_only=True`: a file that holds more than tensors is refused.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from napari_sam.errors import CheckpointError, ModelNotFoundError
from napari_sam.model.configs import CONFIGS, SamConfig
from napari_sam.model.detection import detect_config
from napari_sam.model.image_encoder_vit import AttentionPath
from napari_sam.model.sam import Sam, build_sam

PathLike = str | os.PathLike[str]

_WRAPPERS = ("model_state", "model", "state_dict")
_COUNTER = "num_batches_tracked"  # of batch normalisation: no part of what a model computes

# The classifier that MobileSAM's file carries along, and micro-sam's second decoder (UNETR).
_UNUSED = ("image_encoder.head.", "image_encoder.norm_head.")
_AIS = ("decoder.", "deconv", "base.block.", "decoder_head.", "out_conv.")
_LORA = ("w_a_linear", "w_b_linear", ".qkv_proj.", ".mlp_layer.", "lora_")

_FOREIGN = {
    "image_encoder.trunk.": "a SAM 2 model",
    "sam_mask_decoder.": "a SAM 2 model",
    "detector.": "a SAM 3 model",
    "vision_encoder.": "a model in the layout of transformers",
    "mask_decoder.hf_token": "a SAM-HQ model",
}


def load_checkpoint(path: PathLike) -> tuple[SamConfig, dict[str, Tensor]]:
    """Read a weight file of any known layout.

    Parameters
    ----------
    path : path
        `.safetensors`, or a torch file: a plain state dict, or one under `model_state` whose names start
        with ``sam.`` (training checkpoints of micro-sam; its second decoder is left out).

    Returns
    -------
    config : SamConfig
        Architecture, from the file's own word where it has one, else from shapes.
    state : dict of str to float32 tensor
        Names as in `Sam.state_dict`.

    Raises
    ------
    ModelNotFoundError
        There is no such file.
    CheckpointError
        The file is damaged, holds more than tensors, or is not a SAM model.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelNotFoundError(f"no checkpoint file at {path}; check the path")
    raw, metadata = _read_safetensors(path) if path.suffix == ".safetensors" else (_read_torch(path), {})
    state = _tidy(_unwrap(raw, path))
    _refuse_others(state, path)
    try:
        config = CONFIGS.get(metadata.get("architecture", "")) or detect_config(state)
    except CheckpointError as error:
        raise CheckpointError(f"{path} is {error}") from None
    return config, state


def load_sam(path: PathLike, config: SamConfig | None = None, attention: AttentionPath = "fast") -> Sam:
    """Build the model that a weight file belongs to and fill it, in float32 and `eval` mode.

    Parameters
    ----------
    path : path
        As for `load_checkpoint`.
    config : SamConfig, optional
        Architecture to insist on; told from the file by default.
    attention : "fast" or "explicit"
        As for `build_sam`.

    Raises
    ------
    ModelNotFoundError, CheckpointError
        As `load_checkpoint`; also when tensors are missing, unknown or of another shape.
    """
    found, state = load_checkpoint(path)
    with torch.device("meta"):  # no weights are drawn only to be overwritten
        sam = build_sam(config or found, attention)
    fill(sam, state, str(path))
    return sam.eval()


def fill(sam: Sam, state: Mapping[str, Tensor], source: str) -> None:
    """Put tensors into a model, all of them or none.

    Raises
    ------
    CheckpointError
        Lists what is missing, unknown or of another shape. `source` names the culprit.
    """
    wanted = sam.state_dict()
    given = dict(state)
    for key in wanted:
        if key.endswith(_COUNTER):
            given.setdefault(key, torch.zeros((), dtype=torch.int64))
    common = wanted.keys() & given.keys()
    problems = {
        "missing": sorted(wanted.keys() - common),
        "unexpected": sorted(given.keys() - common),
        "misshaped": [
            f"{key} is {tuple(given[key].shape)}, not {tuple(wanted[key].shape)}"
            for key in sorted(common)
            if given[key].shape != wanted[key].shape
        ],
    }
    if any(problems.values()):
        listed = "; ".join(_listing(kind, names) for kind, names in problems.items() if names)
        raise CheckpointError(
            f"{source} does not fit the architecture {sam.config.name!r}: {listed}. "
            "Use the file that belongs to this model, or let the architecture be detected"
        )
    sam.load_state_dict(given, assign=True)


def save_safetensors(
    sam: Sam,
    path: PathLike,
    dtype: torch.dtype = torch.float16,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a model, with the name of its architecture, in one step (a failed write leaves the old file).

    Parameters
    ----------
    sam : Sam
        Model to write.
    path : path
        Ends in `.safetensors`.
    dtype : torch.dtype
        Precision of weight matrices. Vectors (biases, statistics) and the frequencies of the position
        encoding are few and sensitive; they stay float32.
    metadata : mapping of str to str, optional
        Stored beside the tensors.

    Raises
    ------
    CheckpointError
        A weight does not fit into `dtype`.
    """
    path = Path(path)
    state = {key: value for key, value in sam.state_dict().items() if not key.endswith(_COUNTER)}
    tensors = {key: _stored(key, value, dtype) for key, value in state.items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file(tensors, partial, {"format": "pt", "architecture": sam.config.name, **(metadata or {})})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def encoder_digest(sam: Sam) -> str:
    """32 hexadecimal digits that name the weights of the image encoder.

    Depends on names, shapes and float32 values only: not on device, memory layout or how they were stored.
    """
    digest = hashlib.blake2b(digest_size=16)
    for key, value in sorted(sam.image_encoder.state_dict().items()):
        if not key.endswith(_COUNTER):
            tensor = value.detach().to("cpu", torch.float32).contiguous()
            digest.update(f"{key}{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().data)
    return digest.hexdigest()


def _stored(key: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    sensitive = value.ndim < 2 or "positional_encoding" in key
    stored = value.detach().to("cpu", torch.float32 if sensitive else dtype).contiguous()
    if not stored.isfinite().all():
        raise CheckpointError(f"{key} holds numbers that are not finite in {dtype}; save as torch.float32")
    return stored


def _listing(kind: str, names: list[str], shown: int = 3) -> str:
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{len(names)} {kind} ({', '.join(names[:shown])}{rest})"


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a complete safetensors file ({error}); fetch it again"
        ) from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_why_unreadable(path)) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is damaged or incomplete ({path.stat().st_size} bytes: {_first_line(error)}); fetch it again"
        ) from error


def _why_unreadable(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(2)
    if start in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return (
            f"{path} holds Python objects besides tensors, which could run code when opened, so it is refused; "
            "save only the weights from where you trust it: torch.save(model.state_dict(), ...)"
        )
    return (
        f"{path} is not a torch checkpoint (it starts with {start!r}); give a .pt, .pth or .safetensors file"
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _unwrap(raw: Any, path: Path) -> dict[str, Tensor]:
    """The state dict inside what a file holds."""
    for wrapper in _WRAPPERS:
        if isinstance(raw, Mapping) and isinstance(raw.get(wrapper), Mapping):
            raw = raw[wrapper]
    if not isinstance(raw, Mapping) or not any(isinstance(value, Tensor) for value in raw.values()):
        raise CheckpointError(
            f"{path} holds a {type(raw).__name__} without tensors, not the weights of a model"
        )
    return {str(key): value for key, value in raw.items() if isinstance(value, Tensor)}


def _tidy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the trainer's prefix, tensors nothing here uses left out, all floats in float32."""
    named = {key.removeprefix("sam."): value for key, value in state.items()}
    if any(key.startswith("image_encoder.") for key in named):
        named = {key: value for key, value in named.items() if not key.startswith((*_UNUSED, *_AIS))}
    return {key: value.float() if value.is_floating_point() else value for key, value in named.items()}


def _refuse_others(state: Mapping[str, Tensor], path: Path) -> None:
    """Say what the file is when it is something we know but cannot use."""
    if any(mark in key for key in state for mark in _LORA):
        raise CheckpointError(
            f"{path} was fine-tuned with LoRA; merge its layers into the weights first, then load the result"
        )
    if state and all(key.startswith(_AIS) for key in state):
        raise CheckpointError(
            f"{path} is micro-sam's decoder for automatic segmentation, not a whole model; "
            "load the encoder file it belongs to"
        )
    for mark, what in _FOREIGN.items():
        if any(key.startswith(mark) for key in state):
            raise CheckpointError(f"{path} is {what}, which this program does not run; use a SAM checkpoint")
