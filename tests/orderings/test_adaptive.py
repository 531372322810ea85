"""Adaptive orders: the next set from scores."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from orderings import ADAPTIVE, InvalidRequest, PlanSpec, parse_adaptive
from orderings.adaptive import HighestEntropy, LowestEntropy
from orderings.partitions import Cosine, Singles
from tests.orderings import cases

INF = float("inf")
SCORE = torch.tensor([[3.0, 1.0, 2.0, 1.0, 0.0], [INF, -INF, 0.0, INF, INF]])
UNKNOWN = torch.tensor([[True, True, True, True, False], [True, False, False, True, True]])


def chosen(text: str, sizes: list[int], **more) -> list[list[int]]:
    target_BL = parse_adaptive(text).next_set(SCORE, UNKNOWN, torch.tensor(sizes), **more)
    return [row.nonzero()[:, 0].tolist() for row in target_BL]


@pytest.mark.parametrize(
    ("text", "sizes", "by_hand"),
    [
        ("lowest-entropy", [1, 1], [[1], [0]]),  # a tie: the first token
        ("lowest-entropy", [3, 2], [[1, 2, 3], [0, 3]]),
        ("highest-entropy", [1, 2], [[0], [0, 3]]),
        ("highest-entropy", [2, 9], [[0, 2], [0, 3, 4]]),  # fewer remain than asked for
        ("confidence:0", [2, 0], [[0, 2], []]),
        ("lowest-entropy", [0, 3], [[], [0, 3, 4]]),
        ("largest-margin", [1, 2], [[0], [0, 3]]),
        ("entropy-bound:0", [1, 1], [[1], [0]]),
        ("entropy-bound:1", [1, 1], [[1, 3], [0]]),  # 1 | + 1 beside it | 2 would lie above; infinite ones come alone
        ("entropy-bound:2", [1, 0], [[1, 2, 3], []]),
    ],
)
def test_next_sets_written_out_by_hand(text, sizes, by_hand):
    assert chosen(text, sizes) == by_hand


@given(st.integers(0, 10**6), st.integers(1, 12))
def test_every_rule_takes_as_many_unknown_tokens_as_asked(seed, length):
    rng = torch.Generator().manual_seed(seed)
    score_BL = torch.randint(0, 3, (4, length), generator=rng).float()  # many ties
    unknown_BL = torch.rand(4, length, generator=rng) < 0.6
    size_B = torch.randint(0, length + 2, (4,), generator=rng)
    for rule in (rule for rule in ADAPTIVE.values() if not rule.sizes_itself):
        target_BL = rule().next_set(score_BL, unknown_BL, size_B, 0.5, cases.noise(4, seed))
        assert not (target_BL & ~unknown_BL).any()
        assert torch.equal(target_BL.sum(1), torch.minimum(size_B, unknown_BL.sum(1)))


@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_scores_of_known_tokens_play_no_part(name):
    rule, size_B = ADAPTIVE[name](), torch.tensor([2, 2])
    changed = torch.where(UNKNOWN, SCORE, torch.tensor(-7.0))
    for progress in (0.2, 1.0):
        first = rule.next_set(SCORE, UNKNOWN, size_B, progress, cases.noise(2))
        assert torch.equal(first, rule.next_set(changed, UNKNOWN, size_B, progress, cases.noise(2)))


def test_only_the_rule_that_sees_sampled_values_says_so():
    assert {name for name, rule in ADAPTIVE.items() if rule.uses_sampled_values} == {"confidence"}


def test_confidence_noise_draws_by_the_softmax_of_the_scores():
    """Gumbel: the largest of score + temperature · noise is a draw with probability ∝ exp(score / temperature)."""
    batch, probability = 20_000, torch.tensor([0.5, 0.3, 0.2])
    score_BL = 2.0 * probability.log().expand(batch, -1)
    rule = parse_adaptive("confidence:4")  # at half way the noise is halved: temperature 2
    target_BL = rule.next_set(
        score_BL, torch.ones(batch, 3, dtype=torch.bool), torch.ones(batch).long(), 0.5, cases.noise(batch)
    )
    assert chisquare(target_BL.sum(0).numpy(), (batch * probability).double().numpy()).pvalue > 1e-6


def test_confidence_noise_fades_to_nothing_and_needs_a_generator_before():
    assert chosen("confidence", [1, 1], progress=1.0) == [[0], [0]]
    with pytest.raises(ValueError, match="needs a generator"):
        chosen("confidence", [1, 1], progress=0.5)
    with pytest.raises(InvalidRequest, match="temperature is at least 0, not -1"):
        parse_adaptive("confidence:-1")


def test_rules_that_see_known_tokens_alone_are_written_like_plans():
    assert PlanSpec.parse("lowest-entropy", adaptive=True) == (LowestEntropy(), Singles())
    assert PlanSpec.parse(" Highest_Entropy/cosine:16 ", adaptive=True) == (HighestEntropy(), Cosine(16))
    assert str(PlanSpec.parse("lowest-entropy/cosine:16", adaptive=True)) == "lowest-entropy/cosine:16"
    assert PlanSpec.parse("spiral/cosine:16", adaptive=True) == PlanSpec.parse("spiral/cosine:16")
    with pytest.raises(InvalidRequest, match="confidence is no plan: it looks at the values just sampled"):
        PlanSpec.parse("confidence:2/cosine:16", adaptive=True)
    with pytest.raises(InvalidRequest, match="an order for each image; mar sample --adaptive lowest-entropy"):
        PlanSpec.parse("lowest-entropy/cosine:16")
