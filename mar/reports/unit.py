"""The unit that likelihoods are shown in."""

from __future__ import annotations

from dataclasses import replace

from mar.experiments.result import AblationResult, Row


def in_asked_unit(result: AblationResult) -> AblationResult:
    """The result as it is shown: in nats an example where the grid asks for that, for figures published so. What is
    stored has both units."""
    if result.grid.get("unit") != "nats":
        return result
    return replace(
        result,
        rows=tuple(map(_without_bits, result.rows)),
        baselines=tuple(map(_without_bits, result.baselines)),
    )


def _without_bits(row: Row) -> Row:
    likelihood, difference = row.likelihood, row.difference
    answers = dict(row.answers)
    if likelihood is not None:
        answers["nll"] = replace(likelihood, bits_per_dim=None, standard_error_bits_per_dim=None)
    if difference is not None:
        difference = replace(difference, bits_per_dim=None, interval_bits_per_dim=None)
    return replace(row, answers=answers, difference=difference)
