"""RAR's released checkpoints (https://github.com/bytedance/1d-tokenizer, ``modeling/rar.py``)."""

from __future__ import annotations

from mar.compat.indices import Family, Measured, State, depth
from mar.networks.causal_transformer import Sizes
from mar.networks.rar import FRONT

_SPARE = 1024  # rows of the published position tables beyond those of the L tokens, never used
_HEADS = 16  # of every released size
_WIDTHS = (768, 1024, 1280, 1408)


def _measure(state: State, heads: int | None) -> Measured:
    n_tokens, (levels, width) = state["pos_embed"].shape[1] - _SPARE, state["lm_head.weight"].shape
    n_classes = len(state["embeddings.weight"]) - levels - 2  # and the mask token, and "no class"
    sizes = Sizes(width, depth(state), heads or (_HEADS if width in _WIDTHS else max(1, width // 64)))
    return Measured(n_tokens, levels, n_classes, len(state["blocks.0.mlp.fc1.weight"]), sizes)


def _prepare(state: State, found: Measured) -> State:
    """The published tables have rows that nothing reads: those of positions beyond the tokens, and the mask token."""
    n, embedding = found.n_tokens, state["embeddings.weight"]
    return {
        **state,
        "cls_token": state["cls_token"].flatten(),
        "pos_embed": state["pos_embed"][0, : FRONT + n],
        "target_aware_pos_embed": state["target_aware_pos_embed"][0, FRONT : FRONT + n],
        "timesteps_embeddings": state["timesteps_embeddings"][0, : 1 + n],
        "embeddings.weight": embedding[: found.levels],
        "classes": embedding[found.levels + 1 : -1],
        "null": embedding[-1],
    }


RAR = Family(
    "RAR",
    "target_aware_pos_embed",
    _measure,
    _prepare,
    {
        r"blocks\.(\d+)\.adaLN_modulation\.1\.": r"network.blocks.\1.modulation.",
        r"blocks\.(\d+)\.attn\.([qk]_norm)\.": r"network.blocks.\1.\2.",
        r"blocks\.": "network.blocks.",
        r"adaln_before_head\.adaLN_modulation\.1\.": "network.modulation.",
        r"lm_head\.": "head.logits.",
        r"cls_token$": "network.start",
        r"pos_embed$": "network.position",
        r"target_aware_pos_embed$": "network.next_position",
        r"timesteps_embeddings$": "network.slot",
        r"embeddings\.weight$": "embedding.embed.weight",
        r"classes$": "classes.weight",
        r"null$": "null",
    },
    {
        "ordering": {"kind": "raster"},  # the published training ends in it
        "network": {"kind": "rar"},
        "train": {"iterations": 250_000, "objective": {"kind": "next_set"}},
    },
)
