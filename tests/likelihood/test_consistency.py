"""Order consistency: 0 for exact conditionals of a joint distribution, its known value where a violation is planted."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from math import log
from pathlib import Path

import pytest
import torch

from mar.core.errors import Unsupported, UserError
from mar.core.noise import stream
from mar.core.records import Partial
from mar.core.tokens import Categories
from mar.likelihood.consistency import Consistency, consistency, exchange, split
from mar.likelihood.estimate import components
from mar.model.model import Model
from mar.model.plans import Plans
from orderings import Grid
from tests.likelihood.closed_forms.joint import Enumerated
from tests.likelihood.closed_forms.plugged import JOINTS, NETWORKS, plugged


class Planted(Enumerated):
    """Conditionals of no joint: after an even number of known tokens a one has probability .8 in the upper half of the
    grid and .3 in the lower, after an odd number one half everywhere."""

    shape, token = (4, 4), Categories(2)
    one_L = torch.tensor([0.8] * 8 + [0.3] * 8, dtype=torch.float64)

    def conditionals(self, token: torch.Tensor, known_ML: torch.Tensor, index_M: torch.Tensor) -> torch.Tensor:
        one_M = torch.where(known_ML.sum(1) % 2 == 0, self.one_L[index_M], 0.5)
        return torch.stack([1.0 - one_M, one_M], 1).log()


ONES, HALVES = torch.ones(60, 16, dtype=torch.int64), log(0.8 / 0.3)


def random_orders(model: Model) -> Plans:
    return Plans("random", Grid(model.tokenizer.shape), Path(), torch.device("cpu"))


def measure(model: Model, token: torch.Tensor, **options) -> Consistency:
    return consistency(model, token, None, random_orders(model), **options)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("joint", ["gaussian", "markov"])
def test_exact_conditionals_of_a_joint_are_consistent(joint, network):
    token = JOINTS[joint].sample(stream(0, "data", 6))
    found = measure(plugged(JOINTS[joint], NETWORKS[network]), token, orders=4, pairs=5)
    zeros = (found.spread.value, found.ensemble_gap.value, *found.violation.mean)
    zeros += (*found.by_known.rms, *found.by_distance.rms)
    assert zeros == pytest.approx([0.0] * len(zeros), abs=1e-6)
    assert found.variance_images.value > 1e-3 and len(found.by_known.rms) == 5
    nll = -JOINTS[joint].log_marginal(token, torch.ones(6, found.n_tokens, dtype=torch.bool))
    assert found.nats_per_token.value == pytest.approx(float(nll.mean()) / found.n_tokens, rel=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_planted_violation_has_its_value(network):
    found = measure(plugged(Planted(), NETWORKS[network]), ONES, orders=5, pairs=99)
    assert found.pairs == 15 and found.by_known.at == tuple(range(15))  # every number of known tokens
    log_one = Planted.one_L.log().tolist()
    signed = [log_one[a] - log_one[b] for a, b in combinations(range(16), 2)]
    square, mean = sum(v * v for v in signed) / len(signed), sum(signed) / len(signed)
    assert found.violation.rms[0] == pytest.approx(square**0.5, abs=4 * found.violation.rms_standard_error[0])
    for k, sign in ((0, 1.0), (1, -1.0), (14, 1.0)):  # the first in raster order is likelier after an even number
        assert found.by_known.mean[k] == pytest.approx(sign * mean, abs=4 * found.by_known.mean_standard_error[k])
    rms_44 = torch.tensor(found.rms_by_offset).reshape(4, 4)
    assert rms_44[0, 1:].tolist() == pytest.approx([0.0] * 3, abs=1e-6)  # one row
    assert rms_44[2:].flatten().tolist() == pytest.approx([HALVES] * 8, abs=1e-6)  # always in two halves
    assert float(rms_44[1].min()) > 0.1 * HALVES and float(rms_44[1].max()) < HALVES
    assert 1.0 <= found.by_distance.at[0] <= 2**0.5 and max(found.by_distance.at) <= 18**0.5


def test_the_planted_spread_is_that_of_the_orders_shared_by_all_images():
    model, orders = plugged(Planted(), NETWORKS["one pass"]), 6
    found, plans = measure(model, ONES, orders=orders, pairs=1), random_orders(model)
    rank_SL = torch.cat([plans.scored(stream(0, "nll", 1), order=s).rank_BL for s in range(orders)])
    log_p_S = torch.where(rank_SL % 2 == 0, Planted.one_L.log(), log(0.5)).sum(1)
    variance = float((log_p_S / 16).var())
    assert found.variance_orders.value == pytest.approx(variance, rel=1e-4)
    assert found.spread.value == pytest.approx(variance**0.5, rel=1e-4)
    assert found.variance_interaction.value == pytest.approx(0.0, abs=1e-9), "all images are equal"
    gap = float(log_p_S.logsumexp(0) - log(orders) - log_p_S.mean())
    assert found.ensemble_gap.value == pytest.approx(gap, abs=1e-5) and 0.0 < gap < log(orders)


def table(n: int, s: int, seed: int) -> torch.Tensor:
    """A two-way table whose variances of images, orders and interaction are 4, .25 and 1."""
    noise = torch.Generator().manual_seed(seed)
    image_N1, order_1S, both_NS = (torch.randn(shape, generator=noise).double() for shape in ((n, 1), (1, s), (n, s)))
    return 7.0 + 2.0 * image_N1 + 0.5 * order_1S + both_NS


def test_the_variances_of_a_planted_table():
    found = split(y_NS := table(500, 60, 0))
    for each, truth in zip(found, (4.0, 0.25, 1.0, 1.25), strict=True):
        assert abs(each.value - truth) < 4 * each.standard_error < 0.5 * truth + 1.0
    exact = components(y_NS)
    assert [each.value for each in found[:3]] == pytest.approx([exact.images, exact.orders, exact.interaction])
    assert found[3].value == pytest.approx(float(y_NS.var(1).mean()))


def test_the_jackknife_leaves_one_out_and_its_errors_cover():
    y_NS = table(5, 4, 1)
    rows = [components(torch.cat([y_NS[:k], y_NS[k + 1 :]])).images for k in range(5)]
    columns = [components(torch.cat([y_NS[:, :k], y_NS[:, k + 1 :]], 1)).images for k in range(4)]
    variance = sum(torch.tensor(each).var(correction=0) * (len(each) - 1) for each in (rows, columns))
    assert split(y_NS)[0].standard_error == pytest.approx(float(variance) ** 0.5)
    found = [split(table(30, 10, seed)) for seed in range(200)]
    for k, truth in enumerate((4.0, 0.25, 1.0, 1.25)):
        hits = [abs(each[k].value - truth) < 2.0 * each[k].standard_error for each in found]
        assert sum(hits) > 0.85 * len(hits)


def test_pairs_of_an_image_depend_on_its_number_and_the_seed_alone():
    model = plugged(Planted(), NETWORKS["a pass per step"])
    some, more, other = (
        exchange(model, ONES[:n], None, random_orders(model), 4, seed) for n, seed in ((3, 0), (9, 0), (9, 1))
    )
    for few, many in zip(vars(some).values(), vars(more).values(), strict=True):
        assert torch.equal(few, many[:3])
    assert not torch.equal(more.first_NJ, other.first_NJ)
    assert (some.first_NJ < some.second_NJ).all() and some.weight_NJ.sum(1).tolist() == [15.0] * 3
    whole, cut = (measure(model, ONES[:5], orders=3, pairs=4, budget=budget) for budget in (None, 1))
    assert repr(whole) == repr(cut)  # nan where no pair lies


def test_an_interrupted_measurement_goes_on(tmp_path):
    model, kept = plugged(Planted(), NETWORKS["a pass per step"]), Partial(tmp_path / "kept", save_seconds=0.0)
    asked = {"orders": 3, "pairs": 2, "partial": kept}

    def stop(done: int, total: int, *, at: int) -> None:
        assert total == 4 * (3 * 16 + 2 * 4)
        if done > at:
            raise KeyboardInterrupt

    for at in (2 * 4 * 16 + 3, 4 * 3 * 16 + 1):  # in the third order; in the pairs
        with pytest.raises(KeyboardInterrupt):
            measure(model, ONES[:4], progress=partial(stop, at=at), budget=1, **asked)
    seen = []
    again = measure(model, ONES[:4], progress=lambda done, total: seen.append((done, total)), **asked)
    assert repr(again) == repr(measure(model, ONES[:4], orders=3, pairs=2)) and seen[-1] == (224, 224)


def test_what_has_no_order_consistency_is_refused():
    model = plugged(Planted(), NETWORKS["one pass"])
    with pytest.raises(UserError, match="at least 3 images and 3 orders, not 2 and 8"):
        measure(model, ONES[:2])
    model.head.likelihoods = frozenset({"bound", "exact"})
    with pytest.raises(Unsupported, match=r"a bound is tighter along some orders .* has bound, exact"):
        measure(model, ONES[:3], kind="bound")
