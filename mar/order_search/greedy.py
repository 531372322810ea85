"""A fixed order set by set: the tokens that are the surest on average, or the least sure, given those chosen before.

L tokens · K AR steps
"""

from __future__ import annotations

import torch

from mar.order_search.costs import Evaluator


def greedy(evaluator: Evaluator, image_N: torch.Tensor, lowest: bool = True) -> torch.Tensor:
    """order_L: each next set holds the unknown tokens of lowest (or highest) mean -log p given the sets before it.

    The mean over images of -log p(x_l | known) is the cross-entropy of the model's conditional at l: it estimates the
    conditional entropy, and holds for every head that has a likelihood. Ties go to the first token. One step costs one
    step of the chain, so the whole order costs as much as one scoring of the images.
    """
    order_L = torch.arange(len(evaluator.step_of_rank_L))
    for step in range(evaluator.n_steps):
        known = int((evaluator.step_of_rank_L < step).sum())
        nats_L = evaluator.candidates(order_L, image_N, step)
        rest = order_L[known:].sort().values
        by_nats = torch.argsort(nats_L[rest] if lowest else -nats_L[rest], stable=True)
        order_L = torch.cat([order_L[:known], rest[by_nats]])  # the set, and after it what remains
    return order_L
