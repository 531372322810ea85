"""The answer of a table in words: the best mean and its ties, and what makes the figures doubtful."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from mar.core.table import plus_minus, with_interval
from mar.experiments.grid import PARTITION, PLAN, SEED, phrase
from mar.experiments.result import AblationResult, Row, TrainedModel
from mar.experiments.statistics import FIGURES, by_seed, in_bits, left_out, ranked, values_of
from mar.metrics.statistics import comparable, holm, kind_of, p_value, spread
from mar.reports import curves
from mar.reports.tables import notes_of

WARNING = "Warning: "  # begins a note
_LEVEL = 0.05  # of Holm-corrected p-values; rows above it are not told apart
_NAMED = 4  # rows that a sentence names, the rest as a number


def answers(result: AblationResult) -> list[str]:
    """Return sentences on the NLL, the price of sets and the FID; of several data sets for each one of them.

    The best is that of the means over seeds. Tests pair seeds; of one seed they pair images, and for a FID there is
    none. Holm's correction covers the rows of a sentence. Each kind of likelihood has a best of its own.
    """
    names, data = result.data.split(", "), {model.name: str(model.recipe.get("data")) for model in result.models}
    if "," not in result.data_fingerprint:
        asked = "epoch" in str(result.grid.get("question"))
        return [*(_crossed(result) if asked else ()), *_answers(result)]
    rows: dict[str, list[Row]] = {}
    for row in result.rows:
        rows.setdefault(data[row.model], []).append(row)
    if len(names) != len(rows):  # an axis names them
        names = list(dict.fromkeys(row.settings.get("data", "") for row in result.rows))
    known = len(names) == len(rows) == len(result.data_fingerprint.split(", "))
    parts = zip(names, rows.values(), strict=True) if known else ()
    answered = [(name, _answers(replace(result, rows=tuple(own)))) for name, own in parts]
    return [f"{name}: {text[:1].lower()}{text[1:]}" for name, sentences in answered for text in sentences]


def _answers(result: AblationResult) -> list[str]:
    found, groups = [], ranked(result.rows)
    scored = [rows for rows in groups if values_of(rows, FIGURES["nll"])]
    kinds: dict[tuple[str, bool], list[list[Row]]] = {}
    for rows in scored:
        for kind in {(kind_of(row.likelihood), row.likelihood.bits_per_dim is None) for row in rows}:
            kinds.setdefault(kind, []).append(rows)
    for (kind, of_latents), alike in kinds.items():
        unit, digits = ("nats", 2) if of_latents else ("bits/dim", 4)
        found.append(_answer(result, alike, "nll", "NLL" if len(kinds) == 1 else f"NLL ({kind})", digits, unit))
        found.append(_price(result, digits, unit) if len(kinds) == 1 else "")
    drawn = [rows for rows in groups if values_of(rows, FIGURES["fid"])]
    if drawn:
        found.append(_of_floor(drawn) or _answer(result, drawn, "fid", "FID", 2, ""))
    if not groups:
        reasons = ", ".join(dict.fromkeys(filter(None, left_out(result))))
        found.append(f"No ranking: no row is compared ({reasons}).")
    return [sentence for sentence in found if sentence]


def _crossed(result: AblationResult) -> list[str]:
    """Say from when on validation losses stay below the reference's, each among models of equal other settings."""
    base, found, end = result.grid.get("reference"), [], ""
    if not isinstance(base, dict):
        return []
    alike: dict[str, list[TrainedModel]] = {}
    for model in result.models:
        others = {axis: name for axis, name in model.settings.items() if axis not in (SEED, *base)}
        alike.setdefault(phrase(others), []).append(model)
    for shared, models in alike.items():
        entries = curves.entries(models)
        for name, images in curves.crossings(entries, base).items():
            when = f"{name} from {curves.moment(images, models)}"
            found.append(f"{shared} \N{MIDDLE DOT} {when}" if shared else when)
            end = curves.moment(max(t.iterations * t.batch_size for model in models if (t := model.training)), models)
    text = f"Validation loss below that of {reference(result)}: {'; '.join(found)}; each to the end, {end}."
    return [text] if found else []


def _of_floor(groups: Sequence[Sequence[Row]]) -> str:
    """Say that the FID ranks no rows, where the lowest is not above that of real images."""
    means = [(float(np.mean(values_of(rows, FIGURES["fid"]))), rows[0].images) for rows in groups]
    below, (lowest, best) = sum(fid <= of.floor.mean for fid, of in means), min(means, key=lambda each: each[0])
    if not lowest <= best.floor.mean:
        return ""
    real = f"{best.noise_floor.n_images:,} real {best.noise_floor_split} images ({best.floor_text})"
    return f"No ranking by FID: {below} of {len(means)} compared rows are not above the noise floor, the FID of {real}."


def alarms(result: AblationResult) -> list[str]:
    """Return what makes the figures doubtful: rows worse than independent tokens, short trainings, warnings."""
    found = []
    floor = next((in_bits(row.likelihood) for row in result.baselines if row.likelihood is not None), None)
    judged: dict[str, list[list[Row]]] = {}  # by the baseline of their own tokens
    for rows in by_seed(result.rows):
        for reason in {row.unsound for row in rows if row.unsound.startswith("worse than")}:
            judged.setdefault(reason, []).append(rows)
    found += [f"{reason[:1].upper()}{reason[1:]}: {_names(worse)}." for reason, worse in judged.items()]
    if floor is not None and not judged and "," not in result.data_fingerprint:
        worse = [rows for rows in by_seed(result.rows) if np.mean(values_of(rows, FIGURES["nll"]) or [-np.inf]) > floor]
        if worse:
            found.append(f"Worse than independent tokens ({floor:.4g}): {_names(worse)}.")
    trained = [model.training for model in result.models if model.training is not None]
    falling = sum(training.verdict == "falling" for training in trained)
    if falling:
        found.append(
            f"Still improving when training ended: {falling} of {len(trained)} models. Longer trainings may rank them "
            "otherwise."
        )
    warnings = [note.removeprefix(WARNING) for note in notes_of(result) if note.startswith(WARNING)]
    return [*found, *(f"{warning[:1].upper()}{warning[1:]}" for warning in warnings)]


@lru_cache(maxsize=4)
def prices(result: AblationResult) -> dict[str, float]:
    """Return the name of a row's seeds (``named``) -> the mean NLL of its sets minus that of one token at a time, other
    settings alike."""
    one: dict[Hashable, float] = {}
    of_sets: dict[str, tuple[Hashable, float]] = {}
    for rows in by_seed(result.rows):
        row, values = rows[0], values_of(rows, FIGURES["nll"])
        if not values:
            continue
        kept = {axis: name for axis, name in row.seedless.items() if axis not in (PLAN, PARTITION)}
        key = row.ordering, kind_of(row.likelihood), frozenset(kept.items())
        if row.partition == "singles":
            one[key] = float(np.mean(values))
        else:
            of_sets[named(row)] = key, float(np.mean(values))
    return {name: value - one[key] for name, (key, value) in of_sets.items() if key in one}


def named(row: Row) -> str:
    """Return the settings of a row without its seed, or its plan."""
    return phrase(row.seedless) or row.plan


def reference(result: AblationResult) -> str:
    """Return the name of the reference of the differences."""
    chosen = result.grid.get("reference")
    return phrase(chosen) if isinstance(chosen, dict) else result.reference


def _price(result: AblationResult, digits: int, unit: str) -> str:
    """Say which sets cost the least and the most; empty for fewer than two."""
    found = prices(result)
    if len(found) < 2:
        return ""
    low, high = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
    return (
        f"Price of sets: {found[low]:+.{digits}f} {unit} ({low}) to {found[high]:+.{digits}f} ({high}) above one token "
        "at a time."
    )


def _answer(
    result: AblationResult, groups: Sequence[Sequence[Row]], of: str, title: str, digits: int, unit: str
) -> str:
    figure = FIGURES[of]
    best = min(groups, key=lambda rows: np.mean(values_of(rows, figure)))
    others = [rows for rows in groups if rows is not best]
    mean = spread(values_of(best, figure))
    value = f"{mean.mean:.{digits}f}" if mean.sd is None else plus_minus(mean.mean, mean.sd, digits)
    text = f"Lowest {title}: {named(best[0])}, {value} {unit}".rstrip()
    text += f" over {len(best)} seeds" if len(best) > 1 else ""
    if of == "nll":
        text += _against_reference(result, best, digits)
    tested = {k: p for k, rows in enumerate(others) if (p := _p(best, rows, figure, of)) is not None}
    if not tested:
        return f"{text}{'; one training each, so no test' if of == 'fid' and others else ''}."
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    ties = [others[k] for k, p in corrected.items() if p > _LEVEL]
    over = "seeds" if len(best) > 1 else "images"
    if not ties:
        rest = f"all {len(tested)} others" if len(tested) > 1 else "the other"
        return f"{text}; told apart from {rest} (paired over {over}, p < {_LEVEL} after Holm)."
    return f"{text}; not told apart from {_names(ties)} (paired over {over}, p > {_LEVEL} after Holm)."


def _against_reference(result: AblationResult, best: Sequence[Row], digits: int) -> str:
    differences = values_of(best, FIGURES["difference"])
    if not differences:
        return ""
    found, row = spread(differences), best[0].difference
    if len(differences) > 1 or row is None:
        shown = plus_minus(found.mean, found.sd or 0.0, digits, "+")
    else:
        shown = with_interval(found.mean, row.interval_bits_per_dim or row.interval_nats, digits)
    return f", {shown} against {reference(result)}"


def _p(one: Sequence[Row], other: Sequence[Row], figure: Callable[[Row], float | None], of: str) -> float | None:
    """The paired test of two rows of the table: over their common seeds, or over images."""
    mine, theirs = ({row.settings.get(SEED, ""): row for row in rows} for rows in (one, other))
    common = [seed for seed in mine if seed in theirs]
    if len(common) > 1:
        return p_value(np.array([(figure(mine[s]) or 0.0) - (figure(theirs[s]) or 0.0) for s in common]))
    a, b = one[0].likelihood, other[0].likelihood
    if of != "nll" or not comparable(a, b) or a == b:
        return None
    return p_value(np.subtract(a.nats_of_image, b.nats_of_image))


def _names(groups: Sequence[Sequence[Row]]) -> str:
    names = list(dict.fromkeys(named(rows[0]) for rows in groups))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return "; ".join(names[:_NAMED]) + more
