"""Real values as tokens: their scale and their density."""

from __future__ import annotations

import math

import pytest
import torch

from mar.core.errors import UserError
from mar.core.noise import stream
from mar.core.spec import DataSpec
from mar.tokenizers.values import Values, ValuesOptions


def data(n=400):
    """Four values whose means are -2..1 and deviations 1, 2, 3, 0."""
    return (stream(0, "test/values", n).normal(4) * torch.tensor([1.0, 2.0, 3.0, 0.0]) + torch.arange(4) - 2)[
        :, None, None
    ]


def fitted(scale):
    tokenizer = Values(DataSpec((1, 1, 4), 0, modality="vector"), ValuesOptions(scale=scale))
    tokenizer.fit(data().split(150))
    return tokenizer


@pytest.mark.parametrize("scale", ["global", "variable"])
def test_tokens_of_the_fitting_data_have_mean_zero_and_variance_one_and_decode(scale):
    tokenizer, x = fitted(scale), data()
    token = tokenizer.encode(x)
    assert token.shape == (400, 4, 1) and tokenizer.shape == (4,)
    assert torch.allclose(tokenizer.decode(token), x, atol=1e-5)
    seen = token[:, :3, 0] if scale == "variable" else token.flatten()
    assert float(seen.mean(0).abs().max()) < 1e-5
    assert torch.allclose(seen.std(0, unbiased=False), torch.ones(()), atol=1e-4)


def test_the_jacobian_is_that_of_the_map_by_autograd():
    tokenizer = fitted("variable")
    jacobian = torch.autograd.functional.jacobian(lambda x: tokenizer.encode(x).flatten(), data(1))
    determinant = torch.linalg.det(jacobian.reshape(4, 4))  # type: ignore[union-attr]
    assert math.isclose(tokenizer.log_jacobian, float(determinant.log()), abs_tol=1e-5)


def test_a_value_that_never_changes_keeps_its_own_scale_whatever_it_is():
    for constant in (0.1, 1234.567, 0.0, -3e-5):
        x = torch.full((1000, 1, 1, 2), constant)
        x[:, ..., 1] = stream(0, "test/values", 1000).normal(1)[:, None]
        tokenizer = Values(DataSpec((1, 1, 2), 0, modality="vector"), ValuesOptions(scale="variable"))
        tokenizer.fit(x.split(300))
        assert float(tokenizer.scale[0]) == 1.0 and 0.9 < float(tokenizer.scale[1]) < 1.1


def test_levels_are_refused():
    with pytest.raises(UserError, match=r"use tokenizer\.kind=sequence"):
        Values(DataSpec((1, 1, 4), 2), ValuesOptions())
