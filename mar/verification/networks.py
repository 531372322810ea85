"""Contract tests of a network.

B batch · L tokens · D width · M gathered tokens · K AR steps
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mar.core.noise import stream
from mar.networks.base import Network
from mar.verification.cases import SHAPES, Case, cases, normal, served, small_network
from mar.verification.verdict import Broken, Verdict, claim, require
from orderings import ABSENT, GIVEN, Grid

TOLERANCE = 1e-4  # where shapes differ, so sums are taken in another order
_ENOUGH = 0.25  # share of steps that must depend on the previous one: a local network misses some in random order


def verify_network(cls: type[Network], subject: str) -> list[Verdict]:
    """Test every claim of the ``Network`` contract, on each small grid that the network supports."""
    verdicts, (networks, refusals) = [], served(small_network, cls, SHAPES)
    for name, network in networks.items():
        found = cases(network, len(Grid.parse(name)))
        verdicts += [check(f"{subject} on {name}", network, found) for check in CLAIMS]
        if cls.resample is not Network.resample:
            network.resample(stream(1, "verify/resample", 1))
            verdicts += [no_leak(f"{subject} on {name}, resampled", network, found)]
    return verdicts or [Verdict("it serves a small grid with its test options", subject, False, refusals)]


@claim("it accepts some plan")
def accepts_a_plan(network: Network, cases: list[Case]) -> str:
    require(len(cases) > 0, "check() refuses every kind of plan")
    return ", ".join(case.name for case in cases)


def _asked(
    network: Network, cases: list[Case], mixed: bool = True
) -> Iterator[tuple[Case, list[Tensor], Tensor, Tensor]]:
    """Yield the questions of every case: case, the steps step_B that one question covers, target_BL, and its answer.

    The steps are each one in all rows together, then, with ``mixed``, a different one in each row. A network that
    answers in one pass is asked once, for everything.
    """
    for case in cases:
        n_steps_B = case.plan.n_steps_B
        steps = [torch.full_like(n_steps_B, step) for step in range(int(n_steps_B.max()))]
        steps += [torch.arange(len(n_steps_B)) % n_steps_B] * mixed
        for some in [steps] if network.one_pass else [[step_B] for step_B in steps]:
            target_BL = _targets(network, case, some[0])
            yield case, some, target_BL, _ask(network, case, case.token_BLD, target_BL)


def _targets(network: Network, case: Case, step_B: Tensor) -> Tensor:
    """What is asked for at a step: everything, of a network that answers in one pass."""
    return case.plan.scored_BL if network.one_pass else case.plan.target(step_B)


@torch.no_grad()
def _ask(network: Network, case: Case, token_BLD: Tensor, target_BL: Tensor) -> Tensor:
    return network(token_BLD, case.plan.step_BL, case.condition_BC, target_BL)


@claim("contexts are finite, one for each target")
def output_shape(network: Network, cases: list[Case]) -> str:
    for case, _, target_BL, z_MD in _asked(network, cases):
        want = (int(target_BL.sum()), network.context_width)
        require(tuple(z_MD.shape) == want, f"{case.name}: contexts have shape {tuple(z_MD.shape)}, not {want}")
        require(bool(z_MD.isfinite().all()), f"{case.name}: a context is not finite")
    return f"{len(cases)} kinds of plan, every step"


@claim("no leak: tokens of the same or a later step never change a context")
def no_leak(network: Network, cases: list[Case]) -> str:
    compared = 0
    for case, steps, target_BL, before_MD in _asked(network, cases):
        step_BL, other_BLD = case.plan.step_BL, normal(1, "other token", *case.token_BLD.shape)
        for step_B in steps:
            early_M = (step_BL <= step_B[:, None])[target_BL]
            for size in (1.0, 1e4):
                token_BLD = torch.where((step_BL >= step_B[:, None])[..., None], size * other_BLD, case.token_BLD)
                changed_M = (_ask(network, case, token_BLD, target_BL) != before_MD).any(1) & early_M
                if changed_M.any():
                    row, token = target_BL.nonzero()[changed_M.nonzero()[0, 0]].tolist()
                    raise Broken(
                        f"{case.name}: the context of token {token} (row {row}, step {int(step_BL[row, token])}) "
                        f"changed with tokens of steps {int(step_B[row])} and later"
                    )
            compared += int(early_M.sum())
    return f"{compared} contexts bit-identical over {len(cases)} kinds of plan"


@claim("contexts feel the step before, the given tokens and the condition (no token, if it reads none)")
def depends_on_the_past(network: Network, cases: list[Case]) -> str:
    felt: dict[str, list[bool]] = {"given tokens": [], "the step before": [], "the condition": []}
    for case, steps, target_BL, before_MD in _asked(network, cases, mixed=False):
        step_BL, other_BLD = case.plan.step_BL, normal(1, "other token", *case.token_BLD.shape)
        with torch.no_grad():
            other_BC = normal(2, "other condition", *case.condition_BC.shape)
            conditioned_MD = network(case.token_BLD, step_BL, other_BC, target_BL)
        for step_B in steps:
            now_M = case.plan.target(step_B)[target_BL]
            felt["the condition"].append(not torch.equal(conditioned_MD[now_M], before_MD[now_M]))
            last_BL = step_BL == step_B[:, None] - 1
            if (last_BL & case.plan.target(step_B).any(1, keepdim=True)).any():
                token_BLD = torch.where(last_BL[..., None], other_BLD, case.token_BLD)
                after_MD = _ask(network, case, token_BLD, target_BL)[now_M]
                what = "the step before" if int(step_B[0]) else "given tokens"
                felt[what].append(not torch.equal(after_MD, before_MD[now_M]))
    for what, times in felt.items():
        share = sum(times) / max(1, len(times))
        if what != "the condition" and not network.reads_tokens:
            require(not share, f"changing {what} changed contexts, though reads_tokens is False")
            continue
        require(not times or share >= _ENOUGH, f"changing {what} changed contexts at {share:.0%} of the steps only")
    return ", ".join(f"{what} at {sum(times)}/{len(times)} steps" for what, times in felt.items())


@claim("contexts come in row-major order, each as if asked for alone")
def row_major(network: Network, cases: list[Case]) -> str:
    for case, _, target_BL, all_MD in _asked(network, cases):
        keep_BL = target_BL & (stream(3, "verify/subset", len(target_BL)).uniform(target_BL.shape[1]) < 0.5)
        some_MD = _ask(network, case, case.token_BLD, keep_BL)
        _require_close(some_MD, all_MD[keep_BL[target_BL]], f"{case.name}: a context depends on what else is asked")
    return f"{len(cases)} kinds of plan, half of the targets against all"


@claim("a row's contexts do not depend on its batch")
def batch_invariant(network: Network, cases: list[Case]) -> str:
    for case, _, target_BL, all_MD in _asked(network, cases):
        row_M = target_BL.nonzero()[:, 0]
        for row in range(len(target_BL)):
            only = slice(row, row + 1)
            alone = Case(case.name, case.plan.rows(only), case.token_BLD[only], case.condition_BC[only])
            alone_MD = _ask(network, alone, alone.token_BLD, target_BL[only])
            _require_close(alone_MD, all_MD[row_M == row], f"{case.name}: row {row} alone has other contexts")
    return f"within {TOLERANCE:g} over {len(cases)} kinds of plan"


@claim("gradients are finite, and some are not zero")
def gradients(network: Network, cases: list[Case]) -> str:
    for case in cases:
        network.zero_grad()
        step_B = torch.arange(len(case.plan.step_BL)) % case.plan.n_steps_B
        z_MD = network(case.token_BLD, case.plan.step_BL, case.condition_BC, _targets(network, case, step_B))
        z_MD.square().sum().backward()
        grads = [p.grad for p in network.parameters() if p.grad is not None]
        require(all(bool(g.isfinite().all()) for g in grads), f"{case.name}: a gradient is not finite")
        require(any(bool(g.any()) for g in grads), f"{case.name}: no parameter gets a gradient")
    network.zero_grad()
    return f"{len(cases)} kinds of plan"


@claim("cached generation equals the full forward pass")
@torch.no_grad()
def cached_equals_uncached(network: Network, cases: list[Case]) -> str:
    worst = 0.0
    for case in cases:
        step_BL = case.plan.step_BL
        state = network.begin(case.condition_BC, step_BL == ABSENT)
        for step in range(GIVEN, int(case.plan.n_steps_B.max())):
            now_BL = step_BL == step
            if step > GIVEN:
                full_MD = _ask(network, case, case.token_BLD, now_BL)
                unknown_BL = (step_BL >= step) & (step_BL < ABSENT)
                # adaptive orders ask for everything that is unknown
                for asked_BL in (now_BL,) if network.joint_sets else (now_BL, unknown_BL):
                    cached_MD = network.query(state, asked_BL)[now_BL[asked_BL]]
                    _require_close(cached_MD, full_MD, f"{case.name}: step {step}, cached and not")
                    worst = max(worst, float((cached_MD - full_MD).abs().max()))
            garbage_BLD = normal(step + 4, "unknown token", *case.token_BLD.shape)
            observed_BLD = torch.where((step_BL <= step)[..., None], case.token_BLD, garbage_BLD)
            state = network.observe(state, observed_BLD, now_BL)
            observed_BLD.zero_()  # the caller goes on writing there
    return f"{len(cases)} kinds of plan, largest difference {worst:.1e}"


def _require_close(a: Tensor, b: Tensor, otherwise: str) -> None:
    require(a.shape == b.shape, f"{otherwise} (shapes {tuple(a.shape)} and {tuple(b.shape)})")
    if a.numel():
        apart = float(((a - b).abs() / (1 + b.abs())).max())
        require(apart <= TOLERANCE, f"{otherwise} (apart by {apart:.1e})")


CLAIMS = (
    accepts_a_plan, output_shape, no_leak, depends_on_the_past, row_major, batch_invariant, gradients,
    cached_equals_uncached,
)  # fmt: skip
