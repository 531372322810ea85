"""``mar generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mar.cli.options import BatchSize, DecodedRun, Precision, Sampling, Shard, grouped


@grouped
def generate(
    run: DecodedRun,
    sampling: Sampling,
    out: Annotated[Path, typer.Option(help="Folder of the store: new, or one that this command has begun.")],
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many; more later continues from there.")] = 50_000,
    plan: Annotated[
        str, typer.Option(help="ordering/partition, e.g. spiral/cosine:16; default the training plan.")
    ] = "",
    precision: Annotated[Precision, typer.Option(help="bf16: on a GPU several times as fast.")] = "fp32",
    batch_size: BatchSize = 256,
    shard: Shard = 0,
    npz: Annotated[
        Path | None, typer.Option(help="Also one file as ADM's evaluator reads it: arr_0 (N, H, W, 3) uint8.")
    ] = None,
) -> None:
    """Generate many examples into one store, by one process or many; the same command resumes after a kill.

    Example k depends on the seed and k alone, so that any number of processes gives the same store. A store never mixes
    the examples of two settings. Score it with mar fid.

    Examples:

        mar generate runs/digits --out samples/digits -n 10000

        torchrun --nproc_per_node 8 -m mar generate runs/x --out samples/x --guidance 2.5 --plan random/cosine:64
    """
    from mar.core.processes import Processes
    from mar.metrics.images import write_npz
    from mar.metrics.samples import fill
    from mar.sampling.output import image_grid

    processes = Processes()
    loaded = processes.on_all(lambda: run.load(str(processes.device)))
    setting = sampling.setting(plan or loaded.training_plan, precision)
    store = fill(out, loaded, setting, n, processes, batch_size, shard)
    if processes.is_main:
        images = store.images(n)
        if store.spec.modality == "image":
            first, _ = store.read(0)
            image_grid(first[:100], store.spec.levels).save(out / "grid.png")
        if npz is not None:
            write_npz(images, npz)
        print(f"{n} examples of {setting.plan} in {out}, classes in turn; score them: mar fid {out} --against DATA")
    processes.end()
