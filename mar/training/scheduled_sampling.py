"""Scheduled sampling: in training, some of the known tokens are the model's own instead of the data's.

B batch · L tokens · C condition width · M gathered tokens · D width

Bengio et al. 2015 (arXiv 1506.03099) replace the previous token of a recurrent network by a draw, one after the other.
For any order and any set sizes all draws of an example are made at once, as in the two passes of Mihaylova & Martins
2019 (arXiv 1906.07651):

1. Every known token is chosen with a probability, by a coin of its own.
2. One forward pass, without gradients and without dropout, at temperature 1. In a network that needs a pass per step
   the known tokens are one set: the chosen ones are drawn independently of each other, given those that were not chosen
   and the class. In a one-pass network known tokens have steps of their own: each is drawn given the class and the
   data's tokens of earlier steps, chosen or not.
3. The network reads the draws in place of the chosen tokens. What is scored, and with what weight, stays the data's.

The loss then estimates no likelihood of the data's conditionals, and its minimum is not at them (Huszár 2015, arXiv
1511.05101): validation, which replaces nothing, and mar score keep their meaning.
"""

from __future__ import annotations

import torch

from mar.model import Model
from mar.noise import Noise
from mar.training.objective import Task
from orderings import ABSENT, GIVEN


@torch.no_grad()
def with_own_draws(
    model: Model,
    token: torch.Tensor,
    label_B: torch.Tensor,
    drop_B: torch.Tensor,
    task: Task,
    probability: float,
    noise: Noise,
) -> torch.Tensor:
    """``token``, some of the known ones replaced.

    Args:
        model: in training mode, in which it is left.
        token: (B, L) or (B, L, E), the data's.
        label_B, drop_B: classes, and the rows that lose theirs, as the task is trained.
        task: what is known, what is scored.
        probability: of each known token to be replaced.
        noise: one stream per row.
    """
    step_BL, known_BL = _known(task, model.network.one_pass)
    chosen_BL = known_BL & (noise.at("which").uniform(known_BL.shape[1]) < probability)
    if not bool(chosen_BL.any()):
        return token
    step_BL = torch.where(chosen_BL & (step_BL == GIVEN), 0, step_BL)
    model.eval()
    z_MD = model.context(token, step_BL, model.condition(label_B, drop_B), chosen_BL)
    drawn = model.head.sample(z_MD, noise.at("draw").tokens(*chosen_BL.nonzero(as_tuple=True)))
    model.train()
    seen = token.clone()
    seen[chosen_BL] = drawn.to(token.dtype)
    return seen


def _known(task: Task, one_pass: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(step_BL, known_BL): the steps of the drawing pass, and the tokens that some target is predicted from.

    A network that needs a pass per step knows one set, GIVEN, against the rest.
    """
    step_BL = task.step_BL
    if one_pass:
        last_B1 = torch.where(task.target_BL, step_BL, GIVEN).amax(1, keepdim=True)
        return step_BL, step_BL < last_B1
    now_B1 = torch.where(task.target_BL, step_BL, ABSENT).amin(1, keepdim=True)
    known_BL = step_BL < now_B1
    return torch.where(known_BL, GIVEN, torch.where(step_BL == ABSENT, ABSENT, 0)), known_BL
