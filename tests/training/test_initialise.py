import torch

from napari_sam.model.configs import CONFIGS
from napari_sam.model.sam import build_sam
from napari_sam.training.dense import vote_loss
from napari_sam.training.examples import dense_targets
from napari_sam.training.initialise import look_at_positions


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
