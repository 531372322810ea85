"""The categorical head against closed forms."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from mar.core.errors import UserError
from mar.core.noise import stream
from mar.core.tokens import Categories
from mar.heads.categorical import CategoricalHead, CategoricalOptions, CategoricalSampling

P = torch.tensor([0.4, 0.05, 0.25, 0.1, 0.2])


def head_with(*rows: torch.Tensor, smoothing: float = 0.0) -> CategoricalHead:
    """A head whose context is a one-hot row number and whose logits are log ``rows``."""
    head = CategoricalHead(len(rows), Categories(len(rows[0])), CategoricalOptions(label_smoothing=smoothing))
    with torch.no_grad():
        head.logits.weight.copy_(torch.stack(rows).log().T)
        head.logits.bias.zero_()
    return head


def draw(head: CategoricalHead, n: int, row: int = 0, **kwargs) -> torch.Tensor:
    z = torch.nn.functional.one_hot(torch.full((n,), row), head.logits.in_features).float()
    with torch.no_grad():
        return head.sample(z, stream(1, "sample", n), **kwargs)


def assert_frequencies(x: torch.Tensor, p: torch.Tensor) -> None:
    count = torch.bincount(x, minlength=len(p)).double()
    assert count[p == 0].sum() == 0
    kept = p.double()[p > 0]
    if len(kept) > 1:
        expected = kept / kept.sum() * len(x)
        assert stats.chisquare(count[p > 0].numpy(), expected.numpy()).pvalue > 1e-3


def test_samples_have_the_probabilities_of_the_softmax():
    assert_frequencies(draw(head_with(P), 20_000), P)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_raises_probabilities_to_a_power(temperature):
    assert_frequencies(draw(head_with(P), 20_000, temperature=temperature), P ** (1 / temperature))


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_guidance_is_the_geometric_extrapolation(guidance):
    null = torch.tensor([0.1, 0.3, 0.2, 0.2, 0.2])
    z_null = torch.tensor([[0.0, 1.0]]).expand(20_000, -1)
    wanted = null * (P / null) ** guidance
    assert_frequencies(draw(head_with(P, null), 20_000, z_null_MD=z_null, guidance_M=guidance), wanted)
    per_token = torch.full((20_000,), guidance)
    assert_frequencies(draw(head_with(P, null), 20_000, z_null_MD=z_null, guidance_M=per_token), wanted)


def test_greedy_and_temperature_zero_take_the_likeliest():
    head = head_with(P)
    assert (draw(head, 100, temperature=0.0) == 0).all()
    head.sampling = CategoricalSampling(greedy=True)
    assert (draw(head, 100) == 0).all()


@pytest.mark.parametrize("k, kept", [(1, [0]), (2, [0, 2]), (3, [0, 2, 4]), (5, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4])])
def test_top_k_renormalises_the_k_likeliest(k, kept):
    head = head_with(P)
    head.sampling = CategoricalSampling(top_k=k)
    assert_frequencies(draw(head, 20_000), torch.zeros(5).index_copy(0, torch.tensor(kept), P[kept]))


@pytest.mark.parametrize(
    "p, kept", [(0.3, [0]), (0.41, [0, 2]), (0.7, [0, 2, 4]), (0.9, [0, 2, 4, 3]), (1.0, [0, 1, 2, 3, 4])]
)
def test_top_p_keeps_the_smallest_sufficient_set(p, kept):
    head = head_with(P)
    head.sampling = CategoricalSampling(top_p=p)
    assert_frequencies(draw(head, 20_000), torch.zeros(5).index_copy(0, torch.tensor(kept), P[kept]))


def test_probabilities_sum_to_one_whatever_the_sampling_options():
    torch.manual_seed(0)
    head = CategoricalHead(8, Categories(11), CategoricalOptions(label_smoothing=0.3))
    head.sampling = CategoricalSampling(top_k=2, top_p=0.5)
    z = torch.randn(6, 8).repeat_interleave(11, 0)
    log_prob = head.log_prob(z, torch.arange(11).repeat(6), "exact", stream(0, "score", 66))
    assert log_prob.kind == "exact"
    torch.testing.assert_close(log_prob.nats_M.exp().reshape(6, 11).sum(1), torch.ones(6), atol=1e-6, rtol=0)


def test_loss_is_the_negative_log_probability_and_smoothing_mixes_in_the_uniform():
    z, x, noise = torch.ones(5, 1), torch.arange(5), stream(0, "loss", 5)
    torch.testing.assert_close(head_with(P).loss(z, x, noise), -P.log())
    smoothed = -(0.8 * P.log() + 0.2 * P.log().mean())
    torch.testing.assert_close(head_with(P, smoothing=0.2).loss(z, x, noise), smoothed)


def test_entropy_is_the_closed_form():
    torch.testing.assert_close(head_with(P).entropy(torch.ones(1, 1))[0], -(P * P.log()).sum())
    uniform = head_with(torch.full((7,), 1 / 7)).entropy(torch.ones(1, 1))
    torch.testing.assert_close(uniform[0], torch.tensor(7.0).log())


def test_the_margin_is_the_gap_of_the_two_likeliest():
    best, second = P.sort(descending=True).values[:2]
    torch.testing.assert_close(head_with(P).margin(torch.ones(1, 1))[0], best - second)


def test_a_token_drawn_alone_is_the_token_drawn_in_a_batch():
    head, z, noise = head_with(P), torch.ones(64, 1), stream(3, "sample", 64)
    batch = head.sample(z, noise)
    assert all(head.sample(z[i : i + 1], noise.rows(slice(i, i + 1))) == batch[i] for i in range(64))


@pytest.mark.parametrize("options", [{"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_impossible_truncation_is_refused(options):
    with pytest.raises(UserError, match="top_"):
        CategoricalSampling(**options)
