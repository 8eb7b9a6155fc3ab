"""``napari-sam evaluate``: measure a model on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_sam.cli import options as o


def evaluate(  # noqa: PLR0913 - a command's parameters are its options
    data: Annotated[
        Path,
        typer.Argument(
            help="Folder of NAME_img.png|tif with NAME_lbl.tif, or of such folders.", show_default=False
        ),
    ],
    model: o.Model = "default",
    json: Annotated[Path | None, typer.Option(help="Write all figures here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw IoU against clicks here: .png, .svg, .pdf.")] = None,
    clicks: Annotated[int, typer.Option(min=5, help="Most clicks an object gets.")] = 20,
    objects: Annotated[int, typer.Option(min=0, help="Most objects of an image; 0 for all.")] = 0,
    images: Annotated[int, typer.Option(min=0, help="Most images of a set; 0 for all.")] = 0,
    planes: Annotated[int, typer.Option(min=0, help="Most planes of a volume; 0 for all.")] = 0,
    volume_objects: Annotated[
        int, typer.Option(min=-1, help="Most objects carried through each volume; 0 for all, -1 for none.")
    ] = 0,
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    object_diameter: o.ObjectDiameter = None,
) -> None:
    """Click and box every labelled object, and print how well the model's default answers fit.

    Objects of volumes are also carried through them from one click, and again after one correction.

    Example:  napari-sam evaluate labelled/ --model default --json figures.json --plot clicks.png
    """
    from json import dumps

    from napari_sam.cli.measure import gather, measure
    from napari_sam.cli.volumes import VolumeResult
    from napari_sam.inference.predictor import load_model
    from napari_sam.io.atomic import check_new, replace_text
    from napari_sam.training.curves import check_picture
    from napari_sam.training.evaluate import EvaluationLimits, check_pairs, row

    # what would fail at the end fails before hours of measuring
    data = data.expanduser()
    json, plot = (path and path.expanduser() for path in (json, plot))
    if json is not None:
        check_new(json, overwrite=True)
    if plot is not None:
        check_picture(plot)
    check_pairs(data)
    limits = EvaluationLimits(clicks=clicks, objects=objects, images=images, planes=planes)
    predictor = load_model(model, device=device, dtype=dtype, object_diameter=object_diameter, progress=True)
    results = []
    for result in measure(data, predictor, limits, volume_objects):
        results.append(result)
        typer.echo(result.row() if isinstance(result, VolumeResult) else row(result))
    found = gather(results, limits)
    typer.echo("\n" + found.table())
    if json is not None:
        replace_text(json, dumps(found.to_dict(), indent=1))
    if plot is not None:
        found.plot(plot)
