"""Speculative sampling: several tokens a pass, with the distribution of one token at a time in any order.

B batch · L tokens · E token channels · W places of a window, in generation order · M gathered tokens · V vocabulary ·
X numbers of a law · D context width · C condition width

A round drafts the next n tokens of each image, y_w ~ q_w, independently given what is known. The model then reads the
drafts and gives p_w = p(. | known, y_<w) for all of them in one pass. Draft w is accepted with probability
min(1, p_w(y_w) / q_w(y_w)); the first rejected token is drawn from the residual, (p_w - q_w)+ normalised, and the later
drafts are dropped. If all are accepted, the pass has given the law of one token more. Tokens so drawn follow the model
exactly (Leviathan et al. 2023, arXiv 2211.17192; in any order and with drafts of the model itself: Guo & Ermon 2025,
arXiv 2504.20456). Each image advances by its own number of tokens.

    self      q_w = p(. | known), one more pass a round. The first draft is exact, so a round of two passes yields at
              least two tokens: never more passes than tokens
    jacobi    q_w is the law of the token in the last pass, given drafts that may since have been rejected: one pass a
              round (Teng et al. 2024, arXiv 2410.01699). The first round is that of ``self``
    a run     q_w = q(. | known, y_<w) of a smaller model, token by token

A network that is not one-pass takes a row for each draft: n rows an image in one batch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from mar.core.devices import back, double
from mar.core.errors import Unsupported, UserError
from mar.core.noise import Noise
from mar.heads.base import Head
from mar.heads.categorical import CategoricalHead, choose
from mar.model.model import Model
from mar.model.walk import empty_tokens
from mar.sampling.guidance import NONE, Guidance, Place, Temperature
from mar.sampling.samplers import OnStep, after_prompt
from orderings import ABSENT, GIVEN, Plan

OWN = ("self", "jacobi")  # drafts of the model itself
_WRITTEN = "speculation is written DRAFT or DRAFT:TOKENS, the draft self, jacobi or a run folder, e.g. self:8"
_DOUBLINGS = (
    14  # of the tries of a residual; a law still closer to its draft is drawn as it is (probability below 1e-4)
)
_PLACES = 2**17  # token numbers in a key


@dataclass
class Speculation:
    """What drafts, and how many tokens a round. ``passes`` grows with every batch that is generated."""

    draft: str = "jacobi"  # self, jacobi or the folder of a run
    size: int = 8  # tokens of a draft
    model: Model | None = None  # of that run, in evaluation mode
    passes: list[torch.Tensor] = field(default_factory=list, compare=False)  # of the model for each image, by batch

    def __post_init__(self) -> None:
        if self.size < 1 or not self.draft:
            raise UserError(f"{_WRITTEN}, with at least one token, not {self}")

    @classmethod
    def parse(cls, text: str) -> Speculation:
        """Read ``self``, ``jacobi:16`` or ``runs/small:8``. Raise UserError: at least one token is drafted."""
        found = re.fullmatch(r"(.*?)(?::(\d+))?", text)
        assert found is not None
        return cls(found[1], int(found[2] or cls.size))

    def __str__(self) -> str:
        return f"{self.draft}:{self.size}"

    def told(self, n_tokens: int) -> str:
        """Say how many passes of the model an image took, of ``n_tokens`` tokens."""
        passes_N = torch.cat(self.passes).float() if self.passes else torch.zeros(1)
        low, high = int(passes_N.min()), int(passes_N.max())
        return f"{passes_N.mean():.1f} passes of the model an image ({low} to {high}) for {n_tokens} tokens"


# A law is one row of numbers: probabilities of a categorical head, the context of a head with a density.


class _Tables:
    """Laws of a categorical head, as ``sample`` draws: with guidance, temperature and truncation."""

    def __init__(self, head: CategoricalHead, temperature: float) -> None:
        self.head, self.temperature = head, temperature

    def of(self, z_MD: torch.Tensor, null_MD: torch.Tensor | None, scale_M: torch.Tensor | float) -> torch.Tensor:
        return self.head.probabilities(z_MD, null_MD, scale_M, self.temperature)

    def draw(self, law_MX: torch.Tensor, noise: Noise) -> torch.Tensor:
        return choose(law_MX, noise)

    def log_prob(self, law_MX: torch.Tensor, x_M: torch.Tensor, noise: Noise) -> torch.Tensor:
        return law_MX.gather(1, x_M[:, None])[:, 0].log()

    def residual(self, p_MX: torch.Tensor, draft: _Laws, q_MX: torch.Tensor, noise: Noise) -> torch.Tensor:
        """x_M ~ (p - q)+ normalised; p where they are equal up to rounding."""
        rest_MV = (double(p_MX) - double(q_MX)).clamp(min=0)
        equal_M1 = rest_MV.sum(1, keepdim=True) < 1e-7
        return choose(back(torch.where(equal_M1, double(p_MX), rest_MV), p_MX.device), noise)


class _Densities:
    """Laws of a head with exact log-densities, at guidance 1 and temperature 1."""

    def __init__(self, head: Head) -> None:
        self.head = head

    def of(self, z_MD: torch.Tensor, null_MD: torch.Tensor | None, scale_M: torch.Tensor | float) -> torch.Tensor:
        return z_MD

    def draw(self, law_MX: torch.Tensor, noise: Noise) -> torch.Tensor:
        return self.head.sample(law_MX, noise)

    def log_prob(self, law_MX: torch.Tensor, x_M: torch.Tensor, noise: Noise) -> torch.Tensor:
        return self.head.log_prob(law_MX, x_M, "exact", noise).nats_M.float()

    def residual(self, p_MX: torch.Tensor, draft: _Laws, q_MX: torch.Tensor, noise: Noise) -> torch.Tensor:
        """x_M ~ (p - q)+ normalised, by rejection: x ~ p is kept with probability (1 - q(x) / p(x))+.

        A token comes here with probability d, the total variation between p and q, and takes 1 / d tries on average:
        one a token. Their number doubles from one batch of tries to the next.
        """
        x_M, open_M = self.draw(p_MX, noise), torch.arange(len(p_MX), device=p_MX.device)
        for tries in (2**k for k in range(_DOUBLINGS)):
            if not len(open_M):
                break
            at_T, number_T = open_M.repeat_interleave(tries), torch.arange(tries, 2 * tries).repeat(len(open_M))
            streams = noise.rows(at_T).at("try")
            assert streams.token_N is not None
            key_T = streams.token_N + number_T.to(at_T.device) * _PLACES  # a stream of its own for each try
            streams = replace(streams, token_N=key_T)
            y_T = self.draw(p_MX[at_T], streams)
            log_q_T = draft.log_prob(q_MX[at_T], y_T, streams)
            ratio_T = (log_q_T - self.log_prob(p_MX[at_T], y_T, streams)).exp()
            kept = (streams.at("keep").uniform(1)[:, 0] >= ratio_T).unflatten(0, (len(open_M), tries))
            found, first = kept.any(1), kept.long().argmax(1)
            x_M[open_M[found]] = y_T.unflatten(0, kept.shape)[found, first[found]]
            open_M = open_M[~found]
        return x_M


_Laws = _Tables | _Densities


def _laws(head: Head, guidance: Guidance, temperature: float) -> _Laws:
    """Raises Unsupported: the head has no exact probability of what it draws."""
    if isinstance(head, CategoricalHead):
        return _Tables(head, temperature)
    name = type(head).__name__
    if "exact" not in head.likelihoods:
        raise Unsupported(
            f"speculation accepts a draft by the exact probability of a token, which {name} does not have: use a "
            "categorical, logistic-mixture or gaussian-mixture head"
        )
    if guidance.active or temperature != 1.0:
        raise Unsupported(
            f"the density of what {name} draws is known at guidance 1 and temperature 1 alone: leave both out, or "
            "speculate with a categorical head"
        )
    return _Densities(head)


class _Reader:
    """The laws of the tokens at any ranks of each row, given the tokens before them."""

    def __init__(self, model: Model, plan: Plan, label_B: torch.Tensor, guidance: Guidance, temperature: float) -> None:
        self.model, self.plan, self.guidance = model, plan, guidance
        self.laws = _laws(model.head, guidance, temperature)
        self.condition_BC = model.condition(label_B)
        self.null_BC = model.null_condition(len(label_B)) if guidance.active else None
        rows, device = plan.rank_BL.shape[0], plan.rank_BL.device
        self.memory, self.null_memory = (model.network.memory(rows, device) for _ in range(2))
        self.n_given_B1 = (plan.step_BL == GIVEN).sum(1, keepdim=True)
        self.present_B = (plan.step_BL != ABSENT).sum(1)

    def __call__(
        self, token: torch.Tensor, first_B: torch.Tensor, last_B: torch.Tensor, seen_B: torch.Tensor, width: int
    ) -> torch.Tensor:
        """law_BWX of the tokens of ranks first, …, last - 1; zero elsewhere.

        A token sees those of lower rank, and of these the first ``seen_B`` alone.
        """
        rank_BL = self.plan.rank_BL
        target_BL = self.plan.scored_BL & (rank_BL >= first_B[:, None]) & (rank_BL < last_B[:, None])
        row_M, token_M = target_BL.nonzero(as_tuple=True)
        if not len(row_M):
            return self._empty_X.expand(len(rank_BL), width, -1)
        step_BL = torch.where(self.plan.scored_BL, rank_BL.minimum(seen_B[:, None]), self.plan.step_BL)
        z_MD = self._contexts(self.condition_BC, self.memory, token, step_BL, target_BL)
        null_MD, scale_M = None, 1.0
        if self.null_BC is not None:
            null_MD = self._contexts(self.null_BC, self.null_memory, token, step_BL, target_BL)
            rank_M, n_steps_M = (rank_BL + self.n_given_B1)[target_BL], self.plan.n_steps_B[row_M]
            place = Place(rank_M, rank_M, rank_M + 1, self.present_B[row_M], rank_BL[target_BL], n_steps_M)
            scale_M = self.guidance.at(place)
        law_MX = self.laws.of(z_MD, null_MD, scale_M)
        self._empty_X = torch.zeros_like(law_MX[0])
        law_BWX = law_MX.new_zeros(len(rank_BL), width, law_MX.shape[-1])
        law_BWX[row_M, rank_BL[row_M, token_M] - first_B[row_M]] = law_MX
        return law_BWX

    def forget(self, known_B: torch.Tensor) -> None:
        """Keep nothing of the tokens from rank ``known_B`` on: they may get other values."""
        for memory in (self.memory, self.null_memory):
            if memory is not None:
                memory.forget(self.plan.rank_BL < known_B[:, None])

    def _contexts(
        self, condition_BC: torch.Tensor, memory: Any, token: torch.Tensor, step_BL: torch.Tensor,
        target_BL: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """z_MD of the targets, from the rows that have any; of a network that is not one-pass, a row for each set."""
        if memory is not None:
            return self.model.network.read(memory, self.model.embedding(token), step_BL, condition_BC, target_BL)
        if self.model.network.one_pass:
            row_R = target_BL.any(1).nonzero()[:, 0]
            return self.model.context(token[row_R], step_BL[row_R], condition_BC[row_R], target_BL[row_R])
        row_M, token_M = target_BL.nonzero(as_tuple=True)
        set_M = row_M * (step_BL.shape[1] + 1) + step_BL[row_M, token_M]
        set_R, of_M = set_M.unique(return_inverse=True)
        row_R = set_R // (step_BL.shape[1] + 1)
        asked_RL = torch.zeros(len(row_R), step_BL.shape[1], dtype=torch.bool, device=step_BL.device)
        asked_RL[of_M, token_M] = True
        z_MD = self.model.context(token[row_R], step_BL[row_R], condition_BC[row_R], asked_RL)
        row_major = (of_M * step_BL.shape[1] + token_M).argsort()  # from one order of the targets to the other
        return torch.empty_like(z_MD).index_copy_(0, row_major, z_MD)


@torch.no_grad()
def generate_speculated(
    model: Model, plan: Plan, label_B: torch.Tensor, noise: Noise, guidance: Guidance = NONE,
    temperature: float | Temperature = 1.0, given: torch.Tensor | None = None, on_step: OnStep | None = None, *,
    speculation: Speculation, prompt: bool = False,
) -> torch.Tensor:  # fmt: skip
    """Draw tokens (B, L) or (B, L, E) by speculation; arguments as in ``samplers.generate``.

    ``on_step`` is called after every round with the tokens that it made known.

    Raises:
        Unsupported: the plan has sets of several tokens; the network does not serve the plan, or the drafts; or the
            head has no exact probability of what it draws.
    """
    if bool((plan.sizes() > 1).any()):
        raise Unsupported(
            "speculation keeps the distribution of one token at a time: use partition=singles, e.g. random"
        )
    if not model.network.sampling.exact:
        raise Unsupported(
            "refresh and chained change the contexts of a generation: leave them out, or leave out speculation"
        )
    temperature, prompt_B = Temperature.of(temperature).value, (plan.step_BL == GIVEN).sum(1)
    plan = after_prompt(plan) if prompt else plan
    known_B = prompt_B if prompt else torch.zeros_like(prompt_B)
    race = _Race(model, plan, label_B, noise, guidance, temperature, given, known_B, speculation)
    while race.live_B.any():
        new_BL = race.round()
        if on_step is not None:
            on_step(race.number - 1, race.token, new_BL)
    speculation.passes.append(race.passes_B.cpu())
    return race.token


class _Race:
    """The rounds of a batch; ``known_B`` counts the leading ranks of each row that are known."""

    def __init__(
        self, model: Model, plan: Plan, label_B: torch.Tensor, noise: Noise, guidance: Guidance, temperature: float,
        given: torch.Tensor | None, known_B: torch.Tensor, speculation: Speculation,
    ) -> None:  # fmt: skip
        self.plan, self.noise, self.known_B, self.size = plan, noise, known_B, speculation.size
        self.tokenizer, self.number = model.tokenizer, 0
        self.n_B = plan.scored_BL.sum(1)
        self.size = min(self.size, max(1, int(self.n_B.max())))
        self.own, self.jacobi = speculation.draft in OWN, speculation.draft == "jacobi"
        drafts = model if self.own else speculation.model
        assert drafts is not None, "loaded by Run"
        self._check(model, drafts)
        self.reader = _Reader(model, plan, label_B, guidance, temperature)
        self.drafts = self.reader if self.own else _Reader(drafts, plan, label_B, guidance, temperature)
        self.token = empty_tokens(model, len(label_B), label_B.device) if given is None else given.clone()
        self.stale_BWX: torch.Tensor | None = None  # of jacobi: the laws of the last pass for the next window
        self.passes_B = torch.zeros_like(known_B)
        self.place_BR = torch.where(plan.scored_BL, plan.rank_BL, ABSENT).argsort(dim=1, stable=True)
        self.row_B = torch.arange(len(known_B), device=known_B.device)

    def _check(self, model: Model, drafts: Model) -> None:
        for network in (model.network, drafts.network):
            rows = slice(0, 1) if network.shares_plan else slice(None)
            network.check(self.plan.step_BL[rows])
        if self.own and self.size > 1:
            try:
                model.network.check(torch.where(self.plan.scored_BL, 0, self.plan.step_BL)[:1])
            except Unsupported as refused:
                raise Unsupported(
                    f"{refused} (speculation asks for several: name a smaller run as the draft)"
                ) from None

    @property
    def live_B(self) -> torch.Tensor:
        """Rows with tokens to draw: not all known, and not ended."""
        live_B = self.known_B < self.n_B
        if self.tokenizer.end is None:
            return live_B
        unknown_BL = self.plan.scored_BL & (self.plan.rank_BL >= self.known_B[:, None])
        return live_B & ~(self.tokenizer.absent(self.token) | ~unknown_BL).all(1)

    def round(self) -> torch.Tensor:
        """Draft, verify and write; return new_BL, the tokens that became known."""
        live_B, start_B, size = self.live_B, self.known_B, self.size
        end_B = torch.where(live_B, torch.minimum(start_B + size, self.n_B), start_B)
        own_pass = self.own and self.stale_BWX is None
        text = self.token.clone()  # what is known, and the drafts
        q_BWX = self._draft(text, start_B, end_B)

        # One pass reads the drafts, one token after them, and for jacobi the whole next window. The first draft of an
        # own pass has the model's law already.
        lead, ahead = int(own_pass), size + 1 if self.jacobi else 1
        read_B = live_B & (self.n_B - start_B > lead)
        last_B = torch.where(read_B, torch.minimum(end_B + ahead, self.n_B), start_B)
        p_BWX = self.reader(text, start_B + lead, last_B, end_B, size + ahead - lead)
        if own_pass:
            p_BWX = torch.cat([q_BWX[:, :1], p_BWX], dim=1)
        self.passes_B = self.passes_B + live_B * lead + read_B

        run_B = self._accepted(text, p_BWX, q_BWX, start_B, end_B)
        stop_B = start_B + run_B
        for reader in {self.reader, self.drafts}:
            reader.forget(stop_B)
        new_BL = self._between(start_B, stop_B)
        self.token[new_BL] = text[new_BL]
        rejected_B, after_B = stop_B < end_B, read_B & (stop_B >= end_B) & (stop_B < self.n_B)
        for wanted_B in (rejected_B, after_B):
            row_M = wanted_B.nonzero()[:, 0]
            place_M, w_M = self.place_BR[row_M, stop_B[row_M]], run_B[row_M]
            streams, p_MX = self._streams("rest", row_M, place_M), p_BWX[row_M, w_M]
            if wanted_B is rejected_B:
                x_M = self.reader.laws.residual(p_MX, self.drafts.laws, q_BWX[row_M, w_M], streams)
            else:
                x_M = self.reader.laws.draw(p_MX, streams)
            self.token[row_M, place_M] = x_M.to(self.token.dtype)
            new_BL[row_M, place_M] = True

        self.known_B = stop_B + (rejected_B | after_B)
        if self.jacobi:
            w_BW = (self.known_B - start_B)[:, None] + torch.arange(size, device=end_B.device)
            self.stale_BWX = p_BWX[self.row_B[:, None], w_BW]
        self.number += 1
        return new_BL

    def _draft(self, text: torch.Tensor, start_B: torch.Tensor, end_B: torch.Tensor) -> torch.Tensor:
        """Return q_BWX, the laws of the drafts; write the drafts of ranks start, …, end - 1 into ``text``."""
        if not self.own:  # token by token
            laws = []
            for w in range(self.size):
                first_B = torch.minimum(start_B + w, end_B)
                last_B = torch.minimum(first_B + 1, end_B)
                laws.append(self.drafts(text, first_B, last_B, end_B, 1))
                self._write_drafts(text, laws[-1], first_B, last_B)
            return torch.cat(laws, dim=1)
        q_BWX = self.stale_BWX
        if q_BWX is None:
            q_BWX = self.reader(text, start_B, end_B, start_B, self.size)
        self._write_drafts(text, q_BWX, start_B, end_B)
        return q_BWX

    def _write_drafts(
        self, text: torch.Tensor, q_BWX: torch.Tensor, first_B: torch.Tensor, last_B: torch.Tensor
    ) -> None:
        row_M, w_M, place_M = self._window(first_B, last_B)
        drawn_M = self.drafts.laws.draw(q_BWX[row_M, w_M], self._streams("draft", row_M, place_M))
        text[row_M, place_M] = drawn_M.to(text.dtype)

    def _accepted(
        self, text: torch.Tensor, p_BWX: torch.Tensor, q_BWX: torch.Tensor, start_B: torch.Tensor, end_B: torch.Tensor
    ) -> torch.Tensor:
        """run_B: the leading drafts of each row that are accepted."""
        row_M, w_M, place_M = self._window(start_B, end_B)
        y_M, streams = text[row_M, place_M], self._streams("accept", row_M, place_M)
        log_p_M = self.reader.laws.log_prob(p_BWX[row_M, w_M], y_M, streams)
        log_q_M = self.drafts.laws.log_prob(q_BWX[row_M, w_M], y_M, streams)
        accepted_BW = torch.zeros(len(text), self.size, dtype=torch.int64, device=text.device)
        accepted_BW[row_M, w_M] = (streams.uniform(1)[:, 0].log() < log_p_M - log_q_M).long()
        return accepted_BW.cumprod(1).sum(1)

    def _window(self, first_B: torch.Tensor, last_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows, places in the window and positions of the tokens of ranks first, …, last - 1."""
        w_W = torch.arange(self.size, device=first_B.device)
        row_M, w_M = (first_B[:, None] + w_W < last_B[:, None]).nonzero(as_tuple=True)
        return row_M, w_M, self.place_BR[row_M, first_B[row_M] + w_M]

    def _between(self, first_B: torch.Tensor, last_B: torch.Tensor) -> torch.Tensor:
        rank_BL = self.plan.rank_BL
        return self.plan.scored_BL & (rank_BL >= first_B[:, None]) & (rank_BL < last_B[:, None])

    def _streams(self, purpose: str, row_M: torch.Tensor, place_M: torch.Tensor) -> Noise:
        """Return one stream a token, of this round."""
        return self.noise.at(purpose, draw=self.number).tokens(row_M, place_M)
