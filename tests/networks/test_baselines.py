"""What the baselines promise beyond the contract that every network is tested for.

B batch · L tokens · D width · C condition width · M gathered tokens
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mar.core.errors import Unsupported, UserError
from mar.core.tokens import Categories
from mar.model.embedding import TokenEmbedding, cosine_token_init
from mar.networks.base import ABSENT, GIVEN
from mar.networks.baselines import (
    LARGEST,
    Independent,
    IndependentOptions,
    LinearAR,
    LinearAROptions,
    PerPosition,
    PerPositionOptions,
)
from mar.verification.networks import depends_on_the_past, verify_network
from tests.helpers import OnePass

L = 12
BATCH = 4


def inputs(network, seed: int = 1):
    torch.manual_seed(seed)
    step_BL = torch.stack([torch.randperm(L) // (1 + b % 3) for b in range(BATCH)]) - 1
    step_BL[2, torch.randperm(L)[:4]] = ABSENT
    return torch.randn(BATCH, L, network.token_width), step_BL, torch.randn(BATCH, network.condition_width)


def scored(step_BL: torch.Tensor) -> torch.Tensor:
    return (step_BL > GIVEN) & (step_BL < ABSENT)


class Peeks(OnePass):
    """Says that it reads no token, and does."""

    reads_tokens = False


class Blind(Independent):
    """Reads no token, without saying so."""

    reads_tokens = True


@pytest.mark.parametrize("cls", [Peeks, Blind])
def test_verification_holds_a_network_to_what_it_says_of_reading_tokens(cls):
    broken = {verdict.claim for verdict in verify_network(cls, cls.__name__) if not verdict.passed}
    assert broken == {depends_on_the_past.text}


def test_independent_tokens_depend_on_position_and_class_alone():
    torch.manual_seed(0)
    network = Independent((3, 4), IndependentOptions(context_width=5, condition_width=4))
    token_BLD, step_BL, condition_BC = inputs(network)
    z_MD = network(token_BLD, step_BL, condition_BC, scored(step_BL))
    want_BLD = (condition_BC @ network.contexts.weight.T + network.contexts.bias).view(BATCH, L, 5)
    torch.testing.assert_close(z_MD, want_BLD[scored(step_BL)])
    assert torch.equal(network(token_BLD * torch.nan, step_BL, condition_BC, scored(step_BL)), z_MD)


def test_the_embedding_that_nobody_reads_takes_part_in_training():
    network, embedding = Independent((3, 4), IndependentOptions()), TokenEmbedding(Categories(5), 1)
    _, step_BL, condition_BC = inputs(network)
    network(embedding(torch.randint(0, 5, (BATCH, L))), step_BL, condition_BC, scored(step_BL)).sum().backward()
    for name, parameter in [*network.named_parameters(), *embedding.named_parameters()]:
        assert parameter.grad is not None, name  # or data-parallel training would wait for ever
    assert not embedding.embed.weight.grad.any()


def linear_ar(lags: int) -> LinearAR:
    torch.manual_seed(0)
    return LinearAR((L,), LinearAROptions(lags=lags, token_width=2, context_width=3, condition_width=4))


@torch.no_grad()
@pytest.mark.parametrize("lags", [1, 3, 20])
def test_linear_ar_regresses_on_the_tokens_known_last(lags):
    network = linear_ar(lags)
    token_BLD, step_BL, condition_BC = inputs(network)
    target_BL = scored(step_BL)
    z_MD = network(token_BLD, step_BL, condition_BC, target_BL)
    coefficient_DKE = network.lags.weight.view(3, lags, 3)
    for z_D, (row, token) in zip(z_MD, target_BL.nonzero().tolist(), strict=True):
        step_L = step_BL[row].tolist()
        line = sorted((step_L[m], m) for m in range(L) if step_L[m] < step_L[token])
        want_D = network.lags.bias + network.condition.weight @ condition_BC[row]
        for lag in range(1, lags + 1):
            if lag <= len(line):
                want_D = want_D + coefficient_DKE[:, lag - 1, :2] @ token_BLD[row, line[-lag][1]]
            else:
                want_D = want_D + coefficient_DKE[:, lag - 1, 2]
        torch.testing.assert_close(z_D, want_D, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_true_coefficients_of_a_series_leave_white_noise():
    torch.manual_seed(0)
    x_NL = torch.zeros(500, L, dtype=torch.float64)
    for t in range(L):
        x_NL[:, t] = 0.6 * x_NL[:, t - 1] * (t > 0) - 0.3 * x_NL[:, t - 2] * (t > 1) + torch.randn(500).double()
    network = LinearAR((L,), LinearAROptions(lags=2, token_width=1, context_width=1, condition_width=1)).double()
    step_NL, nothing = torch.arange(L).expand(500, -1), torch.zeros(500, 1, dtype=torch.float64)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    network.lags.weight[0, 0] = 0.6
    network.lags.weight[0, 2] = -0.3
    residual = x_NL.flatten() - network(x_NL[..., None], step_NL, nothing, step_NL >= 0)[:, 0]
    assert abs(float(residual.var()) - 1) < 0.05


def test_linear_ar_touches_its_regressors_alone():
    network = linear_ar(2)
    token_BLD, step_BL, condition_BC = inputs(network)
    target_BL = scored(step_BL) & (step_BL == 2)
    z_MD = network(token_BLD, step_BL, condition_BC, target_BL)
    garbled_BLD = torch.where((step_BL >= 2)[..., None], torch.nan, token_BLD)
    assert torch.equal(network(garbled_BLD, step_BL, condition_BC, target_BL), z_MD)
    assert z_MD.isfinite().all()


@torch.no_grad()
def test_each_position_has_a_network_of_its_own():
    torch.manual_seed(0)
    options = PerPositionOptions(hidden=7, token_width=2, context_width=3, condition_width=4)
    network = PerPosition((3, 4), options)
    torch.nn.init.normal_(network.hidden_bias)
    torch.nn.init.normal_(network.output_bias)
    token_BLD, step_BL, condition_BC = inputs(network)
    target_BL = scored(step_BL)
    z_MD = network(token_BLD, step_BL, condition_BC, target_BL)
    for z_D, (row, token) in zip(z_MD, target_BL.nonzero().tolist(), strict=True):
        m_L1 = (step_BL[row] < step_BL[row, token]).float()[:, None]
        x_I = torch.cat([torch.cat([token_BLD[row] * m_L1, m_L1], dim=1).flatten(), condition_BC[row]])
        h_H = (x_I @ network.hidden_weight_LIH[token] + network.hidden_bias.view(L, 7)[token]).relu()
        want_D = h_H @ network.output_weight_LHD[token] + network.output_bias.view(L, 3)[token]
        torch.testing.assert_close(z_D, want_D, atol=1e-5, rtol=1e-5)
    last_B1 = torch.where(target_BL, step_BL, GIVEN).amax(1, keepdim=True)
    garbled_BLD = torch.where((step_BL >= last_B1)[..., None], torch.nan, token_BLD)
    assert torch.equal(network(garbled_BLD, step_BL, condition_BC, target_BL), z_MD)


def test_a_network_for_each_position_refuses_large_grids():
    with pytest.raises(Unsupported, match=f"at most {LARGEST}, not 784: use network=made") as error:
        PerPosition((28, 28), PerPositionOptions())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options, wrong",
    [
        (IndependentOptions(), {"context_width": 0}),
        (LinearAROptions(), {"lags": 0}),
        (LinearAROptions(), {"token_width": 0}),
        (PerPositionOptions(), {"hidden": 0}),
    ],
)
def test_impossible_numbers_are_refused_in_one_line(options, wrong):
    with pytest.raises(UserError, match=next(iter(wrong))) as error:
        replace(options, **wrong)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("vocabulary", [2, 5, 17])
def test_codes_of_categories_are_orthogonal_of_unit_variance_and_in_order(vocabulary):
    codes_VD = cosine_token_init(vocabulary, vocabulary - 1)
    torch.testing.assert_close(codes_VD.mean(0), torch.zeros(vocabulary - 1), atol=1e-6, rtol=0)
    torch.testing.assert_close(codes_VD.T @ codes_VD / vocabulary, torch.eye(vocabulary - 1), atol=1e-5, rtol=0)
    assert (codes_VD[:-1, 0] < codes_VD[1:, 0]).all()
    embedding = TokenEmbedding(Categories(vocabulary), vocabulary - 1, codes=True)
    assert torch.equal(embedding.embed.weight, codes_VD)
