from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch
from torch.autograd.functional import jacobian

from mar.core.errors import UserError
from mar.core.noise import stream
from mar.core.spec import DataSpec
from mar.tokenizers import TOKENIZERS
from mar.tokenizers.patches import Patches, PatchesOptions, patchify, unpatchify

SPEC = DataSpec((2, 4, 6), 17)


def images(n=40, seed=0, spec=SPEC):
    u = stream(seed, "test/images", n).uniform(math.prod(spec.shape)).reshape(n, *spec.shape)
    return (u * torch.linspace(0.1, 1.0, spec.shape[2]) * spec.levels).to(torch.uint8)


def fitted(scale="global", patch=2, spec=SPEC):
    tokenizer = Patches(spec, PatchesOptions(patch, scale))
    tokenizer.fit([images(spec=spec)])
    return tokenizer


def test_patchify_orders_channels_then_rows_then_columns():
    x = torch.arange(2 * 4 * 6).reshape(1, 2, 4, 6)
    token = patchify(x, 2)
    assert token.shape == (1, 6, 8)
    for l in range(6):
        i, j = l // 3 * 2, l % 3 * 2
        assert token[0, l].tolist() == [int(x[0, c, i + p, j + q]) for c in (0, 1) for p in (0, 1) for q in (0, 1)]
    assert torch.equal(unpatchify(token, (2, 3), 2), x)


def test_patchify_agrees_with_the_recorded_reference():
    folder = os.environ.get("MAR_PARITY_DIR", "")
    if not folder:
        pytest.skip("set MAR_PARITY_DIR to the folder with reference_mar.safetensors")
    from safetensors.torch import load_file

    reference = load_file(Path(folder) / "reference_mar.safetensors")
    latents, tokens = reference["in.latents"], reference["out.tokens"]
    p = math.isqrt(tokens.shape[-1] // latents.shape[1])
    assert torch.equal(patchify(latents, p), tokens)
    assert torch.equal(unpatchify(tokens, (latents.shape[2] // p, latents.shape[3] // p), p), latents)


@pytest.mark.parametrize("scale", ["global", "channel"])
def test_log_jacobian_is_that_of_the_encoding(scale):
    tokenizer = fitted(scale)
    v = images(1).double() + 0.5
    # the same map, written on real values: encode is affine in the level, so levels stand in for real values
    matrix = jacobian(lambda v: (patchify(v * 2 / 17 - 1, 2) - tokenizer.shift) / tokenizer.scale, v).reshape(48, 48)
    assert tokenizer.log_jacobian == pytest.approx(torch.linalg.slogdet(matrix).logabsdet.item(), abs=1e-6)
    step = tokenizer.encode(images(1).clamp(max=15) + 1) - tokenizer.encode(images(1).clamp(max=15))
    assert tokenizer.log_jacobian == pytest.approx(step.double().log().sum().item(), abs=1e-4)


@pytest.mark.parametrize("scale", ["global", "channel"])
def test_dequantised_tokens_of_the_fitting_data_have_mean_zero_and_variance_one(scale):
    tokenizer = fitted(scale)
    draws = [tokenizer.encode(images(), stream(5, "test/dequantise", 40).at(draw=d)).double() for d in range(50)]
    token_NE = torch.cat(draws).flatten(0, 1)
    axis = {"dim": 0} if scale == "channel" else {}
    assert token_NE.mean(**axis).abs().max() < 0.02
    assert (token_NE.std(**axis) - 1).abs().max() < 0.02


def test_a_pixel_that_never_changes_gets_a_positive_scale():
    tokenizer = Patches(SPEC, PatchesOptions(2, "channel"))
    tokenizer.fit([torch.zeros(3, 2, 4, 6, dtype=torch.uint8)])
    assert tokenizer.scale.tolist() == pytest.approx([2 / 17 / math.sqrt(12)] * 8)
    assert math.isfinite(tokenizer.log_jacobian)


def test_the_scale_does_not_depend_on_how_data_are_batched():
    one, many = fitted(), Patches(SPEC, PatchesOptions(2))
    many.fit(images().split([1, 30, 9]))
    assert torch.allclose(one.scale, many.scale) and torch.allclose(one.shift, many.shift)


def test_dequantisation_is_uniform_in_the_bin_of_the_level():
    tokenizer = fitted()
    x = images(2000)
    token = tokenizer.encode(x, stream(1, "test/dequantise", 2000))
    v = (unpatchify(token * tokenizer.scale + tokenizer.shift, (2, 3), 2) + 1) * 17 / 2
    u = (v - x).flatten()
    assert u.min() > -1e-5 and u.max() < 1 + 1e-5
    # 96,000 uniforms: deviations beyond five standard errors would be a different distribution
    assert abs(u.mean().item() - 0.5) < 5 / math.sqrt(12 * len(u))
    assert abs(u.var().item() - 1 / 12) < 5 * math.sqrt(1 / 180 / len(u))
    assert (tokenizer.decode(token) != x).double().mean() < 1e-4  # float32 at the very edge of a bin


def test_without_noise_levels_stand_at_the_middle_of_their_bins():
    tokenizer = fitted()
    v = (unpatchify(tokenizer.encode(images()) * tokenizer.scale + tokenizer.shift, (2, 3), 2) + 1) * 17 / 2
    assert torch.allclose(v, images() + 0.5, atol=1e-5, rtol=0)


def test_the_dequantisation_bound_is_tight_for_the_matching_density():
    """A density that is uniform over the data range gives exactly log(1 / levels^dimensions) for every image."""
    tokenizer = fitted("channel")
    # uniform over [-1, 1] before shift and scale: density 1/2 a dimension, in token units 1/2 · scale
    log_p_tokens = 6 * (tokenizer.scale.double() / 2).log().sum().item()
    assert log_p_tokens + tokenizer.log_jacobian == pytest.approx(-48 * math.log(17), abs=1e-9)


def test_decoding_clamps_to_the_levels_there_are():
    tokenizer = fitted()
    far = torch.full((1, 6, 8), 1e4)
    assert tokenizer.decode(far).unique().tolist() == [16]
    assert tokenizer.decode(-far).unique().tolist() == [0]


@pytest.mark.parametrize(
    ("spec", "patch", "why"),
    [
        (DataSpec((1, 8, 8), 17), 3, r"8x8 .* patches of 3: use tokenizer\.patch=1 or 2 or 4, or images of 6x6 or 9x9"),
        (DataSpec((1, 28, 28), 256), 5, r"patch=2 or 4 or 7, or images of 25x25 or 30x30"),
        (DataSpec((1, 28, 28), 256), 0, r"patch=1 or 2 or 4$"),
        (DataSpec((1, 4, 4), 256), 9, r"patch=1 or 2 or 4, or images of 9x9$"),
        (DataSpec((500,), 256), 2, r"\(C, H, W\)"),
        (DataSpec((1, 8, 8), 0), 2, "2 to 256 integer levels"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_nearest_sizes_that_work(spec, patch, why):
    with pytest.raises(UserError, match=why) as error:
        Patches(spec, PatchesOptions(patch))
    assert "\n" not in str(error.value)


def test_fitting_on_nothing_and_unknown_scales_are_refused():
    with pytest.raises(UserError, match="no training data"):
        Patches(SPEC, PatchesOptions(2)).fit([])
    with pytest.raises(UserError, match="'global' or 'channel'"):
        TOKENIZERS.options("patches", {"patch": 2, "scale": "pixel"})
