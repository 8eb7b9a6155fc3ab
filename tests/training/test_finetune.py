"""Fine-tuning of a tiny network: improves, repeats, stops, shrinks, and leaves a model with a name."""

import json
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from tests.training.pretend_gpu import GPU, GeneratorOfCpu, PretendGpu

from napari_sam.core.models import InputRecipe
from napari_sam.errors import DeviceError, DeviceMemoryError, FallbackWarning, InputWarning, TrainingError
from napari_sam.inference import device as device_module
from napari_sam.inference.predictor import load_model
from napari_sam.inference.registry import MODELS, file_facts, user_model_dir
from napari_sam.model.checkpoints import load_sam, save_safetensors
from napari_sam.model.configs import CONFIGS
from napari_sam.model.sam import build_sam
from napari_sam.training import finetune as module
from napari_sam.training import learner, rehearsal
from napari_sam.training.config import TrainConfig
from napari_sam.training.examples import Batch
from napari_sam.training.finetune import FinetuneSettings, Mode, finetune, learning_device
from napari_sam.training.own import hold_out, object_numbers, own_planes
from napari_sam.training.packed import read_packed
from napari_sam.training.provenance import load_parent
from napari_sam.training.views import half_cell_units, laid_out

QUICK = FinetuneSettings(
    max_steps=3, crops=2, objects=2, views=2, learning_rate=2e-3, average=0.0, rehearsal=0.0
)


def squares(seed=0, shape=(64, 64)):
    labels = np.zeros(shape, np.uint16)
    labels[6:26, 8:28], labels[34:58, 30:54] = 1, 2
    noise = np.random.default_rng(seed).normal(0, 6, shape)
    return np.clip((labels > 0) * 150 + 50 + noise, 0, 255).astype(np.uint8), labels


PAIRS = [squares(0), squares(1)]


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parents")
    for number, name in enumerate(("micro_test", "vit_test", "tiny_vit_test")):
        torch.manual_seed(number)
        save_safetensors(
            build_sam(CONFIGS[name]), folder / f"{name}.safetensors", metadata={"licence": "BSD-3-Clause"}
        )
    return folder


@pytest.fixture
def parent(parents):
    return parents / "micro_test.safetensors"


def weights(path):
    return load_sam(path).state_dict()


def changed(before, after):
    return {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}


@pytest.fixture
def always_better(monkeypatch):
    """Every validation is better than the one before, as it would be in a long run."""
    figures = iter(range(1000))
    measure = learner.Validation.measure

    def improving(self, sam):
        return measure(self, sam) | {"figure": float(next(figures))}

    monkeypatch.setattr(learner.Validation, "measure", improving)


@pytest.mark.usefixtures("always_better")
def test_it_learns(parent):
    settings = replace(QUICK, max_steps=80, crops=4, views=6, average=0.5)
    losses = [e.values["loss"] for e in finetune(PAIRS, parent, settings=settings) if e.kind == "step"]
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])


@pytest.mark.parametrize("name", ["micro_test", "vit_test", "tiny_vit_test"])
@pytest.mark.usefixtures("always_better")
def test_only_the_decoder_changes_and_embeddings_stay_valid(parents, name):
    path = parents / f"{name}.safetensors"
    events = list(finetune(PAIRS, path, name="mine", settings=QUICK))
    assert events[0].kind == "validation"
    assert [e.kind for e in events if e.kind != "validation"][:2] == ["encoding", "encoding"]
    assert events[-1].kind == "end"
    assert events[-1].path == user_model_dir() / "mine.safetensors"
    assert changed(weights(path), weights(events[-1].path)) <= {"prompt_encoder", "mask_decoder"}
    assert "mask_decoder" in changed(weights(path), weights(events[-1].path))
    assert load_model("mine", device="cpu").digest == load_model(path, device="cpu").digest
    assert events[-1].path.stat().st_size < 1.1 * path.stat().st_size


@pytest.mark.usefixtures("always_better")
def test_an_encoder_in_full_precision_stays_exact(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "exact.safetensors"
    save_safetensors(build_sam(CONFIGS["micro_test"]), path, torch.float32)
    list(finetune(PAIRS, path, name="mine", settings=QUICK))
    assert load_model("mine", device="cpu").digest == load_model(path, device="cpu").digest


@pytest.mark.parametrize("name", ["micro_test", "vit_test"])
@pytest.mark.usefixtures("always_better")
def test_all_of_it_can_learn(parents, name):
    path = parents / f"{name}.safetensors"
    events = list(finetune(PAIRS, path, settings=replace(QUICK, mode="all")))
    assert not [e for e in events if e.kind == "encoding"]
    assert changed(weights(path), weights(events[-1].path)) >= {"image_encoder", "mask_decoder"}


@pytest.mark.parametrize("name", ["micro_test", "vit_test", "tiny_vit_test"])
@pytest.mark.usefixtures("always_better")
def test_adapters_are_merged_into_a_plain_checkpoint(parents, name):
    pytest.importorskip("peft")
    path = parents / f"{name}.safetensors"
    events = list(finetune(PAIRS, path, settings=replace(QUICK, mode="lora", rank=2)))
    assert weights(path).keys() == weights(events[-1].path).keys()
    assert changed(weights(path), weights(events[-1].path)) >= {"image_encoder", "mask_decoder"}


def test_adapters_without_peft_name_the_remedy(parent, monkeypatch):
    import sys

    from napari_sam.errors import DependencyError

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(DependencyError, match="pip install peft"):
        finetune(PAIRS, parent, settings=replace(QUICK, mode=Mode.LORA))


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.usefixtures("always_better")
def test_the_same_seed_gives_the_same_weights(parent, mode):
    if mode is Mode.LORA:
        pytest.importorskip("peft")
    for number, (name, seed) in enumerate((("a", 1), ("b", 1), ("c", 2))):
        torch.manual_seed(number)  # whatever else was drawn before
        list(finetune(PAIRS, parent, name=name, settings=replace(QUICK, mode=mode, rank=2, seed=seed)))
    a, b, c = (weights(user_model_dir() / f"{name}.safetensors") for name in "abc")
    assert changed(a, b) == set()
    assert changed(a, c)


@pytest.mark.usefixtures("always_better")
def test_the_file_says_where_it_comes_from(parent, tmp_path):
    copy = tmp_path / "copy.safetensors"
    list(finetune(PAIRS, parent, name="mine", output=copy, settings=QUICK))
    facts = file_facts(copy)
    assert facts["parent"] == "micro_test"
    assert facts["parent_digest"].startswith("sha256:")
    assert facts["licence"] == "BSD-3-Clause"
    assert json.loads(facts["settings"])["mode"] == "decoder"
    figures = json.loads(facts["figures"])
    assert (figures["planes"], figures["planes_kept_out"], figures["objects"]) == (1, 1, 2)
    assert 0 <= figures["start"]["click1"] <= 1
    assert "fine-tuned on layers" in MODELS["mine"].good_for
    assert copy.read_bytes() == (user_model_dir() / "mine.safetensors").read_bytes()


@pytest.mark.usefixtures("always_better")
def test_cancel_keeps_the_best_so_far(parent):
    events = finetune(PAIRS, parent, name="mine", settings=replace(QUICK, max_steps=80))
    for event in events:
        if event.kind == "saved":
            break
    events.close()
    assert event.step < 80
    assert load_model("mine", device="cpu")


def test_cancel_before_anything_better_leaves_nothing(parent):
    events = finetune(PAIRS, parent, name="mine", settings=QUICK)
    assert next(events).kind == "validation"
    events.close()
    assert "mine" not in MODELS


def test_nothing_better_is_an_error_and_no_model(parent, monkeypatch):
    monkeypatch.setattr(learner.Validation, "measure", lambda self, sam: {"figure": 0.5, "click1": 0.5})
    with pytest.raises(TrainingError, match="nothing better"):
        list(finetune(PAIRS, parent, name="mine", settings=QUICK))
    assert "mine" not in MODELS


def test_time_ends_it(parent, monkeypatch):
    now = iter(np.arange(0, 1000, 3.0))
    monkeypatch.setattr(module._Run, "seconds", property(lambda self: float(next(now))))
    monkeypatch.setattr(learner.Validation, "measure", lambda self, sam: {"figure": 0.5, "click1": 0.5})
    with pytest.raises(TrainingError, match="nothing better"):
        list(finetune(PAIRS, parent, settings=replace(QUICK, max_steps=0, minutes=2)))


@pytest.mark.usefixtures("always_better")
def test_the_rate_rises_from_nothing_however_long_encoding_took(parent, monkeypatch):
    now = iter(np.arange(0, 1000, 3.0))
    monkeypatch.setattr(module._Run, "seconds", property(lambda self: float(next(now))))
    events = list(finetune(PAIRS, parent, settings=replace(QUICK, max_steps=0, minutes=4)))
    assert next(e.fraction for e in events if e.kind == "step") > 0.05  # the warm-up would be over
    rates = [event.values["rate"] for event in events if event.kind == "step"]
    assert max(rates[0], rates[-1]) < 0.5 * max(rates)


@pytest.mark.usefixtures("always_better")
@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_out_of_memory_steps_down_and_goes_on(parent, monkeypatch, error):
    sizes, step = [], learner.interactive_step

    def greedy(sam, embedding, batch, *rest):
        sizes.append(batch.masks.shape[:2])
        if len(embedding) > 1:
            raise error
        return step(sam, embedding, batch, *rest)

    monkeypatch.setattr(learner, "interactive_step", greedy)
    with pytest.warns(FallbackWarning, match="1 crops of 2 objects"):
        assert list(finetune(PAIRS, parent, settings=QUICK))[-1].kind == "end"
    assert sizes == [(2, 2), (1, 2), (1, 2), (1, 2)]


def test_no_memory_at_all_is_an_error(parent, monkeypatch):
    def never(*_):
        torch.empty(1 << 60)  # the allocator itself says no

    monkeypatch.setattr(learner, "interactive_step", never)
    with pytest.warns(FallbackWarning), pytest.raises(DeviceMemoryError, match="one object of one crop"):
        list(finetune(PAIRS, parent, settings=QUICK))


@pytest.mark.usefixtures("always_better")
def test_out_of_memory_while_encoding_learns_from_what_there_is(parent, monkeypatch):
    encode, calls = learner.encode, []

    def greedy(sam, inputs, window=None):
        calls.append(len(inputs))
        if len(calls) == 4:  # the first is of the validation
            torch.empty(1 << 60)
        return encode(sam, inputs, window)

    monkeypatch.setattr(learner, "encode", greedy)
    with pytest.warns(FallbackWarning, match="learning from the 2 crops that are encoded already"):
        events = list(finetune(PAIRS, parent, settings=replace(QUICK, views=6)))
    assert events[-1].kind == "end"
    assert len(calls) == 4
    assert len([e for e in events if e.kind == "step"]) == QUICK.max_steps


def test_no_memory_for_the_first_crop_is_an_error(parent, monkeypatch):
    encode, calls = learner.encode, []

    def greedy(sam, inputs, window=None):
        calls.append(len(inputs))
        if len(calls) > 1:
            raise MemoryError
        return encode(sam, inputs, window)

    monkeypatch.setattr(learner, "encode", greedy)
    with pytest.raises(DeviceMemoryError, match=r"while encoding a crop.*smaller model"):
        list(finetune(PAIRS, parent, settings=QUICK))


@pytest.mark.usefixtures("always_better")
@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_out_of_memory_while_validating_looks_at_fewer_objects(parent, monkeypatch, error):
    sizes, curve = [], learner.click_curve

    def greedy(sam, embedding, truth):
        sizes.append(len(truth))
        if len(truth) > 1:
            raise error
        return curve(sam, embedding, truth)

    monkeypatch.setattr(learner, "VALIDATION_OBJECTS", 2)
    monkeypatch.setattr(learner, "click_curve", greedy)
    with pytest.warns(FallbackWarning, match="looking at 1 crops of 1 objects"):
        assert list(finetune(PAIRS, parent, settings=QUICK))[-1].kind == "end"
    assert sizes == [2, *[1] * (len(sizes) - 1)]


def test_no_memory_to_validate_is_an_error(parent, monkeypatch):
    def never(*_):
        torch.empty(1 << 60)

    monkeypatch.setattr(learner, "click_curve", never)
    with pytest.warns(FallbackWarning), pytest.raises(DeviceMemoryError, match="one object"):
        list(finetune(PAIRS, parent, settings=QUICK))


@pytest.mark.parametrize("name", ["click_curve", "encode"])
def test_other_errors_of_the_networks_are_not_hidden(parent, monkeypatch, name):
    def wrong(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(learner, name, wrong)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        list(finetune(PAIRS, parent, settings=QUICK))


@pytest.mark.usefixtures("always_better")
@pytest.mark.parametrize(("connected", "objects"), [(False, 2), (True, 3)])
def test_an_object_cut_twice_is_two_where_answers_hang_together(parent, monkeypatch, connected, objects):
    def load(name):
        found = load_parent(name)
        found.sam.config = replace(found.sam.config, connected=connected)
        return found

    monkeypatch.setattr(module, "load_parent", load)
    pairs = [(image, np.where(np.arange(64) == 40, 0, labels)) for image, labels in PAIRS]
    list(finetune(pairs, parent, name="mine", settings=QUICK))
    figures = json.loads(file_facts(user_model_dir() / "mine.safetensors")["figures"])
    assert figures["objects"] == objects


@pytest.mark.usefixtures("always_better")
def test_views_stay_within_their_memory(parent):
    settings = replace(QUICK, views=50, memory=30_000)
    events = [e for e in finetune(PAIRS, parent, settings=settings) if e.kind == "encoding"]
    assert 1 <= len(events) < 50


@pytest.mark.usefixtures("always_better")
def test_a_single_image_is_split_by_its_objects(parent):
    list(finetune(PAIRS[:1], parent, name="mine", settings=QUICK))
    figures = json.loads(file_facts(user_model_dir() / "mine.safetensors")["figures"])
    assert (figures["planes"], figures["objects"]) == (1, 1)


def test_a_single_object_is_learned_without_validation(parent):
    image, labels = squares()
    with pytest.warns(InputWarning, match="one labelled object"):
        events = list(finetune([(image, np.where(labels == 1, 1, 0))], parent, settings=QUICK))
    assert [e.kind for e in events[-2:]] == ["saved", "end"]


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.zeros((64, 64), np.uint16), "no labelled object"),
        (np.zeros((64, 60), np.uint16), "do not fit"),
        (np.zeros((64, 64), np.float32), "whole numbers"),
    ],
)
def test_labels_that_teach_nothing_are_an_error(parent, labels, match):
    with pytest.raises(TrainingError, match=match):
        finetune([(squares()[0], labels)], parent, settings=QUICK)


def test_one_pixel_objects_are_an_error_that_says_so(parent):
    labels = np.zeros((64, 64), np.uint16)
    labels[10, 10], labels[30, 40] = 1, 2
    with pytest.raises(TrainingError, match="at least 9 pixels"):
        finetune([(squares()[0], labels)], parent, settings=QUICK)


@pytest.mark.parametrize("name", ["default", "vit_b", "../mine", "a b", "-x"])
def test_names_that_cannot_be_used(parent, name):
    with pytest.raises(TrainingError, match="name"):
        finetune(PAIRS, parent, name=name, settings=QUICK)


@pytest.mark.usefixtures("always_better")
def test_a_name_is_not_taken_twice_by_accident(parent):
    for _ in range(2):
        list(finetune(PAIRS, parent, settings=QUICK))
    assert sorted(n for n in MODELS if n.startswith("micro")) == [
        "micro_test-layers",
        "micro_test-layers-2",
    ]
    with pytest.raises(TrainingError, match="already"):
        finetune(PAIRS, parent, name="micro_test-layers", settings=QUICK)
    list(finetune(PAIRS, parent, name="micro_test-layers", settings=QUICK, overwrite=True))


@pytest.mark.usefixtures("always_better")
def test_a_child_wants_its_pixels_as_its_parent(parents, tmp_path):
    path = tmp_path / "micro.safetensors"
    save_safetensors(load_sam(parents / "vit_test.safetensors"), path, metadata={"recipe": "micro_sam"})
    list(finetune(PAIRS, path, name="mine", settings=QUICK))
    assert MODELS["mine"].recipe is InputRecipe.MICRO_SAM


def test_folders_with_images_and_volumes(tmp_path):
    image, labels = squares()
    for folder, name, pair in (
        (tmp_path, "plane", (image, labels)),
        (
            tmp_path / "volumes",
            "cube",
            (np.stack([image] * 6), np.stack([labels * (i != 2) for i in range(6)])),
        ),
    ):
        folder.mkdir(exist_ok=True)
        for array, end in zip(pair, ("img", "lbl"), strict=True):
            tifffile.imwrite(folder / f"{name}_{end}.tif", array, photometric="minisblack")
    found = own_planes(tmp_path)
    assert [(p.volume, p.index) for p in found] == [(-1, 0), *((1, i) for i in (0, 1, 3, 4, 5))]
    assert [p.index for p in own_planes(tmp_path, slice(0, 2))] == [0, 0, 1]
    with pytest.raises(TrainingError, match="no folder"):
        own_planes(tmp_path / "nowhere")


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("number", [-1, 70_001])
def test_a_folder_teaches_what_its_arrays_do(tmp_path, number, ndim):
    image, labels = squares()
    labels = labels.astype(np.int32)
    labels[:, :5] = number
    if ndim == 3:
        image, labels = np.stack([image] * 3), np.stack([labels, np.minimum(labels, 0), labels])
    for array, end in ((image, "img"), (labels, "lbl")):
        tifffile.imwrite(tmp_path / f"a_{end}.tif", array, photometric="minisblack")
    planes = own_planes(tmp_path)
    for plane, other in zip(planes, own_planes([(image, labels)]), strict=True):
        assert np.array_equal(plane.image, other.image)
        assert np.array_equal(plane.labels, other.labels)
        assert plane.index == other.index
        assert object_numbers(plane.labels) == [1, 2, 3][: 2 + (number > 0)]


def test_colours_large_labels_and_holding_out():
    image, labels = squares()
    rgb = np.stack([image] * 3, -1)
    found = own_planes(
        [(rgb, labels.astype(np.int64) * 10**9), (np.stack([rgb] * 2), np.stack([labels] * 2))]
    )
    assert [p.image.shape for p in found] == [(64, 64, 3)] * 3
    assert np.unique(found[0].labels).tolist() == [0, 1, 2]
    learn_from, kept_out = hold_out(found, 0.2, 0)
    assert (len(learn_from), len(kept_out)) == (2, 1)
    alone, other = hold_out(found[:1], 0.2, 0)
    assert sorted([*np.unique(alone[0].labels)[1:], *np.unique(other[0].labels)[1:]]) == [1, 2]


def test_labels_are_laid_out_as_the_image_is():
    labels = np.zeros((40, 80), np.uint16)
    labels[10:30, 20:60] = 1
    config = CONFIGS["micro_test"]  # 64 pixels in, labels at the same size
    full = laid_out(labels, config, InputRecipe.SAM)
    assert full.shape == (64, 64)
    rows, cols = np.nonzero(full)
    assert (rows.min(), rows.max() + 1, cols.min(), cols.max() + 1) == (8, 24, 16, 48)


def test_half_cell_units_change_no_position():
    sam = build_sam(CONFIGS["vit_test"]).eval()
    point = torch.tensor([[[20.0, 33.0]]])
    one = torch.ones(1, 1)
    before = sam.prompt_encoder.embed_points(point, one)
    after = half_cell_units(sam).prompt_encoder.embed_points((point + 0.5) / 2 - 0.5, one)
    torch.testing.assert_close(before, after)


def test_other_crops_are_rehearsed_beside_the_own_ones(parent, monkeypatch):
    drawn = []
    monkeypatch.setattr(rehearsal, "GENERATED", 2)
    monkeypatch.setattr(rehearsal, "FOUND", 0.0)  # random weights find nothing
    draw = learner.draw_view

    def watched(sampler, *rest):
        drawn.append({plane.set_name for plane in sampler.planes})
        return draw(sampler, *rest)

    monkeypatch.setattr(learner, "draw_view", watched)
    events = finetune(PAIRS, parent, settings=replace(QUICK, views=4, rehearsal=1.0))
    while (event := next(events)).kind != "step":
        pass
    assert event.values["rehearsal"] == pytest.approx(0, abs=1e-6)  # nothing has been learned before it
    assert next(events).kind == "validation"
    while (event := next(events)).kind != "step":  # it may have saved what it has
        pass
    assert event.values["rehearsal"] > 0
    events.close()
    others = {plane.set_name for plane in rehearsal.rehearsed_planes(0)}
    assert others > {"synthetic", "dsb2018"}
    assert drawn == [{"own"}, others, {"own"}, {"own"}, others, {"own"}]


def test_real_crops_are_rehearsed_that_may_be_handed_on():
    notices = rehearsal.REHEARSED.with_name("README.md").read_text()
    crops = read_packed(rehearsal.REHEARSED)
    assert len(crops) == 50
    assert rehearsal.REHEARSED.stat().st_size < 2_000_000
    for crop in crops:
        assert f"`{crop.set_name}`" in notices
        assert not crop.held_out
        assert object_numbers(crop.labels)
        assert max(crop.labels.shape) <= 320


@pytest.mark.parametrize("mode", ["decoder", "all"])
@pytest.mark.usefixtures("always_better")
def test_rehearsal_keeps_the_answers_on_other_images(parent, monkeypatch, mode):
    monkeypatch.setattr(rehearsal, "GENERATED", 4)
    monkeypatch.setattr(rehearsal, "FOUND", 0.0)  # random weights find nothing
    last = {}
    for weight in (1e-6, 30.0):
        settings = replace(QUICK, mode=mode, max_steps=30, views=6, rehearsal=weight)
        events = [e for e in finetune(PAIRS, parent, settings=settings) if e.kind == "step"]
        last[weight] = np.mean([e.values["rehearsal"] for e in events[-10:]])
    assert last[30.0] < 0.5 * last[1e-6]


@pytest.mark.usefixtures("always_better")
def test_the_last_part_of_the_decoder_stays(parent):
    before = weights(parent)
    after = weights(list(finetune(PAIRS, parent, settings=replace(QUICK, mode="all")))[-1].path)
    parts = {
        key.split(".")[1]
        for key in before
        if key.startswith("mask_decoder") and not torch.equal(before[key], after[key])
    }
    assert "transformer" in parts
    assert not parts & {"output_upscaling", "output_hypernetworks_mlps"}


def test_masks_differ_by_what_they_do_not_share():
    logits = torch.full((1, 2, 4, 4), -50.0)
    logits[0, 0, :2] = logits[0, 1, 2:] = 50.0
    inside = torch.ones(1, 4, 4)
    assert float(rehearsal.mask_difference(logits, logits, inside)) == 0
    assert float(rehearsal.mask_difference(logits, logits.flip(1), inside)) == pytest.approx(16 / 17)
    inside[..., :, 1:] = 0
    assert float(rehearsal.mask_difference(logits, logits.flip(1), inside)) == pytest.approx(4 / 5)


@pytest.mark.parametrize(("now", "change"), [((1, 1), 0.0), ((2, 1), 0.0), ((1, 0), 1.0), ((0, 1), 0.0)])
def test_only_answers_that_were_right_are_held(monkeypatch, now, change):
    """The model at the start finds the second object alone; whatever is answered for the first is free."""
    sam = build_sam(CONFIGS["micro_test"])
    masks = np.zeros((1, 2, 32, 32), np.uint8)
    masks[0, 0, 2:12, 2:12] = masks[0, 1, 16:30, 14:30] = 255
    answers = {sam: now, "start": (2, 1)}  # 0: nothing, 1: the object, 2: the other object

    def decode(model, embedding, prompts, window):
        truth = torch.from_numpy(masks[0] > 0)
        shown = torch.stack([torch.zeros(32, 32).bool(), *truth])
        kinds = [
            (0, 1, 2)[kind] if number == 0 else (0, 2, 1)[kind] for number, kind in enumerate(answers[model])
        ]
        logits = (shown[kinds].float() * 100 - 50)[:, None].expand(2, 4, 32, 32)
        return logits, torch.zeros(2, 4)

    monkeypatch.setattr(rehearsal, "decode", decode)
    monkeypatch.setattr(rehearsal, "CORRECTED", 0.0)
    nothing = np.zeros(0, np.uint8)
    batch = Batch(nothing, masks, masks[0][None] > 0, nothing, np.ones((1, 32, 32), bool))
    embedding = torch.zeros(1, 8, 8, 8)
    found = rehearsal.rehearsal_loss(
        (sam, "start"),
        (embedding, embedding),
        batch,
        TrainConfig(),
        (0, 0, 8, 8),
        torch.Generator().manual_seed(0),
    )
    assert float(found) == pytest.approx(change, abs=0.01)


def test_settings_that_make_no_sense():
    for wrong in ({"mode": "magic"}, {"minutes": 0}, {"crops": 0}, {"held_out": 1.0}, {"rehearsal": -1.0}):
        with pytest.raises(TrainingError):
            FinetuneSettings(**wrong)


def test_a_gpu_is_used_where_there_is_one_but_a_macs_only_when_asked_for(monkeypatch):
    monkeypatch.setattr(device_module, "_has_cuda", lambda: False)
    monkeypatch.setattr(device_module, "_has_mps", lambda: True)
    assert learning_device("auto").type == "cpu"
    assert learning_device("mps").type == "mps"
    monkeypatch.setattr(device_module, "_has_cuda", lambda: True)
    assert learning_device("auto").type == "cuda"


def test_a_device_that_is_not_there_is_an_error_before_anything_is_read(parent, monkeypatch):
    monkeypatch.setattr(device_module, "_has_cuda", lambda: False)
    with pytest.raises(DeviceError, match=r"'cuda' is not available.*'cpu'"):
        finetune("nowhere", parent, settings=replace(QUICK, device="cuda"))


@pytest.fixture
def pretend_gpu(monkeypatch):
    """A GPU, as far as one can be had without."""
    monkeypatch.setattr(device_module, "_device", lambda name: GPU)
    monkeypatch.setattr(torch, "Generator", GeneratorOfCpu)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    with PretendGpu():
        yield


@pytest.mark.parametrize(
    ("name", "mode"), [("micro_test", "decoder"), ("micro_test", "all"), ("vit_test", "lora")]
)
@pytest.mark.usefixtures("always_better", "pretend_gpu")
def test_on_a_gpu_everything_that_meets_is_there(parents, name, mode, monkeypatch):
    if mode == "lora":
        pytest.importorskip("peft")
    monkeypatch.setattr(rehearsal, "FOUND", 0.0)  # so that an untrained network has something to rehearse
    monkeypatch.setattr(module, "rehearsed_planes", lambda seed: own_planes(PAIRS))
    path = parents / f"{name}.safetensors"
    settings = replace(QUICK, mode=mode, rank=2, rehearsal=5.0, max_steps=2)
    events = list(finetune(PAIRS, path, name="mine", settings=settings))
    assert events[-1].kind == "end"
    assert next(event.values["rehearsal"] for event in reversed(events) if event.kind == "step") > 0
    assert changed(weights(path), weights(events[-1].path)) >= {"mask_decoder"}
