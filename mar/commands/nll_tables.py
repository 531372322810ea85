"""The tables and notes of ``mar score --nll`` in the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from typing import Any

from rich.table import Table

from mar.ablation.result import Difference
from mar.likelihood.summary import EnsemblePoint, Likelihood
from mar.likelihood.target import Budget, Pilot


def tables(
    results: Mapping[str, Likelihood], differences: Mapping[str, Difference], reference: str | None, title: str
) -> list[Table]:
    """The plans side by side, and for plans with several shared orders the ensembles of them."""
    ensembles = [_ensemble(plan, r) for plan, r in results.items() if r.ensemble]
    return [_plans(results, differences, reference, title), *ensembles]


def notes(results: Mapping[str, Likelihood], random: Set[str]) -> list[str]:
    """What to know before quoting the figures; ``random``: plans whose order is drawn."""
    said = [
        "± is one standard error over images, orders and steps drawn; kind says what the figure is (docs/likelihood.md)"
    ]
    if any(plan in random and not r.orders for plan, r in results.items()):
        said.append(
            "random orders: every image has its own; the mean over orders bounds the NLL of their mixture from above"
        )
    if any(r.orders for r in results.values()):
        said.append("shared orders: the mean over them bounds the NLL of the mixture over all orders from above")
    if any(r.ensemble for r in results.values()):
        said.append("an ensemble of S orders is the exact NLL of the mixture of these S orders, for these tokens")
    if any(r.dequantisation_draws for r in results.values()):
        said.append("uniform dequantisation: a bound on the NLL of the integer pixels, whatever the kind")
    said += [f"likelihood settings: {text}" for text in dict.fromkeys(map(_settings, results.values())) if text]
    return [*said, *(f"warning: {w}" for w in dict.fromkeys(w for r in results.values() for w in r.warnings))]


def budget_lines(plan: str, pilot: Pilot, budget: Budget, bits_per_nat: float | None) -> list[str]:
    """What a pilot found and what it proposes."""
    c = pilot.components
    deviations = ", ".join(
        f"{name} {math.sqrt(max(0.0, value)):.2f}"
        for name, value in (
            ("images", c.images), ("orders", c.orders), ("images × orders", c.interaction),
            (f"{pilot.drawn} of {pilot.steps} steps", c.noise),
        )
    )  # fmt: skip
    error = _both(budget.standard_error_nats, bits_per_nat)
    steps = "every step" if budget.estimator == "exact" else f"{budget.steps} of {pilot.steps} steps"
    lines = [
        f"{plan}: pilot of {pilot.forward_rows:,} rows; standard deviations in nats/image: {deviations}",
        f"{plan}: plan {budget.images:,} images × {budget.orders_per_image} order(s) × {steps}: standard error {error} expected, "
        f"{budget.forward_rows:,} rows, about {_duration(budget.seconds)}",
    ]
    if not budget.reached:
        lines.append(f"{plan}: out of reach with these images alone: all are scored, every step")
    return lines


def reached(plan: str, wanted: str, record: Mapping[str, Any]) -> str:
    """The standard error that a scoring reached, beside the wanted one."""
    nats, bits = record["standard_error_nats"], record["standard_error_bits_per_dim"]
    return f"{plan}: standard error {_both(nats, bits and bits / nats)} reached, {wanted} wanted"


def _plans(
    results: Mapping[str, Likelihood], differences: Mapping[str, Difference], reference: str | None, title: str
) -> Table:
    table = Table(title=f"negative log-likelihood, {title} (lower is better)")
    latent = any(r.nats_per_latent_dimension is not None for r in results.values())
    columns = ["plan", "kind", "n", "nats/image", "nats/latent dimension" if latent else "bits/dim", "AR steps"]
    for column in columns + ([f"nats/image − {reference} [95 %]", "p (Holm)"] if reference else []):
        table.add_column(column, justify="left" if column in ("plan", "kind") else "right", no_wrap=column == "plan")
    for plan, r in results.items():
        nats = f"{r.nats_per_image:.2f} ± {r.standard_error_nats:.2f}"
        cells = [r.plan, _kind(r), str(r.n_images), nats, _per_dimension(r), str(r.steps)]
        if plan in differences:
            d = differences[plan]
            low, high = d.interval_nats
            cells += [f"{d.nats_per_image:+.2f} [{low:+.2f}, {high:+.2f}]", f"{d.p_holm:.2g}"]
        table.add_row(*cells)
    return table


def _ensemble(plan: str, r: Likelihood) -> Table:
    table = Table(title=f"ensembles of orders, {plan}, {r.n_images} images")
    for column in ("orders", "nats/image ± over images", "± over orders", "bits/dim"):
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


def _per_dimension(r: Likelihood) -> str:
    if r.nats_per_latent_dimension is not None:
        return f"{r.nats_per_latent_dimension:.4f} ± {r.standard_error_nats_per_latent_dimension:.4f}"
    return "—" if r.bits_per_dim is None else f"{r.bits_per_dim:.4f} ± {r.standard_error_bits_per_dim:.4f}"


def _settings(r: Likelihood) -> str:
    said = ", ".join(f"{key}={value}" for key, value in r.settings.items())
    return f"{said}; {r.evaluations} evaluations of the head for each token" if said else ""


def _both(nats: float, bits_per_nat: float | None) -> str:
    return f"{nats:.3f} nats/image" + (f" = {nats * bits_per_nat:.4f} bits/dim" if bits_per_nat else "")


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
