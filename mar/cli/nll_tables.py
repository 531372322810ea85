"""The tables and notes of ``mar score --nll`` in the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set

from rich.table import Table

from mar.cli.units import Units
from mar.experiments.result import Difference
from mar.likelihood.summary import EnsemblePoint, Likelihood


def tables(
    results: Mapping[str, Likelihood],
    differences: Mapping[str, Difference],
    reference: str | None,
    title: str,
    units: Units,
) -> list[Table]:
    """The plans side by side, and for plans with several shared orders the ensembles of them."""
    ensembles = [_ensemble(plan, r, units) for plan, r in results.items() if r.ensemble]
    return [_plans(results, differences, reference, title, units), *ensembles]


def notes(results: Mapping[str, Likelihood], random: Set[str], units: Units) -> list[str]:
    """What to know before quoting the figures; ``random``: plans whose order is drawn."""
    said = [
        f"± is one standard error over {units.example}s, orders and steps drawn; kind says what the figure is "
        "(docs/likelihood.md)"
    ]
    if any(plan in random and not r.orders for plan, r in results.items()):
        said.append(
            f"random orders: every {units.example} has its own; the mean over orders bounds the NLL of their mixture from above"
        )
    if any(r.orders for r in results.values()):
        said.append("shared orders: the mean over them bounds the NLL of the mixture over all orders from above")
    if any(r.ensemble for r in results.values()):
        said.append("an ensemble of S orders is the exact NLL of the mixture of these S orders, for these tokens")
    if any(r.dequantisation_draws for r in results.values()):
        said.append("uniform dequantisation: a bound on the NLL of the integer pixels, whatever the kind")
    said += [f"likelihood settings: {text}" for text in dict.fromkeys(map(_settings, results.values())) if text]
    return [*said, *(f"warning: {w}" for w in dict.fromkeys(w for r in results.values() for w in r.warnings))]


def reached(plan: str, wanted: str, found: Likelihood, looks: Sequence[int], reached: bool, units: Units) -> str:
    """The standard error that a scoring reached, beside the wanted one, and how many images each look took."""
    nats, bits = found.standard_error_nats, found.standard_error_bits_per_dim
    error = f"{nats:.3f} {units.nats}" + (f" = {bits:.4f} {units.per_dimension}" if bits else "")
    images = f"{', '.join(f'{n:,}' for n in looks)} {units.example}s scored"
    end = "reached" if reached else f"with all {units.example}s there are"
    return f"{plan}: standard error {error} {end}, {wanted} wanted; {images}"


def _plans(
    results: Mapping[str, Likelihood],
    differences: Mapping[str, Difference],
    reference: str | None,
    title: str,
    units: Units,
) -> Table:
    table = Table(title=f"negative log-likelihood, {title} (lower is better)")
    letters = [f"nats/{units.letter}"] if units.letter else []
    columns = ["plan", "kind", "n", units.nats, *letters, units.per_dimension, "AR steps"]
    for column in columns + ([f"{units.nats} − {reference} [95 %]", "p (Holm)"] if reference else []):
        table.add_column(column, justify="left" if column in ("plan", "kind") else "right", no_wrap=column == "plan")
    for plan, r in results.items():
        nats = f"{r.nats_per_image:.2f} ± {r.standard_error_nats:.2f}"
        per_letter = [_per_dimension(r, math.log(2.0))] * len(letters)
        cells = [r.plan, _kind(r), str(r.n_images), nats, *per_letter, _per_dimension(r), str(r.steps)]
        if plan in differences:
            d = differences[plan]
            low, high = d.interval_nats
            cells += [f"{d.nats_per_image:+.2f} [{low:+.2f}, {high:+.2f}]", f"{d.p_holm:.2g}"]
        table.add_row(*cells)
    return table


def _ensemble(plan: str, r: Likelihood, units: Units) -> Table:
    table = Table(title=f"ensembles of orders, {plan}, {r.n_images} {units.example}s")
    for column in ("orders", f"{units.nats} ± over {units.example}s", "± over orders", units.per_dimension):
        table.add_column(column, justify="right")
    for point in r.ensemble:
        table.add_row(
            str(point.orders),
            f"{point.nats_per_image:.2f} ± {point.standard_error_nats:.2f}",
            f"{point.standard_error_orders_nats:.2f}",
            _point_bits(point),
        )
    return table


def _point_bits(point: EnsemblePoint) -> str:
    return "—" if point.bits_per_dim is None else f"{point.bits_per_dim:.4f} ± {point.standard_error_bits_per_dim:.4f}"


def _kind(r: Likelihood) -> str:
    """The kind, with what was averaged: "exact", "estimate (bound, steps:8)", "exact, mean of 16 orders"."""
    kind = f"estimate ({r.head_kind}, {r.estimator})" if r.kind == "estimate" else r.kind
    if r.orders or r.orders_per_image > 1:
        kind += f", mean of {r.orders or r.orders_per_image} orders"
    return f"{kind}, {r.dequantisation_draws} draws" if r.dequantisation_draws > 1 else kind


def _per_dimension(r: Likelihood, nats: float = 1.0) -> str:
    """``nats``: how many a bit is, to show nats in place of bits."""
    if r.nats_per_latent_dimension is not None:
        return f"{r.nats_per_latent_dimension:.4f} ± {r.standard_error_nats_per_latent_dimension:.4f}"
    if r.bits_per_dim is None or r.standard_error_bits_per_dim is None:
        return "—"
    return f"{r.bits_per_dim * nats:.4f} ± {r.standard_error_bits_per_dim * nats:.4f}"


def _settings(r: Likelihood) -> str:
    said = ", ".join(f"{key}={value}" for key, value in r.settings.items())
    return f"{said}; {r.evaluations} evaluations of the head for each token" if said else ""
