"""``napari-sam evaluate``: measure a model on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_sam.cli import options as o


def evaluate(  # noqa: PLR0913 - a command's parameters are its options
    data: Annotated[
        Path, typer.Argument(help="Folder of sets of NAME_img.png|tif with NAME_lbl.tif.", show_default=False)
    ],
    model: o.Model = "default",
    json: Annotated[Path | None, typer.Option(help="Write all figures here.")] = None,
    clicks: Annotated[int, typer.Option(min=5, help="Most clicks an object gets.")] = 20,
    objects: Annotated[int, typer.Option(help="Most objects of an image; 0 for all.")] = 0,
    images: Annotated[int, typer.Option(help="Most images of a set; 0 for all.")] = 0,
    planes: Annotated[int, typer.Option(help="Most planes of a volume; 0 for all.")] = 0,
    volume_objects: Annotated[
        int, typer.Option(help="Most objects carried through each of volumes/; 0 for all, -1 for none.")
    ] = 20,
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
) -> None:
    """Click and box every labelled object, and print how well the model's default answers fit.

    Objects in the folder volumes/ are also carried through their volume from one click.

    Example:  napari-sam evaluate labelled/ --model default --json figures.json
    """
    from dataclasses import asdict
    from json import dumps

    from napari_sam.cli.volumes import evaluate_volumes
    from napari_sam.inference.predictor import load_model
    from napari_sam.training.evaluate import Evaluation, EvaluationLimits, evaluate_sets, row
    from napari_sam.training.packed import find_pairs

    limits = EvaluationLimits(clicks, objects, images, planes, volume_objects)
    predictor = load_model(model, device=device, dtype=dtype)
    results = []
    for result in evaluate_sets(data.expanduser(), predictor, limits):
        results.append(result)
        typer.echo(row(result))
    figures = Evaluation(tuple(results), limits)
    typer.echo("mean  " + "  ".join(f"{name} {value:.3f}" for name, value in figures.mean.items()))
    pairs = find_pairs(data.expanduser() / "volumes") if volume_objects >= 0 else []
    volumes = [one for pair in pairs for one in evaluate_volumes([pair], predictor, most=volume_objects)]
    for one in volumes:
        typer.echo(one.row())
    if json is not None:
        json.expanduser().write_text(
            dumps({**figures.to_dict(), "volumes": [asdict(one) for one in volumes]}, indent=1)
        )
