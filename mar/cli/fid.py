"""``mar fid``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional, cast

import typer

# ruff: noqa: UP045 - typer reads Optional

_SWEEP, _SEEDS, _LOOKS = "Sweeps", "Several seeds", "Features"


def fid(
    source: Annotated[
        Path, typer.Argument(help="A run, whose samples are scored; or images: a store of mar generate, a folder.")
    ],
    against: Annotated[
        str,
        typer.Option(
            help="An .npz of statistics (ADM's layout), a folder of images, a store, a run's data, or kind:path of a data set; default the run's own data."
        ),
    ] = "",
    split: Annotated[str, typer.Option(help="Of a data set: train, validation or test.")] = "test",
    n: Annotated[
        Optional[int], typer.Option("-n", "--n", min=8, help="Images; default 1000, of a store or folder all.")
    ] = None,
    plans: Annotated[str, typer.Option(help="Comma-separated plans; default the training plan.")] = "",
    partitions: Annotated[str, typer.Option(help="Comma-separated partitions: every one with every ordering.")] = "",
    guidance: Annotated[str, typer.Option(help="A scale, or FROM:TO:STEP: the best is found for each plan.")] = "1",
    guidance_schedule: Annotated[str, typer.Option(help="constant or linear (in known tokens).")] = "linear",
    temperature: Annotated[str, typer.Option(help="A temperature, or FROM:TO:STEP.")] = "1",
    head: Annotated[
        Optional[list[str]], typer.Option(help="A sampling option of the head, e.g. steps=25, top_k=5.")
    ] = None,
    adaptive: Annotated[str, typer.Option(help="Choose each next set from the model: e.g. lowest-entropy.")] = "",
    remask: Annotated[
        str, typer.Option(help="Afterwards mask tokens again and redraw them, e.g. random:16:0.1, as mar sample.")
    ] = "",
    vae: Annotated[
        str, typer.Option(help="Of an imported model without one: the KL autoencoder, a diffusers folder or hub name.")
    ] = "",
    precision: Annotated[str, typer.Option(help="Of generation: fp32, or bf16.")] = "fp32",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    sweep: Annotated[
        Optional[list[str]],
        typer.Option(help="temperature=.9:1.1:.05, steps=10,25,100, …; several: all pairs.", rich_help_panel=_SWEEP),
    ] = None,
    sweep_images: Annotated[
        int, typer.Option(min=8, help="Images of each point, of another seed.", rich_help_panel=_SWEEP)
    ] = 1000,
    seeds: Annotated[
        int, typer.Option(min=1, help="Generation seeds: mean, sd and 95 % interval.", rich_help_panel=_SEEDS)
    ] = 1,
    compare: Annotated[
        Optional[list[str]],
        typer.Option(
            help="solver=unipc:steps=10, repeatable: settings compared with the first, paired over seeds.",
            rich_help_panel=_SEEDS,
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="A change of FID that is tolerated, as a share.", rich_help_panel=_SEEDS)
    ] = 0.05,
    features: Annotated[str, typer.Option(help="auto, inception or classifier.", rich_help_panel=_LOOKS)] = "auto",
    inception_weights: Annotated[
        Optional[Path], typer.Option(help="torch-fidelity's Inception weights file.", rich_help_panel=_LOOKS)
    ] = None,
    labelled: Annotated[
        str,
        typer.Option(
            help="For unlabelled data: kind:path of labelled data for the classifier.", rich_help_panel=_LOOKS
        ),
    ] = "",
    store: Annotated[Optional[Path], typer.Option(help="Of a run's images; default in RUN/generated.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images generated at a time; at most one shard.")] = 256,
    shard: Annotated[
        int, typer.Option(min=0, help="Images in a file, what a kill can cost a process; 0: a batch, at least 256.")
    ] = 0,
    out: Annotated[Optional[Path], typer.Option(help="Of images: a JSON file of the scores.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Score anew what was scored before.")] = False,
    last_weights: Annotated[bool, typer.Option("--last-weights", help="Not the averaged (EMA) ones.")] = False,
) -> None:
    """FID, KID, Inception score, precision, recall and class balance: of a run's samples, or of images that are there.

    Of a run: generated over processes (torchrun) into stores, scored once, JSON in RUN/scores; the same command goes on.

    Examples:

        mar fid runs/digits --plans random/cosine:16,raster -n 10000

        torchrun --nproc_per_node 8 -m mar fid runs/x --guidance 1:4:0.25 --sweep-images 5000 -n 50000 --against adm.npz

        mar fid runs/x --seeds 5 --compare solver=ancestral:steps=100 --compare solver=dpm-solver++:steps=10

        mar fid runs/x --sweep temperature=0.9:1.1:0.05 --sweep steps=25,50,100

        mar fid samples/x --against fashion-mnist:~/data/fashion-mnist
    """  # fmt: skip
    from dataclasses import replace

    from mar.cli.fid_sources import Features, Looks, device, is_run
    from mar.cli.score_fid import score_source
    from mar.core.errors import UserError, unknown

    if features not in ("auto", "inception", "classifier"):
        raise unknown("features", features, ("auto", "inception", "classifier"))
    looks = Looks(cast(Features, features), inception_weights, labelled, seed)
    if not is_run(source):
        if not against:
            raise UserError(f"{source} is no run: say what to compare its images with (--against)")
        score_source(str(source), n, against, split, replace(looks, device=device()), out)
        return
    from mar.cli.fid_sweep import axes_of
    from mar.cli.generating import Setting, opened
    from mar.cli.score_fid import FidRequest, score_run
    from mar.cli.scoring import options_of, product
    from mar.core.processes import Processes
    from mar.run import Precision

    axes, single = axes_of(sweep or [], guidance=guidance, temperature=temperature)
    processes = Processes()
    run = processes.on_all(lambda: opened(source, vae, not last_weights, str(processes.device)))
    base = Setting(
        "", single["guidance"], guidance_schedule, single["temperature"], options_of(head or [], "sampling"), seed,
        adaptive, remask, precision=cast(Precision, precision),
    )  # fmt: skip
    settings = tuple(replace(base, plan=plan) for plan in product(plans, partitions, run.training_plan))
    asked = FidRequest(
        settings, n or 1000, against, split, axes, sweep_images, seeds, tuple(compare or ()), margin, store, looks,
        "last" if last_weights else "ema", batch_size, shard, again,
    )  # fmt: skip
    score_run(run, processes, asked)
    processes.end()
