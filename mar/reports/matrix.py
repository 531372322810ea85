"""A train-order × eval-order matrix as a table in the terminal, Markdown, CSV and a heat map."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mar.core.files import write_atomic
from mar.experiments.matrix import Cell, Matrix

if TYPE_CHECKING:
    from rich.table import Table

_CORNER = "run (trained along)"


def unit(matrix: Matrix) -> str:
    """What the tables show: bits/dim, or nats/image where the data have no dimensions (latents)."""
    return "nats/image" if any(cell.likelihood.bits_per_dim is None for cell in matrix.cells) else "bits/dim"


def value(matrix: Matrix, cell: Cell) -> tuple[float, float]:
    """The cell's mean and standard error, in ``unit``."""
    likelihood = cell.likelihood
    if unit(matrix) == "bits/dim":
        assert likelihood.bits_per_dim is not None and likelihood.standard_error_bits_per_dim is not None
        return likelihood.bits_per_dim, likelihood.standard_error_bits_per_dim
    return likelihood.nats_per_image, likelihood.standard_error_nats


def write_matrix(matrix: Matrix, folder: Path) -> list[Path]:
    """``matrix.json``, ``.csv``, ``.md`` and ``.png`` in ``folder``; returns their paths."""
    matrix.save(folder / "matrix.json")
    write_atomic(folder / "matrix.csv", as_csv(matrix))
    write_atomic(folder / "matrix.md", markdown(matrix))
    heat_map(matrix, folder / "matrix.png")
    return [folder / f"matrix.{kind}" for kind in ("json", "csv", "md", "png")]


def markdown(matrix: Matrix) -> str:
    """The values, the differences to each row's own plan, and what to know to read them."""
    parts = [f"# Train-order × eval-order: NLL, {unit(matrix)}, {matrix.data} {matrix.split} (lower is better)"]
    parts.append(_grid(matrix, _shown))
    parts.append(f"## Minus the same run along its own plan [{100 * matrix.confidence:g} % interval]")
    parts.append(_grid(matrix, _compared))
    parts.append("\n".join(f"- {note}" for note in notes_of(matrix)))
    return "\n\n".join(parts) + "\n"


def as_csv(matrix: Matrix) -> str:
    """One line a cell, every number at full precision, units in the names of the columns."""
    out = io.StringIO()
    lines = [_record(matrix, cell) for cell in matrix.cells]
    writer = csv.DictWriter(out, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def terminal(matrix: Matrix) -> list[Any]:
    """The table (each cell: value ± standard error, and below it the difference to the row's own plan), the notes."""
    from rich.table import Table
    from rich.text import Text

    kind = matrix.cells[0].likelihood.kind
    table: Table = Table(
        title=f"NLL ({kind}), {unit(matrix)}, {matrix.data} {matrix.split}, {matrix.weights} weights", show_lines=True
    )
    table.add_column(_CORNER, no_wrap=True)
    for plan in matrix.plans:
        table.add_column(plan, justify="right")
    for run in matrix.runs:
        cells = [
            Text(f"{_shown(matrix, cell)}\n{_compared(matrix, cell, lines=True)}", "" if cell.difference else "bold")
            for cell in matrix.row(run.name)
        ]
        table.add_row(f"{run.name}\n({run.plan})", *cells)
    return [table, *(Text(f"· {note}") for note in notes_of(matrix))]


def notes_of(matrix: Matrix) -> list[str]:
    """What to know before quoting a figure: the same lines under every form of the table."""
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
        f"{run.name}: trained along {run.plan}, objective {run.mask_ratio}, {run.iterations:,} iterations."
        for run in matrix.runs
    ]
    return notes + [f"Warning: {run.name}: {note}." for run in matrix.runs for note in run.notes]


def heat_map(matrix: Matrix, path: Path) -> None:
    """Values with their standard errors; each row's own plan is framed."""
    import numpy as np
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    rows = [matrix.row(run.name) for run in matrix.runs]
    means = np.array([[value(matrix, cell)[0] for cell in row] for row in rows])
    figure = Figure((2.6 + 1.5 * len(matrix.plans), 1.8 + 0.75 * len(rows)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(means, cmap="viridis_r", aspect="auto")
    colours = image.to_rgba(means)
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            mean, error = value(matrix, cell)
            red, green, blue, _ = colours[i, j]
            dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
            text = f"{mean:.{_digits(matrix)}f}\n± {error:.{_digits(matrix)}f}"
            axes.text(j, i, text, ha="center", va="center", color="white" if dark else "black", fontsize=9)
            if cell.difference is None:
                axes.add_patch(Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, fill=False, edgecolor="crimson", lw=2))
    axes.set_xticks(range(len(matrix.plans)), matrix.plans)
    axes.set_yticks(range(len(rows)), [run.name for run in matrix.runs])
    axes.set_xlabel("scored along")
    axes.set_ylabel("run (its own plan framed)")
    axes.set_title(f"NLL, {unit(matrix)}, {matrix.data} {matrix.split}")
    figure.colorbar(image, ax=axes, label=unit(matrix))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)


def _digits(matrix: Matrix) -> int:
    return 3 if unit(matrix) == "bits/dim" else 2


def _shown(matrix: Matrix, cell: Cell) -> str:
    mean, error = value(matrix, cell)
    return f"{mean:.{_digits(matrix)}f} ± {error:.{_digits(matrix)}f}"


def _compared(matrix: Matrix, cell: Cell, lines: bool = False) -> str:
    """The difference to the row's own plan, its p and its interval; on two lines where columns are narrow."""
    d, digits = cell.difference, _digits(matrix)
    if d is None:
        return "its own plan"
    mean, interval = d.nats_per_image, d.interval_nats
    if unit(matrix) == "bits/dim":
        assert d.bits_per_dim is not None and d.interval_bits_per_dim is not None
        mean, interval = d.bits_per_dim, d.interval_bits_per_dim
    between = "\n" if lines else " "
    return f"{mean:+.{digits}f}, p {d.p_holm:.1g}{between}[{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]"


def _grid(matrix: Matrix, text: Any) -> str:
    lines = [
        "| " + " | ".join([_CORNER, *matrix.plans]) + " |",
        "|---|" + "---:|" * len(matrix.plans),
    ]
    for run in matrix.runs:
        cells = [
            f"**{text(matrix, cell)}**" if cell.difference is None else text(matrix, cell)
            for cell in matrix.row(run.name)
        ]
        lines.append("| " + " | ".join([f"{run.name} ({run.plan})", *cells]) + " |")
    return "\n".join(lines)


def _record(matrix: Matrix, cell: Cell) -> dict[str, Any]:
    likelihood, d = cell.likelihood, cell.difference
    interval = (None, None) if d is None else d.interval_nats
    return {
        "run": cell.run,
        "trained_along": next(run.plan for run in matrix.runs if run.name == cell.run),
        "scored_along": cell.plan,
        "kind": likelihood.kind,
        "n_images": likelihood.n_images,
        "nats_per_image": likelihood.nats_per_image,
        "standard_error_nats": likelihood.standard_error_nats,
        "bits_per_dim": likelihood.bits_per_dim,
        "standard_error_bits_per_dim": likelihood.standard_error_bits_per_dim,
        "difference_nats_per_image": None if d is None else d.nats_per_image,
        "difference_low_nats": interval[0],
        "difference_high_nats": interval[1],
        "p_value": None if d is None else d.p_value,
        "p_holm": None if d is None else d.p_holm,
    }
