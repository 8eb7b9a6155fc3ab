"""``session.json``: what a session was done with, in a form that can be attached to a publication."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from napari_sam import __version__
from napari_sam.core.contrast import Contrast
from napari_sam.io.atomic import replace_text
from napari_sam.session.codec import encode
from napari_sam.session.journal import FILE_NAME, read_journal
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
        "objects": [
            {
                "id": object_id,
                "points": len(story.objects[object_id].marks.points),
                "shapes": len(story.objects[object_id].marks.shapes),
                "planes": len(indices),
                "first_plane": min(indices),
                "last_plane": max(indices),
                "scale": story.objects[object_id].scale,
            }
            for object_id, indices in sorted(planes.items())
        ],
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
    """A setting for people: enums by their value, models by their fields."""
    plain = encode(value)
    if isinstance(plain, dict):
        items = plain.get("value", plain.get("items"))
        return items if items is not None else {k: _plain(v) for k, v in plain.items() if k != "!"}
    return plain


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
