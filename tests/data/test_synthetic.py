from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy.stats import chisquare

from mar.core.errors import UserError
from mar.core.noise import stream
from tests.synthetic import Ising, Synthetic, SyntheticOptions


def test_probabilities_sum_to_one_over_all_grids():
    model = Ising(3, 4, 0.4, 0.1)
    assert len({tuple(x.flatten().tolist()) for x in model.states()}) == 2**12
    assert model.log_probability(model.states()).exp().sum().item() == pytest.approx(1.0, abs=1e-12)


def test_probabilities_are_those_of_the_formula():
    coupling, field = 0.7, -0.3
    weight = {}
    for a, b, c, d in itertools.product((-1, 1), repeat=4):  # the grid [[a, b], [c, d]]
        weight[a, b, c, d] = math.exp(coupling * (a * b + c * d + a * c + b * d) + field * (a + b + c + d))
    total = sum(weight.values())
    for spins, w in weight.items():
        x = torch.tensor([(s + 1) // 2 for s in spins], dtype=torch.uint8).reshape(1, 1, 2, 2)
        assert Ising(2, 2, coupling, field).log_probability(x).item() == pytest.approx(math.log(w / total), abs=1e-12)


def test_independent_sites_have_the_logistic_marginal():
    model = Ising(2, 2, 0.0, 0.3)
    p = model.log_probability(model.states()).exp()
    assert (p * model.states()[:, 0, 1, 0]).sum().item() == pytest.approx(1 / (1 + math.exp(-0.6)), abs=1e-12)


def test_samples_follow_the_probabilities():
    model = Ising(2, 3, 0.5, 0.2)
    x = model.sample(stream(3, "test", 20_000))
    number = (x.flatten(1).long() << torch.arange(6)).sum(1)
    expected = model.log_probability(model.states()).exp() * len(x)
    assert chisquare(number.bincount(minlength=64).numpy(), expected.numpy()).pvalue > 1e-6


def test_a_sample_depends_on_its_own_stream_only():
    model, noise = Ising(3, 3, 0.4, 0.1), stream(0, "test", 50)
    assert torch.equal(model.sample(noise)[7:9], model.sample(noise.rows(slice(7, 9))))


def test_the_splits_are_independent_draws_of_the_stated_sizes():
    data = Synthetic.load(SyntheticOptions(rows=4, cols=4, n=400))
    assert [len(data.train), len(data.validation), len(data.test)] == [400, 100, 100]
    assert not torch.equal(data.validation.x, data.test.x) and not torch.equal(data.train.x[:100], data.test.x)


@pytest.mark.parametrize("changes", [{"rows": 0}, {"rows": 5, "cols": 4}, {"n": 3}])
def test_grids_too_large_to_enumerate_are_refused(changes):
    with pytest.raises(UserError, match=r"at (most|least)"):
        SyntheticOptions(**changes)
