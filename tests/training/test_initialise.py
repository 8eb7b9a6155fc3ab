from dataclasses import replace

import pytest
import torch

from napari_sam.errors import CheckpointError, TrainingError
from napari_sam.model.checkpoints import save_safetensors
from napari_sam.model.configs import CONFIGS, PyramidConfig
from napari_sam.model.sam import build_sam
from napari_sam.training.dense import vote_loss
from napari_sam.training.examples import dense_targets
from napari_sam.training.initialise import look_at_positions, start_from


def test_a_token_looks_at_the_cells_around_its_point_before_any_training():
    torch.manual_seed(0)
    sam = build_sam(CONFIGS["micro"])
    look_at_positions(sam)
    attention = sam.mask_decoder.transformer.layers[0].cross_attn_token_to_image
    with torch.no_grad():
        token = sam.prompt_encoder.pe_layer(torch.tensor([[[20.5, 40.5]]]) / 64)
        cells = sam.prompt_encoder.dense_pe().flatten(2).transpose(1, 2)
        q, k = attention._heads(attention.q_proj(token)), attention._heads(attention.k_proj(cells))
        looked = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1).mean((0, 1, 2)).view(64, 64)
    assert divmod(int(looked.argmax()), 64) == (40, 20)
    near = looked[38:43, 18:23].sum()
    assert near > 10 * 25 / 64**2


def test_votes_for_the_middle_cost_nothing_and_others_their_distance_in_diameters():
    labels = torch.zeros(64, 64, dtype=torch.int32)
    labels[8:40, 16:48] = 1
    targets = torch.from_numpy(dense_targets(labels.numpy())).float()[None]
    at = torch.arange(16) * 4 + 2.0  # the pixel of the targets that stands for a cell
    y, x = (23.5 - at).view(-1, 1) / 4, (31.5 - at).view(1, -1) / 4
    votes = torch.stack([x.expand(16, 16), y.expand(16, 16)])[None]
    assert vote_loss(votes, targets) < 2e-3
    assert abs(float(vote_loss(votes + 2, targets)) - 2 * 2 / 8) < 2e-3


def grown(**changes):
    config = CONFIGS["micro_test"]
    return build_sam(replace(config, encoder=replace(config.encoder, **changes))).eval()


def test_a_deeper_network_answers_as_the_one_it_grew_from(tmp_path):
    torch.manual_seed(0)
    small, path = build_sam(CONFIGS["micro_test"]).eval(), tmp_path / "small.safetensors"
    save_safetensors(small, path, torch.float32)
    images = torch.randn(1, 3, 64, 64)
    deep = grown(blocks=(1, 2, 3, 1))
    start_from(deep, str(path))
    with torch.no_grad():
        torch.testing.assert_close(deep.encode(images), small.encode(images))
    deep.train()
    deep.encode(images).square().mean().backward()
    new = deep.image_encoder.stages[2][2]
    assert new.conv2[1].weight.grad.abs().sum() > 0  # it can learn to be more than the identity


def test_only_whole_blocks_may_be_missing(tmp_path):
    path = tmp_path / "small.safetensors"
    save_safetensors(build_sam(CONFIGS["micro_test"]), path)
    with pytest.raises(CheckpointError, match="misshaped"):
        start_from(grown(widths=(8, 8, 16, 24)), str(path))
    with pytest.raises(TrainingError, match="can begin as the identity"):
        start_from(
            build_sam(replace(CONFIGS["micro_test"], encoder=PyramidConfig(8, (8, 8, 16, 16), (1, 1, 1, 1)))),
            str(broken(path)),
        )


def broken(path):
    """The same file without the first block of a stage."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, "pt") as file:
        kept = {k: file.get_tensor(k) for k in file.keys() if not k.startswith("image_encoder.stages.1.0.")}  # noqa: SIM118
    other = path.with_name("broken.safetensors")
    save_file(kept, other, {"architecture": "micro_test"})
    return other
