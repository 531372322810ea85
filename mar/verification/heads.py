"""Contract tests of heads: sampling, guidance, likelihoods, and the density of continuous tokens of one channel.

M gathered tokens · D context width · V vocabulary · N points or draws
"""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from mar.core.errors import Unsupported
from mar.core.noise import stream
from mar.core.tokens import Categories, Vectors
from mar.heads.base import Head
from mar.verification.cases import CONTEXTS, DRAWS, TOKENS, WIDTH, HeadCase, normal, served, small_head, streams
from mar.verification.verdict import ALPHA, Broken, Verdict, claim, p_value, require

_BOUND_DRAWS = 50  # evaluations of a stochastic bound that are averaged before exponentiation
_MASS_TOLERANCE = {"exact": 1e-3, "ode": 5e-3}


def fit(head: Head, iterations: int = 300, batch: int = 64) -> Head:
    """Train the head on a standard normal for a few seconds: the bound of random weights is too loose for a test."""
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, iterations)
    for iteration in range(iterations):
        z_MD, x_M1 = (normal(iteration, f"fit/{what}", batch, n) for what, n in (("context", WIDTH), ("value", 1)))
        optimiser.zero_grad()
        head.loss(z_MD, x_M1, stream(iteration, "verify/fit", batch)).mean().backward()
        optimiser.step()
        schedule.step()
    head.zero_grad()
    return head


@torch.no_grad()
def _density(of: HeadCase, m: int, kind: str, x_N: Tensor, draws: int = 1) -> Tensor:
    """Return the density of context m at points x_N; for a bound, the exponential of its mean over draws of noise."""
    nats_N = torch.zeros(len(x_N), dtype=torch.float64)
    for draw in range(draws):
        z_ND = of.z_MD[m : m + 1].expand(len(x_N), -1)
        noise = streams(len(x_N)).at(f"point {draw}")
        nats_N += of.head.log_prob(z_ND, x_N[:, None].float(), kind, noise).nats_M.double()
    return (nats_N / draws).exp()


def _support(of: HeadCase, m: int, kind: str, points: int) -> Tensor:
    """Return evenly spaced points that cover all places where the density is not negligible."""
    wide_N = torch.linspace(-8.0, 8.0, 533, dtype=torch.float64).sinh()  # -1500 to 1500, finest at zero
    density_N = _density(of, m, kind, wide_N, draws=4)
    sound = bool(density_N.isfinite().all()) and float(density_N.max()) > 0
    require(sound, f"context {m}: the density is 0 or infinite")
    inside = (density_N > 1e-9 * density_N.max()).nonzero()[:, 0]
    low, high = max(0, int(inside[0]) - 1), min(len(wide_N) - 1, int(inside[-1]) + 1)
    return torch.linspace(float(wide_N[low]), float(wide_N[high]), points, dtype=torch.float64)


def _masses(of: HeadCase, kind: str, points: int, draws: int = 1) -> list[float]:
    """Return the integral of the density of the first three contexts."""
    supports = [_support(of, m, kind, points) for m in range(3)]
    return [float(torch.trapezoid(_density(of, m, kind, x_N, draws), x_N)) for m, x_N in enumerate(supports)]


@claim("the density integrates to 1")
def integrates_to_one(of: HeadCase, kind: str) -> str:
    masses = _masses(of, kind, points=4001)
    for m, mass in enumerate(masses):
        require(abs(mass - 1) < _MASS_TOLERANCE[kind], f"context {m}: the density integrates to {mass:.5f}")
    return ", ".join(f"{mass:.5f}" for mass in masses)


@claim("a bound lies below a density: its exponential integrates to at most 1")
def bound_is_below(of: HeadCase) -> str:
    masses = _masses(of, "bound", points=201, draws=_BOUND_DRAWS)
    for m, mass in enumerate(masses):
        require(mass < 1.01, f"context {m}: exp of the bound integrates to {mass:.4f}")
    return f"{', '.join(f'{mass:.2f}' for mass in masses)} after a few seconds of training"


@claim("samples follow the density (chi-square)")
@torch.no_grad()
def sampler_agrees_with_density(of: HeadCase) -> str:
    smallest = 1.0
    for m in range(3):
        x_N = _support(of, m, "exact", points=4001).numpy()
        density_N = _density(of, m, "exact", torch.from_numpy(x_N)).numpy()
        cdf_N = np.append(0.0, np.cumsum(np.diff(x_N) * (density_N[1:] + density_N[:-1]) / 2))
        edges = np.interp(np.linspace(0, 1, 21)[1:-1], cdf_N / cdf_N[-1], x_N)  # twenty bins of equal probability
        draws = of.head.sample(of.z_MD[m : m + 1].expand(DRAWS, -1), streams(DRAWS))[:, 0].double().numpy()
        count = np.bincount(np.searchsorted(edges, draws), minlength=20)
        smallest = min(smallest, p_value(count, np.full(20, 0.05)))
    require(smallest > ALPHA / 3, f"smallest p-value {smallest:.1e} over 3 contexts")
    return f"3 contexts of {DRAWS} draws, smallest p-value {smallest:.2g}"


def verify_head(cls: type[Head], subject: str) -> list[Verdict]:
    """Every claim of the ``Head`` contract, on each kind of token that the head models."""
    verdicts = []
    heads, refusals = served(small_head, cls, TOKENS)
    for name, head in heads.items():
        on, of = f"{subject} on {name}", HeadCase.of(head)
        verdicts += [check(on, of) for check in (losses, likelihood_kinds, rows_alone, draws_are_keyed, no_guidance)]
        if isinstance(head.token, Categories):
            verdicts += [check(on, of) for check in (sums_to_one, sampler_agrees, temperature_agrees, entropy_agrees)]
        elif head.token == Vectors(1):
            verdicts += [integrates_to_one(f"{on}, {kind}", of, kind) for kind in sorted(head.likelihoods - {"bound"})]
            if "bound" in head.likelihoods:
                verdicts.append(bound_is_below(on, HeadCase.of(fit(small_head(cls, head.token, live=False)))))
            if "exact" in head.likelihoods:
                verdicts.append(sampler_agrees_with_density(on, of))
    return verdicts or [Verdict("it serves some kind of token with its test options", subject, False, refusals)]


@claim("the loss is one finite value a token, with finite gradients")
def losses(of: HeadCase) -> str:
    z_MD = of.z_MD.clone().requires_grad_()
    loss_M = of.head.loss(z_MD, of.x_M, of.noise)
    require(tuple(loss_M.shape) == (CONTEXTS,), f"the loss of {CONTEXTS} tokens has shape {tuple(loss_M.shape)}")
    require(bool(loss_M.isfinite().all()), "a loss is not finite")
    loss_M.sum().backward()
    grads = [z_MD.grad, *(p.grad for p in of.head.parameters())]
    of.head.zero_grad()
    require(all(bool(g.isfinite().all()) for g in grads if g is not None), "a gradient is not finite")
    require(z_MD.grad is not None and bool(z_MD.grad.any(1).all()), "a context gets no gradient")
    with torch.no_grad():
        few_M = of.head.loss(of.z_MD[:3], of.x_M[:3], of.noise.rows(slice(0, 3)))
    require(torch.allclose(few_M, loss_M[:3].detach(), atol=1e-4, rtol=1e-4), "a token's loss depends on its batch")
    return f"{CONTEXTS} tokens, mean {float(loss_M.detach().mean()):.3f}"


@claim("likelihoods are of the kinds it names, and others are refused")
@torch.no_grad()
def likelihood_kinds(of: HeadCase) -> str:
    head, kinds = of.head, sorted(of.head.likelihoods)
    require(set(kinds) <= {"exact", "ode", "bound"}, f"unknown kinds of likelihood {kinds}")
    require(not kinds or head.default_likelihood in kinds, f"the default {head.default_likelihood!r} is not in {kinds}")
    for kind in kinds:
        result = head.log_prob(of.z_MD, of.x_M, kind, of.noise)
        require(result.kind == kind, f"asked for {kind!r}, got {result.kind!r}")
        require(tuple(result.nats_M.shape) == (CONTEXTS,), f"{kind}: shape {tuple(result.nats_M.shape)}")
        require(bool(result.nats_M.isfinite().all()), f"{kind}: a log-probability is not finite")
    for kind in {"exact", "ode", "bound"} - set(kinds):
        with suppress(Unsupported):
            head.check_kind(kind)
            raise Broken(f"{kind!r} is not refused, though the head does not name it")
    return ", ".join(kinds) or "none"


@claim("a token's likelihood does not depend on its batch")
@torch.no_grad()
def rows_alone(of: HeadCase) -> str:
    for kind in sorted(of.head.likelihoods):
        all_M = of.head.log_prob(of.z_MD, of.x_M, kind, of.noise).nats_M
        for m in range(CONTEXTS):
            only = slice(m, m + 1)
            alone_1 = of.head.log_prob(of.z_MD[only], of.x_M[only], kind, of.noise.rows(only)).nats_M
            require(torch.allclose(alone_1, all_M[only], atol=1e-4, rtol=1e-4), f"{kind}: token {m} alone differs")
    return f"{CONTEXTS} tokens one by one"


@claim("a draw depends on its own stream of noise alone")
@torch.no_grad()
def draws_are_keyed(of: HeadCase) -> str:
    head = of.head
    x_M = head.sample(of.z_MD, of.noise)
    for got, want in ((x_M.dtype, of.x_M.dtype), (tuple(x_M.shape), tuple(of.x_M.shape))):
        require(got == want, f"samples are of dtype or shape {got}, not {want}")
    if isinstance(head.token, Categories):
        require(bool(((x_M >= 0) & (x_M < head.token.vocabulary)).all()), "a sample is out of range")
    require(torch.equal(head.sample(of.z_MD, of.noise), x_M), "the same noise gave two samples")
    other = torch.arange(CONTEXTS - 1, -1, -2)  # fewer rows, in another order
    some_M = head.sample(of.z_MD[other], of.noise.rows(other))
    require(torch.allclose(some_M, x_M[other], atol=1e-4, rtol=1e-4), "a draw depends on its batch")
    z_MD = of.z_MD[:1].expand(200, -1)
    require(len(head.sample(z_MD, streams(200)).unique(dim=0)) > 1, "200 streams of one context gave one sample")
    return f"{CONTEXTS} draws, in two batches"


@claim("guidance 1 is no guidance")
@torch.no_grad()
def no_guidance(of: HeadCase) -> str:
    null_MD = normal(8, "null context", *of.z_MD.shape)
    plain_M = of.head.sample(of.z_MD, of.noise)
    for scale in (1.0, torch.ones(CONTEXTS)):
        guided_M = of.head.sample(of.z_MD, of.noise, null_MD, scale)
        require(torch.allclose(guided_M, plain_M, atol=1e-3, rtol=1e-3), "guidance 1 changed a sample")
    a_M, b_M = (of.head.sample(of.z_MD, of.noise, null_MD, g) for g in (2.5, torch.full((CONTEXTS,), 2.5)))
    require(torch.allclose(a_M, b_M, atol=1e-4, rtol=1e-4), "a scale for each token differs from one for all")
    return "as a number and as a tensor"


def _probabilities(of: HeadCase) -> Tensor:
    """Return probability_MV, from ``log_prob`` of every category."""
    assert isinstance(of.head.token, Categories)
    vocabulary = of.head.token.vocabulary
    row = torch.arange(CONTEXTS).repeat_interleave(vocabulary)
    x_N = torch.arange(vocabulary).repeat(CONTEXTS)
    with torch.no_grad():
        result = of.head.log_prob(of.z_MD[row], x_N, of.head.default_likelihood, of.noise.rows(row))
    return result.nats_M.double().exp().reshape(CONTEXTS, vocabulary)


@claim("probabilities sum to 1 over the vocabulary")
def sums_to_one(of: HeadCase) -> str:
    off = float((_probabilities(of).sum(1) - 1).abs().max())
    require(off < 1e-5, f"off by {off:.1e}")
    return f"{CONTEXTS} contexts, off by {off:.0e}"


@claim("samples follow the likelihood (chi-square)")
def sampler_agrees(of: HeadCase) -> str:
    return _chi_square(of, _probabilities(of), 1.0)


@claim("samples at temperature T follow p^(1/T) (chi-square)")
def temperature_agrees(of: HeadCase) -> str:
    sharpened = _probabilities(of) ** 2
    return _chi_square(of, sharpened / sharpened.sum(1, keepdim=True), 0.5)


@torch.no_grad()
def _chi_square(of: HeadCase, probability_MV: Tensor, temperature: float) -> str:
    p_values = []
    for m, probability_V in enumerate(probability_MV):
        x_N = of.head.sample(of.z_MD[m : m + 1].expand(DRAWS, -1), streams(DRAWS), temperature=temperature)
        p_values.append(p_value(torch.bincount(x_N, minlength=len(probability_V)).numpy(), probability_V.numpy()))
    smallest = min(p_values)
    require(smallest > ALPHA / CONTEXTS, f"smallest p-value {smallest:.1e} over {CONTEXTS} contexts")
    return f"{CONTEXTS} contexts of {DRAWS} draws, smallest p-value {smallest:.2g}"


@claim("the entropy is that of the likelihood, or refused")
@torch.no_grad()
def entropy_agrees(of: HeadCase) -> str:
    try:
        entropy_M = of.head.entropy(of.z_MD).double()
    except Unsupported:
        return "refused"
    p_MV = _probabilities(of)
    off = float((entropy_M + (p_MV * p_MV.clamp(min=1e-300).log()).sum(1)).abs().max())
    require(off < 1e-4, f"off by {off:.1e} nats")
    return f"off by {off:.0e} nats"
