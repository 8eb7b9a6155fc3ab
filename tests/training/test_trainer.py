"""The run: learns, repeats, resumes to the same weights, stops early, writes a file that loads."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_sam.errors import TrainingError
from napari_sam.model.checkpoints import load_sam
from napari_sam.training.config import TrainConfig, learning_rate_share
from napari_sam.training.packed import LabelledPlane
from napari_sam.training.state import load_state
from napari_sam.training.trainer import _HeldRun, train

CONFIG = TrainConfig(
    model="micro_test",
    max_steps=4,
    stages=((0.0, 32, 2), (0.5, 64, 1)),
    objects=2,
    rounds=(2, 3),
    model_input=64,
    warm_start=0.3,
    workers=0,
    log_every=1,
    validation_crops=2,
    object_diameter=(12.0, 24.0),
)


def plane(held_out=False):
    labels = np.zeros((64, 64), np.uint16)
    labels[8:24, 8:28], labels[36:56, 30:50] = 1, 2
    return LabelledPlane("squares", (labels > 0).astype(np.uint8) * 180 + 30, labels, held_out=held_out)


def weights(folder):
    config = TrainConfig.from_json((folder / "config.json").read_text())
    return load_state(folder / "state.pt", config).sam.state_dict()


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


def test_runs_repeat_and_resume_to_the_same_weights(tmp_path):
    config = replace(CONFIG, checkpoint_minutes=0.0)
    for name in ("a", "b"):
        events = list(train(config, [plane(), plane(True)], tmp_path / name))
        assert events[-1].kind == "end"
    run = train(config, [plane(), plane(True)], tmp_path / "c")
    for event in run:
        if event.kind == "checkpoint" and event.step == 2:
            break
    run.close()  # stopped after two of four steps
    steps = [
        event.step for event in train(config, [plane(), plane(True)], tmp_path / "c") if event.kind == "step"
    ]
    assert steps == [3, 4]
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert same(weights(tmp_path / "a"), weights(tmp_path / "c"))
    other = replace(config, seed=1)
    list(train(other, [plane()], tmp_path / "d"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "d"))


def test_a_run_goes_on_with_the_settings_it_began_with(tmp_path):
    list(train(CONFIG, [plane(), plane(True)], tmp_path))
    longer = replace(CONFIG, max_steps=6, threads=1, start="gone.safetensors")
    assert list(train(longer, [plane(), plane(True)], tmp_path))[-1].step == 6
    with pytest.raises(TrainingError, match=r"learning_rate was 0\.001, is 0\.01"):
        list(train(replace(longer, learning_rate=0.01), [plane(), plane(True)], tmp_path))


def test_processes_that_prepare_batches_change_nothing(tmp_path):
    config = replace(CONFIG, accumulate=2)
    for workers in (0, 1):
        list(train(replace(config, workers=workers), [plane(), plane(True)], tmp_path / str(workers)))
    assert same(weights(tmp_path / "0"), weights(tmp_path / "1"))


def test_accumulated_batches_are_one_step(tmp_path):
    config = replace(CONFIG, max_steps=2, warm_start=0.0)
    for accumulate in (1, 3):
        events = list(train(replace(config, accumulate=accumulate), [plane()], tmp_path / str(accumulate)))
        assert [event.step for event in events if event.kind == "step"] == [1, 2]
    assert not same(weights(tmp_path / "1"), weights(tmp_path / "3"))


def test_bfloat16_learns_and_repeats(tmp_path):
    config = replace(CONFIG, model="micro", max_steps=2, precision="bfloat16", warm_start=0.0)
    for name in ("a", "b"):
        events = list(train(config, [plane(), plane(True)], tmp_path / name))
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert all(value.dtype != torch.bfloat16 for value in weights(tmp_path / "a").values())
    exact = list(train(replace(config, precision="float32"), [plane(), plane(True)], tmp_path / "c"))
    assert events[0].values["masks"] != exact[0].values["masks"]
    assert events[0].values["masks"] == pytest.approx(exact[0].values["masks"], rel=0.05)


def test_the_written_model_loads(tmp_path):
    list(train(CONFIG, [plane(), plane(True)], tmp_path))
    assert load_sam(tmp_path / "last.safetensors").config.name == "micro_test"
    assert (tmp_path / "best.safetensors").is_file()
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) >= 4


def test_the_loss_falls_on_one_image(tmp_path):
    config = replace(
        CONFIG, max_steps=90, learning_rate=4e-3, synthetic=0.0, validation=0.0, stages=((0.0, 64, 2),)
    )
    events = [e for e in train(config, [plane()], tmp_path) if e.kind == "step"]
    dense = [event.values["dense"] for event in events]
    masks = [event.values["masks"] for event in events if "masks" in event.values]
    assert np.mean(dense[-5:]) < 0.8 * np.mean(dense[:5])
    assert np.mean(masks[-8:]) < 0.7 * np.mean(masks[:4])


def test_nothing_to_learn_from_is_an_error(tmp_path):
    with pytest.raises(TrainingError, match="no plane"):
        next(train(CONFIG, [plane(True)], tmp_path))


def test_a_broken_state_is_an_error(tmp_path):
    (tmp_path / "state.pt").write_bytes(b"not a state")
    with pytest.raises(TrainingError, match="cannot be continued"):
        next(train(CONFIG, [plane()], tmp_path))


def test_learning_rate_rises_and_ends_low():
    config = TrainConfig(warm_up=0.1, final_rate=0.02)
    assert learning_rate_share(0.05, config) == pytest.approx(0.5)
    assert learning_rate_share(0.1, config) == pytest.approx(1)
    assert learning_rate_share(1.0, config) == pytest.approx(0.02)


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """Settings of a later stage, from what a few steps gave."""
    folder = tmp_path_factory.mktemp("first")
    list(train(CONFIG, [plane(), plane(True)], folder))
    return replace(CONFIG, start=str(folder / "last.safetensors"), rehearsal=2.0, checkpoint_minutes=0.0)


def test_a_later_stage_repeats_and_resumes_to_the_same_weights(tmp_path, held):
    lesson = replace(plane(), set_name="pasted")
    planes = [plane(), plane(True), lesson]
    events = list(train(held, planes, tmp_path / "a"))
    assert events[-1].kind == "end"
    assert all("rehearsal" in event.values for event in events if event.kind == "step")
    assert any(event.kind == "validation" for event in events)
    run = train(held, planes, tmp_path / "b")
    for event in run:
        if event.kind == "checkpoint" and event.step == 2:
            break
    run.close()
    assert [one.step for one in train(held, planes, tmp_path / "b") if one.kind == "step"] == [3, 4]
    first, last = (load_sam(tmp_path / name / "last.safetensors").state_dict() for name in "ab")
    assert same(first, last)
    assert not same(first, load_sam(held.start).state_dict())


@pytest.mark.parametrize("start", ["", "gone.safetensors"])
def test_a_later_stage_goes_on_held_to_what_it_started_from(tmp_path, held, start):
    planes = [plane(), plane(True)]
    run = train(held, planes, tmp_path)
    while next(run).kind != "checkpoint":
        pass
    run.close()
    later = _HeldRun(replace(held, start=start), planes, tmp_path)
    assert later.state.step == 1
    assert same(later.learner.start.state_dict(), load_sam(held.start).state_dict())


def test_a_stage_without_a_start_is_held_to_nothing(tmp_path, held):
    with pytest.raises(TrainingError, match="starts from nothing"):
        next(train(replace(held, start=""), [plane()], tmp_path))


def test_a_weight_of_rehearsal_is_not_negative():
    with pytest.raises(TrainingError, match="got -1"):
        TrainConfig(rehearsal=-1)
