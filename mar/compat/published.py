"""Names and shapes of released MAR weights (https://github.com/LTH14/mar, ``models/mar.py``).

L tokens · S buffer tokens · C condition width · E token channels
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mar.core.errors import UserError
from mar.networks.masked_transformer import SIZES, MaskedTransformerOptions

_NAMES = {
    "class_emb.weight": "classes.weight",
    "fake_latent": "null",
    "z_proj.weight": "embedding.embed.weight",
    "z_proj.bias": "embedding.embed.bias",
    "encoder_pos_embed_learned": "network.encoder_position",
    "z_proj_ln.weight": "network.embed_norm.weight",
    "z_proj_ln.bias": "network.embed_norm.bias",
    "mask_token": "network.mask_token",
    "decoder_pos_embed_learned": "network.decoder_position",
    "diffusion_pos_embed_learned": "network.target_position",
}
_PREFIXES = {
    "encoder_blocks.": "network.encoder_blocks.",
    "encoder_norm.": "network.encoder_norm.",
    "decoder_embed.": "network.decoder_embed.",
    "decoder_blocks.": "network.decoder_blocks.",
    "decoder_norm.": "network.decoder_norm.",
    "diffloss.net.": "head.net.",
}
_POSITIONS = ("encoder_pos_embed_learned", "decoder_pos_embed_learned", "diffusion_pos_embed_learned")
_BATCHED = {"fake_latent": 1, "mask_token": 2} | dict.fromkeys(_POSITIONS, 1)  # leading dimensions of size 1


def rename(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a published state dict with the names and shapes of our ``Model`` (without its tokenizer's buffers).

    Raises:
        UserError: an entry is not of the published MAR.
    """
    return {_ours(name): _flat(value, _BATCHED.get(name, 0)) for name, value in state.items()}


def restore(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Invert ``rename``. Raise KeyError for a weight that the published MAR does not have."""
    return {name: value[(None,) * _BATCHED.get(name, 0)] for name, value in ((_theirs(k), v) for k, v in state.items())}


def _flat(value: torch.Tensor, leading: int) -> torch.Tensor:
    return value.flatten(0, leading) if value.ndim > leading else value


def _theirs(name: str) -> str:
    for published, ours in (*_NAMES.items(), *_PREFIXES.items()):
        if name == ours or (ours.endswith(".") and name.startswith(ours)):
            return published + name.removeprefix(ours)
    raise KeyError(name)


def _ours(name: str) -> str:
    if name in _NAMES:
        return _NAMES[name]
    for published, ours in _PREFIXES.items():
        if name.startswith(published):
            return ours + name.removeprefix(published)
    raise UserError(f"{name!r} is no weight of the published MAR: give one of its state dicts (model or model_ema)")


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
    """Infer sizes from the shapes of a published state dict.

    Shapes do not tell the number of attention heads. Defaults: the heads of the published size of this width, otherwise
    heads of 64 channels.

    Raises:
        UserError: weights of the published MAR are missing or have other dimensions.
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
    except (IndexError, TypeError, ValueError):  # fewer dimensions
        raise UserError("weights of other dimensions than the published MAR's: give one of its state dicts") from None


def _depth(state: Mapping[str, torch.Tensor], prefix: str) -> int:
    numbers = [int(name.removeprefix(prefix).split(".")[0]) for name in state if name.startswith(prefix)]
    return 1 + max(numbers, default=-1)


def _heads(width: int) -> int:
    published = {size.encoder_width: size.encoder_heads for size in SIZES.values()}
    return published.get(width) or max(1, width // 64)
