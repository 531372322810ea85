"""The steps of a plan, one after the other. Every loop over AR steps is this one.

B batch · L tokens · E token channels · D context width · M gathered tokens · K AR steps

    for step in Walk(model, plan, label_B, token):     # step.z_MD: contexts of the step's tokens
        walk.write(step.target_BL, x_M)                # sampling draws them; likelihood leaves them as they are

A step queries the network, then draws or reads its tokens, then lets the network observe them. A chooser names the next
set: that of the plan (``along``), or one found from the model's conditionals (``by_score``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from mar.core.devices import has_float64
from mar.core.errors import Unsupported, UserError
from mar.core.tokens import Categories
from mar.model.model import Model
from orderings import ABSENT, GIVEN, Adaptive, Plan, name_of


@dataclass
class Step:
    """One AR step of a batch."""

    number: int  #: k, counted from 0
    target_BL: torch.Tensor  #: bool, the tokens of the set S_k
    z_MD: torch.Tensor  #: their contexts, M = ``target_BL.nonzero()`` row-major
    null_MD: torch.Tensor | None = None  #: their contexts under the null condition; None without guidance

    def among(self, target_BL: torch.Tensor) -> Step:
        """The step of some of its tokens."""
        chosen_M = target_BL[self.target_BL]
        null_MD = None if self.null_MD is None else self.null_MD[chosen_M]
        return Step(self.number, target_BL, self.z_MD[chosen_M], null_MD)


class Walk:
    """Iterating takes the steps of a plan. A step's tokens may be written until the next step is asked for.

    Args:
        model: in evaluation mode.
        plan: its GIVEN tokens are read from ``token``; its ABSENT ones do not exist.
        label_B: classes; negative: unconditional.
        token: (B, L) int64 or (B, L, E) float32, copied; None: zeros.
        choose: names each step's set; None: the plan's.
        guided: every step has contexts under the null condition too.

    Attributes:
        token: the tokens as known so far; unknown ones hold what ``token`` held.
        unknown_BL: bool, the tokens that no step has taken yet.
        present_B: tokens of each row that exist.
        n_steps: K.
    """

    def __init__(
        self,
        model: Model,
        plan: Plan,
        label_B: torch.Tensor,
        token: torch.Tensor | None = None,
        choose: Chooser | None = None,
        guided: bool = False,
    ) -> None:
        self.model, self.guided, self.n_steps = model, guided, int(plan.n_steps_B.max())
        self.choose = choose or along(plan)
        self.token = empty_tokens(model, len(label_B), label_B.device) if token is None else token.clone()
        self._embedded_BLD = model.embedding(self.token)
        given_BL, absent_BL = plan.step_BL == GIVEN, plan.step_BL == ABSENT
        self.unknown_BL, self.present_B = ~given_BL & ~absent_BL, (~absent_BL).sum(1)
        condition_RC = model.condition(label_B)
        if guided:
            condition_RC = torch.cat([condition_RC, model.null_condition(len(label_B))])
        self._state = model.network.begin(condition_RC, self._twice(absent_BL))
        self._observe(given_BL)

    @torch.no_grad()
    def __iter__(self) -> Iterator[Step]:
        for number in range(self.n_steps):
            if self._ended():
                return
            step = self.choose(self, number)
            if step is None:  # no row has tokens at this number
                continue
            yield step
            self.unknown_BL = self.unknown_BL & ~step.target_BL
            if number + 1 < self.n_steps:
                self._observe(step.target_BL)

    @property
    def known_B(self) -> torch.Tensor:
        """Tokens of each row that are known."""
        return self.present_B - self.unknown_BL.sum(1)

    def query(self, number: int, target_BL: torch.Tensor) -> Step:
        """The contexts of some unknown tokens, given all that is known. One pass serves both conditions."""
        z_ND = self.model.network.query(self._state, self._twice(target_BL))
        _check_finite(z_ND, "contexts")
        return Step(number, target_BL, *(z_ND.chunk(2) if self.guided else (z_ND,)))

    def write(self, target_BL: torch.Tensor, x_M: torch.Tensor) -> None:
        """Set the values x_M or x_ME of the step's tokens. Raises UserError: they are not finite."""
        _check_finite(x_M, "tokens")
        x_M = x_M.to(self.token.dtype)
        self.token[target_BL] = x_M
        self._embedded_BLD[target_BL] = self.model.embedding(x_M).to(self._embedded_BLD.dtype)

    def _ended(self) -> bool:
        """True if every row has ended: its unknown tokens do not exist."""
        tokenizer = self.model.tokenizer
        return tokenizer.end is not None and bool((tokenizer.absent(self.token) | ~self.unknown_BL).all())

    def _observe(self, index_BL: torch.Tensor) -> None:
        self._state = self.model.network.observe(self._state, self._twice(self._embedded_BLD), self._twice(index_BL))

    def _twice(self, x_BL: torch.Tensor) -> torch.Tensor:
        """Under guidance every row is there twice, the second time under the null condition."""
        return torch.cat([x_BL, x_BL]) if self.guided else x_BL


Chooser = Callable[[Walk, int], Step | None]  # the step of a number; None: no row has one


def along(plan: Plan) -> Chooser:
    """Choose the sets of the plan."""

    def choose(walk: Walk, number: int) -> Step | None:
        target_BL = plan.step_BL == number
        return walk.query(number, target_BL) if target_BL.any() else None

    return choose


def by_score(rule: Adaptive, size_BK: torch.Tensor) -> Chooser:
    """Choose sets of sizes ``size_BK`` among all unknown tokens by what ``rule`` scores of their conditionals.

    A rule that chooses the sizes itself takes rows that still have unknown tokens; then a step may be left out.

    Raises:
        Unsupported: the rule chooses the sizes itself, and these are not single tokens; while walking, if the head has
            no tractable score, or such a rule finds no categories.
    """
    if rule.sizes_itself and int(size_BK.max()) > 1:
        raise Unsupported(f"{name_of(rule)} chooses how many tokens a step takes: use the partition singles")

    def choose(walk: Walk, number: int) -> Step | None:
        size_B = size_BK[:, number]
        if rule.sizes_itself:
            if not isinstance(walk.model.tokenizer.token, Categories):
                raise Unsupported(f"{name_of(rule)} bounds the entropy of categories: these tokens are vectors")
            if not walk.unknown_BL.any():
                return None
            size_B = walk.unknown_BL.any(1).long()
        step = walk.query(number, walk.unknown_BL & (size_B > 0)[:, None])  # rows with fewer steps are done
        score_BL = torch.zeros(step.target_BL.shape, device=size_B.device)
        with full_precision(step.z_MD) as z_MD:
            score_BL[step.target_BL] = getattr(walk.model.head, rule.score)(z_MD).float()
        progress = (number + 1) / size_BK.shape[1]
        place = score_BL.device if has_float64(score_BL.device.type) else "cpu"  # rules may add up in float64
        target_BL = rule.next_set(score_BL.to(place), step.target_BL.to(place), size_B.to(place), progress)
        return step.among(target_BL.to(score_BL.device))

    return choose


def _check_finite(value: torch.Tensor, what: str) -> None:
    if value.is_floating_point() and not bool(value.isfinite().all()):
        raise UserError(
            f"the model's {what} are not finite: its weights are damaged, or the sampling options (steps, solver, "
            "temperature, guidance) do not suit it"
        )


def empty_tokens(model: Model, batch: int, device: torch.device | str) -> torch.Tensor:
    """Zeros of the model's kind of token: (B, L) int64 or (B, L, E) float32."""
    n_tokens, token = int(torch.tensor(model.tokenizer.shape).prod()), model.tokenizer.token
    if isinstance(token, Categories):
        return torch.zeros(batch, n_tokens, dtype=torch.int64, device=device)
    return torch.zeros(batch, n_tokens, token.width, device=device)


@contextmanager
def full_precision(z_MD: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield contexts in float32 where the network made them in less. Inside, autocast is off: a network may run in
    bfloat16, probabilities never do."""
    with torch.autocast(z_MD.device.type, enabled=False):
        yield z_MD.float() if z_MD.dtype in (torch.bfloat16, torch.float16) else z_MD
