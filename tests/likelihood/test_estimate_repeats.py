"""Several orders or dequantisations: means, mixtures, their errors, and what log-mean-exp refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter

from mar.core.errors import Unsupported, UserError
from mar.core.noise import stream
from mar.core.records import Partial
from mar.core.tokens import Vectors
from mar.likelihood.estimate import (
    EVERY_STEP,
    Estimator,
    Repeats,
    check_draws,
    check_log_mean_exp,
    ensemble_curve,
    mean_over_orders,
    mixture_of_draws,
    score_several,
    standard_error,
)
from mar.likelihood.summary import Conditionals, Likelihood, summarise
from mar.model.plans import Plans
from orderings import Grid
from tests.likelihood.test_estimate import tiny


@pytest.fixture(scope="module")
def model():
    return tiny()


def likelihoods(model, nats_SN: torch.Tensor, **changes):
    """One for each row, of images of 8 tokens."""
    step_NL = torch.arange(8).repeat(nats_SN.shape[1], 1)
    rows = [nats_N[:, None].expand(-1, 8) / 8 for nats_N in nats_SN]
    found = [summarise(model.tokenizer, "random", Conditionals(step_NL, row, "exact", 1, 8)) for row in rows]
    return [replace(one, **changes) for one in found]


def crossed_table(seed: int, n: int, s: int, images: float, orders: float, interaction: float) -> torch.Tensor:
    """(S, N): 20 + image + order + interaction, with these standard deviations."""
    made = torch.Generator().manual_seed(seed)
    image_N, order_S1 = torch.randn(n, generator=made), torch.randn(s, 1, generator=made)
    return 20.0 + images * image_N + orders * order_S1 + interaction * torch.randn(s, n, generator=made)


def test_the_curve_is_the_mixture_of_ever_more_orders(model):
    nats_SN = crossed_table(0, 50, 6, 2.0, 0.3, 0.5).double()
    found = mean_over_orders(model.tokenizer, likelihoods(model, nats_SN))
    assert [point.orders for point in found.ensemble] == [1, 2, 4, 6] and found.orders == 6
    assert found.nats_per_image == pytest.approx(float(nats_SN.mean()))
    for point in found.ensemble:
        by_hand = -(-nats_SN[: point.orders]).exp().mean(0).log()
        assert point.nats_per_image == pytest.approx(float(by_hand.mean()), abs=1e-6)
        assert point.standard_error_nats == pytest.approx(float(by_hand.std()) / 50**0.5, rel=1e-5)
        assert point.bits_per_dim == pytest.approx(point.nats_per_image / 8 / math.log(2.0))
        mean = float(nats_SN[: point.orders].mean())
        assert point.nats_per_image <= mean + 1e-9  # Jensen: a mixture is never worse than its components on average


def test_the_error_over_orders_is_how_much_ensembles_of_other_orders_differ(model):
    images_N = crossed_table(0, 40, 1, 2.0, 0.0, 0.0)[0].double()
    tables = [-images_N - crossed_table(seed, 40, 8, 0.0, 0.4, 1.0).double() for seed in range(200)]
    points = [ensemble_curve(model.tokenizer, table)[-1] for table in tables]
    spread = torch.tensor([p.nats_per_image for p in points]).std()
    stated = torch.tensor([p.standard_error_orders_nats**2 for p in points]).mean().sqrt()
    assert float(stated) == pytest.approx(float(spread), rel=0.25)


def test_the_error_of_a_mean_over_shared_orders_covers_images_and_orders():
    means, stated = [], []
    for seed in range(400):
        table = crossed_table(seed, 20, 5, 1.0, 1.0, 0.5)
        means.append(float(table.mean()))
        stated.append(standard_error(table.T) ** 2)
    assert sum(stated) / 400 == pytest.approx(torch.tensor(means).var().item(), rel=0.15)
    assert sum(stated) / 400 == pytest.approx(1 / 20 + 1 / 5 + 0.25 / 100, rel=0.15)
    naive = 1 / 20 + 0.25 / 100  # over images alone
    assert sum(stated) / 400 > 3 * naive


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"estimator": "steps:4", "kind": "estimate"}, "sub-sampled steps.*Jensen.*--estimator exact"),
        ({"head_estimate": True, "head_kind": "bound"}, "a bound that draws noise.*Jensen"),
    ],
)
def test_log_mean_exp_refuses_estimates_and_says_why(model, changes, said):
    made = likelihoods(model, crossed_table(1, 9, 3, 1.0, 0.1, 0.1), **changes)
    with pytest.raises(Unsupported, match=said):
        check_log_mean_exp(made[0])
    with pytest.raises(Unsupported, match=said):
        mixture_of_draws(model.tokenizer, made)
    mean = mean_over_orders(model.tokenizer, made)
    assert mean.ensemble == () and any("no ensemble" in warning for warning in mean.warnings)


def test_an_estimate_in_log_mean_exp_would_flatter(model):
    """Why it is refused: noise in log p makes the mixture look better than it is."""
    truth_SN = crossed_table(2, 500, 8, 2.0, 0.2, 0.2).double()
    noisy_SN = truth_SN + 3.0 * torch.randn(8, 500, generator=torch.Generator().manual_seed(0))
    truth, noisy = (ensemble_curve(model.tokenizer, -nats_SN)[-1].nats_per_image for nats_SN in (truth_SN, noisy_SN))
    assert float(noisy_SN.mean()) == pytest.approx(float(truth_SN.mean()), abs=0.2) and noisy < truth - 1.0


def test_draws_are_of_continuous_tokens_and_every_step(model):
    with pytest.raises(UserError, match="none here"):
        check_draws(model, None, EVERY_STEP)
    continuous = with_vectors()
    check_draws(continuous, None, EVERY_STEP)
    with pytest.raises(Unsupported, match="sub-sampled steps"):
        check_draws(continuous, None, Estimator(4))


def with_vectors():
    """A model that dequantises: only its tokenizer is asked."""
    changed = tiny()
    changed.tokenizer = type(changed.tokenizer)()
    changed.tokenizer.token = Vectors(1)
    return changed


def test_draws_are_combined_over_whole_images():
    """Never a token at a time: sums first, then log-mean-exp."""
    model, nats_DN = with_vectors(), crossed_table(3, 30, 4, 2.0, 0.0, 1.0).double()
    found = mixture_of_draws(model.tokenizer, likelihoods(model, nats_DN))
    by_hand = -(-nats_DN).exp().mean(0).log()
    assert found.nats_of_image == pytest.approx(tuple(by_hand.tolist()), abs=1e-6)
    assert found.dequantisation_draws == 4 and found.nats_per_image < float(nats_DN.mean())


def test_draws_of_an_estimate_are_refused_after_the_first():
    made, asked = likelihoods(with_vectors(), torch.ones(3, 4), head_estimate=True, head_kind="bound"), []

    def score_one(dequantisation: int, **_):
        asked.append(dequantisation)
        return made[dequantisation]

    with pytest.raises(Unsupported, match="draws noise"):
        score_several(with_vectors().tokenizer, score_one, Repeats(draws=3), None, None)
    assert asked == [0]


def test_one_kind_of_several_at_a_time():
    with pytest.raises(UserError, match="choose one"):
        Repeats(orders=4, draws=2)


def test_finished_orders_are_kept_and_more_cost_only_what_is_new(model, tmp_path):
    nats_SN = crossed_table(4, 12, 8, 1.0, 0.2, 0.2)
    made, asked, seen = likelihoods(model, nats_SN), [], []

    def score_one(order: int, repeat: int, name: str, progress):
        assert repeat == order
        asked.append(name)
        progress(5, 10)
        if len(asked) == 4 and not (tmp_path / "order0003.safetensors").exists():
            raise KeyboardInterrupt
        return made[order]

    partial = Partial(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        score_several(model.tokenizer, score_one, Repeats(orders=6), lambda *at: seen.append(at), partial)
    assert asked == ["order0000", "order0001", "order0002", "order0003"] and seen[-1] == (35, 60)
    asked.clear()
    found = score_several(model.tokenizer, score_one, Repeats(orders=6), lambda *at: None, partial)
    assert asked == ["order0003", "order0004", "order0005"]
    asked.clear()
    more = score_several(model.tokenizer, score_one, Repeats(orders=8), lambda *at: None, partial)
    assert asked == ["order0006", "order0007"]
    assert [p.nats_per_image for p in more.ensemble[:3]] == [p.nats_per_image for p in found.ensemble[:3]]
    assert (
        more
        == score_several(model.tokenizer, score_one, Repeats(orders=8), None, partial)
        == mean_over_orders(model.tokenizer, made)
    )


def test_a_damaged_part_is_computed_again(model, tmp_path):
    partial = Partial(tmp_path)
    likelihood = likelihoods(model, torch.ones(1, 3))[0]
    partial.finish("order0000", likelihood.to_dict())
    assert TypeAdapter(Likelihood).validate_python(partial.finished("order0000")) == likelihood
    file = tmp_path / "order0000.safetensors"
    file.write_bytes(file.read_bytes()[:40])
    assert partial.finished("order0000") is None and partial.finished("order0001") is None


def test_orders_of_a_seed_are_shared_by_all_images():

    plans = Plans("random/equal:2", Grid((2, 4)), Path("nowhere"), torch.device("cpu"))
    noise = stream(3, "nll", 5)
    first, again, second = (plans.scored(noise, order).step_BL for order in (0, 0, 1))
    assert (first == first[:1]).all() and torch.equal(first, again) and not torch.equal(first, second)
    own = plans.scored(noise).step_BL
    assert not (own == own[:1]).all()
    with pytest.raises(Unsupported, match="raster has one order"):
        Plans("raster", Grid((2, 4)), Path("nowhere"), torch.device("cpu")).scored(noise, 0)
