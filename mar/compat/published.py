"""Names and shapes of released MAR weights (https://github.com/LTH14/mar, ``models/mar.py``).

L tokens · S buffer tokens · C condition width · E token channels
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mar.core.errors import UserError
from mar.networks.masked_transformer import SIZES, MaskedTransformerOptions

_NAMES = {  # ours of each published name; a name that ends in a dot stands for all that begin with it
    "class_emb.weight": "classes.weight",
    "fake_latent": "null",
    "z_proj.": "embedding.embed.",
    "encoder_pos_embed_learned": "network.encoder_position",
    "z_proj_ln.": "network.embed_norm.",
    "mask_token": "network.mask_token",
    "decoder_pos_embed_learned": "network.decoder_position",
    "diffusion_pos_embed_learned": "network.target_position",
    **{f"{part}.": f"network.{part}." for part in ("encoder_blocks", "encoder_norm", "decoder_embed")},
    **{f"{part}.": f"network.{part}." for part in ("decoder_blocks", "decoder_norm")},
    "diffloss.net.": "head.net.",
}
_OURS = {ours: published for published, ours in _NAMES.items()}
_POSITIONS = ("encoder_pos_embed_learned", "decoder_pos_embed_learned", "diffusion_pos_embed_learned")
_BATCHED = {"fake_latent": 1, "mask_token": 2} | dict.fromkeys(_POSITIONS, 1)  # leading dimensions of size 1


def _other(name: str, table: Mapping[str, str]) -> str:
    for source, target in table.items():
        if name == source or (source.endswith(".") and name.startswith(source)):
            return target + name.removeprefix(source)
    raise UserError(f"{name!r} is no weight of the published MAR: give one of its state dicts (model or model_ema)")


def rename(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a published state dict with the names and shapes of our ``Model`` (without its tokenizer's buffers).

    Raise UserError for an entry that is not of the published MAR.
    """
    return {_other(name, _NAMES): _flat(value, _BATCHED.get(name, 0)) for name, value in state.items()}


def restore(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Invert ``rename``."""
    named = {_other(name, _OURS): value for name, value in state.items()}
    return {name: value[(None,) * _BATCHED.get(name, 0)] for name, value in named.items()}


def _flat(value: torch.Tensor, leading: int) -> torch.Tensor:
    return value.flatten(0, leading) if value.ndim > leading else value


@dataclass(frozen=True)
class Published:
    """Sizes of a published model."""

    n_tokens: int
    token_width: int  # channels of a latent × patch size squared
    n_classes: int
    head_width: int
    head_depth: int
    network: MaskedTransformerOptions


def infer(
    state: Mapping[str, torch.Tensor], encoder_heads: int | None = None, decoder_heads: int | None = None
) -> Published:
    """Infer sizes from the shapes of a published state dict; UserError for missing weights or other dimensions.

    Shapes do not tell the number of attention heads. Defaults: the heads of the published size of this width, otherwise
    heads of 64 channels.
    """
    try:
        n_tokens = state["diffusion_pos_embed_learned"].shape[1]
        encoder_width, token_width = state["z_proj.weight"].shape
        decoder_width = state["decoder_embed.weight"].shape[0]
        hidden = state["encoder_blocks.0.mlp.fc1.weight"].shape[0]
        network = MaskedTransformerOptions(
            encoder_width=encoder_width,
            encoder_depth=_depth(state, "encoder_blocks."),
            encoder_heads=encoder_heads or _heads(encoder_width),
            decoder_width=decoder_width,
            decoder_depth=_depth(state, "decoder_blocks."),
            decoder_heads=decoder_heads or _heads(decoder_width),
            buffer=state["encoder_pos_embed_learned"].shape[1] - n_tokens,
            mlp_ratio=hidden / encoder_width,
        )
        head_width, head_depth = len(state["diffloss.net.input_proj.weight"]), _depth(state, "diffloss.net.res_blocks.")
        return Published(n_tokens, token_width, len(state["class_emb.weight"]), head_width, head_depth, network)
    except KeyError as error:
        raise UserError(f"no {error} among the weights: give a state dict of the published MAR") from None
    except (IndexError, TypeError, ValueError, ZeroDivisionError):  # fewer dimensions, or blocks
        raise UserError("weights of other dimensions than the published MAR's: give one of its state dicts") from None


def _depth(state: Mapping[str, torch.Tensor], prefix: str) -> int:
    numbers = {int(name.removeprefix(prefix).split(".")[0]) for name in state if name.startswith(prefix)}
    if numbers != set(range(len(numbers))):
        raise ValueError("a block is missing")
    return len(numbers)


def _heads(width: int) -> int:
    published = {SIZES[name].encoder_width: SIZES[name].encoder_heads for name in ("base", "large", "huge")}
    return published.get(width) or max(1, width // 64)
