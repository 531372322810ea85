"""``mar fid`` and ``mar fid-stats``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mar.cli.options import (
    BatchSize,
    DecodedRun,
    Features,
    HeadOptions,
    Json,
    Plans,
    Precision,
    Seed,
    Shard,
    SplitOption,
    grouped,
    key_values,
    print_tables,
)

if TYPE_CHECKING:
    from mar.metrics.generated import FidScores

_SWEEP, _SEEDS = "Sweeps", "Several seeds"


@grouped
def fid(
    source: Annotated[
        Path, typer.Argument(help="A run, whose samples are scored; or images: a store of mar generate, a folder.")
    ],
    plans: Plans,
    features: Features,
    against: Annotated[
        str,
        typer.Option(
            help="An .npz of statistics (ADM's layout), a folder of images, a store, a run's data, or kind:path of a data set; default the run's own data."
        ),
    ] = "",
    split: SplitOption = "test",
    n: Annotated[
        int | None, typer.Option("-n", "--n", min=8, help="Images; default 1000, of a store or folder all.")
    ] = None,
    guidance: Annotated[str, typer.Option(help="A scale, or FROM:TO:STEP: the best is found for each plan.")] = "1",
    guidance_schedule: Annotated[
        Literal["linear", "constant"], typer.Option(help="Growth of the scale with the share of known tokens.")
    ] = "linear",
    temperature: Annotated[str, typer.Option(help="A temperature, or FROM:TO:STEP.")] = "1",
    head: HeadOptions = None,
    adaptive: Annotated[str, typer.Option(help="Choose each next set from the model: e.g. lowest-entropy.")] = "",
    remask: Annotated[
        str, typer.Option(help="Afterwards mask tokens again and redraw them, e.g. random:16:0.1, as mar sample.")
    ] = "",
    vae: Annotated[
        str, typer.Option(help="KL autoencoder of an imported model without one: a diffusers folder or hub name.")
    ] = "",
    precision: Annotated[Precision, typer.Option(help="Of generation.")] = "fp32",
    seed: Seed = 0,
    sweep: Annotated[
        list[str] | None,
        typer.Option(help="temperature=.9:1.1:.05, steps=10,25,100, …; several: all pairs.", rich_help_panel=_SWEEP),
    ] = None,
    sweep_images: Annotated[
        int, typer.Option(min=8, help="Images of each point, of another seed.", rich_help_panel=_SWEEP)
    ] = 1000,
    seeds: Annotated[
        int, typer.Option(min=1, help="Generation seeds: mean, sd and 95 % interval.", rich_help_panel=_SEEDS)
    ] = 1,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="solver=unipc:steps=10, repeatable: settings compared with the first, paired over seeds.",
            rich_help_panel=_SEEDS,
        ),
    ] = None,
    margin: Annotated[
        float, typer.Option(help="A change of FID that is tolerated, as a share.", rich_help_panel=_SEEDS)
    ] = 0.05,
    store: Annotated[Path | None, typer.Option(help="Of a run's images; default in RUN/generated.")] = None,
    batch_size: BatchSize = 256,
    shard: Shard = 0,
    out: Annotated[Path | None, typer.Option(help="Of images: a JSON file of the scores.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Score anew what was scored before.")] = False,
    last_weights: Annotated[
        bool, typer.Option("--last-weights", help="Use the last weights instead of the averaged (EMA) ones.")
    ] = False,
    as_json: Json = False,
) -> None:
    """FID, KID, Inception score, precision, recall and class balance: of a run's samples, or of existing images.

    Samples of a run are generated over processes (torchrun) into stores and scored once, with JSON in RUN/scores; the
    same command resumes.

    Examples:

        mar fid runs/digits --plans random/cosine:16,raster -n 10000

        torchrun --nproc_per_node 8 -m mar fid runs/x --guidance 1:4:0.25 --sweep-images 5000 -n 50000 --against adm.npz

        mar fid runs/x --seeds 5 --compare solver=ancestral:steps=100 --compare solver=dpm-solver++:steps=10

        mar fid runs/x --sweep temperature=0.9:1.1:0.05 --sweep steps=25,50,100

        mar fid samples/x --against fashion-mnist:~/data/fashion-mnist
    """
    from dataclasses import replace

    from mar.core.errors import UserError
    from mar.core.files import RUN
    from mar.core.processes import Processes
    from mar.metrics.generated import FidRequest, axes_of, score_run, score_source
    from mar.metrics.samples import Setting

    if not (source / RUN).is_file():
        if not against:
            raise UserError(f"{source} is no run: name what to compare its images with (--against)")
        print_fid(score_source(str(source), n, against, split, features.settings(seed, _device()), out), as_json)
        return
    axes, single = axes_of(sweep or [], guidance=guidance, temperature=temperature)
    processes = Processes()
    chosen = DecodedRun(source, last_weights, vae)
    run = processes.on_all(lambda: chosen.load(str(processes.device)))
    base = Setting(
        "", single["guidance"], guidance_schedule, single["temperature"], key_values(head or [], "--head"), seed,
        adaptive, remask, precision=precision,
    )  # fmt: skip
    asked = FidRequest(
        tuple(replace(base, plan=plan) for plan in plans.texts(run.training_plan)), n or 1000, against, split, axes,
        sweep_images, seeds, tuple(compare or ()), margin, store, features.settings(seed),
        chosen.weights, batch_size, shard, again,
    )  # fmt: skip
    found = score_run(run, processes, asked)
    if processes.is_main:
        print_fid(found, as_json)
    processes.end()


def print_fid(found: FidScores, as_json: bool = False) -> None:
    """Print the tables and lines; draw the sweep."""
    import json

    from mar.reports import plots

    if found.sweep is not None:
        plots.save(plots.sweep(json.loads(found.sweep.read_text())), found.sweep.with_suffix(".png"))
    print_tables(found.tables, as_json, *found.lines)


def _device() -> str:
    """Return the device for images that belong to no run."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@grouped
def fid_stats(
    source: Annotated[
        str, typer.Argument(help="kind:path of a data set, a run (its data), a store of images, or a folder of images.")
    ],
    features: Features,
    out: Annotated[Path, typer.Option(help="The .npz file to write.")],
    split: SplitOption = "train",
    size: Annotated[
        int | None, typer.Option(min=1, help="Side that a folder's images are cropped to; default the first's.")
    ] = None,
) -> None:
    """Mean and covariance of the features of real images, in ADM's layout (mu, sigma), for mar fid --against.

    Examples:

        mar fid-stats folder:imagenet --out imagenet256.npz --inception-weights weights.pth

        mar fid-stats fashion-mnist:~/data/fashion-mnist --split test --out fashion.npz
    """
    from mar.core.errors import UserError
    from mar.core.progress import wide_console
    from mar.core.spec import DataSpec
    from mar.metrics.fid import statistics_of
    from mar.metrics.images import open_source, write_statistics

    if out.suffix != ".npz":
        raise UserError(f"--out is an .npz file, not {out}")
    found = open_source(source, split, DataSpec((3, size, size), 256) if size else None)
    if found.images is None:
        raise UserError(f"{source} holds statistics already")
    statistics = statistics_of(found.images, found.data, features.settings(device=_device()))
    write_statistics(statistics, out)
    wide_console().print(f"{out}: {statistics.n_images} images of {found.name}, features {statistics.extractor}")
