"""``mar score nll|fid|sets|exposure|consistency|matrix``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mar.cli import options as o
from mar.cli.options import Json, Plans, Seed, SplitOption, TrainedRun, arg, gibibytes, grouped, opt, printer
from mar.core.errors import UserError
from mar.core.progress import bar

if TYPE_CHECKING:
    from mar.metrics.nll import NllRequest
    from mar.run import Run

Runs = Annotated[list[Path], arg("Run folders; mar score nll takes several with --paired.")]
Images = Annotated[int | None, opt("Images, spread over the split; default all.", "-n", "--n", min=2)]
LikelihoodOptions = Annotated[o.Texts, opt("Scoring option of the head: tolerance=1e-5, timesteps=100.")]


@dataclass(frozen=True)
class Scoring:
    """How plans are scored, of every run alike."""

    split: SplitOption = "test"
    n: Images = None
    seed: Seed = 0
    last_weights: o.LastWeights = False
    data_path: o.DataPath = None
    device: o.Device = ""
    kind: o.Kind = None
    likelihood: LikelihoodOptions = None
    estimator: Annotated[str, opt("exact (every AR step), or steps:8: an unbiased, stratified draw of 8.")] = "exact"
    orders: Annotated[
        int,
        opt("Random orders, shared by all images (all of a mixture's): their mean, ensembles of 1, 2, 4, ….", min=0),
    ] = 0
    draws: Annotated[int, opt("Dequantisations of each image, combined by log-mean-exp over whole images.", min=1)] = 1
    budget: o.Budget = None
    precision: Annotated[
        o.Precision, opt("Precision of the network: bf16 is faster and some hundredths of a nat off.")
    ] = "fp32"
    past: Annotated[int | None, opt("Text, sound: least number of earlier tokens before each scored one.", min=0)] = (
        None
    )
    control_variates: Annotated[
        bool, opt("Correct the mean of -n images by regression on statistics of the whole split.", "--control-variates")
    ] = False
    again: o.Again = False

    def load(self, path: Path) -> Run:
        """Load a run. Raises UserError: the folder holds no run."""
        return o.load_run(path, self.last_weights, None, self.data_path)

    def request(self, plans: list[str], paired_with: str = "", target: str = "") -> NllRequest:
        from mar.likelihood.estimate import Estimator, Repeats
        from mar.metrics.nll import NllRequest

        return NllRequest(
            tuple(plans), o.plan_product(paired_with, "", "")[0] if paired_with else "", self.split, self.n, self.kind,
            Estimator.parse(self.estimator), Repeats(orders=self.orders, draws=self.draws), target,
            o.key_values(self.likelihood, "--likelihood"), gibibytes(self.budget), self.seed,
            "last" if self.last_weights else "ema", self.again, self.precision, self.control_variates, self.past,
        )  # fmt: skip


@dataclass(frozen=True)
class Measuring:
    """How sets, exposure or consistency are measured."""

    n: Annotated[int | None, opt("Images of each split; default 256.", "-n", "--n", min=2)] = None
    seed: Seed = 0
    kind: o.Kind = None
    budget: o.Budget = None
    as_json: Json = False

    def load(self, run: TrainedRun) -> tuple[Run, str | None]:
        """Return the run, whose scores can be written, and the kind of likelihood. Raises UserError: neither."""
        loaded = run.load()
        from mar.metrics.base import scores_folder

        scores_folder(loaded)
        return loaded, loaded.model.head.check_kind(self.kind)


@grouped
def nll(
    runs: Runs,
    plans: Plans,
    scoring: Scoring,
    paired_with: Annotated[str, opt("A plan that the others are compared with, image by image.")] = "",
    paired: Annotated[bool, opt("Compare the other runs with the first, image by image.", "--paired")] = False,
    target_se: Annotated[str, opt("A standard error to reach: 0.01 (bits/dim) or 0.5nats (per image).")] = "",
    as_json: Json = False,
) -> None:
    """Likelihood along each plan, on the same images and noise.

    Writes RUN/scores/nll-*.json and a picture. Run the same command again to resume; results are cached.

    Examples:

        mar score nll runs/digits --plans raster,spiral --partitions singles,cosine:16 --paired-with raster
        mar score nll runs/mnist-binary --plans random --orders 16 -n 256
        mar score nll runs/mnist-diffusion --kind ode --likelihood tolerance=1e-4
        mar score nll runs/made runs/transformer --plans raster,random --paired
    """
    if paired and (len(runs) < 2 or paired_with or target_se):
        raise UserError("--paired compares two or more runs along each plan: leave out --paired-with and --target-se")
    if len(runs) > 1 and not paired:
        raise UserError(
            f"{len(runs)} runs: mar score nll A B --paired compares them, mar score matrix scores all plans"
        )
    loaded = [scoring.load(path) for path in runs]
    requests = [scoring.request(plans.texts(run.training_plan), paired_with, target_se) for run in loaded]
    if paired:
        print_paired(loaded, requests, as_json)
    else:
        print_nll(loaded[0], requests[0], as_json)


def print_nll(run: Run, request: NllRequest, as_json: bool = False) -> None:
    """Score the plans of a request; print the tables and draw the picture."""
    from mar.metrics.base import Units
    from mar.metrics.nll import nll_tables, score_plans
    from mar.reports import plots

    found = score_plans(run, request, printer(as_json))
    title = f"{run.data.name} {request.split}, {request.weights} weights"
    heading = f"{title}: nats per token ± one standard error"
    plots.save(plots.likelihoods(found.likelihoods, run.grid.picture, heading), found.picture)
    units, reference = Units.of_run(run), request.paired_with or None
    tables = nll_tables(found.likelihoods, found.differences, reference, title, units, found.random)
    line = f"wrote {len(found.files)} JSON file(s) and {found.picture.name} to {found.picture.parent}"
    o.print_tables(tables, as_json, line)


def print_paired(runs: list[Run], requests: list[NllRequest], as_json: bool = False) -> None:
    """Print the comparison of each run with the first along each plan."""
    from mar.metrics.base import Units
    from mar.metrics.nll import compare_runs, nll_tables

    likelihoods, differences, reference = compare_runs(runs, requests, printer(as_json))
    title = f"{runs[0].data.name} {requests[0].split}, {requests[0].weights} weights"
    o.print_tables(nll_tables(likelihoods, differences, reference, title, Units.of_run(runs[0])), as_json)


@grouped
def sets(
    run: TrainedRun,
    plans: Annotated[str, opt("Comma-separated orderings; default the training one.")] = "",
    ks: Annotated[str, opt("Numbers of sets scored on test images; default 4, 8 and 16, those below the tokens.")] = "",
    measuring: Measuring = Measuring(),
) -> None:
    """Cost of generating in sets, and the best sizes of sets.

    Set costs are measured on validation images; the partition optimal:K reads them. Schedules are scored on test images.
    Writes RUN/scores/sets-*.json and *.png.

    Examples:

        mar score sets runs/digits --plans random,raster --ks 4,8,16
    """
    loaded, kind = measuring.load(run)

    from mar.likelihood.set_sizes import plans_of
    from mar.metrics.base import Units
    from mar.metrics.nll import NllRequest
    from mar.metrics.sets import check_ks, orderings_of, save_sets, score_sets, sets_tables
    from mar.model.plans import costs_file
    from mar.reports import plots
    from orderings import to_text

    numbers, units = check_ks(o.whole_numbers(ks, "--ks"), loaded), Units.of_run(loaded)
    request = NllRequest(
        (), n=measuring.n, kind=kind, budget=gibibytes(measuring.budget), seed=measuring.seed, weights=run.weights
    )
    say = printer(measuring.as_json)
    for ordering in orderings_of(o.plan_product(plans, "", "") if plans else [], loaded):
        text = to_text(ordering)
        with bar(f"set costs {text}") as progress:
            found = score_sets(loaded, ordering, numbers, request, say, progress)
        file = save_sets(loaded, found, request)
        picture = file.with_suffix(".png")
        tested = {(schedule, k): found.excess[plan] for k in numbers for schedule, plan in plans_of(text, k).items()}
        title = (
            f"{loaded.data.name}, {text}: costs of {found.costs.n_images} validation {units.example}s, dots "
            f"{found.one_by_one.n_images} test {units.example}s"
        )
        plots.save(plots.set_sizes(found.predicted, tested, title), picture)
        line = f"wrote {costs_file(loaded.folder.path, text)}, {file.name} and {picture.name}"
        o.print_tables(sets_tables(found, loaded.data.name, request.weights, units), measuring.as_json, line)


@grouped
def exposure(
    run: TrainedRun,
    plans: Plans,
    split: SplitOption = "test",
    measuring: Measuring = Measuring(),
) -> None:
    """Each step's NLL on data beside that on the model's samples.

    Writes RUN/scores/exposure-*.json and *.png.

    Examples:

        mar score exposure runs/digits --plans random,raster/cosine:16
    """
    (loaded, kind), budget = measuring.load(run), gibibytes(measuring.budget)

    from mar.metrics.base import Units
    from mar.metrics.exposure import exposed_plans, exposure_table, measure_exposure, save_exposure
    from mar.reports import plots

    for plan in exposed_plans(loaded, plans.texts(loaded.training_plan)):
        with bar(f"exposure {plan.text}") as progress:
            found = measure_exposure(loaded, plan, split, measuring.n, kind, measuring.seed, budget, progress)
        file, units = save_exposure(loaded, found, split, measuring.seed, run.weights), Units.of_run(loaded)
        title = f"{loaded.data.name}, {found.plan}: {found.n_images} {split} {units.example}s and as many samples"
        plots.save(plots.exposure(found, title), file.with_suffix(".png"))
        table = exposure_table(loaded.data.name, found, split, run.weights, units)
        o.print_tables([table], measuring.as_json, f"wrote {file} and {file.with_suffix('.png').name}")


@grouped
def consistency(
    run: TrainedRun,
    plans: Annotated[str, opt("Comma-separated random orderings; default the training one, or random.")] = "",
    split: SplitOption = "test",
    orders: Annotated[int, opt("Random orders, the same for all images.", min=3)] = 8,
    pairs: Annotated[int, opt("Pairs of each image, each over another number of known tokens.", min=1)] = 16,
    likelihood: LikelihoodOptions = None,
    measuring: Measuring = Measuring(),
    again: o.Again = False,
) -> None:
    """Whether the conditionals are those of one joint distribution.

    The spread of log p over random orders, the chain rule of pairs, and the gain of mixing the orders. All are 0 for a
    joint distribution. Writes RUN/scores/consistency-*.json and *.png. Run the same command again to resume.

    Examples:

        mar score consistency runs/digits
        mar score consistency runs/mnist-binary -n 64 --orders 16 --pairs 32
    """
    chosen = o.plan_product(plans, "", "") if plans else []
    if measuring.n == 2:
        raise UserError("order consistency takes at least 3 images: its errors leave one out")
    (loaded, kind), budget = measuring.load(run), gibibytes(measuring.budget)

    from mar.metrics.base import Units
    from mar.metrics.consistency import OrderConsistency, consistency_tables, random_plans, score_consistency
    from mar.reports import plots

    n, units = {} if measuring.n is None else {"images": measuring.n}, Units.of_run(loaded)
    asked = OrderConsistency.Options(
        split=split, orders=orders, pairs=pairs, seed=measuring.seed, kind=kind,
        likelihood=o.key_values(likelihood, "--likelihood"), **n,
    )  # fmt: skip
    for plan in random_plans(loaded, chosen):
        file, found = score_consistency(loaded, plan, asked, run.weights, printer(measuring.as_json), budget, again)
        picture = file.with_suffix(".png")
        title = f"{loaded.data.name}, {found.plan}: {found.n_images} {split} {units.example}s"
        plots.save(plots.consistency({found.plan: found}, loaded.grid.shape, title), picture)
        tables = consistency_tables(loaded.data.name, found, split, run.weights, units)
        o.print_tables(tables, measuring.as_json, f"wrote {file} and {picture.name}")


@grouped
def matrix(
    runs: Runs,
    plans: Plans,
    scoring: Scoring,
    out: Annotated[Path | None, opt("The folder; default: matrix, beside the first run.")] = None,
    as_json: Json = False,
) -> None:
    """Every run along every plan, paired with its run's own plan.

    Writes matrix.json, .csv, .md and .png. The runs' training plans are columns, too. Every cell is also a record in its
    run's scores: with more runs or plans only the new cells are computed.

    Examples:

        mar score matrix runs/raster runs/spiral runs/random --plans raster,spiral,random,blocks
    """
    from mar.core.files import check_writable
    from mar.metrics.nll import run_names, score_plan
    from mar.reports.matrix import matrix_tables, score_matrix, write_matrix

    if plans.partitions and not plans.plans:
        raise UserError("--partitions of a matrix take --plans")
    request, say = scoring.request(plans.texts("") if plans.plans else []), printer(as_json)
    folder = out or runs[0].resolve().parent / "matrix"
    check_writable(folder / "matrix.json")

    def score(name: str, run: Run, plan: str) -> Any:
        say(f"{name} along {plan}")
        return score_plan(run, plan, request, say)[1]

    loaded = run_names([scoring.load(path) for path in runs])
    found = score_matrix(loaded, request.plans, score, request.split, request.seed, request.kind)
    written = write_matrix(found, folder)
    if as_json:
        print(written[0].read_text())
        return
    o.print_tables(matrix_tables(found), False, *(f"wrote {path}" for path in written))
