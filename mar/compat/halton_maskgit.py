"""Halton-MaskGIT's released checkpoints (https://github.com/valeoai/Halton-MaskGIT, ``Network/transformer.py``)."""

from __future__ import annotations

import torch

from mar.compat.indices import Family, Measured, State, depth
from mar.core.errors import UserError
from mar.networks.halton_maskgit import Sizes

_HEADS = {384: 6, 512: 6, 768: 12, 1024: 16, 1152: 16}  # by width
_LAYER = r"transformer\.layers\.(\d+)\."


def _measure(state: State, heads: int | None) -> Measured:
    if "in_proj.weight" in state:
        raise UserError("in_proj.weight: this Halton-MaskGIT takes 2×2 tokens as one (proj=2), which is not read here")
    (n_tokens, width), levels = state["pos_emb.weight"].shape, len(state["head.bias"]) - 1  # and the mask token
    heads = heads or _HEADS.get(width, max(1, width // 64))
    registers = len(state.get("reg_tokens.weight", ()))
    hidden = len(state["transformer.layers.0.ff.w1.weight"])
    sizes = Sizes(width, depth(state, r"transformer\.layers"), heads, registers)
    return Measured(n_tokens, levels, len(state["cls_emb.weight"]) - 1, hidden, sizes)


def _prepare(state: State, found: Measured) -> State:
    """The mask token is no category: its logit, the last, is left out."""
    rest = {"reg_tokens.weight": state["pos_emb.weight"][:0], **state}
    for query in [name for name in rest if name.endswith(".wq.weight")]:
        rest[query.replace("wq", "wqkv")] = torch.cat([rest.pop(query.replace("wq", x)) for x in ("wq", "wk", "wv")])
    for name, last in (("cls_emb", "null"), ("tok_emb", "mask_token")):
        rest[last], rest[f"{name}.weight"] = rest[f"{name}.weight"][-1], rest[f"{name}.weight"][:-1]
    return rest | {name: rest[name][: found.levels] for name in ("head.weight", "head.bias")}


HALTON = Family(
    "Halton-MaskGIT",
    "last_norm.norm_final.weight",
    _measure,
    _prepare,
    {
        r"cls_emb\.": "classes.",
        r"null$": "null",
        r"tok_emb\.": "embedding.embed.",
        r"mask_token$": "network.mask_token",
        r"head\.": "head.logits.",
        r"pos_emb\.weight$": "network.position",
        r"reg_tokens\.weight$": "network.registers",
        r"last_norm\.norm_final\.weight$": "network.norm.weight",
        r"last_norm\.norm_final\.bias$": "network.norm_bias",
        r"last_norm\.mlp\.1\.": "network.modulation.",
        _LAYER + r"mlp\.1\.": r"network.blocks.\1.modulation.",
        _LAYER + r"ln([12])\.": r"network.blocks.\1.norm\2.",
        _LAYER + r"attn\.wqkv\.": r"network.blocks.\1.qkv.",
        _LAYER + r"attn\.wo\.": r"network.blocks.\1.proj.",
        _LAYER + r"ff\.w([123])\.": r"network.blocks.\1.mlp.w\2.",
    },
    {
        "ordering": {"kind": "halton"},
        "network": {"kind": "halton-maskgit"},
        "train": {"iterations": 1_500_000},
    },
    sets=("arccos", 32),
)
