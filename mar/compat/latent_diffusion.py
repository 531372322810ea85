"""Convert autoencoders to diffusers: KL from latent-diffusion's layout (Rombach et al. 2022; also MAR's KL-16), VQ from
LlamaGen's (Sun et al. 2024, arXiv 2406.06525), whose names are translated into the other's.

i level of resolution, from the highest · j block of a level
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.nn import functional as F

from mar.compat.weights_file import numbers, unwrapped
from mar.core.errors import UserError

KL16 = {"block_out_channels": (128, 128, 256, 256, 512), "layers_per_block": 2, "latent_channels": 16}
KL16_SCALE = 0.2325  # MAR's factor of the latents of the released KL-16
_LAYOUTS = "a KL autoencoder in latent-diffusion's layout, or a VQ in LlamaGen's"
_GROUPS = 32  # of every group norm
_LOWEST = 16  # rows of the lowest resolution by convention: no shape tells the size of the images
_RENAMED = (
    (r"\.mid\.block_([12])\.", lambda m: f".mid_block.resnets.{int(m[1]) - 1}."),
    (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
    (r"\.block\.", ".resnets."),
    (r"\.attn\.", ".attentions."),
    (r"\.downsample\.", ".downsamplers.0."),
    (r"\.upsample\.", ".upsamplers.0."),
    (r"\.nin_shortcut\.", ".conv_shortcut."),
    (r"\.norm_out\.", ".conv_norm_out."),
    (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
    (r"(attentions\.\d+)\.([qkv])\.", r"\1.to_\2."),
    (r"(attentions\.\d+)\.proj_out\.", r"\1.to_out.0."),
)
_OF_LLAMAGEN = (
    (r"\.mid\.0\.", ".mid.block_1."),
    (r"\.mid\.1\.", ".mid.attn_1."),
    (r"\.mid\.2\.", ".mid.block_2."),
    (r"^encoder\.conv_blocks\.", "encoder.down."),
    (r"(down|up)\.(\d+)\.res\.", r"\1.\2.block."),
)
_CODEBOOK = "quantize.embedding.weight"


def state_dict(content: Mapping[str, Any]) -> dict[str, torch.Tensor] | None:
    """Find the autoencoder's weights in a file's content (bare, or under ``model`` or ``state_dict``), float32, without
    the discriminator; None: there is no autoencoder. Raise UserError if a weight is not finite."""
    state = next((content[key] for key in ("model", "state_dict") if isinstance(content.get(key), Mapping)), content)
    state = unwrapped(state)
    if "encoder.conv_in.weight" not in state:
        return None
    return numbers({name: weight for name, weight in state.items() if not name.startswith("loss.")})


def chosen_scale(scale: float | None, default: float) -> float:
    """Return the factor of the latents. Raise UserError if it is not positive and finite."""
    if scale is not None and not 0 < scale < math.inf:
        raise UserError(f"--scale is a positive number that multiplies the latents, not {scale}: default {default:g}")
    return default if scale is None else scale


def from_llamagen(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state dict of LlamaGen's VQ model with latent-diffusion's names and its codebook as it is used.

    Its code compares entries and latents at length 1. The nearest of entries of length 1 is the same for latents of any
    length, so the entries alone are normalised.
    """
    levels = 1 + max(_numbers(state, r"decoder\.conv_blocks\.(\d+)\."))
    ours = {}
    for name, value in state.items():
        name = re.sub(r"^decoder\.conv_blocks\.(\d+)", lambda m: f"decoder.up.{levels - 1 - int(m[1])}", name)
        for pattern, replacement in _OF_LLAMAGEN:
            name = re.sub(pattern, replacement, name)
        if name != "quantize.codebook_used":  # a record of the training
            ours[name] = F.normalize(value, dim=-1) if name == _CODEBOOK else value
    return ours


def convert(state: Mapping[str, torch.Tensor], scale: float | None = None) -> Any:
    """Return diffusers' ``AutoencoderKL`` with the weights of a latent-diffusion state dict, or its ``VQModel`` with
    those of LlamaGen's; sizes come from shapes.

    ``scale`` gives latents unit variance and is stored in the configuration; None: the published factor of KL-16, 1 for
    other autoencoders. Raise UserError for missing or unknown weights, an invalid scale, or one of a VQ's latents.
    """
    from mar.core import torchvision  # noqa: F401, I001 - before diffusers
    from diffusers import AutoencoderKL, VQModel

    try:
        state = from_llamagen(state) if _CODEBOOK in state else state
        config = sizes(state)
    except KeyError as error:
        raise UserError(f"no {error} among the weights: give {_LAYOUTS}") from None
    except IndexError:
        raise UserError(f"weights of other dimensions than those of {_LAYOUTS}") from None
    published = all(config[key] == value for key, value in KL16.items())
    if _CODEBOOK in state:
        if scale is not None:
            raise UserError("--scale multiplies the latents of a KL autoencoder: a VQ's have none, leave it out")
        model = VQModel(**config)
    else:
        model = AutoencoderKL(**config, scaling_factor=chosen_scale(scale, KL16_SCALE if published else 1.0))
    levels, wanted = len(config["block_out_channels"]), model.state_dict()
    ours = {_renamed(name, levels): value for name, value in state.items()}
    for name, value in ours.items():
        if name in wanted and value.ndim == 4 and wanted[name].ndim == 2:  # 1×1 convolutions became linear maps
            ours[name] = value[:, :, 0, 0]
    wrong = [
        k for k in wanted.keys() | ours.keys() if k not in wanted or k not in ours or wanted[k].shape != ours[k].shape
    ]
    if wrong:
        first = min(wrong)
        raise UserError(f"{len(wrong)} weights are not those of {_LAYOUTS}, first {first!r}")
    model.load_state_dict(ours)
    return model.eval()


def sizes(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return the configuration of diffusers' model. Raise KeyError if a weight is missing."""
    levels = 1 + max(_numbers(state, r"encoder\.down\.(\d+)\."))
    width = tuple(state[f"encoder.down.{i}.block.0.conv2.weight"].shape[0] for i in range(levels))
    if any(channels % _GROUPS for channels in width):
        raise UserError(f"widths {width}: latent-diffusion's are multiples of {_GROUPS}")
    attn = ("", "Attn")
    down = (f"{attn[f'encoder.down.{i}.attn.0.q.weight' in state]}DownEncoderBlock2D" for i in range(levels))
    up = (f"{attn[f'decoder.up.{i}.attn.0.q.weight' in state]}UpDecoderBlock2D" for i in reversed(range(levels)))
    latents = {"latent_channels": state["post_quant_conv.weight"].shape[1]}
    if _CODEBOOK in state:
        latents["latent_channels"] = state["post_quant_conv.weight"].shape[0]
        latents |= dict(zip(("num_vq_embeddings", "vq_embed_dim"), state[_CODEBOOK].shape, strict=True))
    return {
        **latents,
        "in_channels": state["encoder.conv_in.weight"].shape[1],
        "out_channels": state["decoder.conv_out.weight"].shape[0],
        "down_block_types": tuple(down),
        "up_block_types": tuple(up),
        "block_out_channels": width,
        "layers_per_block": 1 + max(_numbers(state, r"encoder\.down\.0\.block\.(\d+)\.")),
        "norm_num_groups": _GROUPS,
        "sample_size": _LOWEST * 2 ** (levels - 1),
        "mid_block_add_attention": "encoder.mid.attn_1.q.weight" in state,
    }


def _renamed(name: str, levels: int) -> str:
    name = re.sub(r"^encoder\.down\.", "encoder.down_blocks.", name)
    name = re.sub(r"^decoder\.up\.(\d+)", lambda m: f"decoder.up_blocks.{levels - 1 - int(m[1])}", name)
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _numbers(names: Iterable[str], pattern: str) -> list[int]:
    found = [int(match[1]) for name in names if (match := re.match(pattern, name))]
    if not found:
        raise KeyError(pattern.replace("\\", "").replace("(d+)", "0"))
    return found
