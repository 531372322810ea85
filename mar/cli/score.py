"""``mar score nll|sets|exposure|fid|matrix``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional, cast

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from mar.metrics.nll import NllRequest

# ruff: noqa: UP045 - typer reads Optional

_MODES = ("nll", "fid", "sets", "exposure", "matrix")


class _Modes(TyperGroup):
    """Refuses ``mar score RUN --nll`` with the spelling that replaced it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        from mar.core.errors import UserError

        if args[0] not in self.commands:
            flag = next((text for text in args if text.removeprefix("--") in _MODES and text.startswith("--")), "")
            mode = flag.removeprefix("--") or "|".join(_MODES)
            said = " ".join(["mar score", mode, *(text for text in args if text != flag)])
            raise UserError(f"mar score {' '.join(args)} is now written: {said}")
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_Modes, no_args_is_help=True, rich_markup_mode="markdown")

Run = Annotated[Path, typer.Argument(help="A run folder.")]
Runs = Annotated[list[Path], typer.Argument(help="Run folders.")]
PlansOption = Annotated[
    str,
    typer.Option(
        help="Comma-separated plans, e.g. raster,spiral/cosine:16,random/sizes:(1,3,60); default the training plan."
    ),
]
Partitions = Annotated[
    str,
    typer.Option(help="Comma-separated partitions, e.g. singles,cosine:16: every one with every ordering of --plans."),
]
SplitOption = Annotated[str, typer.Option(help="train, validation or test.")]
N = Annotated[Optional[int], typer.Option("-n", "--n", min=2, help="Images, spread over the split; default all.")]
N256 = Annotated[Optional[int], typer.Option("-n", "--n", min=2, help="Images of each split; default 256.")]
Seed = Annotated[int, typer.Option(min=0)]
LastWeights = Annotated[bool, typer.Option("--last-weights", help="Not the averaged (EMA) ones.")]
Kind = Annotated[Optional[str], typer.Option(help="Likelihood kind: exact, bound or ode; default the head's.")]
Likelihood = Annotated[
    Optional[list[str]], typer.Option(help="A scoring option of the head, e.g. tolerance=1e-5, timesteps=100.")
]
EstimatorOption = Annotated[
    str, typer.Option(help="exact (every AR step), steps:8 (an unbiased draw of 8, stratified) or steps:8:antithetic.")
]
Orders = Annotated[
    int,
    typer.Option(min=0, help="Random orders shared by all images: their mean, and the ensemble of 1, 2, 4, … of them."),
]
Draws = Annotated[
    int, typer.Option(min=1, help="Dequantisations of each image, combined by log-mean-exp over whole images.")
]
Memory = Annotated[
    Optional[float], typer.Option("--budget", min=0.01, help="GiB of activations; default 1/32 on a CPU, 1 on a GPU.")
]
PrecisionOption = Annotated[
    str, typer.Option(help="Of the network: fp32, or bf16, faster and some hundredths of a nat off.")
]
Past = Annotated[
    Optional[int],
    typer.Option(
        min=0,
        help="Of text and sound: score every token once, after this many earlier ones or all there are, in overlapping windows.",
    ),
]
Again = Annotated[bool, typer.Option("--again", help="Score anew what was scored before with the same settings.")]


@app.command(no_args_is_help=True)
def nll(
    runs: Runs,
    plans: PlansOption = "",
    partitions: Partitions = "",
    split: SplitOption = "test",
    n: N = None,
    seed: Seed = 0,
    last_weights: LastWeights = False,
    paired_with: Annotated[str, typer.Option(help="A plan that the others are compared with, image by image.")] = "",
    paired: Annotated[
        bool, typer.Option("--paired", help="Compare the other runs with the first, image by image, along each plan.")
    ] = False,
    kind: Kind = None,
    likelihood: Likelihood = None,
    estimator: EstimatorOption = "exact",
    orders: Orders = 0,
    draws: Draws = 1,
    target_se: Annotated[
        str, typer.Option(help="A standard error to reach: 0.01 (bits/dim) or 0.5nats (per image).")
    ] = "",
    budget: Memory = None,
    precision: PrecisionOption = "fp32",
    past: Past = None,
    again: Again = False,
) -> None:
    """Likelihood along each plan, on the same images and noise. Writes RUN/scores/nll-*.json and a picture.

    An interrupted scoring goes on with the same command; what was scored before is kept.

    Examples:

        mar score nll runs/digits --plans raster,spiral,random/cosine:16 --paired-with raster

        mar score nll runs/digits --plans raster,hilbert --partitions singles,linear:16,cosine:16

        mar score nll runs/mnist-binary --plans random --orders 16 -n 256

        mar score nll runs/mnist-binary --plans random --target-se 0.5nats

        mar score nll runs/mnist-diffusion --kind ode --likelihood tolerance=1e-4

        mar score nll runs/spoken-digits --past 512

        mar score nll runs/made runs/transformer --plans raster,random --paired
    """
    from mar.cli.scoring import product
    from mar.core.errors import UserError
    from mar.run import load

    if paired and (len(runs) < 2 or paired_with or target_se):
        raise UserError("--paired compares two or more runs along each plan: leave out --paired-with and --target-se")
    if len(runs) > 1 and not paired:
        raise UserError(
            f"{len(runs)} runs: mar score nll A B --paired compares them, mar score matrix scores all plans"
        )
    loaded = [load(path, ema=not last_weights) for path in runs]
    make = _request(
        split, n, seed, last_weights, kind, likelihood, estimator, orders, draws, budget, precision, past, again,
        target_se, paired_with,
    )  # fmt: skip
    if paired:
        print_paired(loaded, [make(product(plans, partitions, run.training_plan)) for run in loaded])
    else:
        print_nll(loaded[0], make(product(plans, partitions, loaded[0].training_plan)))


@app.command(no_args_is_help=True)
def sets(
    run: Run,
    plans: Annotated[str, typer.Option(help="Comma-separated orderings; default the training one.")] = "",
    ks: Annotated[str, typer.Option(help="Numbers of sets that are scored on test images.")] = "4,8,16",
    n: N256 = None,
    seed: Seed = 0,
    last_weights: LastWeights = False,
    kind: Kind = None,
    budget: Memory = None,
) -> None:
    """Cost of parallel generation along each ordering, and the best set sizes. Writes RUN/scores/sets-*.json and *.png.

    Set costs are measured on validation images; the partition optimal:K reads them. Schedules are scored on test images.

    Examples:

        mar score sets runs/digits --plans random,raster --ks 4,8,16
    """
    from mar.cli.scoring import product, whole_numbers
    from mar.metrics.base import scores_folder
    from mar.metrics.sets import check_ks, orderings_of
    from mar.run import load

    loaded = load(run, ema=not last_weights)
    scores_folder(loaded)
    found = orderings_of(product(plans, "", "") if plans else [], loaded)
    numbers = check_ks(whole_numbers(ks, "--ks"), loaded)
    request = _request("test", n, seed, last_weights, loaded.model.head.check_kind(kind), budget=budget)([])
    for ordering in found:
        print_sets(loaded, ordering, numbers, request)


@app.command(no_args_is_help=True)
def exposure(
    run: Run,
    plans: PlansOption = "",
    partitions: Partitions = "",
    split: SplitOption = "test",
    n: N256 = None,
    seed: Seed = 0,
    last_weights: LastWeights = False,
    kind: Kind = None,
    budget: Memory = None,
) -> None:
    """Each step's NLL on data beside that on the model's own samples. Writes RUN/scores/exposure-*.json and *.png.

    Examples:

        mar score exposure runs/digits --plans random,raster/cosine:16
    """
    from mar.cli.scoring import product
    from mar.core.progress import bar
    from mar.metrics.base import scores_folder
    from mar.metrics.exposure import exposed_plans, measure_exposure
    from mar.run import load

    _check_choices(split=split)
    loaded, weights = load(run, ema=not last_weights), "last" if last_weights else "ema"
    scores_folder(loaded)
    for plan in exposed_plans(loaded, product(plans, partitions, loaded.training_plan)):
        with bar(f"exposure {plan.text}") as progress:
            found = measure_exposure(loaded, plan, split, n, kind, seed, _bytes(budget), progress)
        print_exposure(loaded, found, split, seed, weights)


@app.command(no_args_is_help=True)
def fid(
    run: Run,
    plans: PlansOption = "",
    partitions: Partitions = "",
    split: SplitOption = "test",
    n: Annotated[Optional[int], typer.Option("-n", "--n", min=8, help="Generated images; default 1000.")] = None,
    seed: Seed = 0,
    last_weights: LastWeights = False,
    guidance: Annotated[float, typer.Option(min=0.0, help="A likelihood always has guidance 1.")] = 1.0,
    temperature: Annotated[float, typer.Option(min=0.0)] = 1.0,
    head: Annotated[
        Optional[list[str]], typer.Option(help="A sampling option of the head, e.g. steps=25, top_k=5.")
    ] = None,
    features: Annotated[str, typer.Option(help="auto, inception or classifier.")] = "auto",
    inception_weights: Annotated[Optional[Path], typer.Option(help="torch-fidelity's Inception weights file.")] = None,
    labelled: Annotated[
        str, typer.Option(help="For unlabelled data: kind:path of labelled data for the classifier.")
    ] = "",
    batch_size: Annotated[int, typer.Option(min=1, help="Images generated at a time.")] = 256,
    again: Again = False,
) -> None:
    """FID, KID, Inception score, precision and recall of samples; mar fid has sweeps, seeds and other references.

    Examples:

        mar score fid runs/digits --plans random/cosine:16 -n 1000

        mar score fid runs/mnist-binary --labelled mnist:~/data/mnist
    """
    from mar.cli.fid_sources import Features, Looks
    from mar.cli.score_fid import FidRequest, score_run
    from mar.cli.scoring import options_of, product
    from mar.core.processes import Processes
    from mar.metrics.samples import Setting
    from mar.run import load

    _check_choices(split=split, features=features)
    loaded = load(run, ema=not last_weights)
    sampled = options_of(head or [], "sampling")
    chosen = product(plans, partitions, loaded.training_plan)
    settings = tuple(Setting(plan, guidance, temperature=temperature, head=sampled, seed=seed) for plan in chosen)
    looks = Looks(cast(Features, features), inception_weights, labelled, seed)
    asked = FidRequest(
        settings, n or 1000, split=split, looks=looks, weights="last" if last_weights else "ema", batch_size=batch_size,
        again=again,
    )  # fmt: skip
    score_run(loaded, Processes(), asked)


@app.command(no_args_is_help=True)
def matrix(
    runs: Runs,
    plans: PlansOption = "",
    partitions: Partitions = "",
    split: SplitOption = "test",
    n: N = None,
    seed: Seed = 0,
    last_weights: LastWeights = False,
    kind: Kind = None,
    likelihood: Likelihood = None,
    estimator: EstimatorOption = "exact",
    orders: Orders = 0,
    draws: Draws = 1,
    budget: Memory = None,
    precision: PrecisionOption = "fp32",
    past: Past = None,
    again: Again = False,
    out: Annotated[Optional[Path], typer.Option(help="The folder; default: matrix, beside the first run.")] = None,
) -> None:
    """Every run along every plan; each row is compared with its run's own plan. Writes matrix.json, .csv, .md and .png.

    The runs' training plans are columns, too. Every cell is also a record in its run's scores: interrupted, the same
    command goes on; with more runs or plans only the new cells are computed.

    Examples:

        mar score matrix runs/raster runs/spiral runs/random --plans raster,spiral,random,blocks
    """
    from mar.cli.scoring import product
    from mar.core.errors import UserError
    from mar.core.progress import wide_console
    from mar.experiments.matrix import named, score_matrix
    from mar.metrics.nll import read_nll, score_plan
    from mar.reports.matrix import terminal, write_matrix
    from mar.run import load

    if partitions and not plans:
        raise UserError("--partitions of a matrix take --plans")
    console = wide_console()
    request = _request(
        split, n, seed, last_weights, kind, likelihood, estimator, orders, draws, budget, precision, past, again
    )(product(plans, partitions, "") if plans else [])

    def score(name: str, run: Any, plan: str) -> Any:
        console.print(f"{name} along {plan}", highlight=False)
        return read_nll(score_plan(run, plan, request, _say))

    loaded = named([load(path, request.weights == "ema") for path in runs])
    found = score_matrix(loaded, request.plans, score, request.split, request.seed, request.kind)
    console.print(*terminal(found), sep="\n")
    for path in write_matrix(found, out or runs[0].resolve().parent / "matrix"):
        print(f"wrote {path}")


def _request(
    split: str, n: int | None, seed: int, last_weights: bool, kind: str | None, likelihood: list[str] | None = None,
    estimator: str = "exact", orders: int = 0, draws: int = 1, budget: float | None = None, precision: str = "fp32",
    past: int | None = None, again: bool = False, target: str = "", paired_with: str = "",
) -> Callable[[list[str]], NllRequest]:  # fmt: skip
    """Return what makes a request of plans."""
    from mar.cli.scoring import options_of, product
    from mar.likelihood.estimate import Estimator, Several
    from mar.metrics.nll import NllRequest
    from mar.run import Precision

    _check_choices(split=split, precision=precision)
    reference = product(paired_with, "", "")[0] if paired_with else ""
    return lambda plans: NllRequest(
        tuple(plans), reference, split, n, kind, Estimator.parse(estimator), Several(orders=orders, draws=draws), target,
        options_of(likelihood or [], "scoring"), _bytes(budget), seed, "last" if last_weights else "ema", again,
        cast(Precision, precision), past,
    )  # fmt: skip


_CHOICES = {
    "split": ("train", "validation", "test"),
    "precision": ("fp32", "bf16"),
    "features": ("auto", "inception", "classifier"),
}


def _check_choices(**chosen: str) -> None:
    from mar.core.errors import unknown

    for what, value in chosen.items():
        if value not in _CHOICES[what]:
            raise unknown(what, value, _CHOICES[what])


def _bytes(gib: float | None) -> int | None:
    return int(gib * 2**30) if gib else None


def _say(line: str) -> None:
    from mar.core.progress import wide_console

    wide_console().print(line, highlight=False, soft_wrap=True)


def print_nll(run: Any, request: NllRequest) -> None:
    from mar.cli import nll_tables
    from mar.core.progress import wide_console
    from mar.likelihood import pictures
    from mar.metrics.base import Units
    from mar.metrics.nll import score_plans

    found, units = score_plans(run, request, _say), Units.of_run(run)
    title = f"{run.data.name} {request.split}, {request.weights} weights"
    pictures.draw(
        found.likelihoods, run.grid.shape, found.picture, f"{title}: nats per token ± one standard error"
    )  # fmt: skip
    console = wide_console()
    for table in nll_tables.tables(found.likelihoods, found.differences, request.paired_with or None, title, units):
        console.print(table)
    random = {plan for plan in found.likelihoods if run.plans(plan).random}
    for note in nll_tables.notes(found.likelihoods, random, units):
        _say(note)
    _say(f"wrote {len(found.files)} JSON file(s) and {found.picture.name} to {found.picture.parent}")


def print_paired(runs: list[Any], requests: list[NllRequest]) -> None:
    """Compare each run with the first along each plan; Holm's correction covers every comparison of the table."""
    from mar.cli import nll_tables
    from mar.core.progress import wide_console
    from mar.metrics.base import Units
    from mar.metrics.nll import compare_runs

    likelihoods, differences, reference = compare_runs(runs, requests, _say)
    units, first = Units.of_run(runs[0]), requests[0]
    title = f"{runs[0].data.name} {first.split}, {first.weights} weights"
    wide_console().print(*nll_tables.tables(likelihoods, differences, reference, title, units), sep="\n")
    for note in nll_tables.notes(likelihoods, set(), units):
        _say(note)


def print_sets(run: Any, ordering: Any, ks: tuple[int, ...], request: NllRequest) -> None:
    from mar.cli.sets_tables import predicted_table, tested_table
    from mar.core.progress import bar, wide_console
    from mar.likelihood.set_sizes import plans_of
    from mar.metrics.base import Units
    from mar.metrics.sets import save_sets, score_sets
    from mar.reports.sets import Tested, draw_sets
    from orderings import describe
    from orderings.optimal import costs_file

    text, console, units = describe(ordering), wide_console(), Units.of_run(run)
    with bar(f"set costs {text}") as progress:
        found = score_sets(run, ordering, ks, request, _say, progress)
    one = found.one_by_one
    console.print(predicted_table(found.costs, found.predicted, units))
    console.print(
        tested_table(run.data.name, request.weights, one, found.predicted, found.excess, found.to_best, units)
    )
    _say(f"intervals: 95 %, bootstrap over {units.example}s, the same ones and orders (docs/sets-and-exposure.md)")
    for warning in one.warnings:
        _say(f"warning: {warning}")
    file = save_sets(run, found, request)
    tested = [
        Tested(k, schedule, found.excess[plan].nats_per_image, found.excess[plan].interval_nats)
        for k in ks
        for schedule, plan in plans_of(text, k).items()
    ]
    title = (
        f"{run.data.name}, {text}: costs of {found.costs.n_images} validation {units.example}s, dots {one.n_images} "
        f"test {units.example}s"
    )
    draw_sets(title, found.predicted, tested, file.with_suffix(".png"))
    _say(f"wrote {costs_file(run.folder.path, text)}, {file.name} and {file.with_suffix('.png').name}")


def print_exposure(run: Any, found: Any, split: str, seed: int, weights: str) -> None:
    from mar.cli.sets_tables import exposure_table
    from mar.core.progress import wide_console
    from mar.metrics.base import Units
    from mar.metrics.exposure import save_exposure
    from mar.reports.exposure import draw_exposure

    file, units = save_exposure(run, found, split, seed, weights), Units.of_run(run)
    title = f"{run.data.name}, {found.plan}: {found.n_images} {split} {units.example}s and as many samples"
    draw_exposure(title, found, file.with_suffix(".png"))
    wide_console().print(exposure_table(run.data.name, found, split, weights, units))
    _say(
        "± is one standard error over pairs; misfit: the data cost more than the model expects; exposure: the model "
        "expects something else after its own samples (docs/sets-and-exposure.md)"
    )
    _say(f"wrote {file} and {file.with_suffix('.png').name}")
