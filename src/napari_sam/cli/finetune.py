"""``napari-sam finetune``: learn from the user's own labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_sam.cli import options as o

STEPS_A_LINE = 20


def finetune(  # noqa: PLR0913 - a command's parameters are its options
    data: Annotated[
        Path, typer.Argument(help="Folder of NAME_img.png|tif with NAME_lbl.tif.", show_default=False)
    ],
    model: o.Model = "default",
    name: Annotated[
        str, typer.Option(help="Name of the new model; made of model and data if left out.")
    ] = "",
    output: Annotated[Path | None, typer.Option(help="Write a copy of the file here: .safetensors.")] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="What learns: decoder (quick), all (learns more), or lora (adapters on the encoder)."
        ),
    ] = "decoder",
    minutes: Annotated[float, typer.Option(min=0.01, help="Time to spend.")] = 10.0,
    planes: Annotated[
        str | None, typer.Option(help="Labelled planes of volumes, as 0:20; all with labels if left out.")
    ] = None,
    steps: Annotated[int, typer.Option(min=0, help="End after so many steps instead; repeats exactly.")] = 0,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: o.Device = "auto",
    overwrite: Annotated[bool, typer.Option(help="Replace a model of yours with this name.")] = False,
) -> None:
    """Make a model better at your images, from a few of them with labels.

    A part of the labels is kept out; the weights that do best on it are saved, and the new model is listed
    by `napari-sam models` and in napari. Ctrl-C stops it and keeps the best so far.

    Example:  napari-sam finetune labelled/ --model default --name neurites --minutes 10
    """
    from napari_sam.inference.registry import fetch_model
    from napari_sam.training.adapters import need_peft
    from napari_sam.training.finetune import FinetuneSettings, Mode, describe
    from napari_sam.training.finetune import finetune as run

    settings = FinetuneSettings(mode=mode, minutes=minutes, max_steps=steps, seed=seed, device=device)
    if settings.mode is Mode.LORA:
        need_peft()
    fetch_model(model, progress=True)
    events = run(
        data,
        model,
        name=name,
        output=output,
        planes=parse_slice(planes),
        settings=settings,
        overwrite=overwrite,
    )
    path = None
    try:
        for event in events:
            path = event.path or path
            if event.kind not in ("step", "encoding") or event.step % STEPS_A_LINE == 1:
                typer.echo(describe(event))
    finally:
        events.close()
        if path is not None:
            typer.echo(f"saved {path}; use it as --model {path.stem}")


def parse_slice(text: str | None) -> slice | None:
    """0:20, 5:, :20 or a single plane."""
    if text is None:
        return None
    first, colon, end = text.partition(":")
    try:
        start = int(first) if first else None
        stop = int(end) if end else None
    except ValueError as error:
        raise typer.BadParameter(f"--planes must look like 10:20, 10: or :20, got {text!r}") from error
    return slice(start, stop) if colon else slice(start, (start or 0) + 1)
