"""``mar export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path, typer.Option(help="The .pth file to write.")],
) -> None:
    """Write a run in the layout of the released MAR checkpoints: `model` and `model_ema`, for the published code.

    Refuses, with the reason, runs that the published code has no place for.

    Example:

        mar export runs/mar-base --out mar_base.pth
    """
    import os

    import torch

    from mar.compat.released import export_run
    from mar.errors import UserError
    from mar.run import load

    if out.exists() and not out.is_file():
        raise UserError(f"{out} is no file: --out names the .pth to write")
    states, scale = export_run(load(run, ema=False, device="cpu"))
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.partial")
    torch.save(states, aside)
    os.replace(aside, out)
    print(f"wrote {out}: {len(states['model'])} weights, last and averaged; its latents are multiplied by {scale:g}")
