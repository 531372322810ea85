"""Released checkpoints with LlamaGen's Transformer blocks: RandAR (https://github.com/ziqipang/RandAR,
``model/randar_gpt.py``) and ARPG (https://github.com/hp-l33/ARPG, ``models/arpg.py``).
"""

from __future__ import annotations

import re

import torch

from mar.compat.indices import Family, Measured, State, depth
from mar.networks.causal_transformer import Sizes

_BLOCK = {  # of what follows the number of a block
    r"attn_norm": "norm1", r"attention_norm": "norm1", r"ffn_norm": "norm2", r"attention\.wqkv": "qkv",
    r"attention\.wo": "proj", r"attn\.to_qkv": "qkv", r"attn\.to_q": "qkv", r"attn\.proj": "proj",
    r"(?:feed_forward|ffn)\.w1": "gate", r"(?:feed_forward|ffn)\.w3": "up", r"(?:feed_forward|ffn)\.w2": "down",
}  # fmt: skip


def _blocks(theirs: str, ours: str) -> dict[str, str]:
    return {rf"{theirs}\.(\d+)\.{part}\.": rf"network.{ours}.\1.{name}." for part, name in _BLOCK.items()}


def _sizes(state: State, n_blocks: int, heads: int | None, head: str, w1: str) -> tuple[int, int, Sizes]:
    """Return V, the width of the hidden layers, and the sizes; no shape tells the number of tokens."""
    levels, width = state[head].shape
    return levels, len(state[w1]), Sizes(width, n_blocks, heads or max(1, width // 64))


def _measure_randar(state: State, heads: int | None) -> Measured:
    levels, hidden, sizes = _sizes(
        state, depth(state, "layers"), heads, "output.weight", "layers.0.feed_forward.w1.weight"
    )
    return Measured(0, levels, len(state["cls_embedding.embedding_table.weight"]) - 1, hidden, sizes)


def _prepare_randar(state: State, found: Measured) -> State:
    """The published head has no bias."""
    rest, classes = dict(state), state["cls_embedding.embedding_table.weight"]
    del rest["cls_embedding.embedding_table.weight"]
    instruction = rest["pos_instruct_embeddings"][0]
    vectors = {"pos_instruct_embeddings": instruction, "classes": classes[:-1], "null": classes[-1]}
    return {**rest, **vectors, "output.bias": classes.new_zeros(found.levels)}


def _measure_arpg(state: State, heads: int | None) -> Measured:
    n_blocks = depth(state, r"layers\.self_dec") + depth(state, r"layers\.cross_dec")
    levels, hidden, sizes = _sizes(state, n_blocks, heads, "head.weight", "layers.self_dec.0.ffn.w1.weight")
    return Measured(0, levels, len(state["embeddings.weight"]) - levels - 3, hidden, sizes)


def _prepare_arpg(state: State, found: Measured) -> State:
    """The published table holds tokens, the mask token, classes, "no class", and a row that nothing reads. Its head has
    no bias."""
    rest, table, V = dict(state), state["embeddings.weight"], found.levels
    for name in [name for name in rest if re.fullmatch(r"(layers\.self_dec\.\d+\.attn|layers)\.to_k\.weight", name)]:
        parts = [name.replace("to_k", part) for part in ("to_q", "to_k", "to_v")]
        joined = [rest.pop(part) for part in parts if part in rest]
        rest[name.replace("to_k", "to_qkv" if len(joined) == 3 else "to_kv")] = torch.cat(joined)
    vectors = {"mask_token": table[V], "null": table[-2], "head.bias": table.new_zeros(V)}
    return {**rest, **vectors, "embeddings.weight": table[:V], "classes": table[V + 1 : -2]}


_COMMON = {r"norm\.": "network.norm.", r"classes$": "classes.weight", r"null$": "null"}

RANDAR = Family(
    "RandAR",
    "pos_instruct_embeddings",
    _measure_randar,
    _prepare_randar,
    {
        **_blocks("layers", "blocks"),
        **_COMMON,
        r"pos_instruct_embeddings$": "network.instruction",
        r"tok_embeddings\.": "embedding.embed.",
        r"output\.": "head.logits.",
    },
    {
        "ordering": {"kind": "random"},
        "network": {"kind": "randar"},
        "train": {"iterations": 360_000, "objective": {"kind": "next_set"}},
    },
    sets=("randar", 88),
)
ARPG = Family(
    "ARPG",
    "layers.to_k.weight",
    _measure_arpg,
    _prepare_arpg,
    {
        **_blocks(r"layers\.self_dec", "blocks"),
        **_blocks(r"layers\.cross_dec", "asked_blocks"),
        **_COMMON,
        r"layers\.norm\.": "network.read_norm.",
        r"layers\.to_kv\.": "network.kv.",
        r"mask_token$": "network.mask_token",
        r"embeddings\.weight$": "embedding.embed.weight",
        r"head\.": "head.logits.",
    },
    {
        "ordering": {"kind": "random"},
        "network": {"kind": "arpg"},
        "train": {"iterations": 500_000, "objective": {"kind": "next_set"}},
    },
    sets=("cosine", 64),
)
