"""``napari-sam demo``: the whole way on a real volume, from clicks to files and a picture."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_sam.cli import options as o

if TYPE_CHECKING:
    from napari_sam.cli.jobs import Job
    from napari_sam.cli.prompts import PromptFile
    from napari_sam.io.volume import Volume

_PROMPTS = Path(__file__).with_name("demo_prompts.json")
_MADE = ("prompts.json", "labels.ome.zarr", "labels.ome.tif", "picture.png")
_SAMPLE = "chloroplasts"
_SHOWN = 4


def demo(
    output: Annotated[Path, typer.Option(help="Folder for what it makes.")] = Path("demo-output"),
    model: o.Model = "default",
    cache: o.Cache = None,
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files in the folder that no earlier demo made.")
    ] = False,
) -> None:
    """Segment chloroplasts in a real electron microscopy volume, in a part of it that the model was not trained on.

    Encodes its planes, carries eight clicked objects through them, saves labels as OME-Zarr and OME-TIFF,
    draws a picture, and compares with the labels published with the volume.

    Example:  napari-sam demo --output demo-output
    """
    from napari_sam.cli.jobs import make_job
    from napari_sam.cli.prompts import read_prompts
    from napari_sam.core.models import ModelSpec
    from napari_sam.io.samples import sample_path

    output = _folder(output, overwrite)
    shutil.copy(_PROMPTS, output / "prompts.json")
    typer.echo(f"volume   {sample_path(_SAMPLE)}")
    typer.echo(f"clicks   {output / 'prompts.json'}")
    with o.open_input(sample_path(_SAMPLE), None) as volume:
        asked = read_prompts(output / "prompts.json", volume)
        job = make_job(volume, None, ModelSpec(model, device, dtype), cache)
        labels = _segment(job, asked, volume, output)
        _draw(volume, labels, output / "picture.png")
    _compare(labels, asked)


def _folder(output: Path, overwrite: bool) -> Path:
    """Make the folder; what is there already is replaced only where it is from an earlier demo, or asked for."""
    from napari_sam.errors import ExportError

    output = output.expanduser().absolute()
    there = [name for name in _MADE if (output / name).exists()]
    if there and not overwrite and not _is_a_demo(output):
        raise ExportError(
            f"{output} holds {', '.join(there)}, which no demo made; choose another --output or pass --overwrite"
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"cannot make the folder {output}: {error}; choose another --output") from error
    return output


def _is_a_demo(output: Path) -> bool:
    prompts = output / "prompts.json"
    return prompts.is_file() and prompts.read_bytes() == _PROMPTS.read_bytes()


@contextmanager
def _timed(what: str) -> Iterator[None]:
    started = perf_counter()
    yield
    typer.echo(f"{what}: {perf_counter() - started:.1f} s")


def _segment(job: Job, asked: PromptFile, volume: Volume, output: Path) -> Any:
    """Encode, propagate, save twice; returns the labels, (Z, Y, X)."""
    from napari_sam.cli.jobs import Journey, open_encoder, travel
    from napari_sam.cli.labelling import create_partial, fill, partial_path
    from napari_sam.cli.segment import save
    from napari_sam.core.planes import PlaneRef
    from napari_sam.inference.precompute import precompute

    zarr_path, tiff_path = output / "labels.ome.zarr", output / "labels.ome.tif"
    first = asked.planes[0].at(0)
    planes = [PlaneRef(first.axis, i) for i in range(volume.shape_zyx()[first.axis])]
    with _timed("loaded the model"):
        encoder = open_encoder(job)
    with _timed(f"encoded {len(planes)} planes of {volume.plane_shape(first.axis)} pixels"):
        for _ in o.progress(precompute(encoder, planes), len(planes), "encode"):
            pass
    labels = create_partial(zarr_path, volume, first, max(asked.seeds))
    with _timed(f"carried {len(asked.objects)} objects through them"):
        tally = fill(
            labels, o.progress(travel(job, Journey(first, asked.seeds, asked.settings)), None, "carry")
        )
    with _timed(f"saved {zarr_path} and {tiff_path}"):
        save(labels, zarr_path, volume, asked, overwrite=True)
        save(labels, tiff_path, volume, asked, overwrite=True)
    voxels = labels[:]
    shutil.rmtree(partial_path(zarr_path))
    for one in asked.objects:
        typer.echo(tally.describe(one.object_id, one.name))
    return voxels


def _truth() -> Any:
    import numpy as np

    from napari_sam.core.planes import PlaneRef
    from napari_sam.io.samples import open_sample

    with open_sample(_SAMPLE, "labels") as labels:
        return np.stack([labels.read_plane(PlaneRef(0, i)) for i in range(labels.shape_zyx()[0])])


def _compare(labels: Any, asked: PromptFile) -> None:
    """3D IoU of each object with the published object under its click."""
    truth, ious = _truth(), []
    for one in asked.objects:
        index, prompts = next(iter(one.planes.items()))
        y, x = prompts.points_yx[0].round().astype(int)
        theirs, ours = truth == truth[index, y, x], labels == one.object_id
        ious.append((theirs & ours).sum() / (theirs | ours).sum())
        typer.echo(f"object {one.object_id}: IoU with the published labels {ious[-1]:.3f}")
    typer.echo(f"mean 3D IoU of {len(ious)} objects from one click each: {sum(ious) / len(ious):.3f}")


def _draw(volume: Volume, labels: Any, path: Path) -> None:
    """Planes side by side with outlines: above what was found, below the published labels."""
    import numpy as np
    from skimage.io import imsave

    from napari_sam.core.planes import PlaneRef

    truth = _truth()
    indices = np.linspace(0, len(labels) - 1, _SHOWN).round().astype(int)
    images = [volume.read_plane(PlaneRef(0, int(i))) for i in indices]
    rows = [
        np.concatenate([_outlined(image, found[i]) for image, i in zip(images, indices, strict=True)], axis=1)
        for found in (labels, truth)
    ]
    imsave(path, np.concatenate(rows), check_contrast=False)
    typer.echo(f"drew {path} (planes {', '.join(map(str, indices))}; above found, below published)")


def _outlined(image: Any, labels: Any) -> Any:
    """(H, W, 3) uint8: grey image, one colour a label along its border, a white frame."""
    import numpy as np
    from skimage.segmentation import find_boundaries

    rgb = np.repeat(image[..., None], 3, axis=2)
    edge = find_boundaries(labels, mode="thick") & (labels > 0)
    hues = (labels[edge].astype(float)[:, None] * 0.618 + np.array([0, 1 / 3, 2 / 3])) % 1
    rgb[edge] = (255 * np.clip(1.5 - 3 * np.abs(hues - 0.5), 0.1, 1)).astype(np.uint8)
    rgb[:, -2:] = rgb[-2:] = 255
    return rgb
