"""What networks in generation order promise beyond the contract that every network is tested for.

B batch · L tokens · D width · M gathered tokens
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mar.core.errors import Unsupported, UserError
from mar.networks.base import ABSENT, GIVEN
from mar.networks.recurrent import GRU, LSTM, RecurrentOptions
from mar.networks.sequence import Sequence
from mar.networks.wavenet import WaveNet, WaveNetOptions

SHAPES = [(12,), (3, 4), (2, 2, 3)]
KINDS = {
    "lstm": (LSTM, RecurrentOptions(width=8, depth=2)),
    "gru": (GRU, RecurrentOptions(width=8, depth=1)),
    "wavenet": (WaveNet, WaveNetOptions(width=8, layers=2, blocks=2)),
}
BATCH = 5


def build(kind: str, shape: tuple[int, ...] = (3, 4), **options) -> Sequence:
    torch.manual_seed(0)
    cls, preset = KINDS[kind]
    network = cls(shape, replace(preset, **options))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def inputs(network: Sequence, batch: int = BATCH):
    """Random plans, in each row sets of other sizes; the third row has one absent token in three, the last no given."""
    torch.manual_seed(1)
    n = network.n_tokens
    step_BL = torch.stack([torch.randperm(n) // (1 + b % 4) for b in range(batch)]) - 1
    step_BL[-1] += 1
    step_BL[2, torch.randperm(n)[: n // 3]] = ABSENT
    return torch.randn(batch, n, network.token_width), step_BL, torch.randn(batch, network.condition_width)


def scored(step_BL: torch.Tensor) -> torch.Tensor:
    return (step_BL > GIVEN) & (step_BL < ABSENT)


def by_hand(network: Sequence, token_LD: torch.Tensor, line: list[int], condition_C: torch.Tensor, target: int):
    """z of one target after the tokens of ``line``, from a sequence that holds just these."""
    x = [network.start + condition_C]
    for l in line:
        x.append(token_LD[l] + condition_C + (0 if network.source is None else network.source()[l]))
    h_D = network.run(network.norm(torch.stack(x))[None])[0, -1]
    return network.readout(h_D[None], torch.tensor([target]))[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("position", ["token", "axes"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_target_reads_the_tokens_of_earlier_steps_in_their_order_and_its_own_position(kind, shape, position):
    network = build(kind, shape, position=position)
    token_BLD, step_BL, condition_BC = inputs(network)
    z_MD = network(token_BLD, step_BL, condition_BC, scored(step_BL))
    for (row, target), z_D in zip(scored(step_BL).nonzero().tolist(), z_MD, strict=True):
        step_L = step_BL[row].tolist()
        line = sorted((l for l in range(len(step_L)) if step_L[l] < step_L[target]), key=lambda l: (step_L[l], l))
        want_D = by_hand(network, token_BLD[row], line, condition_BC[row], target)
        torch.testing.assert_close(z_D, want_D, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("position", ["token", "none"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_tokens_in_their_natural_order_are_not_gathered(kind, position, monkeypatch):
    network = build(kind, (12,), position=position)
    token_BLD, _, condition_BC = inputs(network)
    step_BL = torch.arange(12).expand(BATCH, 12)
    by_number = [network(token_BLD, step_BL, condition_BC, step_BL == step) for step in range(12)]
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "gather", None)
        patch.setattr("torch.nn.functional.embedding", None)
        z_MD = network(token_BLD, step_BL, condition_BC, step_BL >= 0)
    torch.testing.assert_close(z_MD.unflatten(0, (BATCH, 12)), torch.stack(by_number, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_what_no_target_waits_for_is_not_run(kind, monkeypatch):
    network = build(kind)
    token_BLD, step_BL, condition_BC = inputs(network)
    lengths, run = [], network.run
    monkeypatch.setattr(network, "run", lambda x_BTD: (lengths.append(x_BTD.shape[1]), run(x_BTD))[1])
    network(token_BLD, step_BL, condition_BC, step_BL == 1)
    assert lengths == [1 + int((step_BL < 1).sum(1)[(step_BL == 1).any(1)].max())]


@pytest.mark.parametrize("asks", ["every step", "never before the last"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_cache_changes_nothing_for_rows_of_other_set_sizes(kind, asks):
    network = build(kind)
    token_BLD, step_BL, condition_BC = inputs(network)
    last = int(step_BL[scored(step_BL)].max())
    state = network.begin(condition_BC, step_BL == ABSENT)
    for step in range(GIVEN, last + 1):
        now_BL = step_BL == step
        if step == last or (step > GIVEN and asks == "every step"):
            want_MD = network(token_BLD, step_BL, condition_BC, now_BL)
            torch.testing.assert_close(network.query(state, now_BL), want_MD, atol=1e-5, rtol=1e-5)
        state = network.observe(state, torch.where((step_BL <= step)[..., None], token_BLD, torch.nan), now_BL)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_reaches_every_parameter(kind):
    network = build(kind).train()
    token_BLD, step_BL, condition_BC = inputs(network, batch=20)
    network(token_BLD, step_BL, condition_BC, scored(step_BL)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        rows = parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad[None]
        assert bool(rows.any(1).all()), name  # every position, too


@pytest.mark.parametrize("kind", KINDS)
def test_without_positions_only_raster_order_one_token_at_a_time_is_served(kind):
    network = build(kind, (6,), position="none")
    natural_L = torch.tensor([GIVEN, GIVEN, 0, 1, 2, ABSENT])
    network.check(natural_L[None])
    for wrong in ([0, 1, 2, 3, 5, 4], [0, 0, 1, 2, 3, 4], [0, GIVEN, 1, 2, 3, 4], [ABSENT, 0, 1, 2, 3, 4]):
        with pytest.raises(Unsupported, match="raster order, one token at a time"):
            network.check(torch.stack([natural_L, torch.tensor(wrong)]))


@pytest.mark.parametrize("wrong", [{"width": 0}, {"depth": 0}, {"dropout": 1.0}])
def test_impossible_numbers_are_refused_in_one_line(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        RecurrentOptions(**wrong)
