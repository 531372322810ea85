"""Generate tokens along a plan.

B batch · L tokens · E token channels · M gathered tokens · K AR steps · D width

Orders chosen from the model while it generates: entropy first, or MaskGIT's confidence.

B batch · L tokens · M gathered tokens · K AR steps

Generate along an order that the model's policy draws: a position from p_θ, then its token (LO-ARM, 2503.05979).

B batch · L tokens · M gathered tokens · K AR steps

Iterative remasking: after a generation, tokens are masked again and redrawn given all others, round by round.

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

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from mar.core.errors import Unsupported, UserError
from mar.core.noise import Noise
from mar.core.tokens import Categories
from mar.heads.base import sampling_at
from mar.model.model import Model
from mar.sampling.guidance import Guidance
from orderings import ABSENT, GIVEN, Plan, parse_adaptive
from orderings.adaptive import smallest

OnStep = Callable[[int, torch.Tensor, torch.Tensor], None]  # (step, tokens so far, the tokens just made)


OnDraw = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]  # (target_BL, their z_MD, their values x_M)


def empty_tokens(model: Model, batch: int, device: torch.device | str) -> torch.Tensor:
    """Zeros of the model's kind of token: (B, L) int64 or (B, L, E) float32."""
    n_tokens = int(torch.tensor(model.tokenizer.shape).prod())
    token = model.tokenizer.token
    if isinstance(token, Categories):
        return torch.zeros(batch, n_tokens, dtype=torch.int64, device=device)
    return torch.zeros(batch, n_tokens, token.width, device=device)


class Generation:
    """The state of a batch under generation: what is known, and the network's cache, with and without the class.

    ``contexts`` then ``sample`` then ``accept`` make one AR step; fixed plans and adaptive orders share them.
    """

    def __init__(
        self,
        model: Model,
        label_B: torch.Tensor,
        noise: Noise,
        guidance: Guidance,
        temperature: float,
        token: torch.Tensor,
        step_BL: torch.Tensor,
        n_steps: int,
    ) -> None:
        self.accepted, self.n_steps = 0, n_steps
        self.model, self.noise, self.guidance, self.temperature = model, noise, guidance, temperature
        self.token, self.embedded_BLD = token.clone(), model.embedding(token)
        given_BL, absent_BL = step_BL == GIVEN, step_BL == ABSENT
        self.unknown_BL = ~given_BL & ~absent_BL
        self.present_B = (~absent_BL).sum(1)
        condition_RC = model.condition(label_B)
        if guidance.active:
            condition_RC = torch.cat([condition_RC, model.null_condition(len(label_B))])
        self.state = model.network.begin(condition_RC, self._rows(absent_BL))
        self._observe(given_BL)

    def contexts(self, target_BL: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """z_MD of some unknown tokens, and the same under the null condition when guidance is on."""
        z_ND = self.model.network.query(self.state, self._rows(target_BL))
        return (z_ND, None) if not self.guidance.active else z_ND.chunk(2)  # type: ignore[return-value]

    def sample(self, target_BL: torch.Tensor, known_after_B: torch.Tensor, purpose: str | None = None) -> torch.Tensor:
        """One draw of each target token, independent given what is known: x_M or x_ME.

        ``known_after_B`` tokens are known after this step, for the guidance schedule; ``purpose`` keys another draw.
        """
        return self.draw(*self.contexts(target_BL), target_BL, known_after_B, purpose)

    def draw(
        self,
        z_MD: torch.Tensor,
        null_MD: torch.Tensor | None,
        target_BL: torch.Tensor,
        known_after_B: torch.Tensor,
        purpose: str | None = None,
    ) -> torch.Tensor:
        """``sample`` from contexts that are at hand."""
        row_M, token_M = target_BL.nonzero(as_tuple=True)
        scale_B = self.guidance.at(known_after_B, self.present_B)
        streams = self.noise.at(purpose).tokens(row_M, token_M)
        with sampling_at(self.model.head, self.accepted / max(1, self.n_steps - 1)):
            return self.model.head.sample(z_MD, streams, null_MD, scale_B[row_M], self.temperature)

    def log_prob(self, target_BL: torch.Tensor, x_M: torch.Tensor) -> torch.Tensor:
        """nats_M: log-probabilities of values of unknown tokens, given what is known and the class."""
        row_M, token_M = target_BL.nonzero(as_tuple=True)
        kind = self.model.head.check_kind("exact")
        noise = self.noise.at("confidence").tokens(row_M, token_M)
        return self.model.head.log_prob(self.contexts(target_BL)[0], x_M, kind, noise).nats_M

    def accept(self, target_BL: torch.Tensor, x_M: torch.Tensor) -> None:
        """Make the targets known."""
        x_M = x_M.to(self.token.dtype)
        self.token[target_BL] = x_M
        self.embedded_BLD[target_BL] = self.model.embedding(x_M).to(self.embedded_BLD.dtype)
        self.unknown_BL = self.unknown_BL & ~target_BL
        self.accepted += 1
        self._observe(target_BL)

    def _observe(self, index_BL: torch.Tensor) -> None:
        self.state = self.model.network.observe(self.state, self._rows(self.embedded_BLD), self._rows(index_BL))

    def _rows(self, x_BL: torch.Tensor) -> torch.Tensor:
        """With guidance every row is there twice, the second time under the null condition: one pass serves both."""
        return torch.cat([x_BL, x_BL]) if self.guidance.active else x_BL


@torch.no_grad()
def generate(
    model: Model,
    plan: Plan,
    label_B: torch.Tensor,
    noise: Noise,
    guidance: Guidance | None = None,
    temperature: float = 1.0,
    given: torch.Tensor | None = None,
    on_step: OnStep | None = None,
    prompt_BL: torch.Tensor | None = None,
    on_draw: OnDraw | None = None,
) -> torch.Tensor:
    """Tokens (B, L) or (B, L, E) drawn set by set along ``plan``.

    Args:
        model: in evaluation mode.
        plan: its GIVEN tokens are taken from ``given``.
        label_B: classes; negative: unconditional.
        noise: one stream per row; the same row gives the same tokens in any batch.
        given: tokens of the whole grid, read where the plan says GIVEN and at ``prompt_BL``.
        on_step: called after every step.
        prompt_BL: bool, tokens that are read when their step comes, not drawn.
        on_draw: called with every draw, before what is read takes its place.

    Raises:
        Unsupported: the network does not serve such plans.
    """
    if not model.network.shares_plan:  # for training alone: here each row may have its own
        model.network.check(plan.step_BL)
    token = empty_tokens(model, len(label_B), label_B.device) if given is None else given
    n_steps = int(plan.n_steps_B.max())
    run = Generation(model, label_B, noise, guidance or Guidance(), temperature, token, plan.step_BL, n_steps)
    for step in range(n_steps):
        if model.tokenizer.end is not None and bool((model.tokenizer.absent(run.token) | ~run.unknown_BL).all()):
            break  # every row has ended: what is unknown does not exist
        target_BL = plan.target(step)
        if target_BL.any():
            known_after_B = run.present_B - run.unknown_BL.sum(1) + target_BL.sum(1)
            z_MD, null_MD = run.contexts(target_BL)
            x_M = run.draw(z_MD, null_MD, target_BL, known_after_B)
            if on_draw is not None:
                on_draw(target_BL, z_MD, x_M)
            if prompt_BL is not None:
                x_M[prompt_BL[target_BL]] = token[target_BL & prompt_BL].to(x_M.dtype)
            run.accept(target_BL, x_M)
        if on_step is not None:
            on_step(step, run.token, target_BL)
    return run.token


@torch.no_grad()
def generate_adaptively(
    model: Model,
    plan: Plan,
    label_B: torch.Tensor,
    noise: Noise,
    guidance: Guidance,
    temperature: float,
    given: torch.Tensor | None,
    rule: str,
    on_step: OnStep | None = None,
) -> torch.Tensor:
    """Tokens drawn in ``plan.sizes()`` sets, each chosen among all unknown tokens by ``rule``.

    An entropy rule scores every unknown token by its conditional entropy. A confidence rule draws every unknown token
    and scores the log-probability of the draw (Chang et al. 2022, MaskGIT), then keeps the chosen draws: such an order
    looks at the values, so these samples have no tractable likelihood.

    Raises:
        UnknownName: no such rule (``"lowest-entropy"``, ``"confidence:4.5"``, …).
        Unsupported: the head has no entropy or no exact probability, or the examples end by themselves.
    """
    chooser = parse_adaptive(rule)
    model.tokenizer.check(torch.arange(plan.step_BL.shape[1]).flip(0)[None])  # any order may be found
    token = empty_tokens(model, len(label_B), label_B.device) if given is None else given
    size_BK = plan.sizes().to(label_B.device)
    run = Generation(model, label_B, noise, guidance, temperature, token, plan.step_BL, size_BK.shape[1])
    for step in range(size_BK.shape[1]):
        size_B = size_BK[:, step]
        known_after_B = run.present_B - run.unknown_BL.sum(1) + size_B
        candidates_BL = run.unknown_BL & (size_B > 0)[:, None]
        score_BL = torch.zeros(candidates_BL.shape, device=label_B.device)
        drawn = None
        if chooser.uses_sampled_values:
            drawn = run.sample(candidates_BL, known_after_B, purpose=f"step-{step}")  # a token may be drawn again later
            score_BL[candidates_BL] = run.log_prob(candidates_BL, drawn)
        else:
            score_BL[candidates_BL] = model.head.entropy(run.contexts(candidates_BL)[0])
        progress = (step + 1) / size_BK.shape[1]
        target_BL = chooser.next_set(score_BL, candidates_BL, size_B, progress, noise.at("adaptive", draw=step))
        x_M = run.sample(target_BL, known_after_B) if drawn is None else drawn[target_BL[candidates_BL]]
        run.accept(target_BL, x_M)
        if on_step is not None:
            on_step(step, run.token, target_BL)
    return run.token


@torch.no_grad()
def generate_by_policy(
    model: Model,
    plan: Plan,
    label_B: torch.Tensor,
    noise: Noise,
    guidance: Guidance,
    temperature: float,
    given: torch.Tensor | None,
    on_step: OnStep | None = None,
) -> torch.Tensor:
    """Tokens drawn in ``plan.sizes()`` sets of positions, drawn from the policy without replacement.

    Sets of one are draws of the model whose bound is scored. The policy reads the contexts under the class alone:
    guidance and temperature change the tokens, never the choice of positions.
    """
    assert model.policy is not None, "checked by who reads the plan"
    token = empty_tokens(model, len(label_B), label_B.device) if given is None else given
    sizes = plan.sizes().unbind(1)
    run = Generation(model, label_B, noise, guidance, temperature, token, plan.step_BL, len(sizes))
    for step, size_B in enumerate(sizes):
        candidates_BL = run.unknown_BL & (size_B > 0)[:, None]
        z_MD, null_MD = run.contexts(candidates_BL)
        key_BL = model.policy.next_logits(z_MD, candidates_BL) + noise.at("position", draw=step).gumbel(token.shape[1])
        target_BL = smallest(-key_BL, candidates_BL, size_B)
        chosen_M = target_BL[candidates_BL]
        known_after_B = run.present_B - run.unknown_BL.sum(1) + size_B
        x_M = run.draw(z_MD[chosen_M], None if null_MD is None else null_MD[chosen_M], target_BL, known_after_B)
        run.accept(target_BL, x_M)
        if on_step is not None:
            on_step(step, run.token, target_BL)
    return run.token


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
