"""Whole generations equal the recorded ones: order, schedule, guidance, temperature and every draw of noise."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pytest
import torch

from mar.heads.diffusion import DiffusionSampling
from mar.sampling.guidance import Guidance
from mar.sampling.samplers import generate
from orderings import Grid, Plan, parse_partition


class Replayed:
    """Recorded draws in the order in which they were used: for each AR step the start, then one per timestep.

    With guidance the start has M rows and each timestep's draw 2M, of which the first M are the conditional half's.
    """

    def __init__(self, flat: torch.Tensor, shapes: list[list[int]], timesteps: int) -> None:
        draws = [d.reshape(s) for d, s in zip(flat.split([math.prod(s) for s in shapes]), shapes, strict=True)]
        self.ar_steps = [draws[k : k + 1 + timesteps] for k in range(0, len(draws), 1 + timesteps)]
        self.current: list[torch.Tensor] = []
        self.draw: torch.Tensor | None = None
        self.count = 0

    def tokens(self, row_M: torch.Tensor, token_M: torch.Tensor) -> Replayed:
        self.current, self.count = self.ar_steps.pop(0), len(row_M)
        return self

    def at(self, purpose: str) -> Replayed:
        if purpose == "init":
            self.draw = self.current[0]
        return self

    def normal(self, n: int) -> torch.Tensor:
        assert self.draw is not None and self.draw.shape[1] == n
        return self.draw[: self.count]

    def normals(self, n: int, draws: Sequence[int]) -> Iterator[torch.Tensor]:
        return (self.current[len(self.current) - 1 - draw][: self.count] for draw in draws)


@pytest.mark.parametrize("name", ["plain", "cfg", "constant"])
def test_whole_generations_agree(model, recorded, config, name):
    settings = config[f"gen.{name}"]
    order_BL = recorded[f"gen.{name}.orders"]
    grid = Grid((4, 4))
    rank_BL = len(grid) - 1 - order_BL.argsort(1)  # the reference generates orders[b, 0] last
    plan = Plan(rank_BL, parse_partition(f"cosine:{settings['num_iter']}").steps(rank_BL, grid))
    noise = Replayed(recorded[f"gen.{name}.noise"], settings["noise_shapes"], len(config["gen_timesteps"]))
    guidance = Guidance(settings["cfg"], settings["cfg_schedule"])
    model.head.sampling = DiffusionSampling(timesteps=tuple(config["gen_timesteps"]))
    token = generate(model, plan, recorded["in.labels"], noise, guidance, settings["temperature"])
    assert not noise.ar_steps, "every recorded draw was used"
    out = recorded[f"gen.{name}.out"]
    latent = model.tokenizer.decode(token) * model.tokenizer.options.scale
    deviation = float((latent - out).abs().max())
    print(f"{name}: max deviation {deviation:.2e}, of values up to {float(out.abs().max()):.3g}")
    assert deviation <= 1e-4 * max(1.0, float(out.abs().max()))
