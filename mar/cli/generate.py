"""``mar generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional, cast

import typer

# ruff: noqa: UP045 - typer reads Optional


def generate(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the store: new, or one that this command has begun.")],
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many; more later goes on from there.")] = 50_000,
    plan: Annotated[
        str, typer.Option(help="ordering/partition, e.g. spiral/cosine:16; default the training plan.")
    ] = "",
    label: Annotated[
        Optional[list[int]], typer.Option("--class", help="A class, repeatable; default all in turn.")
    ] = None,
    guidance: Annotated[float, typer.Option(min=0.0, help="Guidance scale; 1 is none.")] = 1.0,
    guidance_schedule: Annotated[str, typer.Option(help="constant or linear (in known tokens).")] = "linear",
    temperature: Annotated[float, typer.Option(min=0.0)] = 1.0,
    head: Annotated[
        Optional[list[str]], typer.Option(help="A sampling option of the head, e.g. steps=25, solver=unipc, top_k=5.")
    ] = None,
    adaptive: Annotated[str, typer.Option(help="Choose each next set from the model: e.g. lowest-entropy.")] = "",
    remask: Annotated[
        str, typer.Option(help="Afterwards mask tokens again and redraw them, e.g. random:16:0.1, as mar sample.")
    ] = "",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    precision: Annotated[str, typer.Option(help="fp32, or bf16: on a GPU several times as fast.")] = "fp32",
    batch_size: Annotated[int, typer.Option(min=1, help="Examples at a time; at most one shard.")] = 256,
    shard: Annotated[
        int, typer.Option(min=0, help="Examples in a file, what a kill can cost a process; 0: a batch, at least 256.")
    ] = 0,
    vae: Annotated[
        str, typer.Option(help="Of an imported model without one: the KL autoencoder, a diffusers folder or hub name.")
    ] = "",
    npz: Annotated[
        Optional[Path], typer.Option(help="Also one file as ADM's evaluator reads it: arr_0 (N, H, W, 3) uint8.")
    ] = None,
    last_weights: Annotated[bool, typer.Option("--last-weights", help="Not the averaged (EMA) ones.")] = False,
) -> None:
    """Generate many examples into one store, by one process or many; the same command goes on after a kill.

    Example k depends on the seed and k alone, so that any number of processes gives the same store. It refuses to mix
    the examples of two settings. Score it with mar fid.

    Examples:

        mar generate runs/digits --out samples/digits -n 10000

        torchrun --nproc_per_node 8 -m mar generate runs/x --out samples/x --guidance 2.5 --plan random/cosine:64
    """
    from mar.cli.generating import Setting, fill, opened
    from mar.cli.scoring import options_of
    from mar.core.processes import Processes
    from mar.run import Precision
    from mar.sampling.output import image_grid

    processes = Processes()
    loaded = processes.on_all(lambda: opened(run, vae, not last_weights, str(processes.device)))
    setting = Setting(
        plan or loaded.training_plan, guidance, guidance_schedule, temperature, options_of(head or [], "sampling"),
        seed, adaptive, remask, tuple(label or ()), cast(Precision, precision),
    )  # fmt: skip
    store = fill(out, loaded, setting, n, processes, batch_size, shard)
    if processes.is_main:
        images = store.images(n)
        if store.spec.modality == "image":
            first, _ = store.read(0)
            image_grid(first[:100], store.spec.levels).save(out / "grid.png")
        if npz is not None:
            _write_npz(images, npz)
        print(f"{n} examples of {setting.plan} in {out}, classes in turn; score them: mar fid {out} --against DATA")
    processes.end()


def _write_npz(images, path: Path) -> None:
    """ADM's layout of a batch of samples. All of it passes through memory."""
    import numpy as np
    import torch

    from mar.metrics.images import ImageSet, check_images

    check_images(images.store.spec, str(images.store.path))
    shown = ImageSet(images, images.store.spec, rgb=True)
    parts = [torch.stack(shown.__getitems__(index.tolist())) for index in torch.arange(len(shown)).split(1000)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, arr_0=torch.cat(parts).permute(0, 2, 3, 1).contiguous().numpy())
