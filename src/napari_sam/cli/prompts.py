"""The prompts file of ``napari-sam segment``: JSON to `PromptSet`, with errors that name the place.

The schema is in ``docs/headless.md``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from napari_sam.core.arrays import BoolArray
from napari_sam.core.geometry import polygon_mask
from napari_sam.core.planes import PlaneRef, Shape2D
from napari_sam.core.prompts import PromptSet, merge_prompts
from napari_sam.core.protocols import VolumeLike
from napari_sam.errors import NapariSamError, PromptError
from napari_sam.propagation.settings import Between, Carry, Direction, Fusion, PropagationSettings

MAX_ID = 2**64 - 1
_ENTRY = ("plane", "positive", "negative", "box", "polygon", "mask")


@dataclass(frozen=True, slots=True)
class ObjectPrompts:
    """One object: its id, its name or "", and its prompts by plane index."""

    object_id: int
    name: str
    planes: Mapping[int, PromptSet]


@dataclass(frozen=True, slots=True)
class PromptFile:
    """A whole prompts file."""

    axis: int
    level: int
    time: int
    objects: tuple[ObjectPrompts, ...]
    settings: PropagationSettings

    @property
    def seeds(self) -> dict[int, Mapping[int, PromptSet]]:
        """Object id -> plane index -> prompts."""
        return {one.object_id: one.planes for one in self.objects}

    @property
    def planes(self) -> list[PlaneRef]:
        """All planes that have prompts, in order."""
        indices = sorted({index for one in self.objects for index in one.planes})
        return [PlaneRef(self.axis, index, self.level, self.time) for index in indices]

    def in_plane(self, index: int) -> dict[int, PromptSet]:
        """Object id -> prompts, of the objects with prompts in this plane."""
        return {one.object_id: one.planes[index] for one in self.objects if index in one.planes}


def read_prompts(path: Path, volume: VolumeLike) -> PromptFile:
    """Read and check a prompts file against the volume it is for.

    Raises
    ------
    PromptError
        The file cannot be read, or something in it is wrong; the message names the object and the field.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_named_once)
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"cannot read the prompts file {path}: {error}; check the path") from error
    except json.JSONDecodeError as error:
        raise PromptError(f"{path.name} is not valid JSON: {error}; correct that line") from error
    except RecursionError as error:
        raise PromptError(f"{path.name} is no prompts file: its brackets are too deep") from error
    return _Reader(volume, path.parent).file(_Node(content, path.name))


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of two values under one name the first would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise PromptError(f"the prompts file has {twice!r} twice in one place; keep one of them")
    return found


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)


@dataclass(frozen=True, slots=True)
class _Node:
    """A JSON value and where it stands."""

    value: Any
    where: str

    def fail(self, wanted: str) -> NoReturn:
        shown = json.dumps(self.value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        raise PromptError(f"{self.where} must be {wanted}, got {shown}")

    def fields(self, known: Sequence[str], needed: Sequence[str] = ()) -> dict[str, _Node]:
        if not isinstance(self.value, dict):
            self.fail("an object {...}")
        for name in self.value:
            if name not in known:
                raise PromptError(f"{self.where} has an unknown field {name!r}; known are {', '.join(known)}")
        for name in needed:
            if name not in self.value:
                raise PromptError(f"{self.where} lacks the field {name!r}; add it")
        return {name: _Node(value, f"{self.where}: {name}") for name, value in self.value.items()}

    def items(self, count: int | None = None) -> list[_Node]:
        if not isinstance(self.value, list) or count not in (None, len(self.value)):
            self.fail("a list [...]" if count is None else f"a list of {count}")
        return [_Node(value, f"{self.where}[{i}]") for i, value in enumerate(self.value)]

    def integer(self, low: int, high: int | None = None) -> int:
        value = self.value
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or value < low or (high is not None and value > high):
            self.fail(f"a whole number from {low}" + (f" to {high}" if high is not None else ""))
        return int(value)

    def number(self) -> float:
        if not _is_finite(self.value):
            self.fail("a finite number")
        return float(self.value)

    def truth(self) -> bool:
        if not isinstance(self.value, bool):
            self.fail("true or false")
        return bool(self.value)

    def word(self, known: type[StrEnum]) -> str:
        if self.value not in list(known):
            self.fail("one of " + ", ".join(known))
        return str(self.value)

    def numbers(self, count: int, what: str) -> list[float]:
        value = self.value if isinstance(self.value, list) else []
        if len(value) != count or not all(_is_finite(v) for v in value):
            self.fail(f"{what}: {count} finite numbers")
        return [float(v) for v in value]

    def text(self) -> str:
        if not isinstance(self.value, str):
            self.fail("text")
        return str(self.value)

    def points(self) -> list[list[float]]:
        return [item.numbers(2, "a point [y, x]") for item in self.items()]


def read_settings(node: _Node) -> PropagationSettings:
    """The optional section on how objects are carried; a field set to null turns its rule off."""
    rules = ("min_iou", "max_area_change", "min_predicted_iou", "min_likeness", "min_presence")
    numbers = ("box_margin", "bridge_iou", "snap_iou")
    truths = ("follow_motion", "fill_gaps", "part_by_logit")
    words = {"direction": Direction, "fusion": Fusion, "between": Between}
    given: dict[str, Any] = {}
    for name, field in node.fields(
        ("carry", "plane_range", "bridge", *rules, *numbers, *truths, *words)
    ).items():
        if name in (*rules, *numbers):
            given[name] = None if field.value is None and name in rules else field.number()
        elif name == "plane_range":
            given[name] = tuple(item.integer(0) for item in field.items(2))
        elif name == "carry":
            given[name] = tuple(item.word(Carry) for item in field.items())
        elif name == "bridge":
            given[name] = field.integer(0)
        else:
            given[name] = field.truth() if name in truths else field.word(words[name])
    try:
        return PropagationSettings(**given)
    except PromptError as error:
        raise PromptError(f"{node.where}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Reader:
    volume: VolumeLike
    folder: Path

    def file(self, node: _Node) -> PromptFile:
        fields = node.fields(("axis", "level", "time", "objects", "propagation"), ("objects",))
        axis = fields["axis"].integer(0, 2) if "axis" in fields else 0
        level = fields["level"].integer(0, self.volume.n_levels - 1) if "level" in fields else 0
        time = fields["time"].integer(0, self.volume.n_time - 1) if "time" in fields else 0
        items = fields["objects"].items()
        if not items:
            raise PromptError(f"{node.where}: objects is empty; add at least one object")
        plane = PlaneRef(axis, 0, level, time)
        objects = tuple(self.object(item, plane) for item in items)
        ids = [one.object_id for one in objects]
        for i, object_id in enumerate(ids):
            if object_id in ids[:i]:
                raise PromptError(
                    f"{items[i].where}: id {object_id} is used twice; give every object its own"
                )
        settings = read_settings(fields["propagation"]) if "propagation" in fields else PropagationSettings()
        return PromptFile(axis, level, time, objects, settings)

    def object(self, node: _Node, plane: PlaneRef) -> ObjectPrompts:
        fields = node.fields(("id", "name", "prompts"), ("id", "prompts"))
        object_id = fields["id"].integer(1)
        if object_id > MAX_ID:
            fields["id"].fail(f"at most {MAX_ID}")
        listed = _Node(fields["prompts"].value, f"object {object_id}: prompts").items()
        if not listed:
            raise PromptError(f"object {object_id} has no prompts; give it at least one point, box or mask")
        collected: dict[int, list[PromptSet]] = {}
        for entry in listed:
            index, prompts = self.entry(entry, plane)
            collected.setdefault(index, []).append(prompts)
        name = fields["name"].text() if "name" in fields else ""
        merged = {index: merge_prompts(sets) for index, sets in sorted(collected.items())}
        return ObjectPrompts(object_id, name, merged)

    def entry(self, node: _Node, plane: PlaneRef) -> tuple[int, PromptSet]:
        fields = node.fields(_ENTRY, ("plane",))
        n_planes = self.volume.shape_zyx(plane.level)[plane.axis]
        index = fields["plane"].integer(0, n_planes - 1)
        shape = self.volume.plane_shape(plane.axis, plane.level)
        try:
            prompts = self.prompts(fields, shape)
            prompts.check_inside(shape)
        except PromptError as error:
            text = str(error)
            raise PromptError(text if text.startswith(node.where) else f"{node.where}: {text}") from error
        return index, prompts

    def prompts(self, fields: dict[str, _Node], shape: Shape2D) -> PromptSet:
        positive = fields["positive"].points() if "positive" in fields else []
        negative = fields["negative"].points() if "negative" in fields else []
        points = np.array([*positive, *negative], np.float64).reshape(-1, 2)
        polarity = np.arange(len(points)) < len(positive)
        box = fields["box"].numbers(4, "a box [y0, x0, y1, x1]") if "box" in fields else None
        sets = [self.polygon(fields["polygon"], shape)] if "polygon" in fields else []
        if "mask" in fields:
            sets.append(PromptSet(mask=self.mask(fields["mask"], shape)))
        if positive or negative or box is not None or not sets:
            sets.append(PromptSet(points, polarity, None if box is None else np.array(box)))
        return merge_prompts(sets)

    def polygon(self, node: _Node, shape: Shape2D) -> PromptSet:
        """A box and a mask prompt of the same outline."""
        vertices = np.array(node.points(), np.float64).reshape(-1, 2)
        if len(vertices) < 3:
            node.fail("a polygon of at least 3 points [y, x]")
        box = np.concatenate([vertices.min(0), vertices.max(0)])
        return PromptSet(box_yxyx=box, mask=polygon_mask(vertices, shape))

    def mask(self, node: _Node, shape: Shape2D) -> BoolArray:
        """A 2D TIFF or zarr beside the prompts file: nonzero is inside."""
        from napari_sam.io.volume import open_volume

        path = self.folder / node.text()
        try:
            with open_volume(path, axes="YX") as image:
                mask = image.read_plane(PlaneRef(0, 0)) != 0
        except NapariSamError as error:
            raise PromptError(f"{node.where}: cannot read the mask {path}: {error}") from error
        if mask.shape != shape:
            raise PromptError(f"{node.where}: {path.name} has shape {mask.shape}, the plane has {shape}")
        return np.asarray(mask)
