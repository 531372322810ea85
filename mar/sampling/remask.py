"""Iterative remasking: after a generation, tokens are masked again and redrawn given all others, round by round.

B batch · L tokens · M gathered tokens

    x ~ p(x | plan);    then in each round, for a set R of the tokens that were generated:    x_R ~ p(x_R | x_{-R})

with the tokens of R independent given the others. What drawing sets in parallel broke can be mended so (predictor and
corrector). ``random`` draws R uniformly: with one token at a time this is Gibbs sampling, which leaves a joint
distribution unchanged if the network's conditionals are its own. ``least-confident`` takes the tokens whose draws had
the lowest log-probability when they were made (MaskGIT's confidence, Chang et al. 2022, as the critic of Lezama et al.
2022, Token-Critic, without a critic of its own): it sharpens, and has no such stationary distribution.

The probability of x is a sum over all paths that end in x: these samples have no tractable likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from mar.errors import Unsupported, UserError
from mar.model import Model
from mar.noise import Noise
from mar.sampling.generate import OnStep, generate
from mar.sampling.guidance import Guidance
from orderings import ABSENT, GIVEN, Plan
from orderings.adaptive import smallest

_WRITTEN = "remasking is written random, least-confident, random:ROUNDS or random:ROUNDS:SHARE, e.g. random:16:0.1"


@dataclass(frozen=True)
class Remask:
    """``share`` of the generated tokens is masked and redrawn in each of ``rounds``; at least one token."""

    rule: Literal["random", "least-confident"] = "random"
    rounds: int = 8
    share: float = 0.125

    def __post_init__(self) -> None:
        if self.rule not in ("random", "least-confident") or self.rounds < 1 or not 0.0 < self.share <= 1.0:
            raise UserError(f"{_WRITTEN}, with at least one round and a share in (0, 1], not {self}")

    @classmethod
    def parse(cls, text: str) -> Remask:
        """``random``, ``least-confident:16`` or ``random:16:0.1``.

        Raises:
            UserError: it is none of these.
        """
        rule, _, rest = text.partition(":")
        rounds, _, share = rest.partition(":")
        try:
            return cls(rule, int(rounds or cls.rounds), float(share or cls.share))  # type: ignore[arg-type]
        except ValueError:
            raise UserError(f"{_WRITTEN}, not {text!r}") from None

    def __str__(self) -> str:
        return f"{self.rule}:{self.rounds}:{self.share:g}"


@torch.no_grad()
def generate_remasked(
    model: Model,
    plan: Plan,
    label_B: torch.Tensor,
    noise: Noise,
    guidance: Guidance,
    temperature: float,
    given: torch.Tensor | None,
    remask: Remask,
    on_step: OnStep | None = None,
) -> torch.Tensor:
    """Tokens (B, L) or (B, L, E): ``generate`` along ``plan``, then the rounds of ``remask``. Given tokens stay.

    Confidences are log-probabilities given the class, without guidance or temperature.

    Raises:
        Unsupported: a network that sees the tokens in the order of their steps, not all others of a token; or
            confidence of a head without exact probabilities.
    """
    if not model.network.orderless:
        raise Unsupported(
            "remasking draws a token given all others, which masked networks are trained for: use "
            "network=masked-transformer or nade"
        )
    by_confidence = remask.rule == "least-confident"
    nats_BL = torch.zeros(plan.step_BL.shape, device=plan.step_BL.device)

    def judge(target_BL: torch.Tensor, z_MD: torch.Tensor, x_M: torch.Tensor) -> None:
        streams = noise.at("confidence").tokens(*target_BL.nonzero(as_tuple=True))
        nats_BL[target_BL] = model.head.log_prob(z_MD, x_M, model.head.check_kind("exact"), streams).nats_M.float()

    arguments, on_draw = (label_B, noise, guidance, temperature), judge if by_confidence else None
    token = generate(model, plan, *arguments, given, on_step, on_draw=on_draw)
    size_B = (remask.share * plan.scored_BL.sum(1)).ceil().long()
    for number in range(remask.rounds):
        fresh = noise.at("remask", draw=number)
        score_BL = nats_BL if by_confidence else fresh.at("which").uniform(nats_BL.shape[1])
        again = _one_set(plan, smallest(score_BL, plan.scored_BL, size_B))
        token = generate(model, again, label_B, fresh, guidance, temperature, token, on_draw=on_draw)
        if on_step is not None:
            on_step(int(plan.n_steps_B.max()) + number, token, again.scored_BL)
    return token


def _one_set(plan: Plan, target_BL: torch.Tensor) -> Plan:
    """The targets at once, given all others that exist."""
    others_BL = torch.where(plan.step_BL == ABSENT, ABSENT, GIVEN)
    return Plan(torch.where(target_BL, target_BL.cumsum(1) - 1, others_BL), torch.where(target_BL, 0, others_BL))
