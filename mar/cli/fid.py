"""``mar fid`` and ``mar fid-stats``."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mar.cli import options as o
from mar.cli.options import Json, SplitOption, Texts, arg, grouped, opt
from mar.core.errors import UserError
from mar.core.files import RUN, cache_folder, check_file
from mar.core.progress import wide_console

if TYPE_CHECKING:
    from mar.metrics.generated import FidScores

_SWEEP, _SEEDS = {"rich_help_panel": "Sweeps"}, {"rich_help_panel": "Several seeds"}


@dataclass(frozen=True)
class Scored(o.DecodedRun):
    """A run, or images."""

    run: Annotated[Path, arg("A run, whose samples are scored; or images: a store, a folder, an .npz.")]


@dataclass(frozen=True)
class Swept(o.Sampling):
    """How examples are generated; the scale and the temperature may be ranges."""

    guidance: Annotated[str, opt("A scale, or FROM:TO:STEP: the best is found for each plan.")] = "1"  # type: ignore[assignment]
    temperature: Annotated[str, opt("A temperature, or FROM:TO:STEP.")] = "1"  # type: ignore[assignment]


@grouped
def fid(
    run: Scored,
    plans: o.Plans,
    sampling: Swept,
    features: o.Features,
    against: Annotated[
        str, opt("Statistics (.npz), a folder, a store, a run or kind:path; default: the run's data.")
    ] = "",
    split: SplitOption = "test",
    n: Annotated[int | None, opt("Images; default 1000, of existing ones all.", "-n", "--n", min=8)] = None,
    precision: Annotated[o.Precision, opt("Precision of generation.")] = "fp32",
    protocol: Annotated[str, opt("adm or cifar10: n, split and features as published FIDs have them.")] = "",
    sweep: Annotated[Texts, opt("steps=10,25,100, …; several: all pairs.", **_SWEEP)] = None,
    sweep_images: Annotated[int, opt("Images of each point, of another seed.", min=8, **_SWEEP)] = 1000,
    seeds: Annotated[int, opt("Generation seeds: mean, sd and 95 % interval.", min=1, **_SEEDS)] = 1,
    compare: Annotated[Texts, opt("solver=unipc:steps=10, repeatable: compared with the first.", **_SEEDS)] = None,
    margin: Annotated[float, opt("A tolerated change of FID, as a share.", **_SEEDS)] = 0.05,
    store: Annotated[
        Path | None, opt("With one plan of a run: where its images are kept; default in RUN/generated.")
    ] = None,
    batch_size: o.BatchSize = 256,
    shard: o.Shard = 0,
    out: Annotated[Path | None, opt("With images in place of a run: a JSON file for the scores.")] = None,
    again: o.Again = False,
    as_json: Json = False,
) -> None:
    """Score samples of a run, or images: FID, KID, IS, precision.

    Samples of a run are generated over processes (torchrun) into stores and scored once, with JSON in RUN/scores. Run the
    same command again to resume.

    Examples:

        mar fid runs/digits --plans random/cosine:16,raster -n 10000
        torchrun --nproc_per_node 8 -m mar fid runs/x --guidance 1:4:0.25 --sweep-images 5000 -n 50000 --against adm.npz
        mar fid runs/x --seeds 5 --compare solver=ancestral:steps=100 --compare solver=dpm-solver++:steps=10
        mar fid samples/x --against fashion-mnist:~/data/fashion-mnist
    """
    is_run = (run.run / RUN).is_file()
    if not (is_run or against):
        raise UserError(f"{run.run} is no run: name what to compare its images with (--against)")

    from mar.core.processes import Processes
    from mar.metrics import protocols
    from mar.metrics.generated import FidRequest, axes_of, score_run, score_source

    if not is_run:
        if out is not None:
            check_file(out)
        n, on, settings = protocols.apply(protocol, n, split, features.settings(sampling.seed, o.device()))
        print_fid(score_source(str(run.run), n, against, on, settings, out, protocol), as_json)
        return
    n, on, settings = protocols.apply(protocol, n, split, features.settings(sampling.seed))
    axes, single = axes_of(sweep or [], guidance=sampling.guidance, temperature=sampling.temperature)
    processes, chosen = Processes(), replace(sampling, **single)
    loaded = processes.on_all(lambda: run.load(str(processes.device)))
    asked = FidRequest(
        tuple(chosen.setting(plan, loaded.spec, precision) for plan in plans.texts(loaded.training_plan)), n or 1000, against,
        on, axes, sweep_images, seeds, tuple(compare or ()), margin, store, settings,
        run.weights, batch_size, shard, again, protocol,
    )  # fmt: skip
    found = score_run(loaded, processes, asked)
    if processes.is_main:
        print_fid(found, as_json)
    processes.end()


def print_fid(found: FidScores, as_json: bool = False) -> None:
    """Print the tables and lines; draw the sweep."""
    from mar.reports import plots

    if found.sweep is not None:
        plots.save(plots.sweep(json.loads(found.sweep.read_text())), found.sweep.with_suffix(".png"))
    o.print_tables(found.tables, as_json, *found.lines)


@grouped
def fid_stats(
    source: Annotated[str, arg("kind:path of a data set, a run (its data), a store of images, or a folder of images.")],
    features: o.Features,
    out: Annotated[Path, opt("The .npz file to write.")],
    split: SplitOption = "train",
    device: o.Device = "",
    size: Annotated[int | None, opt("Side that a folder's images are cropped to; default the first's.", min=1)] = None,
) -> None:
    """Write statistics of real images for mar fid --against.

    Mean and covariance of the features, in ADM's layout (mu, sigma).

    Examples:

        mar fid-stats fashion-mnist:~/data/fashion-mnist --split test --out fashion.npz
    """
    from mar.core.spec import DataSpec
    from mar.metrics.fid import scorer_of
    from mar.metrics.images import Images, open_source, write_statistics

    if out.suffix != ".npz":
        raise UserError(f"--out is an .npz file, not {out}")
    found = open_source(source, split, DataSpec((3, size, size), 256) if size else None)
    if not isinstance(found, Images):
        raise UserError(f"{source} holds statistics already")
    if size and found.spec.shape[1:] != (size, size):
        raise UserError(f"--size is of a folder's files: {source} has images of shape {found.spec.shape}")
    statistics = scorer_of(found, found.spec, features.settings(on=o.device()), cache_folder()).statistics
    write_statistics(statistics, out)
    wide_console().print(f"{out}: {statistics.n_images} images of {found.name}, features {statistics.extractor}")
