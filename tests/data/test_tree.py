from __future__ import annotations

import itertools
import math

import pytest
import torch
from scipy.stats import chisquare

from mar.core.errors import UserError
from mar.core.noise import stream
from tests.synthetic import NoisyTree, Tree, TreeOptions

SMALL = Tree(3, 3, 2, 0.2, seed=1)
UNIQUE = Tree(3, 4, 3, 0.1)


def grids(tree: Tree) -> torch.Tensor:
    n = tree.rows * tree.cols
    return torch.cartesian_prod(*[torch.arange(2)] * n).reshape(-1, 1, tree.rows, tree.cols)


def excess(tree: Tree, groups: list[list[int]]) -> float:
    """Nats lost by generating these sets of sites one after the other: summed conditional total correlation."""
    x, p = grids(tree).flatten(1), tree.log_probability(grids(tree)).exp()

    def entropy(sites: list[int]) -> float:
        number = (x[:, sites] << torch.arange(len(sites))).sum(1)
        mass = torch.zeros(2 ** len(sites), dtype=torch.float64).index_add_(0, number, p)
        return float(-(mass * mass.log()).sum())

    known, lost = [], 0.0
    for group in groups:
        lost += sum(entropy([*known, site]) - entropy(known) for site in group)
        lost -= entropy([*known, *group]) - entropy(known)
        known += group
    return lost


def test_probabilities_sum_to_one_and_their_entropy_is_the_closed_form():
    log_p = SMALL.log_probability(grids(SMALL))
    assert log_p.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    assert -(log_p.exp() * log_p).sum().item() == pytest.approx(SMALL.entropy, abs=1e-12)


def test_probabilities_are_those_of_the_tree_written_out():
    tree = Tree(1, 4, 2, 0.3, seed=5)  # root, two children, a leaf of the first child
    for tokens in itertools.product((0, 1), repeat=4):
        root, first, second, leaf = tokens
        by_hand = 0.5
        for parent, child in ((root, first), (root, second), (first, leaf)):
            by_hand *= 0.3 if parent != child else 0.7
        x = torch.zeros(4, dtype=torch.uint8)
        x[tree.site_L] = torch.tensor(tokens, dtype=torch.uint8)
        assert tree.log_probability(x.reshape(1, 1, 1, 4)).item() == pytest.approx(math.log(by_hand), abs=1e-12)


def test_samples_follow_the_probabilities():
    tree = Tree(2, 3, 2, 0.25, seed=2)
    x = tree.sample(stream(3, "test", 20_000)).flatten(1).long()
    number = (x << torch.arange(5, -1, -1)).sum(1)
    expected = tree.log_probability(grids(tree)).exp() * len(x)
    assert chisquare(number.bincount(minlength=64).numpy(), expected.numpy()).pvalue > 1e-6


def test_the_best_order_loses_nothing_in_sets():
    for tree in (SMALL, UNIQUE, Tree(1, 5, 4, 0.1)):
        groups = [sites.tolist() for sites in tree.site_L.split(list(tree.best_sizes))]
        assert excess(tree, groups) == pytest.approx(0.0, abs=1e-9)
        assert torch.equal(tree.best_rank_L[tree.site_L], torch.arange(tree.rows * tree.cols))


def test_exchanging_any_two_tokens_of_different_sets_loses_something():
    sizes = list(UNIQUE.best_sizes)
    set_L = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    for i, j in itertools.combinations(range(12), 2):
        if set_L[i] != set_L[j]:
            sites = UNIQUE.site_L.clone()
            sites[i], sites[j] = UNIQUE.site_L[j], UNIQUE.site_L[i]
            assert excess(UNIQUE, [group.tolist() for group in sites.split(sizes)]) > 0.01


def test_another_scramble_is_another_order_and_another_data_set():
    first, second = (NoisyTree.distribution(TreeOptions(scramble=k)) for k in (0, 1))
    assert sorted(first.site_L.tolist()) == list(range(16)) and not torch.equal(first.site_L, second.site_L)
    assert NoisyTree.load(TreeOptions(n=8)).fingerprint != NoisyTree.load(TreeOptions(n=8, scramble=1)).fingerprint


@pytest.mark.parametrize("changes", [{"children": 16}, {"children": 0}, {"flip": 0.0}, {"flip": 1.0}, {"n": 3}])
def test_impossible_trees_are_refused(changes):
    with pytest.raises(UserError, match=r"data\.(children|flip|n) "):
        TreeOptions(**changes)
