"""An ablation's table as Markdown, CSV, and in the terminal."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mar.ablation.result import AblationResult, Row
from mar.reports.columns import Column, best_rows, columns, compact, data_columns
from mar.training.run_folder import write

if TYPE_CHECKING:
    from rich.table import Table


def write_tables(result: AblationResult, folder: Path) -> tuple[Path, Path]:
    """``table.md`` and ``table.csv``; returns their paths."""
    write(folder / "table.md", markdown(result))
    write(folder / "table.csv", as_csv(result))
    return folder / "table.md", folder / "table.csv"


def markdown(result: AblationResult) -> str:
    """A title, the table (best values bold), and what to know to read it."""
    shown = columns(result)
    best = [best_rows(column, result.rows) for column in shown]
    lines = [
        "| " + " | ".join(column.head for column in shown) + " |",
        "|" + "|".join("---:" if column.numeric else "---" for column in shown) + "|",
    ]
    for number, row in enumerate((*result.rows, *result.baselines)):
        cells = [column.show(row).replace("|", "\\|") for column in shown]
        cells = [f"**{text}**" if number in rows else text for text, rows in zip(cells, best, strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [f"- {note}" for note in notes_of(result)]
    return "\n".join([f"# {result.name}", "", *lines, "", *notes, ""])


def as_csv(result: AblationResult) -> str:
    """Every number at full precision, in columns with units in their names; baselines are the last rows."""
    out, shown = io.StringIO(), data_columns()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.title for column in shown])
    for row in (*result.rows, *result.baselines):
        values = [column.value(row) for column in shown]
        writer.writerow(["" if value is None else value for value in values])
    return out.getvalue()


def terminal(result: AblationResult) -> list[Any]:
    """The table, what failed, and the notes, for ``rich``."""
    from rich.table import Table
    from rich.text import Text

    shown = compact(result)
    table = Table(title=result.name, title_style="bold")
    for column in shown:
        table.add_column(column.head, justify="right" if column.numeric else "left", no_wrap=not column.numeric)
    best = [best_rows(column, result.rows) for column in shown]
    for number, row in enumerate(result.rows):
        cells = [
            Text(column.show(row), style="bold green" if number in rows else "")
            for column, rows in zip(shown, best, strict=True)
        ]
        table.add_row(*cells)
    _add_baselines(table, result.baselines, shown)
    failures = [Text(f"{row.plan}: {error}", style="red") for row in result.rows for error in row.errors]
    return [table, *failures, *(Text(f"· {note}") for note in notes_of(result))]


def _add_baselines(table: Table, baselines: tuple[Row, ...], shown: list[Column]) -> None:
    table.add_section()
    for row in baselines:
        table.add_row(*(column.show(row) for column in shown), style="italic")


def notes_of(result: AblationResult) -> list[str]:
    """What to know before quoting a figure: the same lines under every form of the table."""
    training, notes = result.training, []
    notes.append(
        f"One model ({training.parameters:,} parameters, {training.iterations:,} iterations of {training.batch_size}, "
        f"weights {result.weights}) scored under every plan; data {result.data} {result.data_fingerprint[:12]}."
    )
    likelihoods = [row.likelihood for row in result.rows if row.likelihood is not None]
    if likelihoods:
        kinds = ", ".join(sorted({likelihood.kind for likelihood in likelihoods}))
        notes.append(
            f"NLL: {kinds}, on {likelihoods[0].n_images} {result.grid['nll']['split']} images, ± one standard error "
            "over images. Tokens of one set are independent given the past, so fewer steps are a weaker model."
        )
    differences = [row.difference for row in result.rows if row.difference is not None]
    if differences:
        notes.append(
            f"Δ: paired with {result.reference} on the same images and noise, {100 * differences[0].confidence:g} % "
            f"bootstrap interval over images; p: paired t-test, Holm-corrected over {len(differences)} comparisons. "
            "They speak of this one trained model, not of the spread over training seeds."
        )
    notes += _image_notes(result)
    if result.baselines:
        notes.append("Independent tokens: counts of the training split with add-one smoothing, in closed form.")
    warnings = {warning for likelihood in likelihoods for warning in likelihood.warnings}
    return notes + [f"Warning: {warning}." for warning in sorted(warnings)]


def _image_notes(result: AblationResult) -> list[str]:
    """How the images were scored, and what real images score."""
    scored = [row.images for row in result.rows if row.images is not None]
    if not scored:
        return []
    first, fid = scored[0], result.grid["fid"]
    floor = first.noise_floor
    notes = [
        f"FID and the rest: {first.generated.n_images} generated images (guidance {fid['guidance']:g}, temperature "
        f"{fid['temperature']:g}) against {first.n_real} {first.split} images, features {first.extractor} of width "
        f"{first.feature_width}, KID subsets of {first.kid_subset_size}. Noise floor ({floor.n_images} real "
        f"{first.noise_floor_split} images, scored alike): FID {floor.fid:.2f}, KID "
        f"{floor.kid_mean:.4f}, IS {floor.inception_score_mean:.2f}, precision {floor.precision:.3f}, recall "
        f"{floor.recall:.3f}."
    ]
    shared = sorted(set.intersection(*(set(images.notes) for images in scored)))
    return notes + [f"{note[0].upper()}{note[1:]}." for note in shared]
