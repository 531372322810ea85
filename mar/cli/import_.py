"""``mar import``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    import torch

# ruff: noqa: UP045 - typer reads Optional


def import_(
    file: Annotated[Path, typer.Argument(help="A .pth, .ckpt or .safetensors file.")],
    out: Annotated[Path, typer.Option(help="Folder to write: a run, or a diffusers autoencoder.")],
    heads: Annotated[
        Optional[int],
        typer.Option(min=1, help="MAR: attention heads; default as published for its width, else of 64 channels."),
    ] = None,
    decoder_heads: Annotated[
        Optional[int], typer.Option(min=1, help="MAR: those of the decoder, where they differ.")
    ] = None,
    patch: Annotated[
        Optional[int], typer.Option(min=1, help="MAR: side of a token in latents; default from the channels.")
    ] = None,
    vae: Annotated[
        str,
        typer.Option(help="MAR: the KL autoencoder of its latents, a diffusers folder or hub name; default --data's."),
    ] = "",
    scale: Annotated[
        Optional[float],
        typer.Option(help="What latents are multiplied with; default the autoencoder's own, or KL-16's .2325."),
    ] = None,
    data: Annotated[str, typer.Option(help="MAR: a folder of cached latents, to score and train on.")] = "",
) -> None:
    """Read released weights, without executing anything in the file: a MAR (`model`, `model_ema`) becomes a run folder,
    a KL autoencoder in latent-diffusion's layout a folder that diffusers and `tokenizer.kind=kl` read.

    All sizes are inferred from the shapes, but the numbers of attention heads, which leave no trace there.

    Examples:

        mar import kl16.ckpt --out kl16

        mar import mar_base.pth --out runs/mar-base --vae kl16

        mar sample runs/mar-base --class 207 --guidance 2.9 --head start=999

        mar import tiny.pth --out runs/tiny --heads 4 --patch 2
    """
    from mar.compat import latent_diffusion, weights_file
    from mar.networks import NETWORKS

    content = weights_file.read(file)
    state = latent_diffusion.state_dict(content)
    if state is not None:
        _autoencoder(state, out, scale)
        return
    from mar.compat.released import import_run

    recipe = import_run(content, out, (heads, decoder_heads or heads), patch, vae, scale, data)
    size = NETWORKS.options(recipe.network.kind, recipe.network.options).sizes
    parts = (f"{getattr(size, f'{part}_depth')} x {getattr(size, f'{part}_width')}" for part in ("encoder", "decoder"))
    used = f"{size.encoder_heads} and {size.decoder_heads} heads"
    print(f"done: {out}, a MAR of {' + '.join(parts)}, {used}, {size.buffer} class tokens")
    print(f"next: mar sample {out}" + ("" if vae or data else " --vae AUTOENCODER   (without: latents)"))


def _autoencoder(state: dict[str, torch.Tensor], out: Path, scale: float | None) -> None:
    from mar.compat.latent_diffusion import convert
    from mar.core.errors import UserError
    from mar.core.files import write_atomic

    if out.exists():
        raise UserError(f"{out} is there already: choose another --out, or delete it")
    model = convert(state, scale)
    write_atomic(out, model.save_pretrained)
    widths = "-".join(map(str, model.config.block_out_channels))
    print(f"done: {out}, a KL autoencoder of {model.config.latent_channels} channels, widths {widths}")
    print(f"next: mar import MAR.pth --out runs/mar --vae {out}")
