"""Figures that look like likelihoods and are none: what docs/likelihood.md shows by example."""

from __future__ import annotations

import math

import pytest
import torch

from mar.core.noise import stream
from mar.core.spec import DataSpec
from mar.likelihood.chain import token_log_prob
from mar.tokenizers.patches import Patches
from orderings import Grid, Plan, PlanSpec
from tests.likelihood.closed_forms.plugged import JOINTS, OnePass, plugged


@pytest.fixture(scope="module")
def orders() -> torch.Tensor:
    """(2, 512, 9): log p of each token of every grid of an Ising model, exact, from either end."""
    joint = JOINTS["ising"]
    model, x = plugged(joint, OnePass), joint.everything  # pyright: ignore
    noise, label_B = stream(0, "nll", len(x)), torch.full((len(x),), -1)
    plans = [Plan.sample(*PlanSpec.parse(text), Grid(joint.shape), len(x), noise) for text in ("raster", "reverse")]
    return torch.stack([token_log_prob(model, x, plan, label_B, noise).nats_BL.double() for plan in plans])


def test_averaging_conditionals_over_orders_beats_the_truth_and_sums_to_more_than_one(orders):
    p_X = orders[0].sum(1).exp()
    entropy = -float(p_X @ p_X.log())
    mixture_X = orders.sum(2).logsumexp(0) - math.log(2)
    averaged_X = (orders.logsumexp(0) - math.log(2)).sum(1)  # token by token, then the product
    assert float(mixture_X.exp().sum()) == pytest.approx(1.0, abs=1e-6)
    assert -float(p_X @ mixture_X) == pytest.approx(entropy, abs=1e-6)
    assert float(averaged_X.exp().sum()) == pytest.approx(1.488, abs=0.001)
    assert entropy == pytest.approx(4.000, abs=0.001)
    assert -float(p_X @ averaged_X) == pytest.approx(3.687, abs=0.001)


def test_nats_of_latents_change_with_their_scale_and_those_of_pixels_do_not():
    tokenizer = Patches(DataSpec((1, 4, 4), 256, 0), Patches.Options(patch=2))
    x = torch.randint(0, 256, (64, 1, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    totals = []
    for stretched in (x, x // 2):  # the second measures half the spread, so its tokens are twice as large
        tokenizer.fit([stretched])
        token = tokenizer.encode(x, stream(0, "dequantise", len(x)))
        scale = float(token.std())
        latent = -torch.distributions.Normal(0.0, scale).log_prob(token - token.mean()).sum((1, 2)).mean()
        totals.append((float(latent), float(latent) - tokenizer.log_jacobian))
    (latent, pixels), (latent_2, pixels_2) = totals
    assert latent_2 - latent == pytest.approx(16 * math.log(2.0), rel=0.02)
    assert pixels_2 == pytest.approx(pixels, rel=1e-4)
