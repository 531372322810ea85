"""The training loss of a model with a learned order: the model and its policies under one bound.

B batch · L tokens
"""

from __future__ import annotations

import torch

from mar.noise import Noise
from mar.order_search.learned import negative_bound
from mar.training.objective import Objective, Task
from orderings import ABSENT


class LearnedOrder(Objective):
    """Of the task only the number of known tokens is read: the posterior over orders draws which."""

    def forward(
        self,
        token: torch.Tensor,
        label_B: torch.Tensor,
        drop_B: torch.Tensor,
        task: Task,
        noise: Noise,
    ) -> torch.Tensor:
        """loss_B: L times each row's term of the bound (divide by the global denominator, of all tokens)."""
        condition_BC = self.model.condition(label_B, drop_B)
        n_B = (task.step_BL != ABSENT).sum(1)
        known_B = n_B - task.target_BL.sum(1)
        return n_B * negative_bound(self.model, token, condition_BC, known_B, noise)
