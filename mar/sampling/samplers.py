"""Samplers: walks that draw. They differ in how the next set is chosen.

B batch · L tokens · E token channels · M gathered tokens · K AR steps

    generate             along a plan, by an adaptive rule, or by the model's order policy (LO-ARM, arXiv 2503.05979)

An entropy rule scores every unknown token by its conditional entropy. A confidence rule draws every unknown token,
scores the log-probability of the draw and keeps the chosen draws (Chang et al. 2022, MaskGIT): such an order depends on
the values, so its samples have no tractable likelihood. The policy draws positions without replacement; guidance and
temperature change the tokens, never the positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from mar.core.errors import Unsupported, UserError
from mar.core.noise import Noise
from mar.heads.base import SamplingOptions, sampling_at
from mar.model.model import Model
from mar.model.walk import Chooser, Step, Walk, along, by_score
from mar.sampling.guidance import NONE, Guidance, Place, Temperature
from orderings import GIVEN, Adaptive, Plan, parse_adaptive
from orderings.adaptive import smallest

OnStep = Callable[[int, torch.Tensor, torch.Tensor], None]  # (step, tokens so far, target_BL of the step)
DrawTokens = Callable[[Walk, Step, torch.Tensor], torch.Tensor]  # (walk, step, size_B) -> x_M or x_ME


@dataclass(frozen=True)
class Draw:
    """One independent draw of each token of a step, a function of (stream, token) alone."""

    noise: Noise
    guidance: Guidance
    temperature: Temperature
    plan: Plan  # with ``rule`` or ``learned`` only its set sizes count

    def __call__(self, walk: Walk, step: Step, size_B: torch.Tensor, purpose: str | None = None) -> torch.Tensor:
        """Return x_M or x_ME of a step that makes ``size_B`` tokens known; ``purpose`` keys another draw of them."""
        row_M, token_M = step.target_BL.nonzero(as_tuple=True)
        scale_M: torch.Tensor | float = 1.0
        if step.null_MD is not None:
            scale_M = self.guidance.at(self._place(walk, step, size_B, row_M, token_M))
        noise = self.noise if purpose is None else self.noise.at(purpose)
        head, share = walk.model.head, step.number / max(1, walk.n_steps - 1)
        varies = type(head.sampling).at is not SamplingOptions.at
        temperature = self.temperature.at(step.number, walk.n_steps)
        with sampling_at(head, share) if varies else nullcontext():
            x_M = head.sample(step.z_MD, noise.tokens(row_M, token_M), step.null_MD, scale_M, temperature)
        if not bool(x_M.isfinite().all()):
            raise UserError(
                f"{type(head).__name__} drew tokens that are not finite at AR step {step.number}: its weights are "
                "broken, or the sampling options do not suit them (solver, steps, start, guidance, temperature)"
            )
        return x_M

    def _place(self, walk: Walk, step: Step, size_B: torch.Tensor, row_M: torch.Tensor, token_M: torch.Tensor) -> Place:
        before_B, n_given_B = walk.known_B, (self.plan.step_BL == GIVEN).sum(1)
        rank_M = self.plan.rank_BL[row_M, token_M] + n_given_B[row_M]
        per_row = (walk.present_B, torch.full_like(before_B, step.number), self.plan.n_steps_B)
        return Place(before_B[row_M], rank_M, (before_B + size_B)[row_M], *(x_B[row_M] for x_B in per_row))


@dataclass(kw_only=True)
class Drawn(Step):
    """One AR step with its draw. Assigning ``x_M`` before the next step is asked for replaces the tokens."""

    walk: Walk  # what is known before this step: ``walk.token``, ``walk.unknown_BL``
    x_M: torch.Tensor  # the values drawn, (M,) int64 or (M, E) float32

    @property
    def token(self) -> torch.Tensor:
        """(B, L) or (B, L, E), all tokens: those of this step only after it, unknown ones 0."""
        return self.walk.token

    @property
    def logits_MV(self) -> torch.Tensor:
        """Logits of the tokens, without guidance or temperature. Raise Unsupported if the head is not categorical."""
        logits = getattr(self.walk.model.head, "logits", None)
        if logits is None:
            raise Unsupported(f"{type(self.walk.model.head).__name__} has no logits: use a categorical head, or z_MD")
        return logits(self.z_MD)


def draw_steps(walk: Walk, draw: DrawTokens, on_step: OnStep | None = None) -> Iterator[Drawn]:
    """Draw the tokens of every step by ``draw(walk, step, size_B)``; ``walk.token`` holds all of them at the end."""
    for step in walk:
        drawn = Drawn(**vars(step), walk=walk, x_M=draw(walk, step, step.target_BL.sum(1)))
        yield drawn
        walk.write(step.target_BL, drawn.x_M)
        if on_step is not None:
            on_step(step.number, walk.token, step.target_BL)


@torch.no_grad()
def generate(
    model: Model, plan: Plan, label_B: torch.Tensor, noise: Noise, guidance: Guidance = NONE,
    temperature: float | Temperature = 1.0, given: torch.Tensor | None = None, on_step: OnStep | None = None, *,
    rule: str | None = None, learned: bool = False,
    prompt: bool = False, on_draw: Callable[[Drawn], None] | None = None,
) -> torch.Tensor:  # fmt: skip
    """Draw tokens (B, L) or (B, L, E), set by set.

    Args:
        model: in evaluation mode.
        plan: its GIVEN tokens are taken from ``given``. With ``rule`` or ``learned`` only its set sizes count.
        label_B: classes; negative: unconditional.
        noise: one stream per row; the same row gives the same tokens in any batch.
        given: tokens of the whole grid, read where they are given.
        on_step: called after every step.
        rule: chooses each set among all unknown tokens (``"lowest-entropy"``, ``"confidence:4.5"``, …).
        learned: the model's policy draws the positions.
        prompt: read the GIVEN tokens one at a time, row-major, before the first step, as a raster order meets them in
            training; otherwise all at once.
        on_draw: called with every draw, before prompt tokens take their place.

    Raises:
        UnknownName: no such rule.
        Unsupported: the network does not serve such plans, the head has no entropy or no exact probability for the
            rule, an order is to be found for examples that end by themselves, or guidance needs one beforehand.
    """
    prompt_BL = plan.step_BL == GIVEN
    plan = after_prompt(plan) if prompt else plan
    walk, draw = begin(model, plan, label_B, noise, guidance, temperature, given, rule, learned)
    for drawn in draw_steps(walk, draw, on_step):
        if on_draw is not None:
            on_draw(drawn)
        if prompt:
            target_BL = drawn.target_BL
            drawn.x_M[prompt_BL[target_BL]] = walk.token[target_BL & prompt_BL].to(drawn.x_M.dtype)
    return walk.token


def begin(
    model: Model, plan: Plan, label_B: torch.Tensor, noise: Noise, guidance: Guidance,
    temperature: float | Temperature, given: torch.Tensor | None, rule: str | None, learned: bool,
) -> tuple[Walk, DrawTokens]:  # fmt: skip
    """Return the walk of ``generate``, and what draws its tokens. Arguments and errors: as there."""
    if guidance.ranked and (rule is not None or learned):
        raise Unsupported("linear-rank needs an order beforehand: use linear or linear-before with adaptive or learned")
    temperature = Temperature.of(temperature)
    draw: DrawTokens = Draw(noise, guidance, temperature, plan)
    size_BK, choose = plan.sizes().to(label_B.device), along(plan)
    if rule is not None:
        found = parse_adaptive(rule)
        if found.sizes_itself and (guidance.counts_steps or not temperature.constant):
            raise Unsupported(
                f"{rule} finds the number of steps: a schedule over the share of steps needs it beforehand"
            )
        model.tokenizer.check(torch.arange(plan.step_BL.shape[1]).flip(0)[None])  # any order may be found
        choose = by_score(found, size_BK)
        if found.uses_sampled_values:
            choose, draw = _by_confidence(found, size_BK, draw)
    elif learned:
        choose = _by_policy(size_BK, noise)
    elif not model.network.shares_plan:  # for training alone: here each row may have its own
        model.network.check(plan.step_BL)
    return Walk(model, plan, label_B, given, choose, guidance.active), draw


def confidence(model: Model, step: Step, x_M: torch.Tensor, noise: Noise) -> torch.Tensor:
    """Return nats_M, the exact log-probability of each drawn token given the class, without guidance or temperature."""
    streams = noise.at("confidence").tokens(*step.target_BL.nonzero(as_tuple=True))
    return model.head.log_prob(step.z_MD, x_M, model.head.check_kind("exact"), streams).nats_M.float()


def _by_confidence(rule: Adaptive, size_BK: torch.Tensor, draw: Draw) -> tuple[Chooser, DrawTokens]:
    """Choose sets by the log-probability of a draw of every unknown token; the chosen draws are the tokens."""
    kept: list[torch.Tensor] = []  # of the set chosen last

    def choose(walk: Walk, number: int) -> Step:
        size_B, noise = size_BK[:, number], draw.noise
        step = walk.query(number, walk.unknown_BL & (size_B > 0)[:, None])
        x_M = draw(walk, step, size_B, purpose=f"step-{number}")  # a token may be drawn again later
        score_BL = torch.zeros(step.target_BL.shape, device=size_B.device)
        score_BL[step.target_BL] = confidence(walk.model, step, x_M, noise)
        progress, tie = (number + 1) / size_BK.shape[1], noise.at("adaptive", draw=number)
        target_BL = rule.next_set(score_BL, step.target_BL, size_B, progress, tie)
        kept[:] = [x_M[target_BL[step.target_BL]]]
        return step.among(target_BL)

    return choose, lambda walk, step, size_B: kept[0]


def _by_policy(size_BK: torch.Tensor, noise: Noise) -> Chooser:
    """Choose sets of sizes ``size_BK``, drawn from the model's policy."""

    def choose(walk: Walk, number: int) -> Step:
        assert walk.model.policy is not None, "guaranteed by Run.plans"
        size_B = size_BK[:, number]
        step = walk.query(number, walk.unknown_BL & (size_B > 0)[:, None])
        logit_BL = walk.model.policy.next_logits(step.z_MD, step.target_BL)
        key_BL = logit_BL + noise.at("position", draw=number).gumbel(logit_BL.shape[1])
        return walk.narrowed(step, smallest(-key_BL, step.target_BL, size_B))

    return choose


def after_prompt(plan: Plan) -> Plan:
    """The plan with its GIVEN tokens as first steps, one at a time, row-major."""
    given_BL = plan.step_BL == GIVEN
    place_BL, count_B1 = given_BL.cumsum(1) - 1, given_BL.sum(1, keepdim=True)

    def shifted(x_BL: torch.Tensor) -> torch.Tensor:
        return torch.where(given_BL, place_BL, torch.where(plan.scored_BL, x_BL + count_B1, x_BL))

    return Plan(shifted(plan.rank_BL), shifted(plan.step_BL))
