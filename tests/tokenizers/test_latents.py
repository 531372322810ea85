"""Latents as tokens, without their autoencoder."""

from __future__ import annotations

import pytest
import torch

from mar.core.errors import UserError
from mar.core.noise import stream
from mar.core.spec import DataSpec
from mar.tokenizers.latents import Latents, LatentsOptions

SPEC = DataSpec((3, 4, 6), 0, modality="latent")


def test_tokens_are_scaled_patches_that_decode_to_the_latents():
    tokenizer = Latents(SPEC, LatentsOptions(patch=2, scale=0.25))
    x = stream(0, "test/latents", 5).normal(72).reshape(5, 3, 4, 6)
    token = tokenizer.encode(x)
    assert tokenizer.shape == (2, 3) and token.shape == (5, 6, 12)
    assert torch.equal(token[:, 0].reshape(5, 3, 2, 2), 0.25 * x[:, :, :2, :2])
    assert torch.equal(tokenizer.decode(token), x)


def test_the_jacobian_is_that_of_the_map_by_autograd():
    tokenizer = Latents(DataSpec((1, 2, 2), 0, modality="latent"), LatentsOptions(scale=0.2325))
    jacobian = torch.autograd.functional.jacobian(tokenizer.encode, torch.zeros(1, 1, 2, 2)).reshape(4, 4)
    assert tokenizer.log_jacobian == pytest.approx(float(jacobian.double().slogdet()[1]), abs=1e-6)


def test_images_are_refused_with_what_reads_them():
    with pytest.raises(UserError, match="kl"):
        Latents(DataSpec((3, 4, 6), 256), LatentsOptions())
