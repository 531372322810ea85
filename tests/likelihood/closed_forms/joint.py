"""Joint distributions of which every marginal and every conditional is known, and what a plan's likelihood must be.

B batch · L tokens · E token channels · D context width · M gathered tokens · R rows · V vocabulary

The conditionals (what a model is given) and the marginals (what it is checked against) come from different algorithms.
"""

from __future__ import annotations

from functools import cached_property

import torch

from mar.core.noise import Noise
from mar.core.tokens import Categories, TokenKind
from mar.heads.base import Head
from mar.heads.categorical import CategoricalHead, CategoricalOptions
from orderings import ABSENT, GIVEN, Plan


class Joint:
    """``shape`` is the grid's; ``width`` is D, of the parameters that ``head`` reads."""

    shape: tuple[int, ...]
    token: TokenKind
    width: int

    def sample(self, noise: Noise) -> torch.Tensor:
        """Exact samples, one for each stream: (N, L) int64 or (N, L, E) float64."""
        raise NotImplementedError

    def log_marginal(self, token: torch.Tensor, known_RL: torch.Tensor) -> torch.Tensor:
        """nats_R (float64): log p(x_known), everything else summed or integrated out."""
        raise NotImplementedError

    def conditionals(self, token: torch.Tensor, known_ML: torch.Tensor, index_M: torch.Tensor) -> torch.Tensor:
        """z_MD: the parameters of p(x_l | x_known), one row of tokens, known and l for each."""
        raise NotImplementedError

    def head(self) -> Head:
        """A head of the project that reads ``conditionals`` as they are."""
        raise NotImplementedError

    def entropy(self, known_L: torch.Tensor) -> torch.Tensor:
        """Nats: of the joint of some tokens, where it has a closed form."""
        raise NotImplementedError

    def total_correlation(self, past_L: torch.Tensor, set_L: torch.Tensor) -> torch.Tensor:
        """Nats: the conditional total correlation of a set given the past, where it has a closed form."""
        raise NotImplementedError


class Enumerated(Joint):
    """A discrete joint, small enough to list: (V, V, …, V) log-probabilities, one dimension for each token."""

    token: Categories

    def log_probability(self, token_BL: torch.Tensor) -> torch.Tensor:
        """nats_B (float64) of whole grids."""
        raise NotImplementedError

    @property
    def width(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.token.vocabulary

    @cached_property
    def everything(self) -> torch.Tensor:
        """(V^L, L): every grid, the last token fastest."""
        n_tokens = int(torch.tensor(self.shape).prod())
        return torch.cartesian_prod(*[torch.arange(self.token.vocabulary)] * n_tokens)

    @cached_property
    def log_table(self) -> torch.Tensor:
        """(V + 1, …, V + 1): the log-probability of every partial grid; V in a dimension means "summed out"."""
        n_tokens = self.everything.shape[1]
        table = self.log_probability(self.everything).reshape([self.token.vocabulary] * n_tokens)
        for dim in range(n_tokens):
            table = torch.cat([table, table.logsumexp(dim, keepdim=True)], dim)
        return table

    def sample(self, noise: Noise) -> torch.Tensor:
        cumulative = self.log_probability(self.everything).exp().cumsum(0)
        coarse_N, fine_N = noise.uniform(2).double().unbind(1)
        index_N = torch.searchsorted(cumulative, (coarse_N + fine_N * 2.0**-24) * cumulative[-1], right=True)
        return self.everything[index_N]

    def log_marginal(self, token: torch.Tensor, known_RL: torch.Tensor) -> torch.Tensor:
        return self.log_table[torch.where(known_RL, token, self.token.vocabulary).unbind(1)]

    def entropy(self, known_L: torch.Tensor) -> torch.Tensor:
        index = tuple(slice(0, -1) if known else -1 for known in known_L.tolist())
        log_p = self.log_table[index]
        return -(log_p.exp() * log_p).sum()

    def total_correlation(self, past_L: torch.Tensor, set_L: torch.Tensor) -> torch.Tensor:
        """The sum over the set of H(x_l | past), minus H(x_set | past)."""
        before = self.entropy(past_L)
        singles = [self.entropy(past_L | one_L) - before for one_L in torch.eye(len(set_L)).bool()[set_L]]
        return torch.stack(singles).sum() - (self.entropy(past_L | set_L) - before)

    def head(self) -> Head:
        """A softmax of the context vector itself."""
        head = CategoricalHead(self.width, self.token, CategoricalOptions())
        set_linear(head.logits, torch.eye(self.width))
        return head


def set_linear(linear: torch.nn.Linear, weight: torch.Tensor) -> None:
    """Make a layer this matrix, without bias."""
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.zero_()


def joint_nll(joint: Joint, token: torch.Tensor, plan: Plan) -> torch.Tensor:
    """nats_B: -log p(scored tokens | given tokens), absent ones left out of the joint."""
    given_BL = plan.step_BL == GIVEN
    return joint.log_marginal(token, given_BL) - joint.log_marginal(token, plan.step_BL != ABSENT)


def factorised_nll(joint: Joint, token: torch.Tensor, plan: Plan) -> torch.Tensor:
    """nats_BL: -log p(x_l | everything of an earlier step), as a ratio of marginals; 0 where nothing is scored."""
    row_M, index_M = plan.scored_BL.nonzero(as_tuple=True)
    past_ML = plan.step_BL[row_M] < plan.step_BL[row_M, index_M][:, None]
    with_it_ML = past_ML.clone()
    with_it_ML[torch.arange(len(index_M)), index_M] = True
    nats_M = joint.log_marginal(token[row_M], past_ML) - joint.log_marginal(token[row_M], with_it_ML)
    return torch.zeros(plan.step_BL.shape, dtype=nats_M.dtype).index_put((row_M, index_M), nats_M)


def total_correlation(joint: Joint, plan: Plan) -> torch.Tensor:
    """nats_B: the sum over sets of the conditional total correlations, what each row's plan costs in expectation."""
    return torch.stack(
        [
            sum((joint.total_correlation(step_L < k, step_L == k) for k in range(int(n))), torch.zeros(()).double())
            for step_L, n in zip(plan.step_BL, plan.n_steps_B, strict=True)
        ]
    )
