"""Weight files: layouts, detection, damage."""

import pickle
import types

import pytest
import torch
from safetensors import safe_open

from napari_sam.errors import CheckpointError, ModelNotFoundError
from napari_sam.model.checkpoints import encoder_digest, load_checkpoint, load_sam, save_safetensors
from napari_sam.model.configs import CONFIGS
from napari_sam.model.detection import detect_config
from napari_sam.model.sam import build_sam


def same(left, right):
    state = right.state_dict()
    return all(
        torch.equal(value, state[key]) for key, value in left.state_dict().items() if "num_batches" not in key
    )


@pytest.fixture
def model(drawn, small_config):
    return drawn(small_config.name)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_architecture_is_told_from_shapes(name):
    with torch.device("meta"):
        state = build_sam(CONFIGS[name]).state_dict()
    assert detect_config(state) == CONFIGS[name]


def test_an_unknown_size_of_a_known_family_is_told_too():
    from dataclasses import replace

    vit = CONFIGS["vit_test"]
    config = replace(
        vit, image_size=128, encoder=replace(vit.encoder, embed_dim=64, depth=3, global_blocks=(0,))
    )
    with torch.device("meta"):
        found = detect_config(build_sam(config).state_dict())
    assert found.name == "vit_64x3_128"
    assert (found.encoder, found.image_size) == (config.encoder, 128)


def test_plain_state_dict(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "a.pt")
    loaded = load_sam(tmp_path / "a.pt")
    assert loaded.config == model.config
    assert same(model, loaded)
    assert not loaded.training
    assert not any(tensor.is_meta for tensor in loaded.state_dict().values())
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_training_checkpoint(model, tmp_path):
    prefixed = {f"sam.{key}": value for key, value in model.state_dict().items()}
    decoder = {"out_conv.weight": torch.zeros(3)}
    torch.save({"model_state": prefixed, "decoder_state": decoder, "epoch": 3}, tmp_path / "a.pt")
    assert same(model, load_sam(tmp_path / "a.pt"))


def test_unused_parts_of_published_files_are_ignored(model, tmp_path):
    extra = {
        "image_encoder.head.weight": torch.zeros(1000, 320),
        "image_encoder.norm_head.bias": torch.zeros(320),
        "out_conv.weight": torch.zeros(3, 64, 1, 1),
        "deconv1.block.0.conv.weight": torch.zeros(4),
        "decoder.samplers.0.conv.weight": torch.zeros(4),
    }
    torch.save({**model.state_dict(), **extra}, tmp_path / "a.pt")
    assert same(model, load_sam(tmp_path / "a.pt"))


def test_other_surplus_is_an_error(model, tmp_path):
    torch.save({**model.state_dict(), "image_encoder.headless": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"1 unexpected \(image_encoder\.headless\)"):
        load_sam(tmp_path / "a.pt")


def test_half_precision_file_gives_float32_model(model, tmp_path):
    save_safetensors(model, tmp_path / "a.safetensors", metadata={"trained_on": "nothing"})
    loaded = load_sam(tmp_path / "a.safetensors")
    assert loaded.config is model.config
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata()["trained_on"] == "nothing"
        assert file.metadata()["architecture"] == model.config.name
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(loaded.state_dict()[key], value, atol=2e-3, rtol=2e-3)


def test_saving_leaves_nothing_else_behind(drawn, tmp_path):
    save_safetensors(drawn("vit_test"), tmp_path / "a.safetensors", torch.float32)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    assert same(drawn("vit_test"), load_sam(tmp_path / "a.safetensors"))


def test_a_weight_too_large_for_half_precision_is_refused(drawn, tmp_path):
    sam = drawn("vit_test")
    sam.mask_decoder.mask_tokens.weight.data[0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"mask_tokens.*torch\.float16.*float32"):
        save_safetensors(sam, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_batch_counters_do_not_matter(drawn, tmp_path):
    sam = drawn("tiny_vit_test")
    state = {key: value for key, value in sam.state_dict().items() if "num_batches" not in key}
    torch.save(state, tmp_path / "a.pt")
    assert same(sam, load_sam(tmp_path / "a.pt"))


def test_mismatch_lists_what_is_wrong(drawn, tmp_path):
    state = drawn("vit_test").state_dict()
    for i in range(4):
        del state[f"mask_decoder.output_hypernetworks_mlps.{i}.layers.1.bias"]
    state["prompt_encoder.mask_downscaling.0.bias"] = torch.zeros(7)
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(
        CheckpointError, match=r"4 missing \(.* and 1 more\); 1 misshaped \(.*\(7,\), not \(2,\)"
    ):
        load_sam(tmp_path / "a.pt")


def test_architecture_insisted_on(drawn, tmp_path):
    torch.save(drawn("vit_test").state_dict(), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="does not fit the architecture 'micro_test'"):
        load_sam(tmp_path / "a.pt", CONFIGS["micro_test"])


def refused(path, match):
    with pytest.raises(CheckpointError, match=match) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


def test_lora_is_refused(drawn, tmp_path):
    state = drawn("vit_test").state_dict()
    state["image_encoder.blocks.0.attn.qkv.w_a_linear_q.weight"] = torch.zeros(4, 32)
    torch.save(state, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "LoRA; merge")


def test_decoder_file_is_named(tmp_path):
    keys = (
        "decoder.samplers.0.conv.weight",
        "deconv1.block.1.block.weight",
        "base.block.1.weight",
        "out_conv.bias",
    )
    torch.save({key: torch.zeros(2) for key in keys}, tmp_path / "decoder.pt")
    refused(tmp_path / "decoder.pt", "decoder for automatic segmentation")


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("image_encoder.trunk.pos_embed", "SAM 2"),
        ("vision_encoder.pos_embed", "transformers"),
        ("mask_decoder.hf_token.weight", "SAM-HQ"),
    ],
)
def test_other_families_are_named(key, what, tmp_path):
    torch.save({"model": {key: torch.zeros(2)}}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", what)


def test_weights_of_something_else(tmp_path):
    torch.save({"layer1.weight": torch.zeros(2)}, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", r"image_encoder\.pos_embed.*missing.*layer1\.weight")


@pytest.mark.parametrize("content", [[1, 2, 3], {"epoch": 4}, {"model_state": {}}])
def test_no_tensors(content, tmp_path):
    torch.save(content, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "without tensors")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
def test_truncated_file(suffix, keep, drawn, tmp_path):
    path = tmp_path / f"cut{suffix}"
    if suffix == ".pt":
        torch.save(drawn("vit_test").state_dict(), path)
    else:
        save_safetensors(drawn("vit_test"), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    refused(path, "fetch it again|not a torch checkpoint")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_text_file(suffix, tmp_path):
    path = tmp_path / f"page{suffix}"
    path.write_text("<html><body>404 not found</body></html>\n" * 20)
    refused(path, "not a torch checkpoint|not a complete safetensors file|damaged")


def test_pickle_with_more_than_tensors_is_refused_and_not_run(tmp_path):
    path, trace = tmp_path / "a.pt", tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return (exec, (f"open({str(trace)!r}, 'w')",))

    torch.save({"model_state": {"a": torch.zeros(1)}, "trainer": Hostile()}, path)
    refused(path, r"besides tensors.*torch\.save\(model\.state_dict\(\)")
    path.write_bytes(pickle.dumps(Hostile(), protocol=2))
    refused(path, "besides tensors")
    assert not trace.exists()


def test_classes_of_a_trainer_are_refused(tmp_path):
    torch.save(
        {"model_state": {"a": torch.zeros(1)}, "settings": types.SimpleNamespace(lr=1)}, tmp_path / "a.pt"
    )
    refused(tmp_path / "a.pt", "besides tensors")


def test_missing_file(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"absent\.pt"):
        load_sam(tmp_path / "absent.pt")


def test_digest_follows_the_image_encoder_only(model):
    before = encoder_digest(model)
    assert len(before) == 32
    model.mask_decoder.iou_token.weight.data += 1
    assert encoder_digest(model) == before
    next(model.image_encoder.parameters()).data.view(-1)[0] += 1e-3
    assert encoder_digest(model) != before


def test_digest_does_not_depend_on_memory_layout_or_file(drawn, tmp_path):
    sam = drawn("micro_test")
    digest = encoder_digest(sam)
    torch.save(sam.state_dict(), tmp_path / "a.pt")
    assert encoder_digest(load_sam(tmp_path / "a.pt")) == digest
    assert encoder_digest(sam.to(memory_format=torch.channels_last)) == digest
    assert digest == encoder_digest(drawn("micro_test"))
