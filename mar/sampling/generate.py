"""Generate tokens along a plan.

B batch · L tokens · E token channels · M gathered tokens · K AR steps · D width
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from mar.heads.base import sampling_at
from mar.model import Model
from mar.noise import Noise
from mar.sampling.guidance import Guidance
from mar.tokens import Categories
from orderings import ABSENT, GIVEN, Plan

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
