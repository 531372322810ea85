"""The columns of an ablation's table: one definition for Markdown, CSV, the terminal and the page."""

from __future__ import annotations

from dataclasses import replace

from mar.experiments.grid import PLAN, published_of
from mar.experiments.result import AblationResult, Row
from mar.experiments.ties import fid_ties, nll_ties
from mar.reports.column import Column, p_text
from mar.reports.model_columns import model_columns, model_data_columns
from mar.reports.published import published_columns, published_data_columns


def compact(result: AblationResult) -> list[Column]:
    """What fits a terminal of 80 characters: no standard errors or intervals, no costs."""
    several = result.axes or result.ways
    shown = _settings(result) if several else [Column("plan", lambda row: row.plan, words=True)]
    for column in columns(result):
        if column.title.startswith(("NLL", "Δ")):
            title = column.title.replace(f" to {result.reference}", "")
            shown.append(replace(column, title=title, text=None, sign=title.startswith("Δ")))
        elif column.title in ("p (Holm)", "FID", "validation curve"):
            shown.append(column)
    return [*shown, *published_columns(result)]


def columns(result: AblationResult) -> list[Column]:
    """What is read: the columns of which at least one row has a value."""
    bits = any(row.likelihood is not None and row.likelihood.bits_per_dim is not None for row in result.rows)
    ties = nll_ties(result)
    everything = [
        *_settings(result),
        Column("AR steps", _steps),
        Column("NLL, bits/dim", _bits, "lower", 4, _bits_with_error, ties=ties)
        if bits
        else Column("NLL, nats", _nats, "lower", 2, _nats_with_error, ties=ties),
        Column(f"Δ to {result.reference}, bits/dim", _difference_bits, "lower", 4, _bits_interval)
        if bits
        else Column(f"Δ to {result.reference}, nats", _difference_nats, "lower", 2, _nats_interval),
        Column("p (Holm)", _p_holm, "", 3, lambda row: p_text(_p_holm(row))),
        Column("FID", lambda row: row.images and row.images.fid, "lower", 2, ties=fid_ties(result)),
        *([*_asked_for(result), *model_columns(result)] if result.axes else _more_of_images()),
        Column("linear probe", lambda row: row.probe and row.probe.accuracy, "higher", 3, _probe),
        *published_columns(result),
        Column("problem", _problem, words=True),
    ]
    return [c for c in everything if any(c.value(row) is not None for row in result.rows)]


def _more_of_images() -> list[Column]:
    """What a table of many columns leaves to its CSV."""
    return [
        Column("KID", lambda row: row.images and row.images.generated.kid_mean, "lower", 4),
        Column("IS", lambda row: row.images and row.images.generated.inception_score_mean, "higher", 2),
        Column("precision", lambda row: row.images and row.images.generated.precision, "higher", 3),
        Column("recall", lambda row: row.images and row.images.generated.recall, "higher", 3),
        Column("images/s", lambda row: row.images_per_second, "higher", 1),
    ]


def _asked_for(result: AblationResult) -> list[Column]:
    """Of these, the IS that a published column is compared with, and the speed where rows of a model differ in it."""
    asked = {"IS"} if any(column.of == "inception_score" for column in published_of(result.grid)) else set()
    asked |= {"images/s"} if result.ways else set()
    return [column for column in _more_of_images() if column.title in asked]


def data_columns(result: AblationResult) -> list[Column]:
    """What is computed with: every number on its own, at full precision, with the unit in its name."""
    ties = nll_ties(result)
    return [
        Column("plan", lambda row: row.plan),
        *(Column(f"axis_{s}", lambda row, s=s: row.settings.get(s)) for s in result.settings if s != PLAN),
        Column("ordering", lambda row: row.ordering),
        Column("partition", lambda row: row.partition),
        Column("ar_steps", _steps),
        Column("nll_kind", lambda row: row.likelihood and row.likelihood.kind),
        Column("nll_images", lambda row: row.likelihood and row.likelihood.n_images),
        Column("nll_nats_per_image", _nats),
        Column("nll_nats_per_image_standard_error", lambda row: row.likelihood and row.likelihood.standard_error_nats),
        Column("nll_bits_per_dim", _bits),
        Column(
            "nll_bits_per_dim_standard_error",
            lambda row: row.likelihood and row.likelihood.standard_error_bits_per_dim,
        ),
        Column("nll_standing", ties.standing),
        Column("nll_p_holm_to_best", ties.p_of),
        Column("difference_reference", lambda row: row.difference and row.difference.reference),
        Column("difference_nats_per_image", _difference_nats),
        Column("difference_nats_per_image_low", lambda row: row.difference and row.difference.interval_nats[0]),
        Column("difference_nats_per_image_high", lambda row: row.difference and row.difference.interval_nats[1]),
        Column("difference_bits_per_dim", _difference_bits),
        Column("difference_bits_per_dim_low", lambda row: _interval_bits(row, 0)),
        Column("difference_bits_per_dim_high", lambda row: _interval_bits(row, 1)),
        Column("difference_confidence", lambda row: row.difference and row.difference.confidence),
        Column("difference_p_value", lambda row: row.difference and row.difference.p_value),
        Column("difference_p_holm", lambda row: row.difference and row.difference.p_holm),
        Column("images", lambda row: row.images and row.images.generated.n_images),
        Column("fid", lambda row: row.images and row.images.fid),
        Column("fid_noise_floor", lambda row: row.images and row.images.noise_floor_fid),
        Column("kid_mean", lambda row: row.images and row.images.generated.kid_mean),
        Column("kid_std", lambda row: row.images and row.images.generated.kid_std),
        Column("inception_score_mean", lambda row: row.images and row.images.generated.inception_score_mean),
        Column("inception_score_std", lambda row: row.images and row.images.generated.inception_score_std),
        Column("precision", lambda row: row.images and row.images.generated.precision),
        Column("recall", lambda row: row.images and row.images.generated.recall),
        Column("nll_seconds", lambda row: row.nll_seconds),
        Column("sampling_seconds", lambda row: row.sampling_seconds),
        Column("images_per_second", lambda row: row.images_per_second),
        Column("probe_accuracy", lambda row: row.probe and row.probe.accuracy),
        Column("probe_standard_error", lambda row: row.probe and row.probe.standard_error),
        Column("probe_features", lambda row: row.probe and row.probe.width),
        *model_data_columns(result),
        *published_data_columns(result),
        Column("refused", lambda row: row.refused or None),
        Column("errors", lambda row: "; ".join(row.errors) or None),
    ]


def _settings(result: AblationResult) -> list[Column]:
    """What a row is: its settings, and the plan where these do not tell it."""
    names = [name for name in result.settings if name != PLAN]
    shown = [Column(name, lambda row, name=name: row.settings.get(name), words=True) for name in names]
    plans = [Column(part, lambda row, part=part: getattr(row, part), words=True) for part in ("ordering", "partition")]
    if result.axes:  # a part that never changes is said in the notes
        plans = [c for c in plans if c.title not in names and len({c.value(row) for row in result.rows}) > 1]
    if shown:
        shown[0] = replace(shown[0], value=lambda row: row.settings.get(names[0], row.plan))
    return shown + plans


def _steps(row: Row) -> int | None:
    if row.map is not None:
        return max(row.map.step_L) + 1
    return row.likelihood and row.likelihood.steps


def _nats(row: Row) -> float | None:
    return row.likelihood and row.likelihood.nats_per_image


def _bits(row: Row) -> float | None:
    return row.likelihood and row.likelihood.bits_per_dim


def _difference_nats(row: Row) -> float | None:
    return row.difference and row.difference.nats_per_image


def _difference_bits(row: Row) -> float | None:
    return row.difference and row.difference.bits_per_dim


def _interval_bits(row: Row, end: int) -> float | None:
    return row.difference and row.difference.interval_bits_per_dim and row.difference.interval_bits_per_dim[end]


def _bits_with_error(row: Row) -> str:
    assert row.likelihood is not None
    return f"{row.likelihood.bits_per_dim:.4f} ± {row.likelihood.standard_error_bits_per_dim:.4f}"


def _nats_with_error(row: Row) -> str:
    assert row.likelihood is not None
    return f"{row.likelihood.nats_per_image:.2f} ± {row.likelihood.standard_error_nats:.2f}"


def _bits_interval(row: Row) -> str:
    assert row.difference is not None and row.difference.interval_bits_per_dim is not None
    low, high = row.difference.interval_bits_per_dim
    return f"{row.difference.bits_per_dim:+.4f} [{low:+.4f}, {high:+.4f}]"


def _nats_interval(row: Row) -> str:
    assert row.difference is not None
    low, high = row.difference.interval_nats
    return f"{row.difference.nats_per_image:+.2f} [{low:+.2f}, {high:+.2f}]"


def _p_holm(row: Row) -> float | None:
    return row.difference and row.difference.p_holm


def _probe(row: Row) -> str:
    assert row.probe is not None
    return f"{row.probe.accuracy:.3f} ({row.probe.width} features)"


def _problem(row: Row) -> str | None:
    return f"refused: {row.refused}" if row.refused else "; ".join(row.errors) or None
