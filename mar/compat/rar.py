"""Import released RAR checkpoints (https://github.com/bytedance/1d-tokenizer, ``modeling/rar.py``) as run folders.

L tokens · V categories · D width
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mar import config
from mar.compat.released import IMPORTED, state_dicts, write
from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.data.base import About
from mar.networks.causal_transformer import Sizes
from mar.networks.rar import FRONT

NAME = "RAR"
OPTIONS = ("heads", "data")  # of ``mar import``
_SPARE = 1024  # rows of the published position tables beyond those of the L tokens, never used
_HEADS = 16  # of every released size
_WIDTHS = (768, 1024, 1280, 1408)
_NAMES = {  # ours of each published part of a name
    r"^blocks\.(\d+)\.adaLN_modulation\.1\.": r"network.blocks.\1.modulation.",
    r"^blocks\.(\d+)\.attn\.([qk]_norm)\.": r"network.blocks.\1.\2.",
    r"^blocks\.": "network.blocks.",
    r"^adaln_before_head\.adaLN_modulation\.1\.": "network.modulation.",
    r"^lm_head\.": "head.logits.",
}
_TABLES = ("cls_token", "pos_embed", "target_aware_pos_embed", "timesteps_embeddings", "embeddings.weight")


def recognises(content: Mapping[str, Any]) -> bool:
    """True if a file, or a state dict in it, has RAR's target-aware positions."""
    inside = (content, *(value for value in content.values() if isinstance(value, Mapping)))
    return any(str(name).endswith("target_aware_pos_embed") for names in inside for name in names)


def import_run(content: Mapping[str, Any], out: Path, heads: int | None = None, data: str = "") -> tuple[Sizes, int]:
    """Write the run folder ``out`` from a released file, and return the sizes of the network and V.

    The run's examples are indices of the codebook (``data.kind=rar-tokens``). Raise UserError if the file is not the
    published RAR, or as ``released.write`` does.

    Args:
        heads: attention heads; None: 16, as in every released size, and for other widths heads of 64 channels.
        data: the file of tokens that RAR's code writes, to score and train on.
    """
    plain, average = state_dicts(content)
    try:
        n_tokens, (levels, width) = plain["pos_embed"].shape[1] - _SPARE, plain["lm_head.weight"].shape
        n_classes = len(plain["embeddings.weight"]) - levels - 2  # and the mask token, and "no class"
        hidden = len(plain["blocks.0.mlp.fc1.weight"])
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"no weights of the published RAR: give its state dict ({error})") from None
    side = math.isqrt(max(0, n_tokens))
    if side**2 != n_tokens or not n_tokens or n_classes < 1:
        raise UserError(f"{n_tokens} tokens and {n_classes} classes: the published RAR makes square images of classes")
    depth = 1 + max(int(found[1]) for name in plain if (found := re.match(r"blocks\.(\d+)\.", name)))
    sizes = Sizes(width, depth, heads or (_HEADS if width in _WIDTHS else max(1, width // 64)))
    path = str(Path(data).expanduser().resolve()) if data else ""
    recipe = config.parse(
        {
            "name": out.name,
            "data": {"kind": "rar-tokens", "path": path, "levels": levels},
            "ordering": {"kind": "raster"},  # the published training ends in it
            "network": {"kind": "rar", **vars(sizes), "mlp_ratio": hidden / width},
            "train": {"iterations": 250_000, "objective": {"kind": "next_set"}},
        }
    )
    classes = tuple(map(str, range(n_classes)))
    spec = DataSpec((1, side, side), levels, n_classes, classes, modality="latent")
    about = About("unknown data", spec, fingerprint="", notes={"imported": IMPORTED})
    last, ema = (rename(state, n_tokens, levels) for state in (plain, average))
    write(recipe, about, last, ema, out)
    return sizes, levels


def rename(state: Mapping[str, torch.Tensor], n_tokens: int, levels: int) -> dict[str, torch.Tensor]:
    """Return a published state dict with the names and shapes of our ``Model``.

    The published tables have rows that nothing reads: those of positions beyond the tokens, and the mask token.
    Raise UserError for a missing table, or an entry that is not of the published RAR.
    """
    if missing := [name for name in _TABLES if name not in state]:
        raise UserError(f"no {missing[0]!r} among the weights: give a state dict of the published RAR")
    start, position, following, slot, embedding = (state[name] for name in _TABLES)
    ours = {
        "network.start": start.flatten(),
        "network.position": position[0, : FRONT + n_tokens],
        "network.next_position": following[0, FRONT : FRONT + n_tokens],
        "network.slot": slot[0, : 1 + n_tokens],
        "embedding.embed.weight": embedding[:levels],
        "classes.weight": embedding[levels + 1 : -1],
        "null": embedding[-1],
    }
    for name in state.keys() - set(_TABLES):
        found = next((re.sub(theirs, mine, name) for theirs, mine in _NAMES.items() if re.match(theirs, name)), None)
        if found is None:
            raise UserError(f"{name!r} is no weight of the published RAR: give its state dict")
        ours[found] = state[name]
    return {name: value.contiguous() for name, value in ours.items()}
