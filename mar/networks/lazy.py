"""Generation by a masked Transformer that reuses features between AR steps (the idea of LazyMAR, 2025; here as a cache
of keys and values).

B batch · P = S + L places of a row: S buffer tokens, then the tokens · A active places, padded with place P · D width ·
H heads · M gathered tokens

Every attention is bidirectional, so that each token that becomes known changes the features of all others, a little.
A full pass computes all places and keeps the keys and values of every block. The passes between two full ones compute
only what just became known and what is asked for; all the rest is attended to as the last pass left it.

The contexts are functions of the known tokens and of the steps they became known in, so that what is sampled this way
is still a normalised distribution with an exact likelihood: a slightly different model along each plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from mar.networks.packing import attention_of, turned
from mar.networks.two_stream import places

if TYPE_CHECKING:
    from mar.networks.masked_transformer import MaskedTransformer


@dataclass
class Lazy:
    """One generation; ``query`` and ``observe`` write into it.

    Attributes:
        token_BPD: what the encoder reads: the condition at the buffer's places, then the tokens.
        known_BP, present_BP, fresh_BP: bool: what is known, what is not padding, what became known since the last pass.
        encoder, decoder: of each block (2, B, P + 1, H, D / H), keys and values; the last place takes the padding.
        passes: so far.
    """

    token_BPD: torch.Tensor
    known_BP: torch.Tensor
    present_BP: torch.Tensor
    fresh_BP: torch.Tensor
    encoder: list[torch.Tensor]
    decoder: list[torch.Tensor]
    passes: int = 0


def begin(net: MaskedTransformer, condition_BC: torch.Tensor, absent_BL: torch.Tensor) -> Lazy:
    (B, L), S = absent_BL.shape, net.sizes.buffer
    token_BPD = torch.cat([condition_BC[:, None].expand(-1, S, -1), condition_BC.new_zeros(B, L, net.token_width)], 1)
    known_BP = (torch.arange(S + L, device=absent_BL.device) < S).expand(B, -1).clone()
    present_BP = F.pad(~absent_BL, (S, 0), value=True)
    return Lazy(token_BPD, known_BP, present_BP, known_BP.clone(), [], [])


def observe(net: MaskedTransformer, state: Lazy, token_BLD: torch.Tensor, index_BL: torch.Tensor) -> Lazy:
    S = net.sizes.buffer
    new_BP = F.pad(index_BL, (S, 0), value=False)
    state.token_BPD[new_BP] = token_BLD[index_BL].to(state.token_BPD.dtype)
    state.known_BP, state.fresh_BP = state.known_BP | new_BP, state.fresh_BP | new_BP
    return state


def query(net: MaskedTransformer, state: Lazy, index_BL: torch.Tensor) -> torch.Tensor:
    """z_MD of the unknown tokens ``index_BL``."""
    asked_BP = F.pad(index_BL, (net.sizes.buffer, 0), value=False)
    full = state.passes % net.sampling.refresh == 0
    state.passes += 1
    encode_BP = state.known_BP if full else state.fresh_BP
    decode_BP = state.present_BP if full else state.fresh_BP | asked_BP
    state.fresh_BP = torch.zeros_like(state.fresh_BP)
    P = encode_BP.shape[1]

    place_BA = _active(encode_BP)
    x_BAD = _take(state.token_BPD, place_BA) + F.embedding(place_BA.clamp(max=P - 1), net.encoder_position)
    x_BAD, angle_BAF = net.embed_norm(x_BAD), net.encoder_turns(place_BA.clamp(max=P - 1))
    for i, block in enumerate(net.encoder_blocks):
        x_BAD = _block(block, x_BAD, angle_BAF, state.encoder, i, place_BA, state.known_BP)
    encoded_BAD = net.decoder_embed(net.encoder_norm(x_BAD))

    row_B1 = torch.arange(len(place_BA), device=place_BA.device)[:, None]
    input_BPD = net.mask_token.to(encoded_BAD.dtype).expand(len(place_BA), P + 1, -1).clone()
    input_BPD[row_B1, place_BA] = encoded_BAD
    place_BA = _active(decode_BP)
    x_BAD = _take(input_BPD, place_BA) + F.embedding(place_BA.clamp(max=P - 1), net.decoder_position)
    angle_BAF = net.decoder_turns(place_BA.clamp(max=P - 1))
    for i, block in enumerate(net.decoder_blocks):
        x_BAD = _block(block, x_BAD, angle_BAF, state.decoder, i, place_BA, state.present_BP)
    wanted_BA = F.pad(asked_BP, (0, 1))[row_B1, place_BA]
    z_MD = net.decoder_norm(x_BAD[wanted_BA])
    return z_MD + F.embedding(index_BL.nonzero(as_tuple=True)[1], net.target_position)


def _active(keep_BP: torch.Tensor) -> torch.Tensor:
    """place_BA: the kept places of each row in their order, padded with P."""
    place_BA, real_BA = places(keep_BP)
    return torch.where(real_BA, place_BA, keep_BP.shape[1])


def _take(x_BPD: torch.Tensor, place_BA: torch.Tensor) -> torch.Tensor:
    row_B1 = torch.arange(len(place_BA), device=place_BA.device)[:, None]
    return x_BPD[row_B1, place_BA.clamp(max=x_BPD.shape[1] - 1)]


def _block(
    block: Any,
    x_BAD: torch.Tensor,
    angle_BAF: torch.Tensor | None,
    memories: list[torch.Tensor],
    number: int,
    place_BA: torch.Tensor,
    sees_BP: torch.Tensor,
) -> torch.Tensor:
    """A ``PackedBlock`` on the active places, attending to what it last knew of all that ``sees_BP`` lets it."""
    attention, (B, A, D) = block.attn, x_BAD.shape
    qkv_BAD = attention.qkv(block.norm1(x_BAD))
    if angle_BAF is not None:
        qkv_BAD = turned(qkv_BAD, attention.num_heads, angle_BAF)
    q, k, v = qkv_BAD.view(B, A, 3, attention.num_heads, -1).unbind(2)
    if number == len(memories):  # zeros: what nobody sees must be finite all the same
        memories.append(k.new_zeros(2, B, sees_BP.shape[1] + 1, *k.shape[2:]))
    memory, row_B1 = memories[number], torch.arange(B, device=x_BAD.device)[:, None]
    memory[:, row_B1, place_BA] = torch.stack([k, v])
    key, value = (x[:, :-1].transpose(1, 2) for x in memory)
    mixed = attention_of(q.transpose(1, 2), key, value, sees_BP[:, None, None])
    x_BAD = x_BAD + attention.proj(mixed.transpose(1, 2).reshape(B, A, D))
    return x_BAD + block.mlp(block.norm2(x_BAD))
