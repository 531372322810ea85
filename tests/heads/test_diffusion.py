"""The diffusion head's samples against closed forms, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from mar.core.errors import Unsupported, UserError
from mar.core.noise import Noise, stream
from mar.heads.diffusion import DiffusionOptions, DiffusionSampling
from mar.heads.diffusion_process import betas
from tests.heads.diffusion_oracle import STD, gaussian_head, random_head

SOLVERS = ["ancestral", "ddim", "dpm-solver++", "unipc", "heun"]


def assert_gaussian(x_ME: torch.Tensor, mean: torch.Tensor, slack: float = 0.0) -> None:
    """Mean and standard deviation of each channel within five standard errors and a relative ``slack`` of STD."""
    error = STD / math.sqrt(len(x_ME))
    assert ((x_ME.mean(0) - mean).abs() < 5 * error + slack * STD).all(), x_ME.mean(0)
    assert ((x_ME.std(0) - STD).abs() < 5 * error / math.sqrt(2) + slack * STD).all(), x_ME.std(0)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize(
    "sampling", [{"steps": 20}, {"steps": 100}, {"timesteps": (0, 10, 100, 400, 800, 999)}], ids=str
)
def test_the_ancestral_sampler_draws_from_the_target_for_any_chain(sampling, schedule):
    head = gaussian_head(sampling=DiffusionSampling(**sampling), schedule=schedule)
    mean = torch.tensor([0.7, -1.2])
    assert_gaussian(head.sample(mean.expand(20_000, -1), stream(0, "sample", 20_000)), mean, slack=0.01)


@pytest.mark.parametrize("solver", SOLVERS[1:])
def test_every_solver_maps_noise_to_the_target(solver):
    head = gaussian_head(sampling=DiffusionSampling(solver=solver, steps=200))
    mean = torch.tensor([0.7, -1.2])
    assert_gaussian(head.sample(mean.expand(20_000, -1), stream(0, "sample", 20_000)), mean, slack=0.015)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("guidance", [0.0, 2.5, torch.full((5_000,), 2.5)], ids=["0", "2.5", "per token"])
def test_guidance_moves_a_gaussian_along_the_line_of_means(solver, guidance):
    head = gaussian_head(sampling=DiffusionSampling(solver=solver, steps=200))
    mean, null = torch.tensor([0.5, -0.5]), torch.tensor([0.2, 0.1])
    noise = stream(0, "sample", 5_000)
    x = head.sample(mean.expand(5_000, -1), noise, null.expand(5_000, -1), guidance)
    scale = guidance[0] if isinstance(guidance, torch.Tensor) else guidance
    assert_gaussian(x, null + scale * (mean - null), slack=0.015)


@pytest.mark.parametrize("solver", SOLVERS)
def test_guidance_one_is_no_guidance(solver):
    head = random_head()
    head.sampling = DiffusionSampling(solver=solver, steps=10)
    z, null, noise = torch.randn(5, 6), torch.randn(5, 6), stream(0, "sample", 5)
    plain = head.sample(z, noise)
    assert torch.equal(head.sample(z, noise, null, 1.0), plain)
    torch.testing.assert_close(head.sample(z, noise, null, torch.ones(5)), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_token_drawn_alone_is_the_token_drawn_in_a_batch(solver):
    head = random_head()
    head.sampling = DiffusionSampling(solver=solver, steps=20)
    z = torch.randn(9, 6)
    noise = stream(0, "sample", 3).tokens(torch.arange(9) // 3, torch.arange(9) % 3)
    whole = head.sample(z, noise)
    assert len(whole.unique(dim=0)) == 9
    for rows in (slice(0, 1), slice(4, 9)):
        torch.testing.assert_close(head.sample(z[rows], noise.rows(rows)), whole[rows], rtol=1e-5, atol=1e-5)


class SameStart:
    """Noise whose start is one stream's and whose steps are another's."""

    def __init__(self, init: Noise, step: Noise) -> None:
        self.init, self.step = init, step

    def at(self, purpose: str, draw: int = 0) -> Noise:
        return (self.init if purpose == "init" else self.step).at(purpose, draw)


def test_temperature_scales_the_step_noise_alone():
    head, z = random_head(), torch.randn(4, 6)
    head.sampling = DiffusionSampling(steps=10)

    def draw(start: int, step: int, temperature: float) -> torch.Tensor:
        noise = SameStart(stream(start, "sample", 4), stream(step, "sample", 4))
        return head.sample(z, noise, temperature=temperature)  # pyright: ignore[reportArgumentType]

    assert torch.equal(draw(0, 1, 0.0), draw(0, 2, 0.0))
    assert not torch.allclose(draw(0, 1, 0.0), draw(3, 1, 0.0))
    assert not torch.allclose(draw(0, 1, 1.0), draw(0, 2, 1.0))


def test_chains_start_where_there_is_a_signal_unless_told_otherwise():
    head = random_head()
    assert head.chain(100).timesteps[-1] == head.chain().timesteps[-1] == 992
    assert head.chain().prior_nats(torch.ones(1, 1)) < 1e-4
    head.sampling = DiffusionSampling(start=999)
    assert head.chain().timesteps == list(range(1000))


def test_no_tokens_are_no_error():
    head, z, x, noise = random_head(timesteps=40), torch.zeros(0, 6), torch.zeros(0, 3), stream(0, "none", 0)
    head.sampling = DiffusionSampling(steps=5)
    assert head.sample(z, noise).shape == (0, 3)
    assert head.loss(z, x, noise).shape == head.log_prob(z, x, "bound", noise).nats_M.shape == (0,)


REFUSED: dict[str, Callable[[], object]] = {
    "steps must be at least 2": lambda: DiffusionSampling(steps=1),
    r"head\.depth must be at least 1": lambda: DiffusionOptions(depth=0),
}


@pytest.mark.parametrize("message", REFUSED)
def test_impossible_options_are_refused(message):
    with pytest.raises(UserError, match=message):
        REFUSED[message]()


def test_what_the_head_cannot_do_is_refused_with_what_would_work():
    head, z, x, noise = random_head(), torch.zeros(1, 6), torch.zeros(1, 3), stream(0, "x", 1)
    with pytest.raises(Unsupported, match="bound"):
        head.log_prob(z, x, "exact", noise)
    with pytest.raises(Unsupported, match="categorical"):
        head.entropy(z)
    head.sampling = DiffusionSampling(solver="ddim", steps=5)
    with pytest.raises(Unsupported, match="ancestral"):
        head.sample(z, noise, temperature=0.9)
    head.sampling = DiffusionSampling(steps=2000)
    with pytest.raises(UserError, match="2 to 993"):
        head.sample(z, noise)
    head.sampling = DiffusionSampling(start=1000)
    with pytest.raises(UserError, match=r"1\.\.999"):
        head.sample(z, noise)


def test_many_rows_share_the_embedding_of_a_timestep():
    head = random_head(timesteps=5)
    t_N = torch.arange(40) % 5
    x_NE, condition_NW = torch.randn(40, 3), torch.randn(40, 32)
    apart = [head.net(x_NE[rows], t_N[rows], condition_NW[rows]) for rows in torch.arange(40).split(4)]
    assert torch.allclose(head.net(x_NE, t_N, condition_NW), torch.cat(apart), atol=1e-5)


def test_steps_fall_linearly_along_a_generation():
    steps = [DiffusionSampling(steps=50, final_steps=10).at(step / 8).steps for step in range(9)]
    assert steps == [50, 45, 40, 35, 30, 25, 20, 15, 10]
    assert DiffusionSampling(steps=50).at(0.5) == DiffusionSampling(steps=50)
    with pytest.raises(UserError, match="final_steps"):
        DiffusionSampling(final_steps=1)


def published_ddim(head, x_NE: torch.Tensor, condition_NW: torch.Tensor, timesteps: list[int]) -> torch.Tensor:
    """The loop of improved-diffusion's ``ddim_sample`` with eta 0 and unclipped x_0, in float64."""
    beta_T = betas(head.options.schedule, head.options.timesteps)
    abar_T = torch.cumprod(1 - beta_T, 0)[timesteps]
    before_T = torch.cat([torch.ones(1), abar_T[:-1]])
    x_NE = x_NE.double()
    for abar, before, timestep in list(zip(abar_T, before_T, timesteps, strict=True))[::-1]:
        eps_NE = head.net(x_NE.float(), torch.tensor([timestep]), condition_NW)[:, : head.token.width].double()
        x_0_NE = (1 / abar).sqrt() * x_NE - (1 / abar - 1).sqrt() * eps_NE
        eps_NE = ((1 / abar).sqrt() * x_NE - x_0_NE) / (1 / abar - 1).sqrt()
        x_NE = x_0_NE * before.sqrt() + (1 - before).sqrt() * eps_NE
    return x_NE


@torch.no_grad()
@pytest.mark.parametrize("steps", [2, 3, 5, 10, 25])
@pytest.mark.parametrize("start", [0, 999])
def test_ddim_is_the_published_loop(steps, start):
    head, z_MD, noise = random_head(), torch.randn(7, 6), stream(0, "sample", 7)
    head.sampling = DiffusionSampling(solver="ddim", steps=steps, start=start)
    condition_NW, x_NE = head.net.cond_embed(z_MD), noise.at("init").normal(3)
    published_NE = published_ddim(head, x_NE, condition_NW, head.sampling_chain().timesteps)
    assert published_NE.abs().max() > 1e3 or start == 0  # the network knows nothing: errors of eps meet 1 / signal
    relative = (head.sample(z_MD, noise) - published_NE).abs() / published_NE.abs().amax(1, keepdim=True)
    assert relative.max() < 1e-6


@pytest.mark.parametrize("solver", SOLVERS[1:])
def test_few_steps_from_the_published_start_reach_the_target(solver):
    """The oracle's exact eps from x_999: each token a finite map of its noise, and many steps near the target."""
    mean = torch.tensor([0.7, -1.2])
    for steps in (2, 3, 5, 10, 25, 200):
        head = gaussian_head(sampling=DiffusionSampling(solver=solver, steps=steps, start=999))
        x_ME = head.sample(mean.expand(2_000, -1), stream(0, "sample", 2_000))
        assert bool(x_ME.isfinite().all()), steps
    assert_gaussian(x_ME, mean, slack=0.05)


@pytest.mark.parametrize("solver", SOLVERS)
def test_guidance_acts_within_its_timesteps_alone(solver):
    """Everywhere it is guidance, nowhere none; rows outside are evaluated once."""
    head, z, null, noise = random_head(), torch.randn(5, 6), torch.randn(5, 6), stream(0, "sample", 5)

    def draw(interval: str, guidance: float) -> torch.Tensor:
        head.sampling = DiffusionSampling(solver=solver, steps=10, start=900, guidance_interval=interval)
        return head.sample(z, noise, null, guidance)

    whole, plain = draw("", 3.0), draw("", 1.0)
    assert torch.equal(draw("0-999", 3.0), whole) and torch.equal(draw("950-999", 3.0), plain)
    part = draw("200-500", 3.0)
    assert not torch.allclose(part, whole) and not torch.allclose(part, plain)
    rows, forward = [], head.net.forward
    head.net.forward = lambda x, t, c: (rows.append((int(t[0]), len(x))), forward(x, t, c))[1]
    draw("200-500", 3.0)
    assert all(n == (10 if 200 <= t <= 500 else 5) for t, n in rows) and {n for _, n in rows} == {5, 10}


def test_the_sampling_chain_may_be_written_as_a_respacing():
    head = random_head()
    head.sampling = DiffusionSampling(respacing="ddim50", steps=7)
    assert head.sampling_chain().timesteps == list(range(0, 1000, 20)) and len(head.chain()) == 993
    assert "respacing" not in DiffusionSampling().told() and head.sampling.told()["respacing"] == "ddim50"
    for wrong in ({"respacing": "ddim"}, {"respacing": "10", "final_steps": 5}, {"guidance_interval": "9-3"}):
        with pytest.raises(UserError, match=r"respacing|FROM-TO"):
            DiffusionSampling(**wrong)
