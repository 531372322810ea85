"""``mar export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

# ruff: noqa: UP045 - typer reads Optional

_OTHER_FILES = (".pt", ".ckpt", ".bin", ".safetensors")


def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[
        Optional[Path], typer.Option(help="A .pth file: the released layout. Or a folder, as the hub has it.")
    ] = None,
    push: Annotated[str, typer.Option(help="Upload it to the Hugging Face hub as OWNER/NAME (extra: hub).")] = "",
    private: Annotated[bool, typer.Option("--private", help="Of --push: a private repository.")] = False,
) -> None:
    """Write a run for others: in the layout of the released MAR checkpoints (`model` and `model_ema`, for the published
    code), or as a folder or hub repository with its recipe, safetensors weights and a model card.

    The released layout refuses, with the reason, runs that the published code has no place for.

    Examples:

        mar export runs/mar-base --out mar_base.pth

        mar export runs/digits --out digits-model

        mar export runs/digits --push me/digits
    """
    from mar.core.errors import UserError

    if not (out or push):
        raise UserError("say where to: --out FILE.pth, --out FOLDER, or --push OWNER/NAME")
    if out is not None and out.suffix.lower() in _OTHER_FILES:
        raise UserError(f"{out} is neither: --out is a .pth file, the released layout, or a folder")
    if out is not None and out.suffix.lower() == ".pth":
        _released(run, out)
    elif out is not None:
        _pretrained(run).save_pretrained(out)
        print(f"wrote {out}: recipe, weights, README.md; read it with mar.load")
    if push:
        print(f"uploaded {_pretrained(run).push_to_hub(push, private=private or None)}")


def _pretrained(run: Path):
    from mar.compat.hub import PretrainedRun

    return PretrainedRun(run, device="cpu")


def _released(run: Path, out: Path) -> None:
    import torch

    from mar.compat.released import export_run
    from mar.core.errors import UserError
    from mar.core.files import write_atomic
    from mar.run import load

    if out.exists() and not out.is_file():
        raise UserError(f"{out} is no file: --out names the .pth to write")
    states, scale = export_run(load(run, ema=False, device="cpu"))
    write_atomic(out, lambda aside: torch.save(states, aside))
    print(f"wrote {out}: {len(states['model'])} weights, last and averaged; its latents are multiplied by {scale:g}")
