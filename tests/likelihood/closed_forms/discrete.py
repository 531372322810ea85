"""A Markov chain and an Ising model.

B batch · L tokens · M gathered tokens · V vocabulary · X every grid, V^L
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from mar.core.tokens import Categories
from tests.likelihood.closed_forms.joint import Enumerated
from tests.synthetic import Ising


class MarkovChain(Enumerated):
    """p(x) = start[x_0] prod_l move[x_{l-1}, x_l]; conditionals by forward and backward messages."""

    shape, token = (7,), Categories(3)
    start_V = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    move_VV = torch.tensor([[0.7, 0.2, 0.1], [0.05, 0.8, 0.15], [0.45, 0.05, 0.5]], dtype=torch.float64)

    def log_probability(self, token_BL: torch.Tensor) -> torch.Tensor:
        moves_BL = self.move_VV[token_BL[:, :-1], token_BL[:, 1:]]
        return self.start_V[token_BL[:, 0]].log() + moves_BL.log().sum(1)

    def conditionals(self, token: torch.Tensor, known_ML: torch.Tensor, index_M: torch.Tensor) -> torch.Tensor:
        allowed_MLV = torch.where(known_ML[..., None], F.one_hot(token, 3), 1).double()
        n_tokens = known_ML.shape[1]
        forward, backward = [self.start_V.expand(len(index_M), 3)], [torch.ones(len(index_M), 3).double()]
        for step in range(n_tokens - 1):
            forward.append((forward[-1] * allowed_MLV[:, step]) @ self.move_VV)
            backward.insert(0, (backward[0] * allowed_MLV[:, n_tokens - 1 - step]) @ self.move_VV.T)
        p_MLV = torch.stack(forward, 1) * torch.stack(backward, 1)
        return p_MLV[torch.arange(len(index_M)), index_M].log()


class IsingModel(Enumerated):
    """Spins on a square; conditionals by summing over every grid that agrees with what is known."""

    shape, token = (3, 3), Categories(2)
    ising = Ising(3, 3, coupling=0.45, field=0.15)

    def log_probability(self, token_BL: torch.Tensor) -> torch.Tensor:
        return self.ising.log_probability(token_BL.reshape(-1, 1, *self.shape))

    def conditionals(self, token: torch.Tensor, known_ML: torch.Tensor, index_M: torch.Tensor) -> torch.Tensor:
        grids_XL, p_X = self.everything, self.log_probability(self.everything).exp()
        agrees_MX = (~known_ML[:, None] | (grids_XL == token[:, None])).all(-1)
        value_MX = grids_XL.T[index_M]
        return torch.stack([(agrees_MX & (value_MX == v)).double() @ p_X for v in range(2)], 1).log()
