"""The two-way transformer of the mask decoder (SAM paper, appendix A, figure 14)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from napari_sam.model.configs import MaskDecoderConfig
from napari_sam.model.layers import MLPBlock


class Attention(nn.Module):
    """Attention whose inside may be narrower than its input.

    Between a few tokens and thousands of cells, nearly all the work is projecting the cells. With fewer tokens
    than a head is wide, it is less to bring the tokens to the cells' side of the projection:
    ``q . (W k) = (W^T q) . k``, and ``sum(a W v) = W sum(a v)``. Both orders agree to rounding.
    """

    def __init__(self, dim: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        self.heads = heads
        inner = dim // downsample
        self.width = inner // heads
        self.scale: float = self.width**-0.5
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, N, dim), (b, M, dim) twice, to (B, N, dim); b is B, or one of both is 1 and serves all."""
        if q.shape[1] < self.width <= k.shape[1]:
            return self._few_queries(q, k, v)
        if k.shape[1] < self.width <= q.shape[1]:
            return self._few_keys(q, k, v)
        q, k, v = (self._heads(x) for x in (self.q_proj(q), self.k_proj(k), self.v_proj(v)))
        batch = max(len(q), len(k))
        q, k, v = (x.expand(batch, -1, -1, -1) for x in (q, k, v))
        return self._joined(F.scaled_dot_product_attention(q, k, v))

    def _few_queries(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        queries = self._heads(self.q_proj(q)) @ self._by_head(self.k_proj)  # (B, heads, N, dim)
        weights = self._scores(queries, k).softmax(-1)  # the bias of k adds the same to all and drops out
        seen = (weights.flatten(1, 2) @ v).view(queries.shape)
        values = seen @ self._by_head(self.v_proj).transpose(1, 2) + self.v_proj.bias.view(self.heads, 1, -1)
        return self._joined(values)

    def _few_keys(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self._heads(self.k_proj(k)), self._heads(self.v_proj(v))
        folded = keys @ self._by_head(self.q_proj)  # (B, heads, N, dim)
        offset = keys @ (self.q_proj.bias.view(self.heads, -1, 1) * self.scale)
        weights = (self._scores(folded, q) + offset).softmax(2)
        answers = values @ self.out_proj.weight.t().view(self.heads, -1, self.out_proj.out_features)
        out: Tensor = weights.flatten(1, 2).transpose(1, 2) @ answers.flatten(1, 2)
        return out.add_(self.out_proj.bias)

    def _scores(self, tokens: Tensor, cells: Tensor) -> Tensor:
        """(B, heads, N, dim) and (b, M, dim) to (B, heads, N, M)."""
        flat = (tokens * self.scale).flatten(1, 2)
        return (flat @ cells.transpose(1, 2)).view(*tokens.shape[:3], -1)

    def _by_head(self, projection: nn.Linear) -> Tensor:
        """Its matrix as (heads, width of a head, dim)."""
        return projection.weight.view(self.heads, -1, projection.in_features)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def _joined(self, x: Tensor) -> Tensor:
        out: Tensor = self.out_proj(x.transpose(1, 2).flatten(2))
        return out


class TwoWayBlock(nn.Module):
    """Tokens attend to each other, then to the image; MLP; then the image attends to the tokens."""

    def __init__(self, config: MaskDecoderConfig, dim: int, first: bool) -> None:
        super().__init__()
        heads, downsample = config.heads, config.attention_downsample
        self.first = first
        self.self_attn = Attention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, heads, downsample)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLPBlock(dim, config.mlp_dim, nn.ReLU)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, heads, downsample)

    def forward(
        self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, N, dim) tokens and (b, M, dim) image with their encodings to (B, N, dim) and (B, M, dim)."""
        tokens = self.norm1(self._self_attention(tokens, token_pe))
        attended = self.cross_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        tokens = self.norm2(tokens + attended)
        tokens = self.norm3(tokens + self.mlp(tokens))
        attended = self.cross_attn_image_to_token(image + image_pe, tokens + token_pe, tokens)
        return tokens, self.norm4(image + attended)

    def _self_attention(self, tokens: Tensor, token_pe: Tensor) -> Tensor:
        if self.first:  # the tokens are their own encoding yet, and are replaced, not added to
            replaced: Tensor = self.self_attn(tokens, tokens, tokens)
            return replaced
        query = tokens + token_pe
        out: Tensor = tokens + self.self_attn(query, query, tokens)
        return out


class TwoWayTransformer(nn.Module):
    """`depth` two-way blocks and a last look of the tokens at the image."""

    def __init__(self, config: MaskDecoderConfig, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(config, dim, i == 0) for i in range(config.depth))
        self.final_attn_token_to_image = Attention(dim, config.heads, config.attention_downsample)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Update both.

        Parameters
        ----------
        image : (B or 1, M, dim) tensor
            Cells of the embedding; one is shared by all sets of tokens.
        image_pe : (1, M, dim) tensor
            Position encoding of the cells.
        tokens : (B, N, dim) tensor
            Output tokens and prompts. They are their own position encoding, added wherever they attend.

        Returns
        -------
        tokens : (B, N, dim) tensor
        image : (B, M, dim) tensor
        """
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe)
        attended = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.norm_final_attn(tokens + attended), image
