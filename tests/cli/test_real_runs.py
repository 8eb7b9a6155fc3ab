"""The command line with a real (small, untrained) network: killed, resumed, and on a cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask
import numpy as np
import pytest
import tifffile
import zarr

import napari_sam as ns
from napari_sam.cli import jobs
from napari_sam.cli.cluster import map_on_cluster
from napari_sam.cli.labelling import partial_path
from napari_sam.core.models import ModelSpec
from napari_sam.core.planes import PlaneRef
from napari_sam.core.prompts import PromptSet
from napari_sam.embedding import ZarrStore
from napari_sam.embedding.default import FOLDER_NAME
from napari_sam.errors import DeviceError
from napari_sam.io.volume import open_volume
from napari_sam.testing.phantoms import Look, ball_volume

N_PLANES = 60


def write_model(path, seed):
    import torch

    from napari_sam.model.checkpoints import save_safetensors
    from napari_sam.model.configs import CONFIGS
    from napari_sam.model.sam import build_sam

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    save_safetensors(build_sam(CONFIGS["micro_test"]), path)
    return path


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", 3)


@pytest.fixture(scope="module")
def noisy_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("volume") / "image.zarr"
    image = ball_volume((N_PLANES, 64, 64), radii=25.0, look=Look(noise=20)).image
    zarr.save_array(str(path), image)
    return path


def write_prompts(path, plane_range):
    """Two objects whose masks go on to both ends, whatever the network answers, as long as it answers."""
    rough = [[10, 10], [10, 50], [50, 50], [50, 10]]
    objects = [
        {"id": 1, "prompts": [{"plane": 30, "polygon": rough}]},
        {"id": 2, "prompts": [{"plane": 25, "box": [20, 20, 40, 40]}]},
    ]
    off = dict.fromkeys(("min_iou", "max_area_change", "min_predicted_iou"))
    section = {"carry": ["box", "mask"], "plane_range": plane_range, **off}
    path.write_text(json.dumps({"objects": objects, "propagation": section}))
    return path


def forget_what_was_loaded():
    jobs._open_encoder.cache_clear()
    jobs._load.cache_clear()


@pytest.fixture(autouse=True)
def fresh_process_state():
    forget_what_was_loaded()
    yield
    forget_what_was_loaded()


def kill_when(condition, *arguments):
    """Start ``napari-sam``, kill it as soon as `condition()` holds; it must not have ended before."""
    code = "import torch; torch.set_num_threads(1); from napari_sam.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ.copy()
    )
    try:
        deadline = time.monotonic() + 100
        while not condition():
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
    assert process.returncode == -signal.SIGKILL


def records(cache: Path):
    return sorted(path.name for path in ZarrStore(cache / FOLDER_NAME).records())


@pytest.fixture
def count_encodes(monkeypatch):
    """Tiles that are encoded in this process from here on."""
    from napari_sam.inference.predictor import SamPredictor

    encoded = []
    encode = SamPredictor.encode_tiles

    def counted(self, images):
        encoded.extend(images)
        return encode(self, images)

    monkeypatch.setattr(SamPredictor, "encode_tiles", counted)
    return encoded


def test_embed_killed_and_resumed(call, noisy_path, model_path, tmp_path, count_encodes):
    cache = tmp_path / "cache"
    arguments = ("embed", noisy_path, "--model", model_path, "--cache", cache)
    kill_when(lambda: cache.exists() and len(records(cache)) >= 5, *arguments)
    done = len(records(cache))
    assert 5 <= done < N_PLANES
    code, said, err = call(*arguments)
    assert code == 0, err
    assert f"{N_PLANES - done} now, {done} before" in said
    assert len(count_encodes) == N_PLANES - done
    assert len(records(cache)) == N_PLANES


def test_embed_that_keeps_nothing_fails(call, few_path, model_path, tmp_path):
    (tmp_path / "file").write_text("no folder")
    code, said, err = call("embed", few_path, "--model", model_path, "--cache", tmp_path / "file")
    assert (code, said) == (1, "")
    assert err.startswith("EmbeddingNotKeptError: embeddings cannot be kept in")


@pytest.mark.filterwarnings("always::napari_sam.errors.CacheWarning")
def test_embed_makes_a_record_that_is_cut_off_again(call, few_path, model_path, tmp_path):
    arguments = ("embed", few_path, "--model", model_path, "--cache", tmp_path / "cache")
    assert "6 now, 0 before" in call(*arguments)[1]
    chunk = next((tmp_path / "cache").rglob("c/0/0/0"))
    chunk.write_bytes(chunk.read_bytes()[:1000])
    jobs._open_encoder.cache_clear()  # another process, whose memory is empty
    code, said, err = call(*arguments)
    assert (code, "1 now, 5 before" in said, err.count("CacheWarning")) == (0, True, 1)


@pytest.fixture(scope="module")
def channels_path(tmp_path_factory, noisy_path):
    """The noisy image as channel 1 of an OME-Zarr; channel 0 is something else."""
    path = tmp_path_factory.mktemp("channels") / "two.zarr"
    image = zarr.open_array(str(noisy_path), mode="r")[:6]
    zarr.save_array(str(path), np.stack([np.roll(image, 20, axis=1) // 2, image]))
    return path


@pytest.fixture(scope="module")
def few_path(tmp_path_factory, noisy_path):
    path = tmp_path_factory.mktemp("few") / "image.zarr"
    zarr.save_array(str(path), zarr.open_array(str(noisy_path), mode="r")[:6])
    return path


@pytest.mark.filterwarnings("ignore:.*not stored")
def test_strict_stops_where_chunks_are_missing(call, model_path, few_path, tmp_path):
    path = tmp_path / "holes.zarr"
    array = zarr.create_array(str(path), shape=(4, 64, 64), chunks=(1, 64, 64), dtype="uint8", fill_value=0)
    array[:3] = 7
    shared = ("--axes", "ZYX", "--model", model_path, "--cache", tmp_path / "cache")
    code, _, err = call("embed", path, *shared, "--strict")
    assert code == 1
    assert "not stored" in err
    assert call("embed", path, *shared)[0] == 0
    output = tmp_path / "labels.tif"
    code, _, err = call(
        "segment", path, *shared, "--prompts", few_path, "--output", output, "--strict", "--propagate"
    )
    assert code == 1
    assert not output.exists()


def test_one_channel_is_embedded_and_segmented_as_if_it_were_alone(
    call, channels_path, few_path, model_path, tmp_path, read_labels
):
    prompts = tmp_path / "prompts.json"
    rough = [[10, 10], [10, 50], [50, 50], [50, 10]]
    prompts.write_text(json.dumps({"objects": [{"id": 1, "prompts": [{"plane": 3, "polygon": rough}]}]}))
    shared = ("--model", model_path, "--cache", tmp_path / "cache")
    two = (channels_path, "--axes", "CZYX", *shared)
    code, said, err = call("embed", *two, "--channel", 1)
    assert code == 0, err
    assert "6 now, 0 before" in said
    assert "6 now, 0 before" in call("embed", *two)[1]  # mixed
    assert "6 now, 0 before" in call("embed", *two, "--channel", 0)[1]
    assert "0 now, 6 before" in call("embed", few_path, *shared)[1]
    outputs = {}
    for name, arguments in {
        "1": [*two, "--channel", 1],
        "0": [*two, "--channel", 0],
        "alone": [few_path, *shared],
    }.items():
        out = tmp_path / f"{name}.ome.zarr"
        code, _, err = call("segment", *arguments, "--prompts", prompts, "--output", out)
        assert code == 0, err
        outputs[name] = read_labels(out)
    assert outputs["alone"].shape == (6, 64, 64)
    assert outputs["alone"].any()
    np.testing.assert_array_equal(outputs["1"], outputs["alone"])
    assert not np.array_equal(outputs["0"], outputs["alone"])


@pytest.mark.parametrize("command", ["embed", "segment"])
def test_a_channel_that_is_not_there_is_a_clear_error(call, channels_path, few_path, tmp_path, command):
    rest = (
        ("--prompts", tmp_path / "none.json", "--output", tmp_path / "out.tif")
        if command == "segment"
        else ()
    )
    code, _, err = call(command, channels_path, "--axes", "CZYX", "--channel", 2, *rest)
    assert code == 1
    assert "VolumeError: two.zarr has no channel 2; it has 2, counted from 0" in err
    assert call(command, few_path, "--channel", 1, *rest)[0] == 1
    assert call(command, few_path, "--channel", -1, *rest)[0] == 2


def test_segment_killed_and_resumed(call, noisy_path, model_path, tmp_path, count_encodes, read_labels):
    prompts_path = write_prompts(tmp_path / "prompts.json", [0, N_PLANES])
    cache, out, whole = (tmp_path / name for name in ("cache", "out.ome.zarr", "whole.ome.zarr"))
    shared = ("segment", noisy_path, "--model", model_path, "--prompts", prompts_path, "--propagate")
    kill_when(
        lambda: len(list(partial_path(out).glob("c/*"))) >= 5, *shared, "--cache", cache, "--output", out
    )
    done = len(records(cache))
    assert partial_path(out).exists()
    assert not out.exists()
    code, _, err = call(*shared, "--cache", cache, "--output", out)
    assert code == 0, err
    assert done >= 3
    assert len(count_encodes) == len(records(cache)) - done
    assert not partial_path(out).exists()
    forget_what_was_loaded()
    assert call(*shared, "--cache", tmp_path / "other", "--output", whole)[0] == 0
    np.testing.assert_array_equal(read_labels(out), read_labels(whole))
    assert read_labels(whole).any()


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(2, processes=True, threads_per_worker=1, dashboard_address=":0") as started:
        yield started.scheduler_address


def test_workers_that_die_again_and_again_are_one_error():
    distributed = pytest.importorskip("distributed")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(1, processes=True, threads_per_worker=1, dashboard_address=":0") as started,
        pytest.raises(DeviceError, match="died while they worked"),
    ):
        list(map_on_cluster(started.scheduler_address, os._exit, [1]))


def test_cluster_gives_what_one_process_gives(
    call, noisy_path, model_path, tmp_path, cluster, count_encodes, read_labels
):
    prompts_path = write_prompts(tmp_path / "prompts.json", [22, 33])
    here, there = tmp_path / "here", tmp_path / "there"
    embed = ("embed", noisy_path, "--model", model_path, "--planes", "22:33")
    assert call(*embed, "--cache", here)[0] == 0
    n_here = len(count_encodes)
    code, said, err = call(*embed, "--cache", there, "--scheduler", cluster)
    assert code == 0, err
    assert "11 now, 0 before" in said
    assert n_here == len(count_encodes) == 11
    assert records(here) == records(there)
    segment = ("segment", noisy_path, "--model", model_path, "--prompts", prompts_path)
    for extra in ((), ("--propagate",)):
        outs = [tmp_path / f"{place}{len(extra)}.tif" for place in ("here", "there")]
        assert call(*segment, *extra, "--cache", here, "--output", outs[0])[0] == 0
        code, _, err = call(*segment, *extra, "--cache", there, "--output", outs[1], "--scheduler", cluster)
        assert code == 0, err
        np.testing.assert_array_equal(read_labels(outs[0]), read_labels(outs[1]))
        assert read_labels(outs[0]).any()


@pytest.mark.parametrize("replaced", ["volume", "model"])
def test_a_worker_that_lives_on_sees_that_a_file_was_replaced(tmp_path, replaced):
    volume, model = tmp_path / "image.tif", write_model(tmp_path / "tiny.safetensors", 1)
    images = [ball_volume((5, 64, 64), radii=25.0, look=Look(noise=20, seed=seed)).image for seed in (1, 2)]
    prompts = {1: PromptSet(box_yxyx=[10, 10, 50, 50])}

    def answer():
        with open_volume(volume, axes="ZYX") as source:
            job = jobs.make_job(source, "ZYX", ModelSpec(str(model)), tmp_path / "cache")
        return jobs.segment_plane(job, (PlaneRef(0, 1), prompts))[0].predicted_iou

    tifffile.imwrite(volume, images[0])
    before = answer()
    if replaced == "volume":
        tifffile.imwrite(volume, images[1])
    else:
        write_model(model, 2)
    after = answer()
    forget_what_was_loaded()
    assert before != after == answer()


def test_a_model_is_loaded_once_for_several_commands(tmp_path, few_path, model_path):
    with open_volume(few_path, axes="ZYX") as source:
        made = [jobs.make_job(source, "ZYX", ModelSpec(str(model_path)), tmp_path) for _ in range(2)]
    assert jobs.open_encoder(made[0]).predictor is jobs.open_encoder(made[1]).predictor


def test_error_on_a_worker_is_named_here(call, noisy_path, tmp_path, cluster):
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"no weights")
    code, _, err = call("embed", noisy_path, "--model", wrong, "--scheduler", cluster)
    assert code == 1
    assert err.splitlines()[-1].startswith("CheckpointError")


@pytest.mark.parametrize("marks", [{"positive": [[41, 52]]}, {"box": [35, 46, 48, 59]}])
def test_from_python_an_image_is_answered_as_by_the_command(call, tmp_path, read_labels, marks):
    noise = np.random.default_rng(0).normal(60, 20, (400, 400)).clip(0, 190)
    yy, xx = np.mgrid[:400, :400]
    image = (noise + 60 * ((yy - 41) ** 2 + (xx - 52) ** 2 < 36)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="minisblack")
    objects = [{"id": 1, "prompts": [{"plane": 0, **marks}]}]
    (tmp_path / "prompts.json").write_text(json.dumps({"objects": objects}))
    output = tmp_path / "labels.tif"
    arguments = (tmp_path / "image.tif", "--prompts", tmp_path / "prompts.json", "--output", output)
    assert call("segment", *arguments, "--cache", tmp_path / "cache", "--device", "cpu")[0] == 0
    model = ns.load_model("default", device="cpu")
    prompts = ns.PromptSet(points_yx=marks.get("positive", np.zeros((0, 2))), box_yxyx=marks.get("box"))
    seen = ns.SeenImage(image, model)
    (answer,) = seen.ask([prompts])
    assert np.array_equal(answer.mask, read_labels(output)[0] == 1)
    alone = model.predict(model.encode(image), prompts)
    assert not np.array_equal(answer.mask, alone.mask)  # so small an object is looked at again
    (corrected,) = seen.ask([ns.PromptSet(points_yx=[(41, 52), (41, 64)], positive=[1, 0])], earlier=[answer])
    assert corrected.scale == answer.scale < 1


def test_a_scheduler_that_is_lost_is_a_named_error():
    distributed = pytest.importorskip("distributed")
    from napari_sam.cli.cluster import map_on_cluster

    with distributed.LocalCluster(1, processes=False, dashboard_address=":0") as started:
        results = map_on_cluster(started.scheduler_address, time.sleep, [0, 4])
        assert next(results) is None
        started.sync(started.scheduler.close)
        with pytest.raises(DeviceError, match=r"the dask scheduler at .* was lost"):
            next(results)
