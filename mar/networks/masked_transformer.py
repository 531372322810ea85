"""MAR's masked Transformer: an encoder over the known tokens, a decoder over all (Li et al. 2024, Sec. 3.3, after MAE,
He et al. 2022); and its generation with reused features (the idea of LazyMAR, 2025).

B batch · L tokens · S buffer tokens · P = S + L places of a row · R rows with targets · N packed slots · A active
places, padded with place P · D width · C condition width · H heads · M gathered tokens
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mar.core.errors import UserError
from mar.core.options import at_least
from mar.networks.attention import (
    Packing,
    Rotary,
    RotaryEmbedding,
    SizedOptions,
    apply_rotary,
    attention_of,
    gather_padded,
    pack_each,
    run_blocks,
)  # fmt: skip
from mar.networks.base import ABSENT, GenerationOptions, Network


@dataclass(frozen=True)
class Sizes:
    """Widths, numbers of blocks and of attention heads; ``buffer`` tokens in front carry the condition."""

    encoder_width: int
    encoder_depth: int
    encoder_heads: int
    decoder_width: int
    decoder_depth: int
    decoder_heads: int
    buffer: int


BUCKETS = 8  # lengths that rows and targets are padded to when compiled
SIZES = {
    "tiny": Sizes(64, 2, 4, 64, 2, 4, 4),  # 8 × 8 digits on two CPU cores
    "small": Sizes(128, 4, 4, 128, 4, 4, 8),  # 14 × 14 patches of MNIST on a CPU
    "base": Sizes(768, 12, 12, 768, 12, 12, 64),  # base, large and huge as published
    "large": Sizes(1024, 16, 16, 1024, 16, 16, 64),
    "huge": Sizes(1280, 20, 16, 1280, 20, 16, 64),
}


@dataclass(frozen=True)
class MaskedTransformerOptions(SizedOptions):
    """A named size; options that are not None replace its numbers."""

    presets: ClassVar[Mapping[str, Sizes]] = SIZES
    bounds: ClassVar = {**SizedOptions.bounds, **{field.name: at_least(1) for field in fields(Sizes)}}

    encoder_width: int | None = None  # None, here and below: as in the named size
    encoder_depth: int | None = None
    encoder_heads: int | None = None
    decoder_width: int | None = None
    decoder_depth: int | None = None
    decoder_heads: int | None = None
    buffer: int | None = None  # tokens in front that carry the condition
    rotary: Rotary = "none"  # rotate keys and queries, by raster index or coordinates


@dataclass(frozen=True)
class MaskedGeneration(GenerationOptions):
    refresh: int = 1  # AR steps from one full pass to the next; the passes between reuse features

    def __post_init__(self) -> None:
        if self.refresh < 1:
            raise UserError(f"refresh must be at least 1, not {self.refresh}")

    @property
    def exact(self) -> bool:
        return self.refresh == 1


class MaskedTransformer(Network):
    """Not one-pass: the known tokens of a row are those before its earliest target.

    ``buckets``: 0, or the number of lengths that known tokens and targets are padded to. Compiled blocks then see few
    shapes, about three times as many in all, and all rows are padded to the longest of the batch.
    """

    Options = MaskedTransformerOptions
    order_invariant: ClassVar[bool] = True
    test_options: ClassVar[dict[str, Any]] = {
        **dict.fromkeys(("encoder_width", "decoder_width"), 8),
        **dict.fromkeys(("encoder_depth", "decoder_depth", "buffer"), 1),
        **dict.fromkeys(("encoder_heads", "decoder_heads"), 2),
    }

    sampling: MaskedGeneration = MaskedGeneration()

    def __init__(self, shape: tuple[int, ...], options: MaskedTransformerOptions) -> None:
        super().__init__(shape, options)
        self.buckets, self.sizes = 0, options.sizes
        sizes, places = self.sizes, self.sizes.buffer + self.n_tokens
        self.token_width = self.condition_width = sizes.encoder_width
        self.condition_length = sizes.buffer
        self.context_width = sizes.decoder_width
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.encoder_position = nn.Parameter(torch.empty(places, sizes.encoder_width))
        self.embed_norm = norm(sizes.encoder_width)
        self.encoder_blocks = options.blocks(sizes.encoder_depth, sizes.encoder_width, sizes.encoder_heads)
        self.encoder_norm = norm(sizes.encoder_width)
        self.decoder_embed = nn.Linear(sizes.encoder_width, sizes.decoder_width)
        self.mask_token = nn.Parameter(torch.empty(sizes.decoder_width))
        self.decoder_position = nn.Parameter(torch.empty(places, sizes.decoder_width))
        self.decoder_blocks = options.blocks(sizes.decoder_depth, sizes.decoder_width, sizes.decoder_heads)
        self.decoder_norm = norm(sizes.decoder_width)
        turns = partial(RotaryEmbedding, options.rotary, shape, front=sizes.buffer)
        self.encoder_rotary = turns(channels=sizes.encoder_width // sizes.encoder_heads)
        self.decoder_rotary = turns(channels=sizes.decoder_width // sizes.decoder_heads)
        self.target_position = nn.Parameter(torch.empty(self.n_tokens, sizes.decoder_width))
        self._initialise()

    def _initialise(self) -> None:
        for parameter in (self.encoder_position, self.mask_token, self.decoder_position, self.target_position):
            nn.init.normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def compile_parts(self) -> None:
        """Compile the blocks one by one: they share code, so each shape compiles once whatever the depth."""
        self.buckets = BUCKETS
        for block in (*self.encoder_blocks, *self.decoder_blocks):
            block.compile(dynamic=False)

    def forward(self, token_BLD: Tensor, step_BL: Tensor, condition_BC: Tensor, target_BL: Tensor) -> Tensor:
        row_R = target_BL.any(1).nonzero()[:, 0]
        if not len(row_R):
            return token_BLD.new_zeros(0, self.context_width)
        step_RL, target_RL = step_BL[row_R], target_BL[row_R]
        now_R1 = torch.where(target_RL, step_RL, ABSENT).amin(1, keepdim=True)
        known, present = pack_each((step_RL < now_R1, step_RL < ABSENT), self.sizes.buffer, self.buckets)
        encoded_ND = self.encode(token_BLD, condition_BC, row_R, known)
        target_M, token_M = target_RL.nonzero(as_tuple=True)
        wanted_M = present.slot_RP[target_M, self.sizes.buffer + token_M]
        z_MD = self.decode(encoded_ND, known, present, wanted_M)
        return z_MD + F.embedding(token_M, self.target_position)

    def encode(self, token_BLD: Tensor, condition_BC: Tensor, row_R: Tensor, known: Packing) -> Tensor:
        """Return encoded_ND of the buffer and known tokens of rows ``row_R``, as packed by ``known``."""
        # One table of all inputs of slots; no slot points at an unknown token.
        condition_BTC = condition_BC if condition_BC.ndim == 3 else condition_BC[:, None]
        table = torch.cat([condition_BTC, token_BLD], dim=1).flatten(0, 1)
        skipped = self.sizes.buffer - condition_BTC.shape[1]  # the first places repeat the first, or the one condition
        place_N = (known.place_N - skipped).clamp(min=0)
        x_ND = F.embedding(row_R[known.row_N] * (condition_BTC.shape[1] + self.n_tokens) + place_N, table)
        x_ND = self.embed_norm(x_ND + F.embedding(known.place_N, self.encoder_position))
        return self.encoder_norm(run_blocks(self.encoder_blocks, x_ND, known, self.encoder_rotary))

    def decode(self, encoded_ND: Tensor, known: Packing, present: Packing, wanted_M: Tensor) -> Tensor:
        """Return the decoder output at the slots ``wanted_M`` of ``present``; mask tokens stand for unknown tokens."""
        x_ND = self.decoder_embed(encoded_ND)
        table = torch.cat([x_ND, self.mask_token.to(x_ND.dtype)[None]])  # unknown places point one past the last slot
        x_ND = F.embedding(known.slot_RP[present.row_N, present.place_N], table)
        x_ND = x_ND + F.embedding(present.place_N, self.decoder_position)
        M = len(wanted_M)
        if self.buckets:
            wanted_M = F.pad(wanted_M, (0, -M % -(-len(present) // self.buckets)))
        x_MD = run_blocks(self.decoder_blocks, x_ND, present, self.decoder_rotary, wanted_M)
        return self.decoder_norm(x_MD)[:M]

    # Incremental generation: the full forward pass, or reused features.

    def begin(self, condition_BC: Tensor, absent_BL: Tensor) -> Any:
        begin = begin_reuse if self.sampling.refresh > 1 else Network.begin
        return begin(self, condition_BC, absent_BL)

    def query(self, state: Any, index_BL: Tensor) -> Tensor:
        if isinstance(state, FeatureReuseState):
            return query_reuse(self, state, index_BL)
        return self(state.token_BLD, state.step_BL, state.condition_BC, index_BL)


# Feature reuse. Attention is bidirectional, so each token that becomes known changes the features of all others a
# little. A full pass computes all places and keeps the keys and values of every block. Between two full passes only
# the tokens that just became known and the queried ones are computed; the others stay as the last pass left them.
# Contexts are functions of the known tokens and of the steps in which they became known, so the samples still follow a
# normalised distribution with an exact likelihood: a slightly different model along each plan.


@dataclass
class FeatureReuseState:
    """The state of one generation; ``query`` and ``observe`` write into it."""

    token_BPD: Tensor  # the input of the encoder: the condition at the buffer's places, then the tokens
    known_BP: Tensor
    present_BP: Tensor  # not padding
    fresh_BP: Tensor  # became known since the last pass
    encoder: list[
        Tensor
    ]  # keys and values of each block, (2, B, P + 1, H, D / H); padding is written to the last place
    decoder: list[Tensor]
    passes: int = 0  # so far

    def observed(self, token_BLD: Tensor, index_BL: Tensor) -> FeatureReuseState:
        """Add the tokens of one step."""
        buffer = self.known_BP.shape[1] - index_BL.shape[1]
        new_BP = F.pad(index_BL, (buffer, 0), value=False)
        self.token_BPD[new_BP] = token_BLD[index_BL].to(self.token_BPD.dtype)
        self.known_BP, self.fresh_BP = self.known_BP | new_BP, self.fresh_BP | new_BP
        return self


def begin_reuse(net: MaskedTransformer, condition_BC: Tensor, absent_BL: Tensor) -> FeatureReuseState:
    (B, L), S = absent_BL.shape, net.sizes.buffer
    condition_BTC = condition_BC if condition_BC.ndim == 3 else condition_BC[:, None]
    condition_BSC = condition_BTC[:, (torch.arange(S) - (S - condition_BTC.shape[1])).clamp(min=0)]
    token_BPD = torch.cat([condition_BSC, condition_BC.new_zeros(B, L, net.token_width)], 1)
    known_BP = (torch.arange(S + L, device=absent_BL.device) < S).expand(B, -1).clone()
    present_BP = F.pad(~absent_BL, (S, 0), value=True)
    return FeatureReuseState(token_BPD, known_BP, present_BP, known_BP.clone(), [], [])


def query_reuse(net: MaskedTransformer, state: FeatureReuseState, index_BL: Tensor) -> Tensor:
    """Return z_MD of the unknown tokens ``index_BL``."""
    asked_BP = F.pad(index_BL, (net.sizes.buffer, 0), value=False)
    full = state.passes % net.sampling.refresh == 0
    state.passes += 1
    encode_BP = state.known_BP if full else state.fresh_BP
    decode_BP = state.present_BP if full else state.fresh_BP | asked_BP
    state.fresh_BP = torch.zeros_like(state.fresh_BP)
    P = encode_BP.shape[1]

    place_BA = _active(encode_BP)
    x_BAD = _take(state.token_BPD, place_BA) + F.embedding(place_BA.clamp(max=P - 1), net.encoder_position)
    x_BAD, angle_BAF = net.embed_norm(x_BAD), net.encoder_rotary(place_BA.clamp(max=P - 1))
    for i, block in enumerate(net.encoder_blocks):
        x_BAD = _block(block, x_BAD, angle_BAF, state.encoder, i, place_BA, state.known_BP)
    encoded_BAD = net.decoder_embed(net.encoder_norm(x_BAD))

    row_B1 = torch.arange(len(place_BA), device=place_BA.device)[:, None]
    input_BPD = net.mask_token.to(encoded_BAD.dtype).expand(len(place_BA), P + 1, -1).clone()
    input_BPD[row_B1, place_BA] = encoded_BAD
    place_BA = _active(decode_BP)
    x_BAD = _take(input_BPD, place_BA) + F.embedding(place_BA.clamp(max=P - 1), net.decoder_position)
    angle_BAF = net.decoder_rotary(place_BA.clamp(max=P - 1))
    for i, block in enumerate(net.decoder_blocks):
        x_BAD = _block(block, x_BAD, angle_BAF, state.decoder, i, place_BA, state.present_BP)
    wanted_BA = F.pad(asked_BP, (0, 1))[row_B1, place_BA]
    z_MD = net.decoder_norm(x_BAD[wanted_BA])
    return z_MD + F.embedding(index_BL.nonzero(as_tuple=True)[1], net.target_position)


def _active(keep_BP: Tensor) -> Tensor:
    """Return place_BA: the kept places of each row in their order, padded with P."""
    place_BA, real_BA = gather_padded(keep_BP)
    return torch.where(real_BA, place_BA, keep_BP.shape[1])


def _take(x_BPD: Tensor, place_BA: Tensor) -> Tensor:
    row_B1 = torch.arange(len(place_BA), device=place_BA.device)[:, None]
    return x_BPD[row_B1, place_BA.clamp(max=x_BPD.shape[1] - 1)]


def _block(
    block: Any,
    x_BAD: Tensor,
    angle_BAF: Tensor | None,
    caches: list[Tensor],
    number: int,
    place_BA: Tensor,
    attention_mask_BP: Tensor,
) -> Tensor:
    """Apply a ``PackedBlock`` to the active places; keys and values of the other places come from the cache."""
    attention, (B, A, D) = block.attn, x_BAD.shape
    qkv_BAD = attention.qkv(block.norm1(x_BAD))
    if angle_BAF is not None:
        qkv_BAD = apply_rotary(qkv_BAD, attention.num_heads, angle_BAF)
    q, k, v = qkv_BAD.view(B, A, 3, attention.num_heads, -1).unbind(2)
    if number == len(caches):  # zeros, not empty(): masked positions must still be finite
        caches.append(k.new_zeros(2, B, attention_mask_BP.shape[1] + 1, *k.shape[2:]))
    cache, row_B1 = caches[number], torch.arange(B, device=x_BAD.device)[:, None]
    cache[:, row_B1, place_BA] = torch.stack([k, v])
    key, value = (x[:, :-1].transpose(1, 2) for x in cache)
    mixed = attention_of(q.transpose(1, 2), key, value, attention_mask_BP[:, None, None])
    x_BAD = x_BAD + attention.proj(mixed.transpose(1, 2).reshape(B, A, D))
    return x_BAD + block.mlp(block.norm2(x_BAD))
