"""Order consistency: how far the conditionals of a model are from those of one joint distribution.

N images · S orders · J pairs of an image · B batch · L tokens · K AR steps or bins

A joint distribution gives an image one log p(x), along whichever order its conditionals are multiplied. A network that
serves any order learns each conditional by itself, and nothing makes them agree (Yao 2026, arXiv 2606.00997; Kim et al.
2025, arXiv 2502.06768, on which of them are hard to learn). Two measures are 0 for a joint distribution:

    y_ns = log p(x_n | sigma_s) / L = mean + image_n + order_s + interaction_ns     the same S orders for all images
    v    = log p(a | known) + log p(b | known, a) - log p(b | known) - log p(a | known, b)   the chain rule of a pair

The spread over orders is the standard deviation of y over the orders of one image: the root of the variance of orders
and that of the interaction (two-way random model, Searle, Casella & McCulloch 1992, ch. 4). A pair is two tokens that
follow each other in a random order; exchanging them leaves everything before them as it is. If contexts depend on the
set of known tokens alone, the violations along the exchanges that turn one order into another add up to the difference
of its two log p(x).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial as bound

import torch

from mar.core.devices import double
from mar.core.errors import Unsupported, UserError
from mar.core.progress import Progress
from mar.core.records import Partial
from mar.likelihood.chain import OnRows, counter, image_batches, image_noise, score, token_log_prob
from mar.likelihood.estimate import Estimator, check_log_mean_exp, standard_error
from mar.likelihood.summary import error_over_images, weighted_mean
from mar.model.model import Model
from mar.model.plans import Plans
from orderings import Plan

LEAST = 3  # images and orders: the jackknife leaves one out, and a variance takes two
_NEAR = 8  # distances in bins of their own; beyond, bins double


@dataclass(frozen=True)
class Estimate:
    """A figure and its standard error."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class Profile:
    """(K,) violations of the chain rule by bins of pairs, in nats; standard errors are over images."""

    at: tuple[float, ...]  # the mean place of a bin's pairs: known tokens, or distance
    rms: tuple[float, ...]  # root mean square
    rms_standard_error: tuple[float, ...]
    mean: tuple[float, ...]  # positive: more likely if the token that is first in raster order comes first
    mean_standard_error: tuple[float, ...]


@dataclass(frozen=True)
class Consistency:
    """The order consistency of a model on N images along S random orders.

    A joint distribution has zeros everywhere, but for ``nats_per_token`` and ``variance_images``.
    """

    plan: str  #: the orders' short text
    kind: str  #: of the log-probabilities: "exact" or "ode"
    n_images: int
    n_tokens: int
    orders: int  #: the same for all images
    pairs: int  #: of each image
    nats_per_token: Estimate  #: the mean NLL over images and orders
    spread: Estimate  #: standard deviation of log p(x | order) over the orders of one image, nats per token
    variance_images: Estimate  #: (nats per token)²
    variance_orders: Estimate  #: of orders that are better or worse for all images
    variance_interaction: Estimate  #: of orders that are better or worse for one image
    ensemble_gap: Estimate  #: mean NLL of the orders minus that of their mixture, nats per image; at most log S
    violation: Profile  #: of all pairs, one bin
    by_known: Profile  #: by the number of known tokens
    by_distance: Profile  #: by the distance of the two positions, in tokens
    rms_by_offset: tuple[float, ...]  #: (rows x columns): by |row - row'| and |column - column'|; nan without pairs


def consistency(
    model: Model,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    plans: Plans,
    orders: int = 8,
    pairs: int = 16,
    seed: int = 0,
    kind: str | None = None,
    budget: int | None = None,
    progress: Progress | None = None,
    partial: Partial | None = None,
) -> Consistency:
    """Score ``images`` (N, C, H, W), in the data set's levels, along the first random orders of ``seed``, and exchange
    ``pairs`` pairs of each image.

    A network with a pass for each step takes ``orders`` L + 4 ``pairs`` rows for an image; one of one pass
    ``orders`` + 2 ``pairs``.

    Args:
        plans: random orders, one token at a time.
        orders: as those of ``mar score nll --orders``.
        pairs: number of pairs of an image. The numbers of known tokens are cut into as many ranges, one pair each; each
            pair has an order of its own.
        labels, seed, kind, budget: as in ``mar.likelihood.chain.conditionals``.
        progress: called with (rows done, rows in all).
        partial: where finished work is kept, and taken up again.

    Raises:
        UserError: fewer than three images or orders.
        Unsupported: the likelihood is a bound or an estimate, or examples end by themselves, or a mixture has fewer
            orders.
    """
    if min(len(images), orders) < LEAST:
        raise UserError(
            f"order consistency wants at least {LEAST} images and {LEAST} orders, not {len(images)} and {orders}"
        )
    model.tokenizer.require_one_length("order consistency")
    kind = model.head.check_kind(kind)
    if kind == "bound":
        raise Unsupported(
            "a bound is tighter along some orders than along others, so its spread is not that of log p: order "
            f"consistency takes an exact or ode likelihood, {type(model.head).__name__} has "
            f"{', '.join(sorted(model.head.likelihoods))}"
        )
    plans.scored(image_noise(seed, 1), order=orders - 1)  # a mixture may have fewer
    grid, one_pass = model.tokenizer.lattice, model.network.one_pass
    along = len(images) * (1 if one_pass else len(grid))
    exchanged = len(images) * min(pairs, len(grid) - 1) * (2 if one_pass else 4)
    count, results = counter(progress, orders * along + exchanged), []
    for s in range(orders):
        share = progress and (lambda done, _, s=s: progress(s * along + done, orders * along + exchanged))
        found = score(
            model, images, labels, bound(plans.scored, order=s), plans.text, seed, kind=kind, budget=budget, repeat=s,
            progress=share, partial=partial, name=f"order{s:04d}",
        )  # fmt: skip
        check_log_mean_exp(found)  # before the others are paid for
        results.append(found)
    count(orders * along)
    nats_NS = torch.tensor([found.nats_of_image for found in results], dtype=torch.float64).T
    gap_N = nats_NS.mean(1) + (-nats_NS).logsumexp(1) - math.log(orders)
    y_NS = -nats_NS / len(grid)
    of_images, of_orders, of_both, within = split(y_NS)
    swaps = exchange(model, images, labels, plans, pairs, seed, kind, budget, count, partial)
    apart_NJD = (grid.coordinates()[swaps.first_NJ] - grid.coordinates()[swaps.second_NJ]).abs()
    apart_NJD = apart_NJD[..., : 3 if grid.time else 2]
    distance_NJ = apart_NJD.double().square().sum(-1).sqrt()
    far_NJ = _NEAR + (distance_NJ / _NEAR).clamp(min=1.0).log2().ceil().long()
    near_NJ = distance_NJ.round().long()
    rows, columns = (0, 0) if grid.time else (*grid.shape, 0)[:2]
    return Consistency(
        plans.text, kind, len(images), len(grid), orders, swaps.nats_NJ.shape[1],
        nats_per_token=Estimate(float(-y_NS.mean()), standard_error(y_NS)),
        spread=root(within),
        variance_images=of_images,
        variance_orders=of_orders,
        variance_interaction=of_both,
        ensemble_gap=Estimate(float(gap_N.mean()), error_over_images(gap_N)),
        violation=swaps.profile(torch.zeros_like(near_NJ), swaps.known_NJ),
        by_known=swaps.profile(torch.arange(near_NJ.shape[1]).expand_as(near_NJ), swaps.known_NJ),
        by_distance=swaps.profile(torch.where(near_NJ <= _NEAR, near_NJ, far_NJ), distance_NJ),
        rms_by_offset=swaps.rms(apart_NJD @ torch.tensor([columns, 1]), rows * columns) if columns else (),
    )  # fmt: skip


# The variance over orders.


def split(y_NS: torch.Tensor) -> tuple[Estimate, Estimate, Estimate, Estimate]:
    """Variance components of a two-way table: of images, of orders, of their interaction, and the last two together,
    which is the mean over images of the variance over orders. Unbiased, so small ones can come out negative.

    Standard errors are jackknives over images and over orders, added up in squares (Efron & Stein 1981): without normal
    effects, and rather too large, because both leave out cells.
    """
    y_NS = y_NS.double() - y_NS.double().mean()
    (n, s), square_NS, image_N, order_S = y_NS.shape, y_NS.square(), y_NS.sum(1), y_NS.sum(0)
    total, squares = y_NS.sum(), square_NS.sum()
    found_4 = _components(squares, image_N.square().sum(), order_S.square().sum(), total, n, s)
    without_image_4N = _components(
        squares - square_NS.sum(1), image_N.square().sum() - image_N.square(), (order_S - y_NS).square().sum(1),
        total - image_N, n - 1, s,
    )  # fmt: skip
    without_order_4S = _components(
        squares - square_NS.sum(0), (image_N[:, None] - y_NS).square().sum(0),
        order_S.square().sum() - order_S.square(), total - order_S, n, s - 1,
    )  # fmt: skip
    variance_4 = without_image_4N.var(1, correction=0) * (n - 1) + without_order_4S.var(1, correction=0) * (s - 1)
    of_images, of_orders, of_both, within = map(Estimate, found_4.tolist(), variance_4.sqrt().tolist())
    return of_images, of_orders, of_both, within


def _components(
    squares: torch.Tensor, images: torch.Tensor, orders: torch.Tensor, total: torch.Tensor, n: int, s: int
) -> torch.Tensor:
    """(4, …) of tables (n, s), from the sums of squares of cells, of row sums and of column sums, and the total."""
    correction = total.square() / (n * s)
    of_images, of_orders = images / s - correction, orders / n - correction
    cell = (squares - correction - of_images - of_orders) / ((n - 1) * (s - 1))
    order = (of_orders / (s - 1) - cell) / n
    return torch.stack([(of_images / (n - 1) - cell) / s, order, cell, order + cell])


def root(variance: Estimate) -> Estimate:
    """The standard deviation, with the error of the delta method; of a variance of at most 0: 0."""
    deviation = math.sqrt(max(0.0, variance.value))
    return Estimate(deviation, variance.standard_error / (2.0 * deviation) if deviation else 0.0)


# The chain rule of pairs.


@dataclass(frozen=True)
class Exchanges:
    """Pairs of N images: the known tokens before each, its positions in raster order, and what its exchange changes."""

    known_NJ: torch.Tensor
    first_NJ: torch.Tensor
    second_NJ: torch.Tensor
    nats_NJ: torch.Tensor  # log p of the pair, the first before the second, minus that of the reverse (float64)
    weight_NJ: torch.Tensor  # 1 over the probability that this number of known tokens was drawn

    def profile(self, bin_NJ: torch.Tensor, place_NJ: torch.Tensor) -> Profile:
        """The pairs by bins; those without pairs are left out."""
        at_K, _ = self._by(bin_NJ, place_NJ)
        square_K, square_error_K = self._by(bin_NJ, self.nats_NJ.square())
        kept_K = at_K.isfinite()
        rms_K = square_K.sqrt()
        error_K = torch.where(rms_K > 0.0, square_error_K / (2.0 * rms_K), 0.0)
        columns = (at_K, rms_K, error_K, *self._by(bin_NJ, self.nats_NJ))
        return Profile(*(tuple(column_K[kept_K].tolist()) for column_K in columns))

    def rms(self, bin_NJ: torch.Tensor, bins: int) -> tuple[float, ...]:
        """Root mean square of every bin; nan without pairs."""
        return tuple(self._by(bin_NJ, self.nats_NJ.square(), bins)[0].sqrt().tolist())

    def _by(self, bin_NJ: torch.Tensor, value_NJ: torch.Tensor, bins: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Means of bins over pairs and their standard errors over images."""
        zeros_NK = torch.zeros(len(bin_NJ), bins or int(bin_NJ.max()) + 1, dtype=torch.float64)
        weight_NK = zeros_NK.scatter_add(1, bin_NJ, self.weight_NJ)
        sum_NK = zeros_NK.scatter_add(1, bin_NJ, self.weight_NJ * value_NJ)
        return weighted_mean(torch.where(weight_NK > 0.0, sum_NK / weight_NK, 0.0), weight_NK)


@torch.no_grad()
def exchange(
    model: Model,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    plans: Plans,
    pairs: int,
    seed: int = 0,
    kind: str | None = None,
    budget: int | None = None,
    on_rows: OnRows = lambda rows: None,
    partial: Partial | None = None,
) -> Exchanges:
    """Exchange two neighbours in random orders of each image.

    The numbers of known tokens, 0..L-2, are cut into ``pairs`` strata. Each image draws one number in each stratum, and
    an order for each number, functions of (seed, image) alone. Arguments: as ``consistency``.
    """
    n, found = len(model.tokenizer.lattice), []
    for k, batch in enumerate(image_batches(model, images, labels, seed)):
        noise, token, rows = batch.noise.at("pairs"), batch.tokens(model), []
        weight_BK = Estimator(pairs).weights(torch.full((len(token),), n - 1, device=token.device), noise.at("known"))
        if weight_BK is None:
            weight_BK = torch.ones(len(token), n - 1, device=token.device)
        known_BJ = weight_BK.nonzero()[:, 1].reshape(len(token), -1)
        for j, known_B1 in enumerate(known_BJ.split(1, dim=1)):
            step_BL = plans.scored(noise.at("order", draw=j)).step_BL
            former_BL, latter_BL = step_BL == known_B1, step_BL == known_B1 + 1
            drawn_BK = (torch.arange(n, device=token.device) - known_B1 - 0.5).abs() < 1.0  # both steps
            nats_B = []
            for way, way_BL in enumerate((step_BL, step_BL + former_BL.long() - latter_BL.long())):
                nats_BL = token_log_prob(
                    model, token, Plan(way_BL, way_BL), batch.label_B, batch.noise.at("head"), kind, budget, on_rows,
                    drawn_BK, partial.part(f"pairs-{k:05d}-{j:04d}-{way}") if partial else None,
                ).nats_BL  # fmt: skip
                nats_B.append(double(nats_BL).sum(1))
            former_B, latter_B = former_BL.int().argmax(1), latter_BL.int().argmax(1)
            first_B, second_B = torch.minimum(former_B, latter_B), torch.maximum(former_B, latter_B)
            change_B = torch.where(former_B < latter_B, 1.0, -1.0).to(nats_B[0]) * (nats_B[0] - nats_B[1])
            rows.append((known_B1[:, 0], first_B, second_B, change_B, double(weight_BK.gather(1, known_B1)[:, 0])))
        found.append([torch.stack(column, dim=1) for column in zip(*rows, strict=True)])
    return Exchanges(*(torch.cat(column).cpu() for column in zip(*found, strict=True)))
