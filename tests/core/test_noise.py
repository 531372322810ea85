"""The random numbers: the published generator, keyed as promised, uniform and normal.

N streams
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from mar.core.noise import Noise, _philox, _schedule, compile_rounds, derived_seed, stream

ALPHA = 1e-6


def words(key: tuple[int, int], counter: tuple[int, int, int, int]) -> list[int]:
    return [int(word) for word in _philox([torch.tensor([c]) for c in counter], _schedule(key))]


@pytest.mark.parametrize(
    "key, counter, expected",
    [  # Random123, kat_vectors: philox4x32 10
        ((0, 0), (0, 0, 0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 4, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0xA4093822, 0x299F31D0),
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_the_generator_gives_the_published_numbers(key, counter, expected):
    assert words(key, counter) == [int(word, 16) for word in expected.split()]


def test_every_part_of_the_key_gives_another_stream():
    base = Noise(0, "a", torch.tensor([3]), torch.tensor([5]))
    others = [
        Noise(1, "a", torch.tensor([3]), torch.tensor([5])),
        Noise(0, "b", torch.tensor([3]), torch.tensor([5])),
        Noise(0, "a", torch.tensor([4]), torch.tensor([5])),
        Noise(0, "a", torch.tensor([3]), torch.tensor([6])),
        base.at(draw=1),
        base.at("b"),
        Noise(0, "a", torch.tensor([5]), torch.tensor([3])),  # example and token are not interchangeable
    ]
    seen = {tuple(noise.uniform(4)[0].tolist()) for noise in [base, *others]}
    assert len(seen) == 1 + len(others)


def test_the_same_key_gives_the_same_numbers_in_any_batch():
    noise = stream(0, "test", 10)
    index = torch.tensor([7, 2, 2])
    assert torch.equal(noise.uniform(33)[index], stream(0, "test", index).uniform(33))
    assert torch.equal(noise.rows(index).normal(33), noise.normal(33)[index])
    row_M, token_M = torch.tensor([7, 2]), torch.tensor([1, 4])
    alone = noise.rows(slice(2, 3)).tokens(torch.tensor([0]), torch.tensor([4]))
    assert torch.equal(noise.tokens(row_M, token_M).normal(5)[1:], alone.normal(5))


@pytest.mark.parametrize("at_once", [1, 50, 2**20])
def test_many_draws_are_those_made_one_by_one(at_once):
    noise, draws = stream(0, "test", 3).tokens(torch.arange(3), torch.arange(3)), range(12, 0, -1)
    for draw, normal in zip(draws, noise.normals(5, draws, at_once), strict=True):
        assert torch.equal(normal, noise.at(draw=draw).normal(5))


def test_more_numbers_of_a_stream_begin_with_the_fewer():
    noise = stream(3, "test", 2)
    assert torch.equal(noise.uniform(9)[:, :5], noise.uniform(5))


def test_a_token_is_its_own_stream_for_every_row():
    noise = stream(0, "test", 3).tokens(torch.arange(3).repeat_interleave(50), torch.arange(50).repeat(3))
    assert len(noise.uniform(1).unique()) == 150


@pytest.mark.parametrize("axis", ["numbers", "examples", "tokens", "draws"])
def test_numbers_are_uniform_along_every_part_of_the_key(axis):
    n = 100_000
    zeros = torch.zeros(n, dtype=torch.int64)
    uniform = {
        "numbers": lambda: stream(0, "test", 1).uniform(n),
        "examples": lambda: stream(0, "test", n).uniform(1),
        "tokens": lambda: stream(0, "test", 1).tokens(zeros, torch.arange(n)).uniform(1),
        "draws": lambda: torch.cat([stream(0, "test", 1000).at(draw=d).uniform(1) for d in range(n // 1000)]),
    }[axis]()
    u = uniform.flatten().double().numpy()
    assert u.min() >= 0.0 and u.max() < 1.0
    count, _ = np.histogram(u, bins=256, range=(0, 1))
    assert stats.chisquare(count).pvalue > ALPHA
    pairs, _, _ = np.histogram2d(u[0::2], u[1::2], bins=16, range=((0, 1), (0, 1)))
    assert stats.chisquare(pairs.ravel()).pvalue > ALPHA  # neighbours are independent
    low_bits = (u * 2**24).astype(np.int64) & 15
    assert stats.chisquare(np.bincount(low_bits, minlength=16)).pvalue > ALPHA


def test_normals_have_the_normal_distribution_and_are_independent():
    x_N2 = stream(0, "test", 50_000).normal(2).double().numpy()
    assert stats.kstest(x_N2.ravel(), "norm").pvalue > ALPHA
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        standard_error = (variance / x_N2.size) ** 0.5
        assert abs((x_N2**power).mean() - moment) < 5 * standard_error
    assert abs((x_N2[:, 0] * x_N2[:, 1]).mean()) < 5 / len(x_N2) ** 0.5
    squares = (x_N2**2 - 1) / 2**0.5  # a shared radius would correlate these
    assert abs((squares[:, 0] * squares[:, 1]).mean()) < 5 / len(x_N2) ** 0.5


def test_normals_are_finite_at_every_value_of_a_uniform():
    assert bool(stream(1, "test", 200_000).normal(3).isfinite().all())


def test_derived_seeds_differ_and_fit_in_63_bits():
    seeds = {derived_seed(part, n) for part in ("a", "b") for n in range(100)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.slow
def test_the_compiled_generator_makes_the_same_bits():
    keys = Noise(3, "x", torch.arange(7), torch.arange(7) * 5, draw=2), stream(1, "y", 1)
    plain = [noise.uniform(9) for noise in keys]
    compile_rounds()
    try:
        assert all(torch.equal(noise.uniform(9), expected) for noise, expected in zip(keys, plain, strict=True))
    finally:
        compile_rounds(False)
