"""The table over seeds: its columns for every form of it, and what to know to read it."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from mar.experiments.grid import PLAN, SEED, Better
from mar.experiments.result import AblationResult
from mar.experiments.statistics import SeedRow, Spread, over_seeds
from mar.experiments.ties import Ties, fid_ties_over_seeds, nll_ties_over_seeds
from mar.reports.column import ColumnOf, best_rows, p_text
from mar.reports.published import published_columns, published_data_columns
from mar.reports.ties import tie_note

SeedColumn = ColumnOf[SeedRow]
Figure = Callable[[SeedRow], Spread | None]

_NOTE = (
    "Mean ± standard deviation over training seeds; p: paired t-test over seeds that the mean difference to the "
    "reference of the same seed is zero, Holm-corrected over this table."
)


def seed_columns(result: AblationResult) -> list[SeedColumn]:
    """What is read: the columns of which at least one row has a value."""
    rows, names = over_seeds(result), [name for name in result.settings if name not in (SEED, PLAN)]
    unit, digits = ("bits/dim", 4) if _has_bits(result) else ("nats", 2)
    everything = [
        *(SeedColumn(name, lambda row, name=name: row.settings.get(name), words=True) for name in names),
        SeedColumn("plan", lambda row: row.plan, words=True),
        SeedColumn("seeds", _seeds),
        _spread(f"NLL, {unit}", lambda row: row.nll, "lower", digits, ties=nll_ties_over_seeds(result)),
        _spread(f"Δ to {result.reference}, {unit}", lambda row: row.difference, "lower", digits, "+"),
        SeedColumn("p (Holm)", lambda row: row.p_holm, digits=3, text=lambda row: p_text(row.p_holm)),
        _spread("FID", lambda row: row.fid, "lower", 2, ties=fid_ties_over_seeds(result)),
        *([_spread("images/s", lambda row: row.images_per_second, "higher", 1)] if result.ways else []),
        _spread("linear probe", lambda row: row.probe, "higher", 3),
        *published_columns(result),
    ]
    return [column for column in everything if any(column.value(row) is not None for row in rows)]


def seed_data_columns(result: AblationResult) -> list[SeedColumn]:
    """What is computed with."""
    nll, fid = nll_ties_over_seeds(result), fid_ties_over_seeds(result)
    unit = "bits_per_dim" if _has_bits(result) else "nats_per_image"
    return [
        SeedColumn("plan", lambda row: row.plan),
        *(SeedColumn(f"axis_{s}", lambda row, s=s: row.settings.get(s)) for s in result.settings if s != SEED),
        SeedColumn("seeds", _seeds),
        *_apart(f"nll_{unit}", lambda row: row.nll, nll),
        *_apart(f"difference_{unit}", lambda row: row.difference),
        SeedColumn("difference_p_holm", lambda row: row.p_holm),
        *_apart("fid", lambda row: row.fid, fid),
        *_apart("images_per_second", lambda row: row.images_per_second),
        *_apart("probe_accuracy", lambda row: row.probe),
        *published_data_columns(result),
    ]


def seed_notes(result: AblationResult) -> list[str]:
    """A line for each thing that the table shows."""
    ties = {"NLL": nll_ties_over_seeds(result), "FID": fid_ties_over_seeds(result)}
    return [_NOTE, *tie_note(ties, "seeds")]


def seeds_html(result: AblationResult) -> str:
    """The section of the page; nothing without several seeds."""
    rows, shown = over_seeds(result), seed_columns(result)
    if not rows:
        return ""
    marked = [(column, best_rows(column, rows)) for column in shown]
    head = "".join(f'<th scope="col" class="{_kind(column)}">{escape(column.head)}</th>' for column in shown)
    cells = [[_cell(column, row, number in best) for column, best in marked] for number, row in enumerate(rows)]
    body = "".join(f"<tr>{''.join(line)}</tr>" for line in cells)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    notes = "".join(f"<li>{escape(note)}</li>" for note in seed_notes(result))
    return (
        '<section id="seeds"><h2>Over seeds</h2><div class="scroll" tabindex="0" role="region" '
        f'aria-label="Table over seeds">{table}</div><ul class="notes">{notes}</ul></section>'
    )


def _cell(column: SeedColumn, row: SeedRow, best: bool) -> str:
    return f'<td class="{"best" if best else _kind(column)}">{escape(column.show(row))}</td>'


def _kind(column: SeedColumn) -> str:
    return "number" if column.numeric else "words"


def _has_bits(result: AblationResult) -> bool:
    return any(row.likelihood is not None and row.likelihood.bits_per_dim is not None for row in result.rows)


def _seeds(row: SeedRow) -> int | None:
    return max((each.n for each in (row.nll, row.fid, row.probe) if each is not None), default=None)


def _spread(
    title: str, of: Figure, better: Better, digits: int, sign: str = "", ties: Ties | None = None
) -> SeedColumn:
    """A mean that shows its deviation."""

    def text(row: SeedRow) -> str:
        spread = of(row)
        assert spread is not None
        return f"{spread.mean:{sign}.{digits}f} ± {spread.deviation:.{digits}f}"

    return SeedColumn(title, _mean(of), better, digits, text, ties=ties)


def _apart(name: str, of: Figure, ties: Ties | None = None) -> list[SeedColumn]:
    """A mean and its deviation in columns of their own, and the standing of a row where that is tested."""
    deviation = SeedColumn(f"{name}_standard_deviation", lambda row: (spread := of(row)) and spread.deviation)
    found = [SeedColumn(f"{name}_mean", _mean(of)), deviation]
    if ties is None:
        return found
    return [*found, SeedColumn(f"{name}_standing", ties.standing), SeedColumn(f"{name}_p_holm_to_best", ties.p_of)]


def _mean(of: Figure) -> Callable[[SeedRow], float | None]:
    return lambda row: (spread := of(row)) and spread.mean
