"""The closed-form baseline of independent tokens."""

from __future__ import annotations

import math

import pytest
import torch

from mar import build, config
from mar.ablation.independent import independent_rows, smoothed


def test_probabilities_are_smoothed_counts() -> None:
    token_NL = torch.tensor([[0, 2], [0, 1], [1, 1]])
    p_CLV = smoothed(token_NL, torch.tensor([0, 0, 1]), 3)
    expected = torch.tensor([[[3, 1, 1], [1, 2, 2]], [[1, 2, 1], [1, 2, 1]]], dtype=torch.float64)
    torch.testing.assert_close(p_CLV, expected / expected.sum(-1, keepdim=True))


def test_digits_have_the_known_figure() -> None:
    """2.43 bits/dim, class ignored; and the sum over positions is the whole."""
    recipe = config.read("digits")
    data = build.data(recipe)
    marginal, by_class = independent_rows(data, build.model(recipe, data).tokenizer, "test", None, conditional=True)
    assert marginal.likelihood is not None and by_class.likelihood is not None
    assert marginal.likelihood.n_images == 360
    assert marginal.likelihood.bits_per_dim == pytest.approx(2.43, abs=0.01)
    assert by_class.likelihood.nats_per_image < marginal.likelihood.nats_per_image
    assert math.fsum(marginal.likelihood.nats_per_position) == pytest.approx(marginal.likelihood.nats_per_image)


def test_vectors_have_no_such_baseline() -> None:
    recipe = config.read("digits", ["tokenizer=patches", "head=diffusion"])
    data = build.data(recipe)
    tokenizer = build.find("tokenizer", "patches")(data.spec, build.options("tokenizer", recipe.tokenizer))
    assert independent_rows(data, tokenizer, "test", 4, True) == ()
