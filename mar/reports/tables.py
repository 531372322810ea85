"""The tables of a grid: every row and the means over seeds, with their notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mar.core.files import write_atomic
from mar.core.table import Column, Note, Table, p_text, plus_minus
from mar.experiments.grid import ORDERS, OURS, PLAN, SEED, Published, published_of
from mar.experiments.result import MEANINGS, AblationResult, Row
from mar.experiments.statistics import (
    FAIR,
    FEWEST,
    QUANTITIES,
    Agreement,
    Range,
    SeedRow,
    agreements,
    by_seed,
    over_seeds,
    spreads,
    unfair,
)
from mar.metrics import METRICS
from mar.reports.columns import RECALLED, columns, compact, data_columns, has_bits, published_columns

if TYPE_CHECKING:
    from rich.console import RenderableType

SEED_NOTE = (
    "Mean ± standard deviation over training seeds; p: paired t-test over seeds that the mean difference to the "
    "reference of the same seed is zero, Holm-corrected over this table."
)


@lru_cache(maxsize=4)
def grid_table(result: AblationResult) -> Table[Row]:
    """Return the printed table of every row; columns without values are dropped."""
    return Table(columns(result), result.rows, notes_of(result), result.name, result.baselines).without_empty()


@lru_cache(maxsize=4)
def data_table(result: AblationResult) -> Table[Row]:
    """Return the table of the CSV: raw numbers at full precision, baselines last."""
    return Table(data_columns(result), result.rows, baselines=result.baselines)


@lru_cache(maxsize=4)
def seeds_table(result: AblationResult) -> Table[SeedRow]:
    """Return the printed table over seeds: means ± deviations; without rows unless the grid has several seeds."""
    rows, printed = over_seeds(result), {column.title: column for column in columns(result)}
    if not rows:
        return Table((), ())
    shown: list[Column[SeedRow]] = [
        *(
            Column[SeedRow](name, lambda row, name=name: row.settings.get(name), words=True)
            for name in result.settings
            if name not in (SEED, PLAN)
        ),
        Column("plan", lambda row: row.plan, words=True),
        Column("seeds", _seeds),
    ]
    for name, (title, _) in _figures(result).items():
        if title in printed:
            shown.append(_mean_of(printed[title], name, result))
        if name == "difference":
            shown.append(Column("p (Holm)", lambda row: row.p_holm, text=lambda row: p_text(row.p_holm)))
    out = Column[SeedRow]("not compared", lambda row: row.left_out or None, words=True, drop=1)
    return Table([*shown, *published_columns(result), out], rows, [SEED_NOTE], "Over seeds").without_empty()


def seeds_data_table(result: AblationResult) -> Table[SeedRow]:
    """Return the table over seeds of the CSV: means and deviations."""
    shown = [
        Column[SeedRow]("plan", lambda row: row.plan),
        *(Column[SeedRow](f"axis_{s}", lambda row, s=s: row.settings.get(s)) for s in result.settings if s != SEED),
        Column[SeedRow]("seeds", _seeds),
    ]
    for name, (_, key) in _figures(result).items():
        shown.append(Column(f"{key}_mean", _mean(name)))
        shown.append(Column(f"{key}_standard_deviation", _deviation(name)))
    shown.append(Column("difference_p_holm", lambda row: row.p_holm))
    return Table([*shown, *published_columns(result, data=True)], over_seeds(result))


def _figures(result: AblationResult) -> dict[str, tuple[str, str]]:
    """Return a figure of ``SeedRow`` -> its title among the printed columns, and its name in the CSV."""
    unit = "bits_per_dim" if has_bits(result) else "nats_per_image"
    of_orders = {
        "order_spread": ("order spread", "order_spread_nats_per_token"),
        "chain_rule": ("chain rule", "chain_rule_rms_nats"),
        "ensemble_gap": ("ensemble gap", "ensemble_gap_nats_per_image"),
    }
    return {
        "nll": ("NLL", f"nll_{unit}"),
        "difference": (f"Δ to {result.reference}", f"difference_{unit}"),
        "fid": ("FID", "fid"),
        "images_per_second": ("images/s", "images_per_second"),
        "probe": ("linear probe", "probe_accuracy"),
        **(of_orders if any("consistency" in row.answers for row in result.rows) else {}),
    }


def _mean(name: str) -> Callable[[SeedRow], float | None]:
    return lambda row: row.figures[name].mean if name in row.figures else None


def _deviation(name: str) -> Callable[[SeedRow], float | None]:
    return lambda row: row.figures[name].sd or 0.0 if name in row.figures else None


def _mean_of(column: Column[Row], name: str, result: AblationResult) -> Column[SeedRow]:
    """Return the column over seeds; means compete with those over the same seeds, each scored alike."""
    alike: dict[Hashable, Hashable] = {}
    floors: dict[Hashable, float | None] = {}
    for rows in by_seed(result.rows):
        seeds = tuple(sorted(row.settings.get(SEED, "") for row in rows))
        kinds = {column.alike(row) if column.alike and column.value(row) is not None else None for row in rows}
        own = _key(rows[0].plan, rows[0].seedless)
        alike[own] = (seeds, *kinds) if len(kinds) == 1 else own
        floors[own] = column.floor(rows[0]) if column.floor else None

    def text(row: SeedRow) -> str:
        found = row.figures[name]
        sign = "+" if column.title.startswith("Δ") else ""
        if found.sd is None:
            return f"{found.mean:{sign}.{column.digits}f}"
        return plus_minus(found.mean, found.sd, column.digits, sign)

    return Column(
        column.title, _mean(name), column.better, column.digits, text, column.unit, column.sign,
        alike=lambda row: alike.get(_key(row.plan, row.settings)),
        floor=lambda row: floors.get(_key(row.plan, row.settings)),
    )  # fmt: skip


def _key(plan: str, settings: dict[str, str]) -> Hashable:
    return plan, frozenset(settings.items())


def write_tables(result: AblationResult, folder: Path) -> list[Path]:
    """Write ``table.md``, ``table.csv`` and ``table.tex``; with several seeds also ``seeds.csv`` and ``seeds.tex``.
    Return their paths."""
    forms = {"table.md": markdown(result), "table.csv": data_table(result).csv(), "table.tex": latex(result)}
    if over_seeds(result):
        forms |= {"seeds.csv": seeds_data_table(result).csv(), "seeds.tex": seeds_latex(result)}
    for name, text in forms.items():
        write_atomic(folder / name, text)
    return [folder / name for name in forms]


def markdown(result: AblationResult) -> str:
    """Return the table of every row, then the table over seeds."""
    over = seeds_table(result)
    return "\n".join([grid_table(result).markdown(), *([over.markdown(2)] if over.rows else [])])


def latex(result: AblationResult) -> str:
    """Return the table of every row, without problems and AR steps, the published agreement as comments."""
    return replace(grid_table(result).without("problem", "AR steps"), notes=published_notes(result)).latex()


def seeds_latex(result: AblationResult) -> str:
    """Return the table over seeds."""
    table = seeds_table(result)
    return replace(table, notes=[*table.notes, *published_notes(result)]).latex()


def terminal(result: AblationResult) -> list[RenderableType]:
    """Return the tables, the errors and the notes, for ``rich``."""
    from rich.text import Text

    rows = Table(compact(result), result.rows, notes_of(result), result.name, result.baselines)
    over = seeds_table(result)
    failures = [Text(f"{row.name}: {error}", style="red") for row in result.rows for error in row.errors]
    return [rows, *failures, *([over] if over.rows else [])]


@lru_cache(maxsize=4)
def notes_of(result: AblationResult) -> list[str]:
    """Return how to read the table: one line for each claim, warnings last."""
    notes = [*_model_notes(result), *matched_notes(result), *result.grid.get("notes", ())]
    for name, metric in METRICS.items():
        answers = [each.answers[name] for each in (*result.rows, *result.models) if name in each.answers]
        if answers and (said := metric.notes(answers, result.grid)):
            shown = metric.columns(answers)
            notes += [Note(note, shown[0].title) if shown and note == said[0] else note for note in said]
    notes += [*_difference_notes(result), *_unsound_notes(result), *published_notes(result)]
    if any(row.likelihood is not None for row in result.baselines):
        notes.append("Independent tokens: counts of the training split with add-one smoothing, in closed form.")
    return sorted(notes, key=lambda note: note.startswith("Warning: "))


def _unsound_notes(result: AblationResult) -> list[str]:
    """Count the rows that are shown and not compared, by their reason."""
    reasons = Counter(row.unsound for row in result.rows if row.unsound)
    said = "; ".join(f"{count} {'row' if count == 1 else 'rows'}: {reason}" for reason, count in reasons.items())
    return [f"Not compared, marked best or ranked (compare=all does): {said}."] if said else []


def matched_notes(result: AblationResult) -> list[str]:
    """Return the range over cells of parameters, examples seen and compute, and a warning; none for a single model."""
    found, matched = spreads(result), str(result.grid.get("matched") or "")
    if not result.axes or not found:
        return []
    ranges = "; ".join(f"{QUANTITIES[name]} {_range(spread)}" for name, spread in found.items())
    notes = [f"{f'Cells matched in {QUANTITIES[matched]}' if matched else 'Cells'}: {ranges}."]
    if matched and matched not in found:
        notes.append(f"Warning: whether {QUANTITIES[matched]} match is unknown: speed was not measured in every cell.")
    if unfair(result):
        notes.append(
            f"Warning: {QUANTITIES[matched]} should match and differ by up to {found[matched].excess:.0%} (more than "
            f"{FAIR:.0%}): the difference may explain a cell's gain."
        )
    return notes


def published_notes(result: AblationResult) -> list[str]:
    """Return for each published column its source, and how alike it and ours rank the rows."""
    published = published_of(result.grid)
    rows = "rows, means over seeds" if published and over_seeds(result) else "rows"
    return [_published_note(column, agreements(result, column), rows) for column in published]


def _published_note(column: Published, found: dict[str, Agreement], rows: str) -> str:
    recalled = f" ({RECALLED} recalled, not re-read)" if column.recalled else ""
    few = [name for name, each in found.items() if each.n < FEWEST]
    if len(few) > 1:  # one line for all conditions with too few rows
        found = {name: each for name, each in found.items() if name not in few}
        found["in each other condition" if found else "in each condition"] = Agreement(0)
    ranks = " ".join(
        _ranks(OURS[column.of][0] + (f", {name}" if name else ""), each, rows) for name, each in found.items()
    )
    other = "other data and another scale than ours, so only the order of rows is compared"
    whose = "of the same data and measure as ours" if column.same else other
    return f"Published: {column.title}, from {column.source}{recalled}: {whose}. {ranks}"


def _ranks(ours: str, found: Agreement, rows: str) -> str:
    """Say how alike two columns rank the rows of a condition."""
    if found.n < FEWEST:
        counted = f" ({found.n})" if found.n else ""
        return f"{ours}: too few rows{counted} have both figures to compare orders."
    if found.tau is None or found.p_value is None:
        return f"With our {ours} ({found.n} rows) one column's figures are all equal: there is no order to compare."
    how = "exact" if found.exact else "normal approximation, because figures tie"
    return (
        f"With our {ours}: Kendall's τ-b {found.tau:+.2f} (1: the same order of quality, -1: the reverse) over "
        f"{found.n} {rows}, p = {found.p_value:.3f} ({how})."
    )


def _model_notes(result: AblationResult) -> list[str]:
    """The trained models, and the choice of their weights."""
    prints = ", ".join(each[:12] for each in result.data_fingerprint.split(", "))
    data = f"data {result.data} {prints}"
    curves = [(model, model.training) for model in result.models if model.training is not None]
    if not result.axes:
        return [
            f"One model ({model.parameters:,} parameters, {training.iterations:,} iterations of "
            f"{training.batch_size}, weights {model.weights}) scored under every plan; {data}."
            for model, training in curves
        ]
    verdicts = Counter(training.verdict for _, training in curves)
    counts = sorted({len(training.validation_nats) for _, training in curves}) or [0]
    times = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    chosen = {
        "best": f"the averaged weights of the lowest of {times} validation losses, evenly spaced over each training",
        "last": "the averaged weights at the end of the training",
    }
    meanings = "; ".join(f"{name}: {meaning}" for name, meaning in MEANINGS.items() if name in verdicts)
    counted = ", ".join(f"{count} {name}" for name, count in verdicts.most_common())
    rows_of: dict[str, list[str]] = {}
    for variant in result.grid.get("variants", ()):
        rows_of.setdefault(variant.get("weights") or result.grid["select"], []).append(variant["name"])
    scored = chosen[next(iter(rows_of), result.grid["select"])]
    if len(rows_of) > 1:
        scored = "; ".join(f"in rows {', '.join(names)} {chosen[which]}" for which, names in rows_of.items())
    return [
        f"{len(curves)} models, each trained on its own; {data}. Scored: {scored}.",
        Note(
            f"Validation curve, from first (left) to last: {counted}. {meanings[:1].upper()}{meanings[1:]}.",
            "validation curve",
        ),
    ]


def _difference_notes(result: AblationResult) -> list[str]:
    differences = [row.difference for row in result.rows if row.difference is not None]
    if not differences:
        return []
    beside = ", of the same other settings," if result.axes else ""
    trained = "these trained models" if result.axes else "this one trained model"
    trained += " along these orders" if ORDERS in result.ways else ""
    return [
        f"Δ: paired with {result.reference}{beside} on the same images and noise; it holds for {trained}, not for "
        "other training seeds.",
        Note(f"[low, high]: {100 * differences[0].confidence:g} % bootstrap interval of Δ over images.", "["),
        Note(f"p: paired t-test, Holm-corrected over {len(differences)} comparisons.", "p (Holm)"),
    ]


def _range(spread: Range) -> str:
    low, high = (f"{value:,.0f}" if value < 1e9 else f"{value:.3g}" for value in (spread.low, spread.high))
    return low if spread.excess == 0 else f"{low} to {high} (×{1 + spread.excess:.3g})"


def _seeds(row: SeedRow) -> int | None:
    return max((len(each.values) for each in row.figures.values()), default=None)
