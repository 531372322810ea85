"""A train-order × eval-order matrix: pivots of the table of several runs, and a heat map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mar.core.files import write_atomic
from mar.core.table import Column, Table, plus_minus, with_interval
from mar.experiments.grid import PLAN
from mar.experiments.result import AblationResult, Row
from mar.reports.columns import field, has_bits

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
        f"the {compared} comparisons of the table. They speak of these trained models, not of other training seeds.",
        "Off the diagonal a run trained along one fixed order is asked for conditionals that it never trained; compare "
        "orders down the diagonal, or along the row of a run trained on random orders.",
        *result.grid["notes"],
    ]
