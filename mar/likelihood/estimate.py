"""Estimates of a likelihood: some of the AR steps, several orders, several dequantisations, as many images as it takes.

B batch · N images · S orders (or draws) · K AR steps · L tokens

Steps. A network that needs a pass for each step pays K passes for one image; a sum over K steps can be estimated from n
of them. The steps are cut into n strata of consecutive steps, as equal as whole numbers allow; one step is drawn
uniformly in each and weighted by its stratum's size, so that every step's expected weight is 1 and the weighted sum has
the expectation of the whole one (stratified sampling, Cochran 1977, ch. 5). Every image draws its own steps,
independently of the others, so the spread of the images' estimates holds the variance over images, orders and steps.

Orders. The mean over orders of -log p(x | sigma_s) bounds the NLL of the mixture over all orders from above;
-log (1/S) sum_s p(x | sigma_s) is the exact NLL of the mixture of these S orders. The S orders are shared by all images
(Uria, Murray & Larochelle 2014, Sec. 3.3). Averaging before the logarithm asks for exact log-probabilities: of an
unbiased estimate l of log p, exp(l) is too large in expectation (Jensen), and the mixture would look better than it is,
the more so the noisier the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from pydantic import TypeAdapter

from mar.core.devices import back, has_float64
from mar.core.errors import Unsupported, UserError
from mar.core.noise import Noise
from mar.core.progress import Progress
from mar.core.records import Partial
from mar.likelihood.summary import (
    EnsemblePoint,
    Likelihood,
    error_over_images,
    is_dequantised,
    length_of,
    per_dimension,
)
from mar.model.model import Model
from mar.tokenizers.base import Tokenizer

_Values = tuple[float, ...]
_FIRST_LOOK = 32  # images; fewer say little about their own standard error


@dataclass(frozen=True)
class Estimator:
    """``steps`` 0: every step."""

    steps: int = 0

    @classmethod
    def parse(cls, text: str) -> Estimator:
        """``exact`` or ``steps:8``. Raises UserError: it is neither."""
        if text == "exact":
            return cls()
        name, _, number = text.partition(":")
        if name != "steps" or not number.isdecimal() or int(number) < 1:
            raise UserError(f"an estimator is exact or steps:8, not {text!r}")
        return cls(int(number))

    def __str__(self) -> str:
        return f"steps:{self.steps}" if self.steps else "exact"

    def weights(self, n_steps_B: torch.Tensor, noise: Noise) -> torch.Tensor | None:
        """weight_BK (float64): 1 over the probability of a drawn step, 0 for the others; None where all are drawn.

        Rows with no more than ``steps`` steps draw all of theirs. ``noise`` has one stream a row: plans of equally many
        steps draw the same ones for the same image, which keeps their comparison paired.
        """
        n_steps = int(n_steps_B.max())
        if not self.steps or n_steps <= self.steps:
            return None
        device, n_B1 = n_steps_B.device, n_steps_B[:, None]
        if not has_float64(device.type):
            n_B1 = n_B1.cpu()
        edge_BJ = torch.arange(self.steps + 1, device=n_B1.device) * n_B1 // self.steps
        size_BJ = edge_BJ.diff(dim=1)
        place_BJ = (noise.uniform(self.steps).to(n_B1.device).double() * size_BJ).long()
        weight_BK = torch.zeros(len(n_steps_B), n_steps + 1, dtype=torch.float64, device=n_B1.device)
        weight_BK.scatter_(1, (edge_BJ[:, :-1] + place_BJ).clamp(0, n_steps), size_BJ.double())
        step_K = torch.arange(n_steps, device=n_B1.device)
        return back(torch.where(n_B1 <= self.steps, (step_K < n_B1).double(), weight_BK[:, :n_steps]), device)


EVERY_STEP = Estimator()


@dataclass(frozen=True)
class Components:
    """Variances between images, between orders and of their interaction, in the square of the table's unit.

    Unbiased, so small ones can come out negative.
    """

    images: float
    orders: float
    interaction: float


def components(y_NS: torch.Tensor) -> Components:
    """Variance components of a table of at least two images, by the analysis of variance.

    With a single order everything that is an image's own is in ``images``.
    """
    y_NS = y_NS.double()
    (n, s), grand = y_NS.shape, y_NS.mean()
    image_N, order_S = y_NS.mean(1), y_NS.mean(0)
    of_images = float(s * (image_N - grand).square().sum() / (n - 1))
    if s == 1:
        return Components(of_images, 0.0, 0.0)
    residual_NS = y_NS - image_N[:, None] - order_S + grand
    of_cells = float(residual_NS.square().sum() / ((n - 1) * (s - 1)))
    of_orders = float(n * (order_S - grand).square().sum() / (s - 1))
    return Components((of_images - of_cells) / s, (of_orders - of_cells) / n, of_cells)


def standard_error(y_NS: torch.Tensor) -> float:
    """Standard error of the mean of N images under the same S orders, over the choice of both; of one image: nan.

    y_NS = mean + image_N + order_S + interaction_NS, all random and independent (two-way random model, Searle, Casella
    & McCulloch 1992, ch. 4), so that Var = images / N + orders / S + interaction / (N S).
    """
    n, s = y_NS.shape
    if n < 2:
        return math.nan
    found = components(y_NS)
    return max(0.0, found.images / n + found.orders / s + found.interaction / (n * s)) ** 0.5


@dataclass(frozen=True)
class Repeats:
    """How often the same images are scored, and what differs between the times; one of the two at most."""

    orders: int = 0  #: random orders shared by all images; 0: every image has its own
    draws: int = 1  #: dequantisations of an image, combined by log-mean-exp

    def __post_init__(self) -> None:
        if self.orders > 0 and self.draws > 1:
            raise UserError("several shared orders or dequantisation draws: choose one of them")


SINGLE = Repeats()

ScoreOne = Callable[..., Likelihood]  # (progress, name, repeat, dequantisation, order: None or the shared one's number)


def score_several(
    tokenizer: Tokenizer,
    score_one: ScoreOne,
    repeats: Repeats,
    progress: Progress | None,
    partial: Partial | None,
    all_orders: bool = False,
) -> Likelihood:
    """Score the same images as often as wanted, one time after the other, and combine.

    Finished times are kept in ``partial`` and taken from there: asking for more later costs only what is new.

    Args:
        all_orders: they are the components of a mixture, all of them.
    """

    if repeats == SINGLE:
        return score_one(progress=progress, name="images")
    count, found = repeats.orders or repeats.draws, []
    for s in range(count):
        name = f"{'order' if repeats.orders else 'draw'}{s:04d}"
        if partial and (known := partial.finished(name)):
            found.append(TypeAdapter(Likelihood).validate_python(known))
            continue
        numbers = {"repeat": s, "order": s} if repeats.orders else {"dequantisation": s}
        share = progress and (lambda done, total, s=s: progress(s * total + done, count * total))
        found.append(score_one(name=name, progress=share, **numbers))
        if not repeats.orders:
            check_log_mean_exp(found[-1])  # before the others are paid for
        if partial:
            partial.finish(name, found[-1].to_dict())
    return mean_over_orders(tokenizer, found, all_orders) if repeats.orders else mixture_of_draws(tokenizer, found)


def _nats(results: Sequence[Likelihood]) -> torch.Tensor:
    """nats_SN (float64) of every image."""
    return torch.tensor([r.nats_of_image for r in results], dtype=torch.float64)


def average(
    tokenizer: Tokenizer, results: Sequence[Likelihood], error: float, nats_N: torch.Tensor | None = None
) -> Likelihood:
    """The mean of scorings of the same images; ``error`` is the standard error of its nats per image.

    The errors of the curve and the map add the spread between the scorings to the mean error within one: never too
    small, a little large where images and orders interact.

    Args:
        nats_N: nats of each image that are not the mean of theirs.
    """
    first, nats_SN = results[0], _nats(results)
    mean = float((nats_SN if nats_N is None else nats_N).mean())
    curve, curve_error = _mean_and_error([(r.nats_per_step, r.standard_error_per_step) for r in results])
    positions, position_error = _mean_and_error([(r.nats_per_position, r.standard_error_per_position) for r in results])
    return replace(
        first,
        nats_per_image=mean,
        standard_error_nats=error,
        **per_dimension(tokenizer, mean, error, length_of(tokenizer, first)),
        evaluations=max(r.evaluations for r in results),
        forward_rows_per_image=sum(r.forward_rows_per_image for r in results),
        nats_per_step=curve,
        standard_error_per_step=curve_error,
        nats_per_position=positions,
        standard_error_per_position=position_error,
        nats_of_image=tuple((nats_SN.mean(0) if nats_N is None else nats_N).tolist()),
    )


def mean_over_orders(tokenizer: Tokenizer, results: Sequence[Likelihood], all_orders: bool = False) -> Likelihood:
    """S orders shared by all images: their mean, with its error over images and orders, and the ensemble's curve.

    The ensemble is left out, with a warning that says why, where the log-probabilities are estimates. Where the orders
    are all that there are (``all_orders``), their choice adds no error.
    """
    nats_SN = _nats(results)
    error = error_over_images(nats_SN.mean(0)) if all_orders else standard_error(nats_SN.T)
    mean = replace(average(tokenizer, results, error), orders=len(results))
    try:
        check_log_mean_exp(results[0])
    except Unsupported as why:
        return replace(mean, warnings=(*mean.warnings, f"no ensemble of orders: {why}"))
    curve = ensemble_curve(tokenizer, -nats_SN)
    last = replace(curve[-1], standard_error_orders_nats=0.0) if all_orders else curve[-1]
    return replace(mean, ensemble=(*curve[:-1], last))


def mixture_of_draws(tokenizer: Tokenizer, results: Sequence[Likelihood]) -> Likelihood:
    """D dequantisations of the same images: -log mean_d p(x + u_d), over whole images.

    In expectation at least the NLL of the integer data, and the nearer the more draws (Burda et al. 2016, theorem 1).
    Curve and map stay the means over the draws: a mixture has no conditionals of its own.

    Raises:
        Unsupported: the log-probabilities are estimates.
    """
    check_log_mean_exp(results[0])
    nats_N = -_log_mean_exp(-_nats(results))
    mixture = average(tokenizer, results, error_over_images(nats_N), nats_N)
    return replace(mixture, dequantisation_draws=len(results))


def check_draws(model: Model, kind: str | None, estimator: Estimator) -> None:
    """Refuse several dequantisations before anything is scored: sub-sampled steps, or nothing to dequantise."""
    if not is_dequantised(model.tokenizer):
        raise UserError("draws are dequantisations of integer data as continuous tokens: there are none here")
    _refuse_estimates(str(estimator), model.head.check_kind(kind), False)


def check_log_mean_exp(result: Likelihood) -> None:
    """Raise Unsupported, with the reason, if the log-probabilities are estimates."""
    _refuse_estimates(result.estimator, result.head_kind, result.head_estimate)


def _refuse_estimates(estimator: str, kind: str, head_estimate: bool) -> None:
    reason = "exp of an unbiased estimate of log p is too large in expectation (Jensen), so their mean would flatter"
    if estimator != str(EVERY_STEP):
        raise Unsupported(f"log-mean-exp of sub-sampled steps: {reason}; use --estimator exact")
    if head_estimate:
        raise Unsupported(f"log-mean-exp of a {kind} that draws noise: {reason}; use an exact or ode likelihood")


def _log_mean_exp(log_p_SN: torch.Tensor) -> torch.Tensor:
    """log_p_N of the equal mixture of the rows."""
    return log_p_SN.logsumexp(0) - math.log(len(log_p_SN))


def ensemble_curve(tokenizer: Tokenizer, log_p_SN: torch.Tensor) -> tuple[EnsemblePoint, ...]:
    """The mixtures of the first 1, 2, 4, … and of all S orders."""
    counts = [2**k for k in range(len(log_p_SN).bit_length()) if 2**k < len(log_p_SN)] + [len(log_p_SN)]
    points = []
    for count in counts:
        nats_N = -_log_mean_exp(log_p_SN[:count])
        mean, error, order_error = float(nats_N.mean()), error_over_images(nats_N), _over_orders(log_p_SN, count)
        bits, bits_error, *_ = per_dimension(tokenizer, mean, error).values()
        points.append(EnsemblePoint(count, mean, error, order_error, bits, bits_error))
    return tuple(points)


def _over_orders(log_p_SN: torch.Tensor, count: int) -> float:
    """Standard deviation of the ensemble of ``count`` orders over which orders they are, for these images.

    The jackknife over the orders of the prefix (Efron & Stein 1981); of a single order the spread of all S.
    """
    if count == 1:
        return float(log_p_SN.mean(1).std()) if len(log_p_SN) > 1 else math.nan
    used_SN = log_p_SN[:count]
    kept = torch.stack([_log_mean_exp(torch.cat([used_SN[:s], used_SN[s + 1 :]])).mean() for s in range(count)])
    return float((kept - kept.mean()).square().sum() * (count - 1) / count) ** 0.5


def _mean_and_error(parts: Sequence[tuple[_Values, _Values]]) -> tuple[_Values, _Values]:
    """Mean over S of values (K,), and the root of (mean squared error + variance between the S / S), without nans."""
    value_SK, error_SK = (torch.tensor(rows, dtype=torch.float64) for rows in zip(*parts, strict=True))
    mean_K, n_K = value_SK.nanmean(0), (~value_SK.isnan()).sum(0)
    between_K = (value_SK - mean_K).square().nansum(0) / (n_K - 1).clamp(min=1) / n_K
    error_K = (error_SK.square().nanmean(0) + between_K).sqrt()
    return tuple(mean_K.tolist()), tuple(error_K.tolist())


def until_error(score: Callable[[int], Likelihood], target_nats: float, most_images: int) -> Likelihood:
    """Score ever more images until the standard error is at most ``target_nats``, or there are no more images.

    Each look is at as many images as reach the target if the spread over images stays as it is, and at least at twice
    as many as the last. The rule reads the spread, never the mean, so it prefers neither low nor high figures: the mean
    is unbiased where nats are distributed symmetrically over images, and otherwise biased by the order of 1/N.

    Args:
        score: scores this many images, spread over the split.

    Raises:
        UserError: fewer than two images, whose spread is unknown.
    """
    if most_images < 2:
        raise UserError(f"a wanted standard error takes at least 2 images, not {most_images}")
    images = min(_FIRST_LOOK, most_images)
    while True:
        found = score(images)
        if found.standard_error_nats <= target_nats or images == most_images:
            return found
        enough = math.ceil(images * (found.standard_error_nats / target_nats) ** 2)
        images = min(most_images, max(2 * images, enough))


def parse_target(text: str, tokenizer: Tokenizer) -> float:
    """``0.01`` (bits/dim) or ``0.5nats`` (per image) -> nats per image. Raises UserError: neither, or no bits/dim."""
    number = text.removesuffix("nats").strip()
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise UserError(f"a wanted standard error is written 0.01 (bits/dim) or 0.5nats (per image), not {text!r}")
    if number != text.strip():
        return value
    if not tokenizer.dimensions or tokenizer.end is not None:
        raise UserError(
            "latents, colours of a palette and documents have no bits/dim in advance: write the wanted standard error "
            f"as {text}nats"
        )
    return value * math.log(2.0) * tokenizer.dimensions
