"""Import released MAR checkpoints as run folders; export run folders as released checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from mar import build, config
from mar.compat.latent_diffusion import KL16, KL16_SCALE, chosen_scale
from mar.compat.published import Published, infer, rename, restore
from mar.compat.weights_file import numbers, unwrapped
from mar.config import Recipe
from mar.core.errors import Unsupported, UserError
from mar.core.spec import DataSpec
from mar.data.base import About
from mar.data.shards import Manifest
from mar.heads.diffusion import DiffusionHead
from mar.model.model import Model
from mar.networks.masked_transformer import SIZES, MaskedTransformer, MaskedTransformerOptions
from mar.run import Run
from mar.tokenizers.autoencoder import AutoencoderFolder
from mar.tokenizers.kl import KL, KLOptions
from mar.tokenizers.latents import Latents
from mar.training import checkpoint
from mar.training.optimizers import make_optimizer
from mar.training.run_folder import RunFolder

# keys of released files: MAR, DiT, latent diffusion, timm, DeepSpeed
_LAST = ("model", "state_dict", "model_state_dict", "module")
_AVERAGED = ("model_ema", "ema", "ema_model", "ema_state_dict", "state_dict_ema")
BASE = "imagenet256-mar-base"  # the published training: shapes do not tell it
IMPORTED = "imported weights: the training in the recipe is the published one, not read from the file"


def import_run(
    content: Mapping[str, Any], out: Path, heads: tuple[int | None, int | None] = (None, None),
    patch: int | None = None, vae: str = "", scale: float | None = None, data: str = "",
) -> tuple[Recipe, tuple[int, ...]]:  # fmt: skip
    """Write the run folder ``out`` from a released file: ``model`` and ``model_ema``, or one state dict for both. The
    folder loads, samples and scores like a trained run; its recipe is the published training, finished. Return that
    recipe and the shape of the latents.

    Raise UserError if the file is not the published MAR, sizes do not fit, or ``out`` holds another run or weights.

    Args:
        heads: attention heads of the encoder and the decoder; None: see ``infer``.
        patch: side of a token in latents; None: inferred from the channels of the autoencoder, or of KL-16.
        vae: folder or hub name of the autoencoder of the latents; default: that of ``data``; without either, samples
            are latents.
        scale: factor of the latents; None: the autoencoder's ``scaling_factor``, or KL-16's.
        data: folder of cached latents, to score and train on.
    """
    plain, average = state_dicts(content)
    found = infer(plain, *heads)
    recipe, about, latents = described(found, out.name, patch, vae, scale, data)
    return write(recipe, about, rename(plain), rename(average), out), latents


def write(
    recipe: Recipe, about: About, last: dict[str, torch.Tensor], average: dict[str, torch.Tensor], out: Path
) -> Recipe:
    """Write a finished run of these weights, in our names, and return its whole recipe.

    Raise UserError if weights are missing or of other sizes, or ``out`` holds another run or weights.
    """
    recipe = build.resolve(recipe)
    model = build.assemble(recipe, about).model
    last, ema = (fill(model, state) for state in (last, average))
    model.load_state_dict(last, strict=False)  # a tokenizer's buffers are not in the file
    training = {"optimizer": make_optimizer(model, recipe.train).state_dict()}  # as before the first step
    folder = RunFolder(out)
    with folder.locked():
        there, _ = checkpoint.latest(folder.checkpoints)
        if there is not None and not there.holds(model.state_dict(), ema):
            raise UserError(f"{out} holds a run of other weights: choose another --out, or delete it")
        folder.start(recipe, about, computes={})
        if there is None:
            checkpoint.save(folder.checkpoints, recipe.train.iterations, model.state_dict(), ema, training, keep=1)
    return recipe


def state_dicts(content: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the last and the averaged weights of a released file, float32; one stands for both if it is alone.

    Raise UserError if there is no state dict, or a weight is not finite.
    """
    keys = [next((key for key in family if key in content), None) for family in (_LAST, _AVERAGED)]
    found = [numbers(unwrapped(content[key], key), key) for key in keys if key is not None]
    found = found or [numbers(unwrapped(content))]
    return found[0], found[-1]


def described(
    found: Published, name: str, patch: int | None, vae: str, scale: float | None, data: str
) -> tuple[Recipe, About, tuple[int, ...]]:
    """Return the recipe of a published model, the metadata of its data, and the shape of its latents.

    Raise UserError as ``import_run`` does.
    """
    if data:
        Manifest.read(Path(data).expanduser())
        vae = vae or str(Path(data).expanduser() / "tokenizer")
    autoencoder = AutoencoderFolder.find(vae).config if vae else None
    channels = autoencoder["latent_channels"] if autoencoder else KL16["latent_channels"]
    patch = patch or max(1, math.isqrt(found.token_width // channels))
    side = math.isqrt(found.n_tokens) * patch
    if side**2 != found.n_tokens * patch**2:
        raise UserError(f"{found.n_tokens} tokens are no square: the published MAR makes square images")
    if found.token_width % patch**2 or (autoencoder and found.token_width != channels * patch**2):
        asked = f"{channels} channels of {vae}" if autoencoder else "whole channels"
        values = f"tokens of {found.token_width} values"
        raise UserError(f"{values} are no {patch}x{patch} patches of {asked}: check --patch")
    latents = (found.token_width // patch**2, side, side)
    spec = DataSpec(latents, 0, found.n_classes, modality="latent")
    tokenizer: dict[str, Any] = {"kind": "latents", "patch": patch}
    tokenizer["scale"] = chosen_scale(scale, autoencoder["scaling_factor"] if autoencoder else KL16_SCALE)
    if autoencoder:
        tokenizer |= {"kind": "kl", "path": absolute(vae)}
        spec = images_of(spec, autoencoder)
    content = config.read(BASE).as_dict() | {"name": name, "tokenizer": tokenizer}
    content["data"] |= {"path": absolute(data)}
    content["network"] |= _network(found.network)
    content["head"] |= {"width": found.head_width, "depth": found.head_depth}
    about = About("unknown data", spec, fingerprint="", notes={"imported": IMPORTED})
    return config.parse(content), about, latents


def absolute(path: str) -> str:
    """Return the absolute path of a folder; return a hub name unchanged."""
    return str(Path(path).expanduser().resolve()) if path and Path(path).expanduser().is_dir() else path


def attach(run: Run, vae: str) -> None:
    """Make a run of latents decode to images with the autoencoder of a folder or hub name.

    Raise UserError if the run has no bare latents, or the autoencoder has other latents.
    """
    bare = run.model.tokenizer
    if run.spec.is_codebook:
        raise UserError(
            f"{run.folder.path} makes indices of a codebook, which no KL autoencoder decodes: leave --vae out, and "
            "import the model with its VQ tokenizer (mar import --vae), or decode latents.npy with it"
        )
    if not isinstance(bare, Latents):
        raise UserError(f"{run.folder.path} makes no bare latents: leave --vae out")
    spec = images_of(run.spec, AutoencoderFolder.find(vae).config)
    decoding = KL(spec, KLOptions(path=vae, **asdict(bare.options))).to(run.device)
    if (decoding.shape, decoding.token) != (bare.shape, bare.token):
        raise UserError(f"{vae} has other latents than the {'x'.join(map(str, run.spec.shape))} of {run.folder.path}")
    run.model.tokenizer, run.about = decoding, replace(run.about, spec=spec)


def images_of(latent: DataSpec, autoencoder: dict[str, Any]) -> DataSpec:
    """Return the images that the latents decode to."""
    factor = 2 ** (len(autoencoder["block_out_channels"]) - 1)
    size = (side * factor for side in latent.shape[1:])
    return DataSpec((autoencoder["in_channels"], *size), 256, latent.n_classes, latent.class_names)


def _network(options: MaskedTransformerOptions) -> dict[str, Any]:
    """Return a published size by name, any other by its numbers."""
    numbers = asdict(options.sizes)
    name = next((name for name, size in SIZES.items() if asdict(size) == numbers), None)
    return {"mlp_ratio": options.mlp_ratio, **(numbers if name is None else {"size": name})}


def fill(model: Model, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return ``state`` if it has exactly the model's weights, or raise UserError with the first that differs."""
    ours = {name: weight.shape for name, weight in model.named_parameters()}
    wrong = sorted(k for k in ours.keys() | state.keys() if k not in state or ours.get(k) != state[k].shape)
    if wrong:
        here = tuple(state[wrong[0]].shape) if wrong[0] in state else "missing"
        first = f"first {wrong[0]!r}: {here} in the file"
        raise UserError(f"{len(wrong)} weights disagree with the sizes of the others, {first}")
    return state


def export_run(run: Run) -> tuple[dict[str, dict[str, torch.Tensor]], float]:
    """Return a run's weights in the released layout (``model``, ``model_ema``), and the factor of its latents.

    Raise Unsupported with the reason if the published code has no such model.
    """
    model, shape = run.model, run.model.tokenizer.shape
    tokenizer: Any = model.tokenizer
    chain = tuple(getattr(model.head.options, name, None) for name in ("timesteps", "schedule"))
    per_channel = isinstance(tokenizer, KL) and (tokenizer.shift.any() or len(tokenizer.deviation.unique()) > 1)
    obstacles = [
        (not isinstance(model.network, MaskedTransformer), f"network {run.recipe.network.kind}"),
        (getattr(model.network.options, "rotary", "none") != "none", "rotary positions"),
        (not isinstance(model.head, DiffusionHead), f"head {run.recipe.head.kind}"),
        (chain != (1000, "cosine"), f"a head of {chain[0]} timesteps with schedule {chain[1]}"),
        (model.policy is not None, "a learned order"),
        (not model.n_classes, "no classes"),
        (len(shape) != 2 or shape[0] != shape[1], f"a grid of {'x'.join(map(str, shape))} tokens"),
        (not isinstance(tokenizer, KL | Latents), f"tokenizer {run.recipe.tokenizer.kind}"),
        (per_channel, "a scale measured per channel"),
    ]
    for there, obstacle in obstacles:
        if there:
            raise Unsupported(
                f"{run.folder.path} has {obstacle}: the released layout holds class-conditional masked-transformers "
                "with a diffusion head (cosine, 1000 timesteps) on a square grid of latents that one number multiplies"
            )
    scale = tokenizer.options.scale if isinstance(tokenizer, Latents) else 1.0 / float(tokenizer.deviation[0])
    average = run.checkpoint.load_ema()
    plain = {name: weight for name, weight in run.model.state_dict().items() if name in average}
    return {"model": restore(plain), "model_ema": restore(average)}, scale
