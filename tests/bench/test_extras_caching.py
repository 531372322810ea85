"""Caches and streams: what is measured is the same work, whichever way it is done."""

from __future__ import annotations

import pytest
import torch

from mar import build
from mar.bench import contenders
from mar.bench.contenders import Inputs, Setting
from mar.bench.extras import cache_gain, middles, stream_costs
from mar.core.errors import Unsupported

SETTING = Setting(torch.device("cpu"), "fp32", 1.0, 1.0)
SMALL = {"text-256": ["network.width=8", "network.depth=2", "network.heads=2"]}
SMALL["sound-4000"] = ["network.width=4", "network.layers=2", "network.blocks=1"]


def made(name: str, overrides: list[str]) -> tuple:
    recipe, data = contenders.read(name, [*SMALL[name], *overrides])
    parts = build.assemble(recipe, data)
    return parts.model, Inputs(parts, 2, SETTING)


def test_full_passes_draw_the_tokens_of_the_cached_generation() -> None:
    gain = cache_gain(*made("text-256", []), seconds=0.0)
    assert (gain.batch, gain.steps, gain.measured_steps, gain.same_tokens) == (2, 256, 64, 1.0)
    assert gain.ratio in gain.ratios and len(gain.ratios) == len(gain.full_seconds) == len(gain.cached_seconds) >= 3


def test_measured_steps_stand_in_the_middle_of_equal_shares() -> None:
    assert middles(8, 4) == [1, 3, 5, 7] and middles(3, 3) == [0, 1, 2]


def test_a_second_stream_costs_less_than_position_tokens_in_one() -> None:
    two, gpt, interleaved = stream_costs(*made("text-256", []), seconds=0.0)
    assert (two.name, gpt.name, interleaved.name) == ("two streams", "gpt", "position tokens")
    assert gpt.flops_per_image < two.flops_per_image < interleaved.flops_per_image and gpt.cost == 1.0


def test_streams_are_of_the_causal_transformer() -> None:
    with pytest.raises(Unsupported, match="causal-transformer"):
        stream_costs(*made("sound-4000", []), seconds=0.0)
