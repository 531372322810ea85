"""Training objectives: the tokens that are known, the targets, their weights and the loss.

B batch · L tokens · K AR steps · M gathered tokens · C condition width · D context width

An objective turns a plan into a task for each row (``task``) and computes the loss (``loss``).

Scheduled sampling (Bengio et al. 2015, arXiv 1506.03099) replaces some known tokens with the model's own samples, all
drawn in one extra pass (Mihaylova & Martins 2019, arXiv 1906.07651) without gradients and dropout, at temperature 1:

- a network that needs one pass per step draws them independently, given the known tokens that are not replaced;
- a one-pass network draws each given the data's tokens of earlier steps, replaced or not.

Targets and weights remain those of the data. The loss then estimates no likelihood, and its minimum is not at the
data's conditionals (Huszár 2015, arXiv 1511.05101). Validation replaces no tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from mar.core.errors import UserError
from mar.core.noise import Noise
from mar.core.options import Registry
from mar.model.model import Model
from mar.order_search.learned import negative_bound
from orderings import ABSENT, GIVEN, Ordering, Plan

_GOLDEN = 0.6180339887498949  # its multiples modulo 1 are evenly spread over any run of consecutive rows


@dataclass(frozen=True)
class Task:
    """``loss = sum over targets of weight * loss_M / denominator``, in nats per token where the head's loss is."""

    step_BL: torch.Tensor  # the network's input: GIVEN (known), 0.. (targets and later), ABSENT
    target_BL: torch.Tensor  # bool, the scored tokens
    weight_B: torch.Tensor  # weight of every target of a row
    denominator: float  # this batch's share of the global denominator

    def to(self, device: torch.device | str) -> Task:
        return Task(self.step_BL.to(device), self.target_BL.to(device), self.weight_B.to(device), self.denominator)


@dataclass(frozen=True)
class Objective:
    """Base class. The fields of a subclass are its options in a recipe."""

    def warnings(self) -> tuple[str, ...]:
        """Caveats for likelihoods of a model trained with this objective."""
        return ()

    def estimates_nll(self, ordering: Ordering) -> bool:
        """True if the mean loss estimates the NLL (averaged over orders), given a head whose loss is an NLL."""
        return False

    def task(self, plan: Plan, position_B: torch.Tensor, iteration: Noise, one_pass: bool) -> Task:
        """Return the task of each row of the plan.

        Args:
            position_B: the rows' positions in the global batch.
            iteration: a single stream, the same on every process.
            one_pass: the network returns every conditional of a plan at once.
        """
        raise NotImplementedError

    def loss(
        self, model: Model, token: torch.Tensor, label_B: torch.Tensor, drop_B: torch.Tensor, task: Task, noise: Noise,
        seen: torch.Tensor | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Return loss_B: each row's weighted sum of its targets' losses (divide by the global denominator).

        Args:
            token: (B, L) or (B, L, E).
            label_B: classes; negative: no class.
            drop_B: bool, rows whose class is replaced by the null condition.
            noise: one stream per row.
            seen: network input in place of ``token``; the targets remain those of ``token``.
        """
        row_M, token_M = task.target_BL.nonzero(as_tuple=True)  # waits for a GPU: before there is work on it
        x_M = token[row_M, token_M]
        z_MD = model(token if seen is None else seen, task.step_BL, label_B, drop_B, task.target_BL)
        loss_M = model.head.loss(z_MD, x_M, noise.tokens(row_M, token_M))
        return torch.zeros_like(task.weight_B).index_add(0, row_M, loss_M.float()) * task.weight_B


@dataclass(frozen=True)
class AnyOrder(Objective):
    """The number of known tokens k is uniform over 0..n-1; every unknown token is a target with weight n/(n-k).

    With random orders this estimates E_sigma[NLL] (Uria et al. 2014, eq. 8; Hoogeboom et al. 2022, eq. 5). With a fixed
    order it is a suffix loss and estimates no NLL.
    """

    targets: Literal["all", "next"] = "all"  # every unknown token, or the next one in the order

    def estimates_nll(self, ordering: Ordering) -> bool:
        return ordering.random or self.targets == "next"

    def task(self, plan: Plan, position_B: torch.Tensor, iteration: Noise, one_pass: bool) -> Task:
        n_B = plan.scored_BL.sum(1)
        known_B = _spread_uniform(position_B, iteration, n_B)
        step_BL, target_BL = _known_first(plan, known_B, one_pass)
        weight_B = n_B / (n_B - known_B).clamp(min=1).double()
        if self.targets == "next":
            target_BL, weight_B = target_BL & (plan.rank_BL == known_B[:, None]), n_B
        return Task(step_BL, target_BL, weight_B.float(), float(n_B.sum()))


@dataclass(frozen=True)
class MarMasking(Objective):
    """Li et al. 2024, Sec. 4.2: rate ~ N(mean, std) cut to [low, high]; ceil(L rate) tokens are masked; the loss is the
    mean over these. It estimates no NLL, and the late conditionals are never trained."""

    mean: float = 1.0
    std: float = 0.25
    low: float = 0.7
    high: float = 1.0
    # One rate for the whole batch (true), for each row (false), or for groups of rows: MAR's code draws one in each
    # process, so its batch in a process is the published value. The default does not depend on the number of processes.
    per_batch: bool | int = True

    def __post_init__(self) -> None:
        if not isinstance(self.per_batch, bool) and self.per_batch < 1:
            raise UserError(
                f"objective mar_masking wants per_batch=true, false or a number of rows, not {self.per_batch}"
            )
        if not (0.0 <= self.low < self.high <= 1.0 and self.std > 0):
            raise UserError(f"objective mar_masking wants 0 <= low < high <= 1 and std > 0, not {self}")

    def warnings(self) -> tuple[str, ...]:
        return (
            f"trained with at least {100 * self.low:.0f} % of the tokens masked, so the late conditionals were never "
            "trained: this NLL says little about the samples; score likelihoods of runs with train.objective=any_order",
        )

    def task(self, plan: Plan, position_B: torch.Tensor, iteration: Noise, one_pass: bool) -> Task:
        if self.per_batch is True:
            position_B = torch.zeros_like(position_B)
        elif self.per_batch is not False:
            position_B = position_B // self.per_batch
        u_B = torch.frac(iteration.uniform(1)[0].double() + position_B.double() * _GOLDEN)
        normal = torch.distributions.Normal(self.mean, self.std)
        low, high = (normal.cdf(torch.tensor(x, dtype=torch.float64)) for x in (self.low, self.high))
        rate_B = normal.icdf(low + u_B * (high - low)).clamp(self.low, self.high)
        n_B = plan.scored_BL.sum(1)
        masked_B = torch.minimum((n_B * rate_B).ceil().long().clamp(min=1), n_B)
        step_BL, unknown_BL = _known_first(plan, n_B - masked_B, one_pass)
        return Task(step_BL, unknown_BL, torch.ones(len(n_B)), float(masked_B.sum()))


@dataclass(frozen=True)
class NextSet(Objective):
    """The step s is uniform over the K steps of the plan, the targets are its set, the weight is K: the NLL of that
    plan. A one-pass network scores all steps at once with weight 1."""

    def estimates_nll(self, ordering: Ordering) -> bool:
        return True

    def task(self, plan: Plan, position_B: torch.Tensor, iteration: Noise, one_pass: bool) -> Task:
        denominator = float(plan.scored_BL.sum())
        if one_pass:
            return Task(plan.step_BL, plan.scored_BL, torch.ones(len(position_B)), denominator)
        step_B = _spread_uniform(position_B, iteration, plan.n_steps_B)
        return Task(plan.step_BL, plan.target(step_B), plan.n_steps_B.float(), denominator)


def _spread_uniform(position_B: torch.Tensor, iteration: Noise, n_B: torch.Tensor) -> torch.Tensor:
    """Draw one of 0..n-1 for each row: uniform, evenly spread over the rows of a batch to lower the variance."""
    u_B = torch.frac(iteration.uniform(1)[0].double() + position_B.double() * _GOLDEN)
    return torch.minimum((u_B * n_B).long(), (n_B - 1).clamp(min=0))


def _known_first(plan: Plan, known_B: torch.Tensor, one_pass: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return step_BL with the first ``known_B`` tokens GIVEN and the others 0, and the others that are scored.

    The contexts of a one-pass network may depend on the order of known tokens (a recurrent network's do). There known
    tokens keep their steps, so that training and scoring use the same conditionals.
    """
    known_BL, after_B1 = (plan.step_BL, plan.n_steps_B[:, None]) if one_pass else (GIVEN, 0)
    first_BL = plan.rank_BL < known_B[:, None]
    step_BL = torch.where(plan.step_BL == ABSENT, ABSENT, torch.where(first_BL, known_BL, after_B1))
    return step_BL, plan.scored_BL & ~first_BL


@dataclass(frozen=True)
class LearnedOrder(AnyOrder):
    """The bound of LO-ARM (``ordering=learned``). The task gives the number of known tokens; the posterior over orders
    draws them."""

    def loss(
        self, model: Model, token: torch.Tensor, label_B: torch.Tensor, drop_B: torch.Tensor, task: Task, noise: Noise,
        seen: torch.Tensor | None = None,
    ) -> torch.Tensor:  # fmt: skip
        """Return loss_B: L times each row's term of the bound."""
        n_B = (task.step_BL != ABSENT).sum(1)
        known_B = n_B - task.target_BL.sum(1)
        return n_B * negative_bound(model, token, model.condition(label_B, drop_B), known_B, noise)


OBJECTIVES = Registry(
    {"any_order": AnyOrder, "next_set": NextSet, "mar_masking": MarMasking},
    what="objective", base=Objective, group="mar.objectives",
)  # fmt: skip


class Losses(nn.Module):
    """An objective's loss as a module: a data-parallel wrapper sees one forward pass. Arguments: as ``loss``."""

    def __init__(self, model: Model, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(
        self, token: torch.Tensor, label_B: torch.Tensor, drop_B: torch.Tensor, task: Task, *rest: Any
    ) -> torch.Tensor:
        return self.objective.loss(self.model, token, label_B, drop_B, task.to(token.device), *rest)


@torch.no_grad()
def replace_with_model_samples(
    model: Model, token: torch.Tensor, label_B: torch.Tensor, drop_B: torch.Tensor, task: Task, probability: float,
    noise: Noise,
) -> torch.Tensor:  # fmt: skip
    """Return ``token`` with each known token replaced by a sample of the model, independently with a probability.

    Arguments: as in ``Objective.loss``. The model is in training mode before and after the call.
    """
    step_BL, known_BL = _known(task.to(token.device), model.network.one_pass)
    chosen_BL = known_BL & (noise.at("which").uniform(known_BL.shape[1]) < probability)
    if not bool(chosen_BL.any()):
        return token
    step_BL = torch.where(chosen_BL & (step_BL == GIVEN), 0, step_BL)
    model.eval()
    z_MD = model(token, step_BL, label_B, drop_B, chosen_BL)
    drawn = model.head.sample(z_MD, noise.at("draw").tokens(*chosen_BL.nonzero(as_tuple=True)))
    model.train()
    seen = token.clone()
    seen[chosen_BL] = drawn.to(token.dtype)
    return seen


def _known(task: Task, one_pass: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (step_BL, known_BL): the steps of the sampling pass, and the tokens that condition some target.

    In a network that needs one pass per step the known tokens are one set, GIVEN.
    """
    step_BL = task.step_BL
    if one_pass:
        last_B1 = torch.where(task.target_BL, step_BL, GIVEN).amax(1, keepdim=True)
        return step_BL, step_BL < last_B1
    now_B1 = torch.where(task.target_BL, step_BL, ABSENT).amin(1, keepdim=True)
    known_BL = step_BL < now_B1
    return torch.where(known_BL, GIVEN, torch.where(step_BL == ABSENT, ABSENT, 0)), known_BL
