"""A train-order × eval-order matrix as tables and a heat map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mar.core.files import write_atomic
from mar.core.table import Column, Table, plus_minus, with_interval
from mar.experiments.matrix import Cell, Matrix
from mar.reports.columns import field

if TYPE_CHECKING:
    from rich.console import RenderableType

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


def matrix_table(matrix: Matrix) -> Table[Cell]:
    """Return the table of every cell; its pivots are the matrices."""
    trained, digits = {run.name: run.plan for run in matrix.runs}, 3 if unit(matrix) == "bits/dim" else 2
    columns = [
        Column[Cell](_RUN, lambda cell: f"{cell.run} ({trained[cell.run]})", words=True),
        Column[Cell](_PLAN, lambda cell: cell.plan, words=True),
        Column[Cell](
            "NLL", lambda cell: value(matrix, cell)[0], "", digits,
            lambda cell: plus_minus(*value(matrix, cell), digits), unit(matrix), mark=_is_own,
        ),
        Column[Cell]("Δ", lambda cell: _compared(matrix, cell, digits), unit=unit(matrix), mark=_is_own),
    ]  # fmt: skip
    return Table(columns, matrix.cells)


def data_table(matrix: Matrix) -> Table[Cell]:
    """Return the table of the CSV: one line a cell, every number at full precision, units in the names."""
    trained = {run.name: run.plan for run in matrix.runs}
    return Table(
        [
            Column("run", lambda cell: cell.run),
            Column("trained_along", lambda cell: trained[cell.run]),
            Column("scored_along", lambda cell: cell.plan),
            *(Column[Cell](name, field(path)) for name, path in _DATA.items()),
        ],
        matrix.cells,
    )


def markdown(matrix: Matrix) -> str:
    """Return the values, the differences to each row's own plan, and the notes."""
    table = matrix_table(matrix)
    title = f"Train-order × eval-order: NLL, {unit(matrix)}, {matrix.data} {matrix.split} (lower is better)"
    about = f"Minus the same run along its own plan [{100 * matrix.confidence:g} % interval]"
    values, differences = (table.pivot(_RUN, _PLAN, of) for of in ("NLL", "Δ"))
    shown = replace(values, notes=(), title=title), replace(differences, notes=notes_of(matrix), title=about)
    return "\n".join([shown[0].markdown(), shown[1].markdown(2)])


def terminal(matrix: Matrix) -> list[RenderableType]:
    """Return both matrices and the notes, for ``rich``."""
    from rich.text import Text

    kind, table = matrix.cells[0].likelihood.kind, matrix_table(matrix)
    title = f"NLL ({kind}), {unit(matrix)}, {matrix.data} {matrix.split}, {matrix.weights} weights"
    values, differences = (table.pivot(_RUN, _PLAN, of) for of in ("NLL", "Δ"))
    about = f"minus the same run along its own plan [{100 * matrix.confidence:g} % interval]"
    notes = (Text(f"· {note}") for note in notes_of(matrix))
    return [replace(values, notes=(), title=title), replace(differences, notes=(), title=about), *notes]


def write_matrix(matrix: Matrix, folder: Path) -> list[Path]:
    """Write ``matrix.json``, ``.csv``, ``.md`` and ``.png``; return their paths."""
    from mar.reports import plots

    matrix.save(folder / "matrix.json")
    write_atomic(folder / "matrix.csv", data_table(matrix).csv())
    write_atomic(folder / "matrix.md", markdown(matrix))
    shown, digits = unit(matrix), 3 if unit(matrix) == "bits/dim" else 2
    plots.save(plots.matrix(matrix, shown, digits, lambda cell: value(matrix, cell)), folder / "matrix.png")
    return [folder / f"matrix.{kind}" for kind in ("json", "csv", "md", "png")]


def notes_of(matrix: Matrix) -> list[str]:
    """Return how to read the matrix: one line for each quantity, run and warning."""
    first = matrix.cells[0].likelihood
    compared = sum(cell.difference is not None for cell in matrix.cells)
    notes = [
        f"{first.kind} likelihoods of the same {first.n_images} {matrix.split} images, orders and noise (seed "
        f"{matrix.seed}) in every cell, {matrix.weights} weights, data {matrix.data} {matrix.data_fingerprint[:12]}; "
        "± is one standard error over images.",
        f"Differences are paired, image by image, with the same run along the plan it was trained along: "
        f"{100 * matrix.confidence:g} % bootstrap interval over images; p: paired t-test, Holm-corrected over the "
        f"{compared} comparisons of the table. They speak of these trained models, not of other training seeds.",
        "Off the diagonal a run trained along one fixed order is asked for conditionals that it never trained; compare "
        "orders down the diagonal, or along the row of a run trained on random orders.",
    ]
    notes += [
        f"{run.name}: trained along {run.plan}, mask ratio {run.mask_ratio}, {run.iterations:,} iterations."
        for run in matrix.runs
    ]
    return notes + [f"Warning: {run.name}: {note}." for run in matrix.runs for note in run.notes]


def unit(matrix: Matrix) -> str:
    """Return the unit of the tables: bits/dim, or nats/image where the data have no dimensions (latents)."""
    return "nats/image" if any(cell.likelihood.bits_per_dim is None for cell in matrix.cells) else "bits/dim"


def value(matrix: Matrix, cell: Cell) -> tuple[float, float]:
    """Return the cell's mean and standard error, in ``unit``."""
    likelihood = cell.likelihood
    if unit(matrix) == "bits/dim":
        assert likelihood.bits_per_dim is not None and likelihood.standard_error_bits_per_dim is not None
        return likelihood.bits_per_dim, likelihood.standard_error_bits_per_dim
    return likelihood.nats_per_image, likelihood.standard_error_nats


def _is_own(cell: Cell) -> bool:
    return cell.difference is None


def _compared(matrix: Matrix, cell: Cell, digits: int) -> str:
    """The difference to the row's own plan, its p and its interval."""
    d = cell.difference
    if d is None:
        return "its own plan"
    mean, interval = d.nats_per_image, d.interval_nats
    if unit(matrix) == "bits/dim":
        assert d.bits_per_dim is not None and d.interval_bits_per_dim is not None
        mean, interval = d.bits_per_dim, d.interval_bits_per_dim
    number, _, rest = with_interval(mean, interval, digits).partition(" ")
    return f"{number}, p {d.p_holm:.1g} {rest}"
