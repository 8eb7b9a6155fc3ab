"""Prompts to embeddings."""

import math

import pytest
import torch

from napari_sam.model.configs import CONFIGS
from napari_sam.model.sam import build_sam


@pytest.fixture
def encoder(drawn):
    return drawn("vit_test").prompt_encoder


def by_definition(encoder, x, y):
    """The position encoding of one point in model space, written out."""
    frequencies = encoder.pe_layer.positional_encoding_gaussian_matrix
    size = encoder.image_size
    phases = (
        2
        * math.pi
        * ((2 * (x + 0.5) / size - 1) * frequencies[0] + (2 * (y + 0.5) / size - 1) * frequencies[1])
    )
    return torch.cat([phases.sin(), phases.cos()])


def test_points_are_encoded_as_defined_and_padded_without_a_box(encoder):
    with torch.inference_mode():
        sparse, dense = encoder(torch.tensor([[[3.0, 7.0], [20.0, 1.0]]]), torch.tensor([[1, 0]]))
        positive = by_definition(encoder, 3, 7) + encoder.point_embeddings[1].weight[0]
        negative = by_definition(encoder, 20, 1) + encoder.point_embeddings[0].weight[0]
        expected = torch.stack([positive, negative, encoder.not_a_point_embed.weight[0]])
    torch.testing.assert_close(sparse[0], expected, atol=1e-5, rtol=1e-5)
    assert dense.shape == (1, encoder.dim, encoder.grid, encoder.grid)
    assert torch.equal(dense[0, :, 1, 2], encoder.no_mask_embed.weight[0])


def test_a_box_adds_two_corners_and_no_padding(encoder):
    boxes = torch.tensor([[2.0, 3.0, 40.0, 50.0]])
    points, labels = torch.tensor([[[8.0, 9.0]]]), torch.tensor([[1]])
    with torch.inference_mode():
        box_only, _ = encoder(boxes=boxes)
        both, _ = encoder(points, labels, boxes)
        corners = [
            by_definition(encoder, 2, 3) + encoder.point_embeddings[2].weight[0],
            by_definition(encoder, 40, 50) + encoder.point_embeddings[3].weight[0],
        ]
    torch.testing.assert_close(box_only[0], torch.stack(corners), atol=1e-5, rtol=1e-5)
    assert both.shape == (1, 3, encoder.dim)
    assert torch.equal(both[:, 1:], box_only)


def test_box_corners_may_be_given_as_points(encoder):
    corners = torch.tensor([[[2.0, 3.0], [40.0, 50.0]]])
    with torch.inference_mode():
        as_points = encoder.embed_points(corners, torch.tensor([[2, 3]]))
        assert torch.equal(as_points, encoder.embed_boxes(corners.view(1, 4)))


def test_a_missing_point_has_no_position(encoder):
    labels = torch.tensor([[-1]])
    with torch.inference_mode():
        here, there = (encoder.embed_points(torch.tensor([[[v, v]]]), labels) for v in (0.0, 50.0))
    assert torch.equal(here, there)


def test_mask_replaces_the_no_mask_embedding(encoder):
    masks = torch.randn(2, 1, 16, 16)
    with torch.inference_mode():
        sparse, dense = encoder(masks=masks)
    assert sparse.shape == (2, 0, encoder.dim)
    assert dense.shape == (2, encoder.dim, 4, 4)
    assert not torch.allclose(dense[0], dense[1])


def test_nothing_given(encoder):
    sparse, dense = encoder()
    assert sparse.shape == (1, 0, encoder.dim)
    assert len(dense) == 1


def test_the_embedding_without_a_mask_is_not_copied(encoder):
    _, dense = encoder(torch.zeros(50, 1, 2), torch.ones(50, 1))
    assert dense.shape[0] == 50
    assert dense.untyped_storage().nbytes() == encoder.no_mask_embed.weight.untyped_storage().nbytes()


@pytest.mark.parametrize("window", [(0, 0, 4, 4), (1, 2, 3, 2), (0, 1, 2, 3)])
def test_a_window_of_the_dense_encoding_is_a_part_of_it(encoder, window):
    row, col, height, width = window
    part = encoder.dense_pe(window)
    assert part.shape == (1, encoder.dim, height, width)
    torch.testing.assert_close(part, encoder.dense_pe()[:, :, row : row + height, col : col + width])
    assert encoder.no_mask(1, window).shape == part.shape


def test_the_dense_encoding_of_a_cell_is_that_of_a_point_at_its_centre(encoder):
    stride = encoder.image_size / encoder.grid
    dense = encoder.dense_pe()
    centre_x, centre_y = 2.5 * stride - 0.5, 1.5 * stride - 0.5  # column 2, row 1; pixel centres are integers
    torch.testing.assert_close(
        dense[0, :, 1, 2], by_definition(encoder, centre_x, centre_y), atol=1e-5, rtol=1e-5
    )


def test_pe_scale_sets_the_spread_of_the_frequencies():
    torch.manual_seed(0)
    for name, scale in (("vit_b", 1.0), ("micro", 3.0)):
        config = CONFIGS[name]
        assert config.prompt.pe_scale == scale
    matrix = build_sam(CONFIGS["micro_test"]).prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    assert 2.0 < float(matrix.std()) < 4.0


def test_positions_keep_full_precision_under_autocast():
    torch.manual_seed(0)
    encode = build_sam(CONFIGS["micro_test"]).prompt_encoder.pe_layer
    xy = torch.rand(50, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = encode(xy)
    assert torch.equal(found, encode(xy))
