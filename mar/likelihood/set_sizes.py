"""What generating tokens in parallel costs a model: the expected NLL of every token after every number of known ones;
and what schedules of K sets cost by these figures, the best ones beside equal and cosine-shaped ones.

B batch · L tokens · K AR steps · M gathered tokens · S numbers of known tokens

One forward pass with all unknown tokens as targets after s known ones gives a whole row of the costs, so that all sets
of all schedules cost L passes per image, one for each s.

Under uniformly random orders l(s), the mean over the unknown tokens after s known ones, is summed from differences of
the same tokens with one more of them known, f_s(r) being -log p(x_{sigma_r} | x_{sigma_<s}):

    l(0) = mean_{r >= 0} f_0(r),     l(s) - l(s - 1) = E mean_{r >= s} [f_s(r) - f_{s-1}(r)]

All unknown tokens are alike under such orders, so this is unbiased, as is the plain mean of f_s. But because only a few
tokens remain at late steps, and their difficulty differs much more than what one more known token says about them, the
search for the best sets would fit the noise of the plain mean.

The known tokens stand in the plan one at a time. A network that needs a pass per step only sees which tokens are known,
so its costs are exact for every schedule. A one-pass network may also see how the known tokens were grouped: its costs
are exact for one token at a time, and near it for small sets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from mar.core.devices import double
from mar.core.errors import Unsupported, UserError
from mar.core.progress import Progress
from mar.likelihood.chain import counter, image_batches, pairs
from mar.model.model import Model
from orderings import Ordering, Plan, parse_partition, to_text
from orderings.optimal import SetCosts, best_sets, cost_of
from orderings.stochastic import Random

_MOST = 2**28  # numbers of a table of costs
SCHEDULES = {"optimal": "optimal", "equal": "linear", "cosine": "cosine"}  # as tables call them: a partition's name


@dataclass(frozen=True)
class Predicted:
    """Schedules of k sets by the measured costs."""

    k: int
    excess_nats: Mapping[str, float]  # by schedule (optimal, equal, cosine): nats per image above one token at a time
    optimal_sizes: tuple[int, ...]  # of the best k sets


def predictions(costs: SetCosts, ks: Sequence[int]) -> list[Predicted]:
    """Every schedule for K = 1, 2, 4, …, L and the ``ks``.

    The best sets are chosen by the same figures that then predict their cost, so their prediction is too good by what
    they owe to noise; those of the other schedules are unbiased.
    """
    n, cost_SE = costs.n_tokens, costs.matrix()
    wanted = sorted({2**power for power in range(n.bit_length()) if 2**power < n} | {n} | set(ks))
    best, one_by_one = best_sets(cost_SE, n), cost_of(cost_SE, [1] * n)
    rows = []
    for k in wanted:
        sizes = {"optimal": best.sizes(k)}
        for schedule in ("equal", "cosine"):
            sizes[schedule] = parse_partition(f"{SCHEDULES[schedule]}:{k}").sizes(n).tolist()
        excess = {schedule: cost_of(cost_SE, of_k) - one_by_one for schedule, of_k in sizes.items()}
        rows.append(Predicted(k, excess, tuple(sizes["optimal"])))
    return rows


def plans_of(ordering: str, k: int) -> dict[str, str]:
    """schedule: the plan of k sets along ``ordering``, as short text."""
    return {schedule: f"{ordering}/{name}:{k}" for schedule, name in SCHEDULES.items()}


@torch.no_grad()
def measure_set_costs(
    model: Model,
    images: torch.Tensor,
    labels: torch.Tensor | None,
    ordering: Ordering,
    seed: int = 0,
    orders: int = 1,
    kind: str | None = None,
    budget: int | None = None,
    progress: Progress | None = None,
) -> SetCosts:
    """The costs of all sets under ``ordering``, on the mean over ``images`` (N, C, H, W), in the data set's levels.

    Image k has the order and the noise that ``score`` gives example k for the same seed, the same for all numbers of
    known tokens.

    Args:
        orders: of each image, where the ordering is random: for a split with few images.
        labels, seed, kind, budget, progress: as in ``mar.likelihood.chain.conditionals``.

    Raises:
        UserError: fewer than two images.
        Unsupported: the head has no likelihood of this kind, the ordering cannot serve the grid, or the network's
            contexts depend on their set.
    """
    if len(images) < 2:
        raise UserError(f"set costs want at least 2 images, not {len(images)}")
    model.tokenizer.require_one_length("the cost of sets")
    if model.network.joint_sets:
        raise Unsupported(
            f"the cost of sets is added up from costs of single tokens: in {type(model.network).__name__} a token's "
            "cost depends on its set (network.mutual=false trains one where it does not)"
        )
    grid, kind = model.tokenizer.lattice, model.head.check_kind(kind)
    orders = orders if ordering.random else 1
    n, device = len(grid), next(model.parameters()).device
    if n * n > _MOST:
        raise Unsupported(f"the costs of all sets of {n} tokens are {n * n:,} numbers: too many to keep")
    total_SL = double(torch.zeros(n, n, device=device))  # by (known, rank)
    unknown_NS, next_NS = total_SL.new_zeros(2, len(images), n)  # over an image's unknown tokens; of its next one
    count = counter(progress, orders * len(images) * n)
    for batch in image_batches(model, images, labels, seed):
        for draw in range(orders):
            noise = batch.noise.at(draw=draw)
            rank_BL = ordering.ranks(grid, len(batch.x), noise.at("order").to("cpu")).to(device)
            token = replace(batch, noise=noise).tokens(model)
            for some in pairs(model, token, Plan(rank_BL, rank_BL), batch.label_B, budget, pooled=True):
                streams, rank_M = noise.at("head").tokens(*some.at_M), rank_BL[some.at_M].to(total_SL.device)
                nats_M = -double(model.head.log_prob(some.z_MD, token[some.at_M], kind, streams).nats_M)
                known_M = some.step_R[some.target_RL.nonzero()[:, 0]].to(rank_M.device)
                image_M, now_M = int(batch.index_B[0]) + some.at_M[0].to(rank_M.device), rank_M == known_M
                place_M = image_M * n + known_M
                total_SL.view(-1).index_add_(0, known_M * n + rank_M, nats_M)
                unknown_NS.view(-1).index_add_(0, place_M, nats_M)
                next_NS.view(-1).index_add_(0, place_M[now_M], nats_M[now_M])
                count(len(some.image_R))
    mean_NS = (unknown_NS / (orders * (n - torch.arange(n, device=total_SL.device)))).cpu()
    nats: list = [row[s:] for s, row in enumerate((total_SL / (orders * len(images))).round(decimals=7).tolist())]
    if uniform := isinstance(ordering, Random):  # differences of the same tokens: those unknown after s
        before_NS = (unknown_NS - next_NS)[:, :-1].cpu() / orders
        step_NS = mean_NS[:, 1:] - before_NS / torch.arange(n - 1, 0, -1)
        mean_NS = torch.cat([mean_NS[:, :1], step_NS], dim=1).cumsum(1)
        nats = mean_NS.mean(0).tolist()
    return SetCosts(
        ordering=to_text(ordering),
        grid=str(grid),
        uniform=uniform,
        nats=nats,
        standard_error_nats=(mean_NS.std(0) / math.sqrt(len(images))).tolist(),
        n_images=len(images),
        provenance={"kind": kind, "seed": seed, "orders": orders},
    )
