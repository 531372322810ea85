"""Claims about every registered tokenizer, on every form of data it serves.

B batch · L tokens · E token channels
"""

from __future__ import annotations

import math

import pytest
import torch

from mar.core.noise import stream
from mar.core.spec import DataSpec
from mar.core.tokens import Categories
from mar.tokenizers import TOKENIZERS

SPECS = {
    "binary": DataSpec((1, 6, 4), 2),
    "digits": DataSpec((1, 8, 8), 17),
    "grey": DataSpec((1, 4, 12), 256),
    "rgb": DataSpec((3, 8, 4), 256),
    "series": DataSpec((1, 1, 12), 65),
}
CASES = [
    ("pixels", "binary", {}),
    ("pixels", "digits", {}),
    ("pixels", "grey", {}),
    ("binary-patches", "binary", {"patch": 1}),
    ("binary-patches", "binary", {"patch": 2}),
    ("patches", "binary", {"patch": 2}),
    ("patches", "digits", {"patch": 1}),
    ("patches", "grey", {"patch": 4, "scale": "channel"}),
    ("patches", "rgb", {"patch": 2}),
    ("patches", "rgb", {"patch": 4, "scale": "channel"}),
    ("sequence", "series", {}),
    ("channels", "digits", {}),
    ("channels", "rgb", {}),
    ("palette", "digits", {}),
    ("palette", "rgb", {"colours": 16}),
]
REAL = {"values", "latents"}  # of real values: tests of their own
LOSSY = {"kl", "vq"}  # tests/tokenizers/test_autoencoders.py
CATEGORICAL = {"pixels", "binary-patches", "sequence", "channels", "palette"}


def images(spec, n=16, seed=0):
    """Random images with structure: dark and little varied on the left, every level on the right."""
    u = stream(seed, "test/images", n).uniform(math.prod(spec.shape)).reshape(n, *spec.shape)
    ramp = torch.linspace(0.1, 1.0, spec.shape[2])
    return (u * ramp * spec.levels).to(torch.uint8)


def make(kind, spec, options):
    cls = TOKENIZERS.find(kind)
    tokenizer = cls(spec, cls.Options(**options))
    tokenizer.fit([images(spec, 16, 1), images(spec, 8, 2)])
    return tokenizer


def over(cases):
    return {"params": cases, "ids": ["-".join([kind, name, *map(str, o.values())]) for kind, name, o in cases]}


@pytest.fixture(**over(CASES))
def case(request):
    kind, name, options = request.param
    tokenizer = make(kind, SPECS[name], options)
    assert isinstance(tokenizer.token, Categories) == (kind in CATEGORICAL)
    return tokenizer, SPECS[name]


@pytest.fixture(**over([case for case in CASES if case[0] in CATEGORICAL]))
def categorical_case(request):
    kind, name, options = request.param
    return make(kind, SPECS[name], options), SPECS[name]


def test_every_registered_tokenizer_is_tested():
    assert {kind for kind, _, _ in CASES} | REAL | LOSSY == set(TOKENIZERS)


def test_decoding_the_encoding_gives_the_data_back_or_data_of_the_same_tokens(case):
    tokenizer, spec = case
    x = images(spec)
    token = tokenizer.encode(x)
    back = tokenizer.decode(token)
    assert back.dtype == x.dtype and back.shape == x.shape
    assert torch.equal(back, x) or not tokenizer.dimensions  # 0: the tokens do not determine the data
    assert torch.equal(tokenizer.encode(back), token)


def test_tokens_have_the_stated_shape_kind_and_range(case):
    tokenizer, spec = case
    token = tokenizer.encode(images(spec), stream(0, "test", 16))
    grid = (16, math.prod(tokenizer.shape))
    if isinstance(tokenizer.token, Categories):
        assert token.shape == grid and token.dtype == torch.int64
        assert int(token.min()) >= 0 and int(token.max()) < tokenizer.token.vocabulary
    else:
        assert token.shape == (*grid, tokenizer.token.width) and token.dtype == torch.float32
    assert tokenizer.dimensions in (math.prod(spec.shape), 0)


def test_every_category_is_a_value_that_survives_decoding(categorical_case):
    tokenizer, _ = categorical_case
    n_tokens = math.prod(tokenizer.shape)
    token = torch.arange(tokenizer.token.vocabulary)[:, None].expand(-1, n_tokens)
    assert torch.equal(tokenizer.encode(tokenizer.decode(token)), token)


def test_the_number_of_joint_values_is_that_of_the_data(categorical_case):
    tokenizer, spec = categorical_case
    if tokenizer.dimensions:
        assert tokenizer.token.vocabulary ** math.prod(tokenizer.shape) == spec.levels**tokenizer.dimensions
    assert tokenizer.log_jacobian == 0.0


def test_a_token_depends_on_its_own_pixels_only_in_row_major_order(case):
    tokenizer, spec = case
    rows, cols = tokenizer.shape[:2] if len(tokenizer.shape) > 1 else (1, *tokenizer.shape)
    high, wide = spec.shape[1] // rows, spec.shape[2] // cols
    x = images(spec, 1)
    before = tokenizer.encode(x)
    for l in range(rows * cols):
        i, j = l // cols * high, l % cols * wide
        changed = x.clone()
        changed[:, :, i : i + high, j : j + wide] = spec.levels - 1 - changed[:, :, i : i + high, j : j + wide]
        differs = (tokenizer.encode(changed) != before).reshape(rows * cols, -1).any(-1)
        assert differs.nonzero().flatten().tolist() in ([l], [])  # []: the mirror image is the same token
    assert bool((tokenizer.encode(spec.levels - 1 - x) != before).any())


def test_tokens_depend_on_the_images_own_noise_never_on_the_batch(case):
    tokenizer, spec = case
    x, noise = images(spec), stream(7, "test/dequantise", 16)
    whole = tokenizer.encode(x, noise)
    assert torch.equal(whole[5:9], tokenizer.encode(x[5:9], noise.rows(slice(5, 9))))
    assert torch.equal(whole, tokenizer.encode(x, noise))
    assert len(tokenizer.encode(x[:0], noise.rows(slice(0, 0)))) == 0


def test_a_saved_tokenizer_is_the_same_without_fitting(case):
    tokenizer, spec = case
    fresh = type(tokenizer)(spec, tokenizer.options if hasattr(tokenizer, "options") else tokenizer.Options())
    fresh.load_state_dict(tokenizer.state_dict())
    assert torch.equal(fresh.encode(images(spec)), tokenizer.encode(images(spec)))
    assert fresh.log_jacobian == tokenizer.log_jacobian
