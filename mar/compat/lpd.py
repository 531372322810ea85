"""LPD's released checkpoints (https://github.com/mit-han-lab/lpd, ``models/lpd.py``)."""

from __future__ import annotations

from mar.compat.indices import Family, Measured, State, depth
from mar.networks.causal_transformer import Sizes


def _measure(state: State, heads: int | None) -> Measured:
    levels, width = state["head.weight"].shape
    sizes = Sizes(width, depth(state), heads or max(1, width // 64))
    hidden = len(state["blocks.0.mlp.fc1.weight"])
    return Measured(state["pos_embed"].shape[1] - 1, levels, len(state["class_emb.weight"]), hidden, sizes)


def _prepare(state: State, found: Measured) -> State:
    """The published head has no bias."""
    position, vectors = state["pos_embed"][0], {name: state[name].flatten() for name in ("mask_token", "fake_latent")}
    bias = position.new_zeros(found.levels)
    return {**state, **vectors, "start": position[0], "pos_embed": position[1:], "head.bias": bias}


LPD = Family(
    "LPD",
    "token_emb.weight",
    _measure,
    _prepare,
    {
        r"blocks\.": "network.blocks.",
        r"norm\.": "network.norm.",
        r"z_proj_ln\.": "network.input_norm.",
        r"start$": "network.start",
        r"pos_embed$": "network.content_position.tables.0",
        r"mask_token$": "network.target",
        r"fake_latent$": "null",
        r"class_emb\.": "classes.",
        r"token_emb\.": "embedding.embed.",
        r"head\.": "head.logits.",
    },
    {
        "ordering": {"kind": "locality"},
        "network": {"kind": "lpd"},
        "train": {"iterations": 281_000, "objective": {"kind": "next_set"}},
    },
    sets=("lpd", 20),
)
