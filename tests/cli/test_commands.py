"""Commands with a predictor that knows the truth: what they write, say and return."""

import json

import numpy as np
import pytest
import tifffile
import zarr

from napari_sam.cli import demo, labelling
from napari_sam.cli.segment import check_level
from napari_sam.core.planes import PlaneRef, Region
from napari_sam.core.results import DOUBTFUL, Doubt, DoubtReason, PropagationStep
from napari_sam.errors import ExportError
from napari_sam.io.save import save_labels
from napari_sam.io.volume import open_volume
from napari_sam.testing.phantoms import drifting_disc_volume


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.tif"])
def test_segment_propagates_and_saves(
    call, image_path, prompts_path, phantom, fake_model, tmp_path, read_labels, name
):
    out = tmp_path / name
    code, said, warned = call(
        "segment", image_path, "--prompts", prompts_path, "--output", out, "--propagate"
    )
    assert code == 0, warned
    np.testing.assert_array_equal(read_labels(out), phantom.labels)
    assert "object 1 (left): planes 2-16" in said
    assert "the mask became empty" in said
    assert not labelling.partial_path(out).exists()


def test_segment_without_propagation_fills_the_prompted_plane(
    call, image_path, prompts_path, phantom, fake_model, tmp_path, read_labels
):
    out = tmp_path / "out.ome.zarr"
    code, _, _ = call("segment", image_path, "--prompts", prompts_path, "--output", out)
    assert code == 0
    labels = read_labels(out)
    np.testing.assert_array_equal(labels[9], phantom.labels[9])
    assert not labels[8].any()
    assert fake_model.n_encodes == 1


@pytest.mark.parametrize("axis", [1, 2])
def test_segment_along_another_axis(call, image_path, phantom, fake_model, tmp_path, read_labels, axis):
    points = {1: (24, [9, 58]), 2: (58, [9, 24])}
    index, point = points[axis]
    objects = [{"id": 2, "prompts": [{"plane": index, "positive": [point]}]}]
    section = {"min_iou": None, "max_area_change": None}
    prompts = tmp_path / "p.json"
    prompts.write_text(json.dumps({"axis": axis, "objects": objects, "propagation": section}))
    out = tmp_path / "out.ome.zarr"
    code, _, err = call("segment", image_path, "--prompts", prompts, "--output", out, "--propagate")
    assert code == 0, err
    np.testing.assert_array_equal(read_labels(out), np.where(phantom.labels == 2, 2, 0))


def test_existing_output_is_refused_before_any_work(call, image_path, prompts_path, fake_model, tmp_path):
    out = tmp_path / "out.tif"
    out.write_bytes(b"precious")
    code, _, err = call("segment", image_path, "--prompts", prompts_path, "--output", out)
    assert code == 1
    assert "ExportError" in err
    assert "--overwrite" in err
    assert len(err.strip().splitlines()) == 1
    assert out.read_bytes() == b"precious"
    assert fake_model.n_encodes == 0


def test_overwrite_replaces(call, image_path, prompts_path, fake_model, tmp_path, phantom, read_labels):
    out = tmp_path / "out.tif"
    save_labels(np.ones((2, 3, 4), np.uint8), out)
    arguments = (
        "segment",
        image_path,
        "--prompts",
        prompts_path,
        "--output",
        out,
        "--propagate",
        "--overwrite",
    )
    assert call(*arguments)[0] == 0
    np.testing.assert_array_equal(read_labels(out), phantom.labels)


def test_the_image_is_never_replaced(call, prompts_path, phantom, fake_model, tmp_path):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, phantom.image)
    before = path.read_bytes()
    (tmp_path / "inner").mkdir()
    for out in (path, tmp_path / "inner" / ".." / "image.tif"):
        code, _, err = call("segment", path, "--prompts", prompts_path, "--output", out, "--overwrite")
        assert code == 1
        assert "is being read from" in err
    assert path.read_bytes() == before
    assert fake_model.n_encodes == 0


def write_ome_zarr(path, image):
    """An image of one level as OME-Zarr."""
    axes = [{"name": a, "type": "space"} for a in "zyx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    multiscale = {"axes": axes, "datasets": datasets}
    group = zarr.create_group(path, attributes={"ome": {"version": "0.5", "multiscales": [multiscale]}})
    group.create_array("0", data=image)


def test_labels_join_the_image(call, prompts_path, phantom, fake_model, tmp_path, read_labels):
    image = tmp_path / "image.ome.zarr"
    write_ome_zarr(image, phantom.image)
    before, out = {p.name for p in tmp_path.iterdir()}, image / "labels" / "cells"
    asked = ("segment", image, "--prompts", prompts_path, "--output", out, "--propagate")
    code, said, err = call(*asked)
    assert code == 0, err
    assert f"saved {out}" in said
    np.testing.assert_array_equal(read_labels(out), phantom.labels)
    assert {p.name for p in tmp_path.iterdir()} == before
    code, _, err = call(*asked)
    assert code == 1
    assert "--overwrite" in err


def test_labels_of_a_coarser_level_join_no_image(tmp_path):
    write_ome_zarr(tmp_path / "image.ome.zarr", np.ones((2, 3, 4), np.uint8))
    out = tmp_path / "image.ome.zarr" / "labels" / "cells"
    check_level(out, 0)
    check_level(tmp_path / "cells.ome.zarr", 1)
    with pytest.raises(ExportError, match="of level 0, the prompts of level 1"):
        check_level(out, 1)


@pytest.mark.parametrize("output", ["labels.png", "nowhere/labels.tif", "a" * 245 + ".tif"])
def test_output_that_cannot_be_written_is_refused(
    call, image_path, prompts_path, fake_model, tmp_path, output
):
    code, _, err = call("segment", image_path, "--prompts", prompts_path, "--output", tmp_path / output)
    assert code == 1
    assert "ExportError" in err


def test_bad_prompts_and_volume_are_one_line_each(call, image_path, prompts_path, fake_model, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text("[")
    code, _, err = call("segment", image_path, "--prompts", bad, "--output", tmp_path / "o.tif")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("PromptError")
    text = tmp_path / "text.tif"
    text.write_text("no image")
    code, _, err = call("segment", text, "--prompts", prompts_path, "--output", tmp_path / "o.tif")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith("VolumeError")


@pytest.mark.parametrize("name", ["prompts.json", "labels.ome.zarr", "labels.ome.tif", "picture.png"])
def test_demo_replaces_only_what_a_demo_made(call, fake_model, tmp_path, monkeypatch, name):
    (tmp_path / name).write_text("precious")
    code, _, err = call("demo", "--output", tmp_path)
    assert (code, fake_model.n_encodes) == (1, 0)
    assert f"holds {name}, which no demo made" in err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]

    def begun(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_segment", begun)
    assert call("demo", "--output", tmp_path, "--overwrite")[0] == 130
    assert call("demo", "--output", tmp_path)[0] == 130


def test_large_ids_are_kept_in_zarr_and_refused_for_tiff_before_any_work(
    call, image_path, fake_model, tmp_path, read_labels
):
    prompts, out = tmp_path / "p.json", tmp_path / "out.ome.zarr"
    one = {"id": 5_000_000_000, "prompts": [{"plane": 9, "positive": [[22, 20]]}]}
    prompts.write_text(json.dumps({"objects": [one]}))
    code, _, err = call("segment", image_path, "--prompts", prompts, "--output", tmp_path / "out.tif")
    assert (code, fake_model.n_encodes) == (1, 0)
    assert "id 5000000000 needs more than the 32 bits of out.tif" in err
    assert call("segment", image_path, "--prompts", prompts, "--output", out)[0] == 0
    assert np.unique(read_labels(out)).tolist() == [0, 5_000_000_000]
    assert not labelling.partial_path(tmp_path / "out.tif").exists()


def test_ctrl_c_keeps_what_was_finished_until_the_next_run(
    call, image_path, prompts_path, fake_model, tmp_path, phantom
):
    import zarr

    answer, calls = fake_model.predict_many, []

    def impatient(embedding, prompts):
        calls.append(1)
        if len(calls) > 5:  # two on the seed plane
            raise KeyboardInterrupt
        return answer(embedding, prompts)

    fake_model.predict_many = impatient
    out = tmp_path / "out.ome.zarr"
    code, _, err = call("segment", image_path, "--prompts", prompts_path, "--output", out, "--propagate")
    assert code == 130
    assert not out.exists()
    kept = labelling.partial_path(out)
    assert str(kept) in err
    assert "begins the masks anew" in err
    found = zarr.open_array(kept, mode="r")[:]
    assert len(np.flatnonzero(found.any((1, 2)))) == 4
    np.testing.assert_array_equal(found[9], phantom.labels[9])
    calls.clear()  # a second run asks for all masks again, as it was said
    assert call("segment", image_path, "--prompts", prompts_path, "--output", out, "--propagate")[0] == 130
    assert len(calls) == 6
    fake_model.predict_many = answer
    assert call("segment", image_path, "--prompts", prompts_path, "--output", out, "--propagate")[0] == 0
    assert not kept.exists()


def test_smaller_id_keeps_the_pixel_in_any_order():
    shape = (4, 6)
    left, right = np.zeros((2, *shape), bool)
    left[:, :4] = True
    right[:, 2:] = True
    steps = [
        PropagationStep(i, PlaneRef(0, 1), Region.from_mask(m), 0.9, 1.0) for i, m in ((1, left), (2, right))
    ]
    for order in (steps, steps[::-1]):
        labels = np.zeros((3, *shape), np.uint8)
        tally = labelling.fill(labels, order)
        assert labels[1, 0].tolist() == [1, 1, 1, 1, 2, 2]
        assert [tally.voxels[i].total() for i in (1, 2)] == np.bincount(labels.ravel())[1:].tolist()


def test_tally_describes_doubt_and_nothing():
    square = np.zeros((6, 6), bool)
    square[1:5, 1:5] = True
    doubt = Doubt.of({DoubtReason.AREA: DOUBTFUL})
    steps = [
        PropagationStep(3, PlaneRef(0, 2), Region.from_mask(square), 0.9, 0.4, doubt=doubt),
        PropagationStep(3, PlaneRef(0, 3), Region.from_mask(square), 0.9, 0.4),  # the window finds none, too
    ]
    tally = labelling.fill(np.zeros((4, 6, 6), np.uint8), steps)
    assert tally.describe(3, "cell") == "object 3 (cell): planes 2-3, 32 voxels; look at plane 2"
    assert "nothing was found" in tally.describe(4, "")
    assert tally.n_planes == 2


@pytest.mark.parametrize("order", [[2, 5], [5, 2]])
def test_an_object_that_lies_in_another_says_so(
    call, image_path, phantom, fake_model, tmp_path, read_labels, order
):
    prompts, out = tmp_path / "p.json", tmp_path / "out.ome.zarr"
    objects = [{"id": i, "prompts": [{"plane": 9, "positive": [[22, 20]]}]} for i in order]
    prompts.write_text(json.dumps({"objects": objects}))
    code, said, err = call("segment", image_path, "--prompts", prompts, "--output", out)
    assert code == 0, err
    assert f"object 2: planes 9-9, {(read_labels(out) == 2).sum()} voxels" in said
    assert "object 5: all of it belongs to other objects" in said


def test_ranges_in_words():
    assert labelling.ranges([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"
    assert labelling.ranges([4]) == "4"


def test_export_goes_there_and_back(call, phantom, tmp_path, read_labels):
    first, second, third = (tmp_path / name for name in ("a.tif", "b.ome.zarr", "c.ome.tif"))
    tifffile.imwrite(first, phantom.labels.astype(np.uint8), metadata={"axes": "ZYX"}, imagej=True)
    assert call("export", first, second)[0] == 0
    assert call("export", second, third)[0] == 0
    np.testing.assert_array_equal(read_labels(third), phantom.labels)
    code, _, err = call("export", first, second)
    assert code == 1
    assert "exists" in err


def test_cache_info_and_clear(call, tmp_path):
    from napari_sam.core.keys import EmbeddingKey
    from napari_sam.embedding import default_store

    key = EmbeddingKey("digest", "tiny", "float32", "c", 0, 0, (0, 0, 8, 8), "p", 1)
    default_store(tmp_path / "cache").put(key, np.ones((4, 8, 8), np.float32))
    code, out, _ = call("cache", "info", "--cache", tmp_path / "cache")
    assert code == 0
    assert "1 embeddings" in out
    code, out, _ = call("cache", "clear", "--yes", "--cache", tmp_path / "cache")
    assert "freed" in out
    assert "0 embeddings" in call("cache", "info", "--cache", tmp_path / "cache")[1]


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("segment",), ("embed", "x.tif", "--axis", "t"), ("embed", "--what")]
)
def test_wrong_usage_is_exit_code_2(call, arguments):
    assert call(*arguments)[0] == 2


@pytest.mark.parametrize(
    "command",
    [
        "embed",
        "segment",
        "export",
        "demo",
        "models list",
        "models fetch",
        "cache info",
        "cache clear",
        "evaluate",
        "finetune",
        "train",
    ],
)
def test_help_teaches_with_an_example(call, command):
    code, out, _ = call(*command.split(), "--help")
    assert code == 0
    assert "Example:" in out
    assert f"napari-sam {command}" in " ".join(out.split())


def test_version(call):
    import napari_sam

    assert call("--version")[1].strip() == napari_sam.__version__


def test_unknown_scheduler_is_a_named_error(call, image_path, monkeypatch):
    from napari_sam.cli import cluster

    monkeypatch.setattr(cluster, "_CONNECT_S", 0.5)
    code, _, err = call("embed", image_path, "--scheduler", "tcp://127.0.0.1:9")
    assert code == 1
    assert "no dask scheduler answers" in err


def test_segment_tracks_through_time(call, fake_model, tmp_path):
    drift = drifting_disc_volume((5, 64, 96))
    path = tmp_path / "series.zarr"
    zarr.save_array(str(path), np.stack([np.zeros_like(drift.image), drift.image], axis=1))
    prompts = tmp_path / "prompts.json"
    one = {"id": 7, "prompts": [{"plane": 1, "positive": [[30, 27]]}]}
    prompts.write_text(json.dumps({"time": 1, "objects": [one], "propagation": {"min_iou": None}}))
    out = tmp_path / "tracks.ome.zarr"
    asked = ("--prompts", prompts, "--output", out, "--axes", "TZYX:T", "--propagate")
    code, _, errors = call("segment", path, *asked)
    assert code == 0, errors
    with open_volume(out) as saved:
        assert (saved.n_time, saved.shape_zyx()) == (5, (1, 64, 96))
        tracks = np.stack([saved.read_plane(PlaneRef(0, 0, time=t)) for t in range(5)])
    np.testing.assert_array_equal(tracks, 7 * drift.labels)


def test_segment_along_three_axes(call, image_path, prompts_path, phantom, fake_model, tmp_path, read_labels):
    out = tmp_path / "out.ome.zarr"
    asked = ("segment", image_path, "--prompts", prompts_path, "--output", out, "--three-axes")
    code, _, errors = call(*asked)
    assert code == 2
    assert "--propagate" in errors
    assert call(*asked, "--propagate")[0] == 0
    np.testing.assert_array_equal(read_labels(out), phantom.labels)
