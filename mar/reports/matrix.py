"""A train-order × eval-order matrix: pivots of the table of several runs, and a heat map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mar import build
from mar.core.files import environment, write_atomic
from mar.core.table import Column, Table, plus_minus, with_interval
from mar.experiments.grid import PLAN
from mar.experiments.result import AblationResult, Row, TrainedModel
from mar.experiments.statistics import compared
from mar.likelihood.summary import Likelihood
from mar.metrics.nll import check_comparable
from mar.reports.columns import field, has_bits
from mar.run import Run
from orderings import PlanSpec, to_text

_RUN, _PLAN = "run (trained along)", "scored along"
_DATA = {
    "kind": "likelihood.kind",
    "n_images": "likelihood.n_images",
    "nats_per_image": "likelihood.nats_per_image",
    "standard_error_nats": "likelihood.standard_error_nats",
    "bits_per_dim": "likelihood.bits_per_dim",
    "standard_error_bits_per_dim": "likelihood.standard_error_bits_per_dim",
    "difference_nats_per_image": "difference.nats_per_image",
    "difference_low_nats": "difference.interval_nats.0",
    "difference_high_nats": "difference.interval_nats.1",
    "p_value": "difference.p_value",
    "p_holm": "difference.p_holm",
}


def score_matrix(
    runs: Mapping[str, Run], plans: Sequence[str], score: Callable[[str, Run, str], Likelihood], split: str = "test",
    seed: int = 0, kind: str | None = None, confidence: float = 0.95,
) -> AblationResult:  # fmt: skip
    """Return the result of several runs, each along every plan and compared with the plan that it was trained along.

    Args:
        runs: by the names that the table shows.
        plans: short texts; training plans of the runs that are not among them are added.
        score: of a run, by its name, along a plan; always on the same images and noise.
        split, seed, kind: of the scores, for the record and the checks.
        confidence: of the intervals of the differences.

    Raises:
        UserError, Unsupported: see ``check_comparable``; nothing was scored.
    """
    check_comparable(runs, kind)
    own = {name: run.training_plan for name, run in runs.items()}
    columns = dict.fromkeys([*(str(PlanSpec.parse(plan, adaptive=True)) for plan in plans), *own.values()])
    scores = {(name, plan): score(name, runs[name], plan) for name in runs for plan in columns}
    rows = {
        (name, plan): Row(
            plan, *_parts(plan), model=name,
            settings={"run": name, "trained along": own[name], PLAN: plan}, answers={"nll": likelihood},
        )
        for (name, plan), likelihood in scores.items()
    }  # fmt: skip
    compare = partial(compared, list(rows.values()), lambda row: rows[row.model, own[row.model]], confidence)
    base = next(iter(runs.values()))
    notes = [note for name, run in runs.items() for note in _notes_of_run(name, run, scores[name, own[name]])]
    grid = {"nll": {"split": split, "seed": seed, "kind": kind}, "confidence": confidence, "notes": notes}
    recipes = {name: run.recipe for name, run in runs.items()}
    models = (
        TrainedModel(
            name, {"run": name, "trained along": own[name]}, recipe.as_dict(), recipe.fingerprint(), 0, "", None
        )
        for name, recipe in recipes.items()
    )
    return AblationResult(
        "train-order × eval-order", grid | {"weights": "ema" if base.ema else "last"}, ("run", "trained along"),
        tuple(models), base.data.name, base.data.fingerprint, environment(), "its own plan",
        tuple(compare(name=lambda row: row.plan)), (), 0.0, (PLAN,),
    )  # fmt: skip


def _parts(plan: str) -> tuple[str, str]:
    ordering, partition = PlanSpec.parse(plan, adaptive=True)
    return to_text(ordering), to_text(partition)


def _notes_of_run(name: str, run: Run, scored: Likelihood) -> list[str]:
    """Return a line about a run, and its warnings."""
    kind, plan = run.recipe.train.objective.kind, run.training_plan
    notes = [f"{name}: trained along {plan}, mask ratio {kind}, {run.checkpoint.iteration:,} iterations."]
    if not build.objective(run.recipe).estimates_nll(build.ordering(run.recipe)):
        notes.append(
            f"Warning: {name}: its training loss (objective {kind}) is no NLL of {plan}: a fixed order is trained with "
            "train.objective=next_set."
        )
    return [*notes, *(f"Warning: {name}: {warning}." for warning in scored.warnings)]


def matrix_tables(result: AblationResult) -> list[Table[Any]]:
    """Return the values, and the differences to each run's own plan with the notes."""
    bits = has_bits(result)
    unit, digits = ("bits/dim", 3) if bits else ("nats/image", 2)
    figure, error, mean, interval = (
        field(f"{place}{'bits_per_dim' if bits else nats}")
        for place, nats in (
            ("likelihood.", "nats_per_image"), ("likelihood.standard_error_", "nats"),
            ("difference.", "nats_per_image"), ("difference.interval_", "nats"),
        )
    )  # fmt: skip

    def compared(row: Row) -> str:
        if row.difference is None:
            return "its own plan"
        number, _, rest = with_interval(mean(row), interval(row), digits).partition(" ")
        return f"{number}, p {row.difference.p_holm:.1g} {rest}"

    columns = [
        Column[Row](_RUN, lambda row: f"{row.model} ({row.settings['trained along']})", words=True),
        Column[Row](_PLAN, lambda row: row.plan, words=True),
        Column[Row](
            "NLL", figure, "", digits, lambda row: plus_minus(figure(row), error(row), digits), unit, mark=is_own
        ),
        Column[Row]("Δ", compared, unit=unit, mark=is_own),
    ]
    table, likelihood = Table(columns, result.rows), result.rows[0].likelihood
    about = f"minus the same run along its own plan [{100 * result.grid['confidence']:g} % interval]"
    title = f"Train-order × eval-order: NLL ({likelihood.kind}), {unit}, {result.data} {result.grid['nll']['split']}"
    values, differences = (table.pivot(_RUN, _PLAN, of) for of in ("NLL", "Δ"))
    return [replace(values, notes=(), title=title), replace(differences, notes=_notes(result), title=about)]


def is_own(row: Row) -> bool:
    """True in the cell of a run along the plan that it was trained along."""
    return row.plan == row.settings["trained along"]


def data_table(result: AblationResult) -> Table[Row]:
    """Return the table of the CSV: one line a cell, every number at full precision, units in the names."""
    columns = [
        Column[Row]("run", lambda row: row.model),
        Column[Row]("trained_along", lambda row: row.settings["trained along"]),
        Column[Row]("scored_along", lambda row: row.settings[PLAN]),
        *(Column[Row](name, field(path)) for name, path in _DATA.items()),
    ]
    return Table(columns, result.rows)


def markdown(result: AblationResult) -> str:
    """Return both matrices with their notes."""
    return "\n".join(table.markdown(level) for level, table in enumerate(matrix_tables(result), start=1))


def write_matrix(result: AblationResult, folder: Path) -> list[Path]:
    """Write ``matrix.json``, ``.csv``, ``.md`` and ``.png``; return their paths."""
    from mar.reports import plots

    result.save(folder / "matrix.json")
    write_atomic(folder / "matrix.csv", data_table(result).csv())
    write_atomic(folder / "matrix.md", markdown(result))
    plots.save(plots.matrix(matrix_tables(result)[0]), folder / "matrix.png")
    return [folder / f"matrix.{kind}" for kind in ("json", "csv", "md", "png")]


def _notes(result: AblationResult) -> list[str]:
    """Return how to read the matrix, a line for each run, and the warnings."""
    first, split, compared = result.rows[0].likelihood, result.grid["nll"]["split"], len(result.rows)
    compared -= sum(map(is_own, result.rows))
    return [
        f"{first.kind} likelihoods of the same {first.n_images} {split} images, orders and noise (seed "
        f"{result.grid['nll']['seed']}) in every cell, {result.grid['weights']} weights, data {result.data} "
        f"{result.data_fingerprint[:12]}; ± is one standard error over images.",
        f"Differences are paired, image by image, with the same run along the plan it was trained along: "
        f"{100 * result.grid['confidence']:g} % bootstrap interval over images; p: paired t-test, Holm-corrected over "
        f"the {compared} comparisons of the table. They hold for these trained models, not for other training seeds.",
        "Off the diagonal a run trained along one fixed order is asked for conditionals that it never trained; compare "
        "orders down the diagonal, or along the row of a run trained on random orders.",
        *result.grid["notes"],
    ]
