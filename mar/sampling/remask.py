"""Remasking: tokens are masked again and redrawn, after the generation or inside it.

B batch · L tokens · K AR steps

    Remask       rounds after a generation (``generate_remasked``)
    Posterior    the remasking posterior of ReMDM inside a generation (``generate_posterior``; Wang, Schiff, Sahoo &
                 Kuleshov 2025, arXiv 2503.00307)

Rounds draw x ~ p(x | plan), then in each, for a set R of the generated tokens, x_R ~ p(x_R | x_{-R}) with the tokens of
R independent given the others. ``random`` draws R uniformly: with one token at a time this is Gibbs sampling.
``least-confident`` takes the tokens whose draws had the lowest log-probability (the critic of Lezama et al. 2022,
Token-Critic, without a critic of its own): it sharpens.

The posterior masks r of the n known tokens while it reveals the step's s tokens and r more, so that n + s are known
after it. In the paper a token is masked with probability sigma_t, alpha_t = n / L and alpha_s = (n + s) / L; here r is
the expected number, rounded at random, and the plan says how many tokens each step makes known.

    cap:ETA       sigma_t = min(ETA, (1 - alpha_s) / alpha_t)
    rescale:ETA   sigma_t = ETA min(1, (1 - alpha_s) / alpha_t)
    confidence    as rescale:1 shared by all tokens: at most one, drawn with weights exp(-p of its draw)

Remasked samples have no tractable likelihood: the probability of x is a sum over all paths that end in x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from mar.core.errors import Unsupported, UserError
from mar.core.noise import Noise
from mar.model.model import Model
from mar.model.walk import Walk, along
from mar.sampling.guidance import NONE, Guidance, Temperature
from mar.sampling.samplers import Draw, Drawn, OnStep, confidence, generate
from orderings import ABSENT, GIVEN, Plan
from orderings.adaptive import smallest

_WRITTEN = (
    "remasking is written random, least-confident, random:ROUNDS, random:ROUNDS:SHARE (random:16:0.1), cap:ETA, "
    "rescale:ETA or confidence"
)


@dataclass(frozen=True)
class Remask:
    """``share`` of the generated tokens is masked and redrawn in each of ``rounds``; at least one token."""

    rule: Literal["random", "least-confident"] = "random"
    rounds: int = 8
    share: float = 0.125

    def __post_init__(self) -> None:
        if self.rule not in ("random", "least-confident") or self.rounds < 1 or not 0.0 < self.share <= 1.0:
            raise UserError(f"{_WRITTEN}, with at least one round and a share in (0, 1], not {self}")

    def __str__(self) -> str:
        return f"{self.rule}:{self.rounds}:{self.share:g}"


@torch.no_grad()
def generate_remasked(
    model: Model, plan: Plan, label_B: torch.Tensor, noise: Noise, guidance: Guidance = NONE,
    temperature: float | Temperature = 1.0, given: torch.Tensor | None = None, on_step: OnStep | None = None, *,
    remask: Remask,
) -> torch.Tensor:  # fmt: skip
    """``generate`` along ``plan``, then take the rounds of ``remask``. Given tokens stay.

    Raises:
        Unsupported: a network that sees the tokens in the order of their steps, not all others of a token; or
            confidence of a head without exact probabilities.
    """
    _check(model)
    by_confidence = remask.rule == "least-confident"
    nats_BL = torch.zeros(plan.step_BL.shape, device=plan.step_BL.device)

    def judge(drawn: Drawn) -> None:
        nats_BL[drawn.target_BL] = confidence(model, drawn, drawn.x_M, noise)

    on_draw = judge if by_confidence else None
    token = generate(model, plan, label_B, noise, guidance, temperature, given, on_step, on_draw=on_draw)
    size_B = (remask.share * plan.scored_BL.sum(1)).ceil().long()
    for number in range(remask.rounds):
        fresh = noise.at("remask", draw=number)
        score_BL = nats_BL if by_confidence else fresh.at("which").uniform(nats_BL.shape[1])
        again = _one_set(plan, smallest(score_BL, plan.scored_BL, size_B))
        token = generate(model, again, label_B, fresh, guidance.ended, temperature, token, on_draw=on_draw)
        if on_step is not None:
            on_step(int(plan.n_steps_B.max()) + number, token, again.scored_BL)
    return token


@dataclass(frozen=True)
class Posterior:
    """ReMDM's schedule ``rule`` with its ``eta`` in (0, 1]."""

    rule: Literal["cap", "rescale", "confidence"]
    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.eta <= 1.0:
            raise UserError(f"{_WRITTEN}; ETA is in (0, 1], not {self.eta:g}")

    def number(self, known_B: torch.Tensor, left_B: torch.Tensor) -> torch.Tensor:
        """Return the expected number of tokens masked, of ``known_B`` generated ones, when ``left_B`` stay unknown."""
        if self.rule == "cap":
            return torch.minimum(self.eta * known_B, left_B)
        most_B = self.eta * torch.minimum(known_B, left_B)
        return most_B / known_B.clamp(min=1) if self.rule == "confidence" else most_B

    def __str__(self) -> str:
        return self.rule if self.rule == "confidence" else f"{self.rule}:{self.eta:g}"


@torch.no_grad()
def generate_posterior(
    model: Model, plan: Plan, label_B: torch.Tensor, noise: Noise, guidance: Guidance = NONE,
    temperature: float | Temperature = 1.0, given: torch.Tensor | None = None, on_step: OnStep | None = None, *,
    remask: Posterior,
) -> torch.Tensor:  # fmt: skip
    """``generate`` along ``plan`` with ``remask`` in every step. Given tokens stay.

    A masked token gets a place drawn uniformly over the rest of the order. One pass a step.

    Raises:
        Unsupported: as ``generate_remasked``; or guidance by the rank of tokens, which masking changes.
    """
    _check(model)
    if guidance.ranked:
        raise Unsupported(f"linear-rank needs an order that stays: use linear or linear-before with remasking {remask}")
    draw = Draw(noise, guidance, Temperature.of(temperature), plan)
    absent_BL, given_BL = plan.step_BL == ABSENT, plan.step_BL == GIVEN
    known_BL, key_BL = given_BL.clone(), plan.rank_BL.float()
    nats_BL = torch.zeros_like(key_BL)  # of each token when it was drawn
    token, size_BK, length = given, plan.sizes().to(label_B.device), plan.rank_BL.shape[1]
    for number in range(n_steps := int(plan.n_steps_B.max())):
        fresh, made_BL = noise.at("posterior", draw=number), known_BL & ~given_BL
        unknown_BL, made_B = ~known_BL & ~absent_BL, made_BL.sum(1)
        left_B = unknown_BL.sum(1) - size_BK[:, number]
        again_B = (remask.number(made_B.float(), left_B.float()) + fresh.at("how many").uniform(1)[:, 0]).long()
        target_BL = smallest(key_BL, unknown_BL, size_BK[:, number] + again_B)
        later_BL = torch.where(target_BL, number, number + 1)
        step_BL = torch.where(absent_BL, ABSENT, torch.where(known_BL, GIVEN, later_BL))
        walk = Walk(model, Plan(plan.rank_BL, step_BL), label_B, token, along(plan), guidance.active)
        walk.n_steps = n_steps  # schedules run over the steps of the whole plan
        step = walk.query(number, target_BL)
        x_M = draw(walk, step, size_BK[:, number], purpose=f"step-{number}")
        if remask.rule == "confidence":
            weight_BL = -nats_BL.exp()
            nats_BL[target_BL] = confidence(model, step, x_M, noise)
        else:
            weight_BL = torch.zeros_like(nats_BL)
        walk.write(target_BL, x_M)
        masked_BL = smallest(-(weight_BL + fresh.at("which").gumbel(length)), made_BL, again_B)
        front_B1 = torch.where(target_BL, key_BL, -1.0).amax(1, keepdim=True)
        place_BL = front_B1 + (length - front_B1) * fresh.at("place").uniform(length)
        key_BL = torch.where(masked_BL, place_BL, key_BL)
        token, known_BL = walk.token, (known_BL | target_BL) & ~masked_BL
        if on_step is not None:
            on_step(number, token, target_BL)
    assert token is not None
    return token


def parse_remask(text: str) -> Remask | Posterior:
    """Read ``random``, ``least-confident:16``, ``random:16:0.1``, ``cap:0.02``, ``rescale:0.1`` or ``confidence``.

    Raises:
        UserError: it is none of these.
    """
    rule, *numbers = text.split(":")
    try:
        if rule in ("cap", "rescale") and len(numbers) == 1:
            return Posterior(rule, float(numbers[0]))  # type: ignore[arg-type]
        if text == "confidence":
            return Posterior("confidence")
        rounds, share, *more = [*numbers, "", ""]
        if not any(more):
            return Remask(rule, int(rounds or Remask.rounds), float(share or Remask.share))  # type: ignore[arg-type]
    except ValueError:
        pass
    raise UserError(f"{_WRITTEN}, not {text!r}")


def _check(model: Model) -> None:
    if not model.network.order_invariant:
        raise Unsupported(
            "remasking draws a token given any others, which masked networks are trained for: use "
            "network=masked-transformer, halton-maskgit or nade"
        )


def _one_set(plan: Plan, target_BL: torch.Tensor) -> Plan:
    """Return the plan of the targets at once, given all others that exist."""
    others_BL = torch.where(plan.step_BL == ABSENT, ABSENT, GIVEN)
    return Plan(torch.where(target_BL, target_BL.cumsum(1) - 1, others_BL), torch.where(target_BL, 0, others_BL))
