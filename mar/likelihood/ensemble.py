"""Several orders, or several dequantisations, of the same images: their mean, and the mixture of their densities.

N images · S orders (or draws) · K AR steps · L tokens

    mean over orders of -log p(x | sigma_s)        bounds the NLL of the mixture over all orders from above
    -log (1/S) sum_s p(x | sigma_s)                is the exact NLL of the mixture of these S orders

The S orders are shared by all images (Uria, Murray & Larochelle 2014, Sec. 3.3). Averaging before the logarithm asks
for exact log-probabilities: of an unbiased estimate l of log p, exp(l) is too large in expectation (Jensen), and the
mixture would look better than it is, the more so the noisier the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from mar.errors import Unsupported, UserError
from mar.likelihood.crossed import standard_error
from mar.likelihood.estimate import EVERY_STEP, Estimator
from mar.likelihood.partial import Partial
from mar.likelihood.summary import EnsemblePoint, Likelihood, is_dequantised, length_of, per_dimension
from mar.model import Model

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Several:
    """How often the same images are scored, and what differs between the times; one of the three at most.

    Attributes:
        orders: random orders shared by all images; 0: every image has its own.
        orders_per_image: an image's own orders (and steps drawn), whose mean counts.
        draws: dequantisations of an image, combined by log-mean-exp.
    """

    orders: int = 0
    orders_per_image: int = 1
    draws: int = 1

    def __post_init__(self) -> None:
        if (self.orders > 0) + (self.orders_per_image > 1) + (self.draws > 1) > 1:
            raise UserError("several shared orders, orders per image or dequantisation draws: choose one of them")


ONCE = Several()
ScoreOne = Callable[..., Likelihood]  # (progress, name, repeat, dequantisation, order: None or the shared one's number)


def score_several(
    model: Model, score_one: ScoreOne, several: Several, progress: Progress | None, partial: Partial | None
) -> Likelihood:
    """Score the same images as often as wanted, one time after the other, and combine.

    Finished times are kept in ``partial`` and taken from there: asking for more later costs only what is new.
    """
    if several.orders:
        found = _each(lambda s, **to: score_one(repeat=s, order=s, **to), several.orders, "order", progress, partial)
        return mean_over_orders(model, found)
    if several.draws > 1:

        def one_draw(s: int, **to: Any) -> Likelihood:
            result = score_one(dequantisation=s, **to)
            check_log_mean_exp(result)  # before the others are paid for
            return result

        return mixture_of_draws(model, _each(one_draw, several.draws, "draw", progress, partial))
    if several.orders_per_image > 1:
        count = several.orders_per_image
        found = _each(lambda s, **to: score_one(repeat=s, dequantisation=s, **to), count, "own", progress, partial)
        nats_N = torch.tensor([r.nats_of_image for r in found], dtype=torch.float64).mean(0)
        return replace(average(model, found, _over_images(nats_N)), orders_per_image=count)
    return score_one(progress=progress, name="images")


def _each(
    score_one: ScoreOne, count: int, what: str, progress: Progress | None, partial: Partial | None
) -> list[Likelihood]:
    found = []
    for s in range(count):
        name = f"{what}{s:04d}"
        result = partial.finished(name) if partial else None
        if result is None:
            result = score_one(s, name=name, progress=_share(progress, s, count))
            if partial:
                partial.finish(name, result)
        found.append(result)
    return found


def average(model: Model, results: Sequence[Likelihood], error: float) -> Likelihood:
    """The mean of scorings of the same images; ``error`` is the standard error of its nats per image.

    The errors of the curve and the map add the spread between the scorings to the mean error within one: never too
    small, a little large where images and orders interact.
    """
    first = results[0]
    nats_SN = torch.tensor([r.nats_of_image for r in results], dtype=torch.float64)
    mean = float(nats_SN.mean())
    curve, curve_error = _mean_and_error([(r.nats_per_step, r.standard_error_per_step) for r in results])
    positions, position_error = _mean_and_error([(r.nats_per_position, r.standard_error_per_position) for r in results])
    return replace(
        first,
        nats_per_image=mean,
        standard_error_nats=error,
        **per_dimension(model, mean, error, length_of(model, first)),
        evaluations=max(r.evaluations for r in results),
        forward_rows_per_image=sum(r.forward_rows_per_image for r in results),
        nats_per_step=curve,
        standard_error_per_step=curve_error,
        nats_per_position=positions,
        standard_error_per_position=position_error,
        nats_of_image=tuple(nats_SN.mean(0).tolist()),
    )


def mean_over_orders(model: Model, results: Sequence[Likelihood]) -> Likelihood:
    """S orders shared by all images: their mean, with its error over images and orders, and the ensemble's curve.

    The ensemble is left out, with a warning that says why, where the log-probabilities are estimates.
    """
    nats_SN = torch.tensor([r.nats_of_image for r in results], dtype=torch.float64)
    error = standard_error(nats_SN.T) if nats_SN.shape[1] > 1 else math.nan
    mean = replace(average(model, results, error), orders=len(results))
    try:
        check_log_mean_exp(results[0])
    except Unsupported as why:
        return replace(mean, warnings=(*mean.warnings, f"no ensemble of orders: {why}"))
    return replace(mean, ensemble=ensemble_curve(model, -nats_SN))


def mixture_of_draws(model: Model, results: Sequence[Likelihood]) -> Likelihood:
    """D dequantisations of the same images: -log mean_d p(x + u_d), over whole images.

    In expectation at least the NLL of the integer data, and the nearer the more draws (Burda et al. 2016, theorem 1).
    Curve and map stay the means over the draws: a mixture has no conditionals of its own.

    Raises:
        Unsupported: the log-probabilities are estimates.
    """
    check_log_mean_exp(results[0])
    log_p_DN = -torch.tensor([r.nats_of_image for r in results], dtype=torch.float64)
    nats_N = -log_mean_exp(log_p_DN)
    mean, error = float(nats_N.mean()), _over_images(nats_N)
    return replace(
        average(model, results, error),
        nats_per_image=mean,
        **per_dimension(model, mean, error, length_of(model, results[0])),
        nats_of_image=tuple(nats_N.tolist()),
        dequantisation_draws=len(results),
    )


def check_log_mean_exp(result: Likelihood) -> None:
    """Raises Unsupported, with the reason, if the log-probabilities are estimates."""
    _refuse(result.estimator, result.head_kind, result.head_estimate)


def check_draws(model: Model, kind: str | None, estimator: Estimator) -> None:
    """Refuses several dequantisations before anything is scored.

    Raises:
        UserError: there is nothing to dequantise.
        Unsupported: sub-sampled steps.
    """
    if not is_dequantised(model):
        raise UserError("draws are dequantisations of integer data as continuous tokens: there are none here")
    _refuse(str(estimator), model.head.check_kind(kind), False)


def _refuse(estimator: str, kind: str, head_estimate: bool) -> None:
    reason = "exp of an unbiased estimate of log p is too large in expectation (Jensen), so their mean would flatter"
    if estimator != str(EVERY_STEP):
        raise Unsupported(f"log-mean-exp of sub-sampled steps: {reason}; use --estimator exact")
    if head_estimate:
        raise Unsupported(f"log-mean-exp of a {kind} that draws noise: {reason}; use an exact or ode likelihood")


def log_mean_exp(log_p_SN: torch.Tensor) -> torch.Tensor:
    """log_p_N of the equal mixture of the rows."""
    return log_p_SN.logsumexp(0) - math.log(len(log_p_SN))


def ensemble_curve(model: Model, log_p_SN: torch.Tensor) -> tuple[EnsemblePoint, ...]:
    """The mixtures of the first 1, 2, 4, … and of all S orders."""
    counts = [2**k for k in range(len(log_p_SN).bit_length()) if 2**k < len(log_p_SN)] + [len(log_p_SN)]
    points = []
    for count in counts:
        nats_N = -log_mean_exp(log_p_SN[:count])
        mean, error, order_error = float(nats_N.mean()), _over_images(nats_N), _over_orders(log_p_SN, count)
        dimensions = per_dimension(model, mean, error)
        bits, bits_error = dimensions["bits_per_dim"], dimensions["standard_error_bits_per_dim"]
        points.append(EnsemblePoint(count, mean, error, order_error, bits, bits_error))
    return tuple(points)


def _over_images(nats_N: torch.Tensor) -> float:
    return float(nats_N.std() / math.sqrt(len(nats_N))) if len(nats_N) > 1 else math.nan


def _over_orders(log_p_SN: torch.Tensor, count: int) -> float:
    """Standard deviation of the ensemble of ``count`` orders over which orders they are, for these images.

    The jackknife over the orders of the prefix (Efron & Stein 1981); of a single order the spread of all S.
    """
    if count == 1:
        return float(log_p_SN.mean(1).std()) if len(log_p_SN) > 1 else math.nan
    used_SN = log_p_SN[:count]
    kept = torch.stack([log_mean_exp(torch.cat([used_SN[:s], used_SN[s + 1 :]])).mean() for s in range(count)])
    return float((kept - kept.mean()).square().sum() * (count - 1) / count) ** 0.5


def _mean_and_error(
    parts: Sequence[tuple[tuple[float, ...], tuple[float, ...]]],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean over S of values (K,), and the root of (mean squared error + variance between the S / S).

    Steps that a scoring did not draw are no numbers there, and left out.
    """
    value_SK, error_SK = (torch.tensor(rows, dtype=torch.float64) for rows in zip(*parts, strict=True))
    mean_K, n_K = value_SK.nanmean(0), (~value_SK.isnan()).sum(0)
    between_K = (value_SK - mean_K).square().nansum(0) / (n_K - 1).clamp(min=1) / n_K
    error_K = (error_SK.square().nanmean(0) + between_K).sqrt()
    return tuple(mean_K.tolist()), tuple(error_K.tolist())


def _share(progress: Progress | None, s: int, count: int) -> Progress | None:
    """Progress of the s-th of ``count`` equal shares."""
    if progress is None:
        return None
    return lambda done, total: progress(s * total + done, count * total)
