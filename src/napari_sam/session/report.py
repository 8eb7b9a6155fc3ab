"""``session.json``: what a session was done with, in a form that can be attached to a publication."""

from __future__ import annotations

import json
import platform
from dataclasses import fields, is_dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from napari_sam import __version__
from napari_sam.core.contrast import Contrast
from napari_sam.io.atomic import replace_text
from napari_sam.session.journal import FILE_NAME, read_journal
from napari_sam.session.made import MadeWith
from napari_sam.session.recovery import Story

REPORT_NAME = "session.json"
PACKAGES = ("numpy", "torch", "zarr", "scikit-image", "napari")


def write_report(folder: str | Path, target: str | Path | None = None) -> Path:
    """Write the ``session.json`` of a session, into its folder or another one, and return its path.

    Raises
    ------
    SessionError, ExportError
        The journal cannot be read; the file cannot be written.
    """
    path = Path(target or folder) / REPORT_NAME
    replace_text(path, json.dumps(describe(folder), indent=2, ensure_ascii=False) + "\n")
    return path


def describe(folder: str | Path) -> dict[str, Any]:
    """What a session was done with: program, image, models, contrast, settings, objects.

    Raises
    ------
    SessionError
        There is no journal, or it is damaged in the middle.
    """
    story = Story(Path(folder))
    begun = ""
    for at, record in read_journal(story.folder / FILE_NAME):
        begun = begun or record["time"]
        story.take(at, record)
    planes: dict[int, list[int]] = {}
    for object_id, plane in story.places:
        planes.setdefault(object_id, []).append(plane.index)
    return {
        "program": {"name": "napari-sam-volumes", "versions": list(dict.fromkeys(story.versions))},
        "described_with": {
            "napari-sam-volumes": __version__,
            "python": platform.python_version(),
            **_packages(),
        },
        "begun": begun,
        "ended": story.ended,
        "image": _image(story),
        "labels": story.labels.get("path"),
        "models": _models(story),
        "contrast": {str(time): _contrast(c) for time, c in story.contrasts.items()},
        "settings": {name: _plain(value) for name, value in sorted(story.settings.items())},
        "steps": story.n_steps,
        "objects": [_object(story, object_id, indices) for object_id, indices in sorted(planes.items())],
    }


def _object(story: Story, object_id: int, indices: list[int]) -> dict[str, Any]:
    record = story.objects[object_id]
    return {
        "id": object_id,
        "name": record.name,
        "class": record.class_name,
        "state": str(record.state),
        "points": len(record.marks.points),
        "shapes": len(record.marks.shapes),
        "planes": len(indices),
        "first_plane": min(indices),
        "last_plane": max(indices),
        "scale": record.scale,
        "made_with": {str(time): _made_with(story, how) for time, how in sorted(record.made_with.items())},
    }


def _made_with(story: Story, how: MadeWith) -> dict[str, Any]:
    hashes = {w.get("encoder_digest"): w.get("file_hash") for w in story.weights}
    return {
        "model": how.model.name,
        "encoder_digest": how.encoder_digest,
        "file_hash": hashes.get(how.encoder_digest),
        "contrast": _contrast(how.contrast) if how.contrast is not None else None,
        "propagation": _plain(how.settings),
    }


def _image(story: Story) -> dict[str, Any]:
    if story.image is None:
        return {}
    pixels = {
        f"axis {p.axis}, index {p.index}, level {p.level}, time {p.time}": digest
        for p, digest in sorted(story.digests.items())
    }
    return {**story.image.to_json(story.folder), "pixel_digest": "xxh3-128", "planes_used": pixels}


def _models(story: Story) -> list[dict[str, Any]]:
    """The models that were loaded; those whose weights never arrived are left out."""
    known = {weights["number"]: weights for weights in story.weights}
    return [
        {"name": spec.name, "asked_device": spec.device, "asked_dtype": spec.dtype, **known[number]}
        for number, spec in enumerate(story.models, 1)
        if number in known
    ]


def _contrast(contrast: Contrast) -> dict[str, Any]:
    return {"black": list(contrast.lower), "white": list(contrast.upper), "digest": contrast.digest}


def _plain(value: Any) -> Any:
    """A value for people: enums by their value, dataclasses by their fields."""
    match value:
        case Enum():
            return value.value
        case tuple() | list() | range():
            return [_plain(one) for one in value]
        case Path():
            return str(value)
        case _ if is_dataclass(value):
            return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    return value


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
