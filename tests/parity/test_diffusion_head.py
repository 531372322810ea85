"""The diffusion head computes what the recorded reference computed, from the same weights and the same noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pytest
import torch

from mar.core.tokens import Vectors
from mar.heads.diffusion import DiffusionHead, DiffusionOptions, DiffusionSampling
from mar.heads.diffusion_likelihood import bound_terms
from mar.heads.diffusion_process import Process, spaced_timesteps


class Recorded:
    """Noise that was recorded: the start, then one draw for each timestep, noisiest first."""

    def __init__(self, init: torch.Tensor | None, draws: torch.Tensor) -> None:
        self.init, self.draws = init, draws

    def at(self, purpose: str) -> Recorded:
        return Recorded(None, self.init) if purpose == "init" and self.init is not None else self

    def normal(self, n: int) -> torch.Tensor:
        return self.draws

    def normals(self, n: int, draws: Sequence[int]) -> Iterator[torch.Tensor]:
        return (self.draws[len(self.draws) - 1 - draw] for draw in draws)


class RecordedBound(Recorded):
    """The same, keyed by the timestep in the training chain."""

    def __init__(self, draws: torch.Tensor, timesteps: list[int]) -> None:
        super().__init__(None, draws)
        self.timesteps = timesteps

    def at(self, purpose: str) -> Recorded:
        return self

    def normals(self, n: int, draws: Sequence[int]) -> Iterator[torch.Tensor]:
        return super().normals(n, [self.timesteps.index(draw) for draw in draws])


@pytest.fixture(scope="module")
def head(published, config) -> DiffusionHead:
    options = DiffusionOptions(width=config["diffloss_w"], depth=config["diffloss_d"], last_term="discretised")
    head = DiffusionHead(config["decoder_embed_dim"], Vectors(config["vae_embed_dim"]), options)
    prefix = "diffloss.net."
    weights = {key.removeprefix(prefix): value for key, value in published.items() if key.startswith(prefix)}
    head.net.load_state_dict(weights, strict=True)
    head.sampling = DiffusionSampling(timesteps=tuple(config["gen_timesteps"]))
    return head.eval()


def near(ours: torch.Tensor, theirs: torch.Tensor, absolute: float, relative: float = 0.0) -> None:
    ours = ours.detach()
    excess = (ours - theirs).abs() - torch.clamp(relative * theirs.abs(), min=absolute)
    print(f"max deviation {float((ours - theirs).abs().max()):.2e}, of values up to {float(theirs.abs().max()):.3g}")
    assert excess.max() <= 0


def test_respacing_is_the_published_one(config):
    for count, timesteps in config["respacing"].items():
        assert spaced_timesteps(config["num_timesteps_train"], int(count)) == timesteps


def test_one_evaluation_of_the_denoiser(head, recorded):
    condition = head.net.cond_embed(recorded["head.cond"])
    near(head.net(recorded["head.x_t"], recorded["head.t"], condition), recorded["head.out"], 1e-4)


def test_training_losses(head, recorded):
    condition = head.net.cond_embed(recorded["head.cond"])
    losses = head.losses(condition, recorded["loss.x_0"], recorded["head.t"], recorded["loss.noise"])
    near(losses.mse_N, recorded["loss.mse"], 1e-4)
    near(losses.vb_N, recorded["loss.vb"], 1e-4)
    near(losses.total_N, recorded["loss.total"], 1e-4)


def test_terms_of_the_bound(head, recorded):
    x_0, t, eps = recorded["loss.x_0"], recorded["terms.t"], recorded["terms.noise"]
    process = head.process
    x_t = process.diffuse(x_0, eps, t)
    near(x_t, recorded["terms.x_t"], 1e-5, 1e-4)
    predicted, share = head.net(x_t, t, head.net.cond_embed(recorded["head.cond"])).chunk(2, dim=-1)
    mean, log_variance = process.reverse(x_t, predicted, share, t)
    near(mean, recorded["terms.mean"], 1e-5, 1e-4)
    near(log_variance, recorded["terms.log_variance"], 1e-5, 1e-4)
    c, theirs = process.at(t), recorded["terms.pred_x_0"]
    x_0_hat = (x_t - c.noise * predicted) / c.signal
    largest = theirs.abs().amax(1, keepdim=True)  # at t = 999 a rounding error of eps is multiplied by 20,000
    near(x_0_hat / largest, theirs / largest, 1e-5)
    nats = process.bound_terms(x_0, eps, predicted, share, t, "discretised")
    near(nats.mean(-1) / math.log(2), recorded["terms.vb_bpd"], 1e-5, 1e-4)


def test_bound_over_the_respaced_chain(head, recorded, config):
    x_0, timesteps = recorded["loss.x_0"], config["gen_timesteps"]
    process = Process("cosine", config["num_timesteps_train"], timesteps)
    noise = RecordedBound(recorded["vlb.noise"], timesteps)
    bits = bound_terms(head.net, process, recorded["head.cond"], x_0, noise, "discretised") / x_0.shape[1] / math.log(2)
    prior = process.prior_nats(x_0).mean(-1) / math.log(2)
    near(bits.flip(1), recorded["vlb.vb"], 1e-5, 1e-4)  # recorded from the last timestep to the first
    near(prior, recorded["vlb.prior_bpd"], 1e-5, 1e-4)
    near(bits.sum(1) + prior, recorded["vlb.total_bpd"], 1e-5, 1e-4)


@pytest.mark.parametrize("name, temperature, guidance", [("plain", 1.0, 1.0), ("temp", 0.9, 1.0), ("cfg", 0.95, 2.5)])
def test_ancestral_samples(head, recorded, name, temperature, guidance):
    z, init, draws = (recorded[f"sample.{name}.{key}"] for key in ("cond", "noise_init", "noise_steps"))
    out, null = recorded[f"sample.{name}.out"], None
    if name == "cfg":
        (z, null), draws, out = z.chunk(2), draws[:, : len(init)], out[: len(init)]
    ours = head.sample(z, Recorded(init, draws), null, guidance, temperature)
    near(ours, out, 1e-4 * max(1.0, float(out.abs().max())))
