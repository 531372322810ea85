"""``mar export`` and ``mar import``: weights in the layouts of other projects."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mar.cli.options import arg, opt
from mar.core.errors import UserError
from mar.core.files import write_atomic

if TYPE_CHECKING:
    import torch


def export(
    run: Annotated[Path, arg("A run folder.")],
    out: Annotated[Path | None, opt("A .pth file in the released layout, or a folder in the hub's layout.")] = None,
    push: Annotated[str, opt("Upload to the Hugging Face hub as OWNER/NAME (extra: hub).")] = "",
    private: Annotated[bool, opt("Make the repository of --push private.", "--private")] = False,
) -> None:
    """Write a run for the published code, or for the Hugging Face hub.

    A .pth file has the layout of the released MAR checkpoints (`model` and `model_ema`); runs that the published code
    cannot represent are rejected with the reason. A folder or hub repository has recipe, safetensors and a model card.

    Examples:

        mar export runs/mar-base --out mar_base.pth
        mar export runs/digits --out digits-model
        mar export runs/digits --push me/digits
    """
    from mar.compat.hub import PretrainedRun

    suffix = out.suffix.lower() if out is not None else ""
    if not (out or push):
        raise UserError("say where to: --out FILE.pth, --out FOLDER, or --push OWNER/NAME")
    if suffix in (".pt", ".ckpt", ".bin", ".safetensors"):
        raise UserError(f"{out} is neither: --out is a .pth file, the released layout, or a folder")
    if push:  # first, since the hub may refuse
        print(f"uploaded {PretrainedRun(run, device='cpu').push_to_hub(push, private=private or None)}")
    if out is not None and suffix == ".pth":
        _export_released(run, out)
    elif out is not None:
        PretrainedRun(run, device="cpu").save_pretrained(out)
        print(f"wrote {out}: recipe, weights, README.md; read it with mar.load")


def _export_released(run: Path, out: Path) -> None:
    import torch

    from mar.compat.released import export_run
    from mar.run import load

    if out.exists() and not out.is_file():
        raise UserError(f"{out} is no file: --out names the .pth to write")
    states, scale = export_run(load(run, ema=False, device="cpu"))
    write_atomic(out, lambda aside: torch.save(states, aside))
    print(f"wrote {out}: {len(states['model'])} weights, last and averaged; its latents are multiplied by {scale:g}")


def import_(
    file: Annotated[Path, arg("A .pth, .ckpt, .bin or .safetensors file.")],
    out: Annotated[Path, opt("Folder to write: a run, or a diffusers autoencoder.")],
    heads: Annotated[
        int | None, opt("Attention heads of a network; default as published, else of 64 channels.", min=1)
    ] = None,
    decoder_heads: Annotated[int | None, opt("MAR: attention heads of the decoder, where they differ.", min=1)] = None,
    patch: Annotated[int | None, opt("MAR: side of a token in latents; default from the channels.", min=1)] = None,
    vae: Annotated[str, opt("The autoencoder of a network, a diffusers folder or hub name; default --data's.")] = "",
    scale: Annotated[float | None, opt("Factor of the latents; default the autoencoder's, or KL-16's .2325.")] = None,
    data: Annotated[str, opt("To score and train on: a folder of cached latents; not for MAR a file of tokens.")] = "",
    side: Annotated[int | None, opt("RandAR, ARPG: rows of the grid of tokens; default 16.", min=1)] = None,
) -> None:
    """Read released weights: a MAR, a RAR, a RandAR, an ARPG, a Halton-MaskGIT, an LPD, or an autoencoder.

    A network's weights become a run folder. A KL autoencoder in latent-diffusion's layout and a VQ in LlamaGen's become
    folders that diffusers and `tokenizer.kind=kl|vq` read. Nothing in the file is executed. Sizes come from the shapes
    of the weights; the numbers of attention heads do not show there and are options.

    Examples:

        mar import kl16.ckpt --out kl16
        mar import mar_base.pth --out runs/mar-base --vae kl16
        mar sample runs/mar-base --class 207 --guidance 2.9 --head start=999
        mar import tiny.pth --out runs/tiny --heads 4 --patch 2
        mar import rar_b.bin --out runs/rar-b --data maskgitvq.jsonl
        mar import vq_ds16_c2i.pt --out vq16
        mar import arpg_300m.pt --out runs/arpg-l --vae vq16
        mar import ImageNet_256_base.pth --out runs/halton
    """
    from mar.compat import latent_diffusion, weights_file

    content = weights_file.read(file)
    state = latent_diffusion.state_dict(content)
    asked = {
        "heads": heads, "decoder_heads": decoder_heads, "patch": patch, "vae": vae, "scale": scale, "data": data,
        "side": side,
    }  # fmt: skip
    if state is not None:
        _leave_out(asked, ("scale",), f"{file} is an autoencoder")
        _import_autoencoder(state, out, scale)
        return
    from mar.compat.halton_maskgit import HALTON
    from mar.compat.llamagen import ARPG, RANDAR
    from mar.compat.lpd import LPD
    from mar.compat.rar import RAR
    from mar.compat.released import import_run
    from mar.networks import NETWORKS

    for kind in (RAR, RANDAR, ARPG, HALTON, LPD):
        if kind.recognises(content):
            _leave_out(asked, kind.OPTIONS, f"{file} is of {kind.NAME}")
            size, levels = kind.import_run(content, out, **{name: asked[name] for name in kind.OPTIONS})
            print(f"done: {out}, {kind.NAME} of {size.depth} x {size.width} over {levels} categories")
            grid = f" and {side or 16} rows of tokens (--heads and --side" if kind in (RANDAR, ARPG) else " (--heads"
            print(f"no shape tells, so check: {size.heads} attention heads{grid} for others)")
            print(
                f"next: mar sample {out}"
                + ("" if vae or data else "   (indices of a codebook; import with --vae VQ for images)")
            )
            return
    _leave_out(asked, asked.keys() - {"side"}, f"{file} is none of RandAR and ARPG")
    recipe, latents = import_run(content, out, (heads, decoder_heads or heads), patch, vae, scale, data)
    size = NETWORKS.options(recipe.network.kind, recipe.network.model_extra or {}).sizes
    parts = (f"{getattr(size, f'{part}_depth')} x {getattr(size, f'{part}_width')}" for part in ("encoder", "decoder"))
    print(f"done: {out}, a MAR of {' + '.join(parts)}, {size.buffer} class tokens")
    shape, side = "x".join(map(str, latents)), (recipe.tokenizer.model_extra or {})["patch"]
    print(
        f"no shape tells, so check: {size.encoder_heads} and {size.decoder_heads} attention heads, "
        f"latents {shape} in patches of {side}x{side} (--heads, --decoder-heads and --patch set others)"
    )
    print(f"next: mar sample {out}" + ("" if vae or data else " --vae AUTOENCODER   (without: latents)"))


def _leave_out(asked: Mapping[str, object], options: Collection[str], why: str) -> None:
    """Raise UserError for an option that was given and is none of a file's."""
    given = [name for name, value in asked.items() if value not in (None, "")]
    if others := [f"--{name.replace('_', '-')}" for name in given if name not in options]:
        raise UserError(f"{why}: leave out {' and '.join(others)}")


def _import_autoencoder(state: dict[str, torch.Tensor], out: Path, scale: float | None) -> None:
    from mar.compat.latent_diffusion import convert

    if out.exists():
        raise UserError(f"{out} exists: choose another --out, or delete it")
    model = convert(state, scale)
    write_atomic(out, model.save_pretrained)
    widths = "-".join(map(str, model.config.block_out_channels))
    if entries := model.config.get("num_vq_embeddings"):
        print(f"done: {out}, a VQ autoencoder of {entries} codes, widths {widths}")
        print(f"next: mar cache folder:IMAGES --tokenizer {out}, or mar import MODEL.pt --out runs/model --vae {out}")
        return
    print(f"done: {out}, a KL autoencoder of {model.config.latent_channels} channels, widths {widths}")
    print(f"next: mar import MAR.pth --out runs/mar --vae {out}")
