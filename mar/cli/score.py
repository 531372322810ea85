"""``mar score nll|fid|sets|exposure|matrix``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from mar.cli.options import (
    BatchSize,
    Budget,
    Features,
    HeadOptions,
    Json,
    Kind,
    Plans,
    Precision,
    Seed,
    SplitOption,
    TrainedRun,
    gibibytes,
    grouped,
    key_values,
    plan_product,
    print_tables,
    whole_numbers,
)

if TYPE_CHECKING:
    from mar.metrics.nll import NllRequest

_MODES = ("nll", "fid", "sets", "exposure", "matrix")


class _Modes(TyperGroup):
    """Refuses ``mar score RUN --nll`` with the spelling that replaced it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        from mar.core.errors import UserError

        if args[0] not in self.commands:
            flag = next((text for text in args if text.removeprefix("--") in _MODES and text.startswith("--")), "")
            words = ["mar score", flag.removeprefix("--") or "|".join(_MODES), *(text for text in args if text != flag)]
            raise UserError(f"mar score {' '.join(args)} is now written: {' '.join(words)}")
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_Modes, no_args_is_help=True, rich_markup_mode="markdown")

Runs = Annotated[list[Path], typer.Argument(help="Run folders.")]
Images = Annotated[int | None, typer.Option("-n", "--n", min=2, help="Images, spread over the split; default all.")]
Images256 = Annotated[int | None, typer.Option("-n", "--n", min=2, help="Images of each split; default 256.")]
LastWeights = Annotated[
    bool, typer.Option("--last-weights", help="Use the last weights instead of the averaged (EMA) ones.")
]
Again = Annotated[bool, typer.Option("--again", help="Score anew what was scored before with the same settings.")]


@dataclass(frozen=True)
class Scoring:
    """How plans are scored, of every run alike."""

    split: SplitOption = "test"
    n: Images = None
    seed: Seed = 0
    last_weights: LastWeights = False
    kind: Kind = None
    likelihood: Annotated[
        list[str] | None, typer.Option(help="A scoring option of the head, e.g. tolerance=1e-5, timesteps=100.")
    ] = None
    estimator: Annotated[
        str, typer.Option(help="exact (every AR step), or steps:8: an unbiased, stratified draw of 8.")
    ] = "exact"
    orders: Annotated[
        int,
        typer.Option(
            min=0, help="Random orders shared by all images: their mean, and ensembles of 1, 2, 4, … of them."
        ),
    ] = 0
    draws: Annotated[
        int, typer.Option(min=1, help="Dequantisations of each image, combined by log-mean-exp over whole images.")
    ] = 1
    budget: Budget = None
    precision: Annotated[
        Precision, typer.Option(help="Of the network: bf16 is faster and some hundredths of a nat off.")
    ] = "fp32"
    past: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Of text and sound: score every token once, after this many earlier ones or all there are, in overlapping windows.",
        ),
    ] = None
    again: Again = False

    def request(self, plans: list[str], paired_with: str = "", target: str = "") -> NllRequest:
        from mar.likelihood.estimate import Estimator, Repeats
        from mar.metrics.nll import NllRequest

        return NllRequest(
            tuple(plans), plan_product(paired_with, "", "")[0] if paired_with else "", self.split, self.n, self.kind,
            Estimator.parse(self.estimator), Repeats(orders=self.orders, draws=self.draws), target,
            key_values(self.likelihood or [], "--likelihood"), gibibytes(self.budget), self.seed,
            "last" if self.last_weights else "ema", self.again, self.precision, self.past,
        )  # fmt: skip


@app.command(no_args_is_help=True)
@grouped
def nll(
    runs: Runs,
    plans: Plans,
    scoring: Scoring,
    paired_with: Annotated[str, typer.Option(help="A plan that the others are compared with, image by image.")] = "",
    paired: Annotated[
        bool, typer.Option("--paired", help="Compare the other runs with the first, image by image, along each plan.")
    ] = False,
    target_se: Annotated[
        str, typer.Option(help="A standard error to reach: 0.01 (bits/dim) or 0.5nats (per image).")
    ] = "",
    as_json: Json = False,
) -> None:
    """Likelihood along each plan, on the same images and noise. Writes RUN/scores/nll-*.json and a picture.

    An interrupted scoring resumes with the same command; what was scored before is kept.

    Examples:

        mar score nll runs/digits --plans raster,spiral,random/cosine:16 --paired-with raster

        mar score nll runs/digits --plans raster,hilbert --partitions singles,linear:16,cosine:16

        mar score nll runs/mnist-binary --plans random --orders 16 -n 256

        mar score nll runs/mnist-binary --plans random --target-se 0.5nats

        mar score nll runs/mnist-diffusion --kind ode --likelihood tolerance=1e-4

        mar score nll runs/spoken-digits --past 512

        mar score nll runs/made runs/transformer --plans raster,random --paired
    """
    from mar.core.errors import UserError
    from mar.run import load

    if paired and (len(runs) < 2 or paired_with or target_se):
        raise UserError("--paired compares two or more runs along each plan: leave out --paired-with and --target-se")
    if len(runs) > 1 and not paired:
        raise UserError(
            f"{len(runs)} runs: mar score nll A B --paired compares them, mar score matrix scores all plans"
        )
    loaded = [load(path, ema=not scoring.last_weights) for path in runs]
    requests = [scoring.request(plans.texts(run.training_plan), paired_with, target_se) for run in loaded]
    if paired:
        print_paired(loaded, requests, as_json)
    else:
        print_nll(loaded[0], requests[0], as_json)


@app.command(no_args_is_help=True)
@grouped
def sets(
    run: TrainedRun,
    plans: Annotated[str, typer.Option(help="Comma-separated orderings; default the training one.")] = "",
    ks: Annotated[str, typer.Option(help="Numbers of sets that are scored on test images.")] = "4,8,16",
    n: Images256 = None,
    seed: Seed = 0,
    kind: Kind = None,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Cost of parallel generation along each ordering, and the best set sizes. Writes RUN/scores/sets-*.json and *.png.

    Set costs are measured on validation images; the partition optimal:K reads them. Schedules are scored on test images.

    Examples:

        mar score sets runs/digits --plans random,raster --ks 4,8,16
    """
    from mar.metrics.base import scores_folder
    from mar.metrics.sets import check_ks, orderings_of

    loaded = run.load()
    scores_folder(loaded)
    orderings = orderings_of(plan_product(plans, "", "") if plans else [], loaded)
    numbers = check_ks(whole_numbers(ks, "--ks"), loaded)
    scoring = Scoring("test", n, seed, run.last_weights, loaded.model.head.check_kind(kind), budget=budget)
    for ordering in orderings:
        print_sets(loaded, ordering, numbers, scoring.request([]), as_json)


@app.command(no_args_is_help=True)
@grouped
def exposure(
    run: TrainedRun,
    plans: Plans,
    split: SplitOption = "test",
    n: Images256 = None,
    seed: Seed = 0,
    kind: Kind = None,
    budget: Budget = None,
    as_json: Json = False,
) -> None:
    """Each step's NLL on data beside that on the model's own samples. Writes RUN/scores/exposure-*.json and *.png.

    Examples:

        mar score exposure runs/digits --plans random,raster/cosine:16
    """
    from mar.core.progress import bar
    from mar.metrics.base import Units, scores_folder
    from mar.metrics.exposure import exposed_plans, exposure_table, measure_exposure, save_exposure
    from mar.reports import plots

    loaded = run.load()
    scores_folder(loaded)
    for plan in exposed_plans(loaded, plans.texts(loaded.training_plan)):
        with bar(f"exposure {plan.text}") as progress:
            found = measure_exposure(loaded, plan, split, n, kind, seed, gibibytes(budget), progress)
        file, units = save_exposure(loaded, found, split, seed, run.weights), Units.of_run(loaded)
        title = f"{loaded.data.name}, {found.plan}: {found.n_images} {split} {units.example}s and as many samples"
        plots.save(plots.exposure(found, title), file.with_suffix(".png"))
        table = exposure_table(loaded.data.name, found, split, run.weights, units)
        print_tables([table], as_json, f"wrote {file} and {file.with_suffix('.png').name}")


@app.command(no_args_is_help=True)
@grouped
def fid(
    run: TrainedRun,
    plans: Plans,
    features: Features,
    split: SplitOption = "test",
    n: Annotated[int, typer.Option("-n", "--n", min=8, help="Generated images.")] = 1000,
    seed: Seed = 0,
    guidance: Annotated[float, typer.Option(min=0.0, help="Scale of classifier-free guidance; 1: off.")] = 1.0,
    temperature: Annotated[float, typer.Option(min=0.0, help="Temperature of the head.")] = 1.0,
    head: HeadOptions = None,
    batch_size: BatchSize = 256,
    again: Again = False,
    as_json: Json = False,
) -> None:
    """FID, KID, Inception score, precision and recall of samples; mar fid has sweeps, seeds and other references.

    Examples:

        mar score fid runs/digits --plans random/cosine:16 -n 1000

        mar score fid runs/mnist-binary --labelled mnist:~/data/mnist
    """
    from mar.cli.fid import print_fid
    from mar.core.processes import Processes
    from mar.metrics.generated import FidRequest, score_run
    from mar.metrics.samples import Setting

    loaded, sampled = run.load(), key_values(head or [], "--head")
    settings = (
        Setting(plan, guidance, temperature=temperature, head=sampled, seed=seed)
        for plan in plans.texts(loaded.training_plan)
    )
    asked = FidRequest(
        tuple(settings), n, split=split, features=features.settings(seed), weights=run.weights, batch_size=batch_size,
        again=again,
    )  # fmt: skip
    print_fid(score_run(loaded, Processes(), asked), as_json)


@app.command(no_args_is_help=True)
@grouped
def matrix(
    runs: Runs,
    plans: Plans,
    scoring: Scoring,
    out: Annotated[Path | None, typer.Option(help="The folder; default: matrix, beside the first run.")] = None,
    as_json: Json = False,
) -> None:
    """Every run along every plan; each row is compared with its run's own plan. Writes matrix.json, .csv, .md and .png.

    The runs' training plans are columns, too. Every cell is also a record in its run's scores: interrupted, the same
    command resumes; with more runs or plans only the new cells are computed.

    Examples:

        mar score matrix runs/raster runs/spiral runs/random --plans raster,spiral,random,blocks
    """
    from mar.core.errors import UserError
    from mar.core.progress import wide_console
    from mar.metrics.nll import read_nll, run_names, score_plan
    from mar.reports.matrix import matrix_tables, score_matrix, write_matrix
    from mar.run import load

    if plans.partitions and not plans.plans:
        raise UserError("--partitions of a matrix take --plans")
    request = scoring.request(plans.texts("") if plans.plans else [])

    def score(name: str, run: Any, plan: str) -> Any:
        _say(f"{name} along {plan}")
        return read_nll(score_plan(run, plan, request, _say))

    loaded = [load(path, ema=not scoring.last_weights) for path in runs]
    named = dict(zip(run_names(loaded), loaded, strict=True))
    found = score_matrix(named, request.plans, score, request.split, request.seed, request.kind)
    written = write_matrix(found, out or runs[0].resolve().parent / "matrix")
    if as_json:
        print(written[0].read_text())
        return
    wide_console().print(*matrix_tables(found), sep="\n")
    for path in written:
        print(f"wrote {path}")


def print_nll(run: Any, request: NllRequest, as_json: bool = False) -> None:
    """Score the plans of a request; print the tables and draw the picture."""
    from mar.metrics.base import Units
    from mar.metrics.nll import nll_tables, score_plans
    from mar.reports import plots

    found = score_plans(run, request, _quiet if as_json else _say)
    title = f"{run.data.name} {request.split}, {request.weights} weights"
    heading = f"{title}: nats per token ± one standard error"
    plots.save(plots.likelihoods(found.likelihoods, run.grid.shape, heading), found.picture)
    random = {plan for plan in found.likelihoods if run.plans(plan).random}
    reference = request.paired_with or None
    tables = nll_tables(found.likelihoods, found.differences, reference, title, Units.of_run(run), random)
    line = f"wrote {len(found.files)} JSON file(s) and {found.picture.name} to {found.picture.parent}"
    print_tables(tables, as_json, line)


def print_paired(runs: list[Any], requests: list[NllRequest], as_json: bool = False) -> None:
    """Print the comparison of each run with the first along each plan."""
    from mar.metrics.base import Units
    from mar.metrics.nll import compare_runs, nll_tables

    likelihoods, differences, reference = compare_runs(runs, requests, _quiet if as_json else _say)
    title = f"{runs[0].data.name} {requests[0].split}, {requests[0].weights} weights"
    print_tables(nll_tables(likelihoods, differences, reference, title, Units.of_run(runs[0])), as_json)


def print_sets(run: Any, ordering: Any, ks: tuple[int, ...], request: NllRequest, as_json: bool = False) -> None:
    """Measure and score the sets of an ordering; print the tables and draw the picture."""
    from mar.core.progress import bar
    from mar.likelihood.set_sizes import plans_of
    from mar.metrics.base import Units
    from mar.metrics.sets import save_sets, score_sets, sets_tables
    from mar.model.plans import costs_file
    from mar.reports import plots
    from orderings import to_text

    text, units = to_text(ordering), Units.of_run(run)
    with bar(f"set costs {text}") as progress:
        found = score_sets(run, ordering, ks, request, _quiet if as_json else _say, progress)
    file = save_sets(run, found, request)
    tested = {(schedule, k): found.excess[plan] for k in ks for schedule, plan in plans_of(text, k).items()}
    title = (
        f"{run.data.name}, {text}: costs of {found.costs.n_images} validation {units.example}s, dots "
        f"{found.one_by_one.n_images} test {units.example}s"
    )
    plots.save(plots.set_sizes(found.predicted, tested, title), file.with_suffix(".png"))
    line = f"wrote {costs_file(run.folder.path, text)}, {file.name} and {file.with_suffix('.png').name}"
    print_tables(sets_tables(found, run.data.name, request.weights, units), as_json, line)


def _say(line: str) -> None:
    from mar.core.progress import wide_console

    wide_console().print(line, highlight=False, soft_wrap=True)


def _quiet(line: str) -> None:
    """Print nothing: the output is JSON."""
