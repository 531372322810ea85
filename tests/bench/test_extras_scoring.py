"""What scoring costs is counted in the network's own rows, and its tensors stay within the budget."""

from __future__ import annotations

import pytest
import torch

from mar import build
from mar.bench import contenders
from mar.bench.contenders import Inputs, Setting
from mar.bench.extras import scoring_cost
from mar.bench.measure import tensor_peak

CPU = torch.device("cpu")
SETTING = Setting(CPU, "fp32", 1.0, 1.0)


@pytest.mark.parametrize(
    ("network", "partition", "passes"),
    [
        ("masked-transformer", "equal:256", 4),
        ("causal-transformer", "equal:256", 1),
        ("causal-transformer", "singles", 1),
    ],
)
def test_a_chain_of_1024_tokens_stays_within_its_budget(network: str, partition: str, passes: int) -> None:
    recipe, data = contenders.read("pixels-1024", [f"network.kind={network}", f"partition={partition}"])
    parts = build.assemble(recipe, data)
    budget = 40 * 2**20  # some ten rows of the masked Transformer, and one of the causal one
    cost = scoring_cost(parts.model, Inputs(parts, 3, SETTING), 0.0, budget)
    assert (cost.tokens, cost.images, cost.passes_per_image) == (1024, 3, passes)
    assert 0.2 * budget < cost.peak_bytes <= budget
    assert len(cost.nll_seconds) == len(cost.forward_seconds) and cost.ratio > 0


def test_tensors_count_while_they_live_and_views_never() -> None:
    with tensor_peak(CPU) as peak:
        a = torch.ones(1000, 256)
        b = a.view(256, 1000)[:10] + 1.0
        del a
        c = torch.ones(500, 256)
    assert peak.bytes == 4 * 256_000 + 4 * 10_000
    assert b.shape == (10, 1000) and c.shape == (500, 256)
