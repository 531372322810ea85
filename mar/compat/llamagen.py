"""Released checkpoints with LlamaGen's Transformer blocks: RandAR (https://github.com/ziqipang/RandAR,
``model/randar_gpt.py``) and ARPG (https://github.com/hp-l33/ARPG, ``models/arpg.py``).
"""

from __future__ import annotations

import re

import torch

from mar.compat.indices import Family, Measured, State, depth
from mar.networks.causal_transformer import Sizes

_RANDAR_CLASSES = "cls_embedding.embedding_table.weight"
_PARTS = {  # of a block: ours of each published one
    "(attn|attention)_norm": "norm1", "ffn_norm": "norm2", r"(attn\.to_q|attn\.to_qkv|attention\.wqkv)": "qkv",
    r"(attn\.proj|attention\.wo)": "proj", r"(ffn|feed_forward)\.w1": "gate", r"(ffn|feed_forward)\.w3": "up",
    r"(ffn|feed_forward)\.w2": "down",
}  # fmt: skip


def _names(head: str, table: str, **blocks: str) -> dict[str, str]:
    """Return the names of a network whose blocks are published as ``blocks``, by our name."""
    parts = [(theirs, ours, *part) for ours, theirs in blocks.items() for part in _PARTS.items()]
    names = {rf"{theirs}\.(\d+)\.{part}\.": rf"network.{ours}.\1.{name}." for theirs, ours, part, name in parts}
    names |= {r"norm\.": "network.norm.", "classes$": "classes.weight", "null$": "null"}
    return names | {rf"{head}\.": "head.logits.", rf"{table}\.": "embedding.embed."}


def _measured(state: State, heads: int | None, head: str, n_blocks: int, w1: str, n_classes: int) -> Measured:
    """No shape tells the number of tokens."""
    levels, width = state[f"{head}.weight"].shape
    sizes = Sizes(width, n_blocks, heads or max(1, width // 64))
    return Measured(0, levels, n_classes, len(state[f"{w1}.w1.weight"]), sizes)


def _measure_randar(state: State, heads: int | None) -> Measured:
    n_classes = len(state[_RANDAR_CLASSES]) - 1
    return _measured(state, heads, "output", depth(state, "layers"), "layers.0.feed_forward", n_classes)


def _prepare_randar(state: State, found: Measured) -> State:
    """The published head has no bias."""
    rest, instruction = dict(state), state["pos_instruct_embeddings"][0]
    classes = rest.pop(_RANDAR_CLASSES)
    vectors = {"pos_instruct_embeddings": instruction, "output.bias": classes.new_zeros(found.levels)}
    return {**rest, **vectors, "classes": classes[:-1], "null": classes[-1]}


def _measure_arpg(state: State, heads: int | None) -> Measured:
    n_blocks = depth(state, r"layers\.self_dec") + depth(state, r"layers\.cross_dec")
    n_classes = len(state["embeddings.weight"]) - len(state["head.weight"]) - 3
    return _measured(state, heads, "head", n_blocks, "layers.self_dec.0.ffn", n_classes)


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


RANDAR = Family(
    "RandAR",
    "pos_instruct_embeddings",
    _measure_randar,
    _prepare_randar,
    {"pos_instruct_embeddings$": "network.instruction", **_names("output", "tok_embeddings", blocks="layers")},
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
        **_names("head", "embeddings", blocks=r"layers\.self_dec", asked_blocks=r"layers\.cross_dec"),
        r"layers\.norm\.": "network.read_norm.",
        r"layers\.to_kv\.": "network.kv.",
        "mask_token$": "network.mask_token",
    },
    {
        "ordering": {"kind": "random"},
        "network": {"kind": "arpg"},
        "train": {"iterations": 500_000, "objective": {"kind": "next_set"}},
    },
    sets=("cosine", 64),
)
