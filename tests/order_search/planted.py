"""A model with the exact conditionals of a scrambled tree, for which the best order in sets is known.

L tokens · M gathered tokens
"""

from __future__ import annotations

from functools import cache

import torch

from mar.core.noise import stream
from mar.core.tokens import Categories
from mar.model.model import Model
from mar.order_search.moves import Evaluator
from orderings import parse_partition
from tests.likelihood.closed_forms.joint import Enumerated
from tests.likelihood.closed_forms.plugged import OnePass, PassPerStep, plugged
from tests.synthetic import Tree

TREE = Tree(3, 4, 3, 0.05, seed=1)


class TreeTokens(Enumerated):
    """The tree's tokens; conditionals are ratios of marginals."""

    shape, token = (TREE.rows, TREE.cols), Categories(2)

    def log_probability(self, token_BL: torch.Tensor) -> torch.Tensor:
        return TREE.log_probability(token_BL.reshape(-1, 1, *self.shape))

    def conditionals(self, token: torch.Tensor, known_ML: torch.Tensor, index_M: torch.Tensor) -> torch.Tensor:
        asked_ML = torch.nn.functional.one_hot(index_M, known_ML.shape[1]).bool()
        return torch.stack([
            self.log_marginal(torch.where(asked_ML, value, token), known_ML | asked_ML) for value in (0, 1)
        ], 1)  # fmt: skip


@cache
def joint() -> TreeTokens:
    return TreeTokens()


def model(one_pass: bool = False) -> Model:
    return plugged(joint(), OnePass if one_pass else PassPerStep)


def samples(n: int, seed: int = 0) -> torch.Tensor:
    """(N, L): exact samples of the tree."""
    return TREE.sample(stream(seed, "test", n)).flatten(1).long()


def evaluator(n: int = 400, partition: str = "", one_pass: bool = False) -> Evaluator:
    """On samples, in the tree's best sizes unless another partition is given."""
    sizes = partition or f"sizes:{','.join(map(str, TREE.best_sizes))}"
    return Evaluator(model(one_pass), samples(n), None, parse_partition(sizes))


def generations(order_L: torch.Tensor) -> list[set[int]]:
    """The sets of sites that an order makes of the tree's best sizes."""
    return [set(sites.tolist()) for sites in order_L.split(list(TREE.best_sizes))]
