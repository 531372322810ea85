"""Dilated convolutions: their receptive field, and rings against whole sequences.

B batch · T slots · D width
"""

from __future__ import annotations

import pytest
import torch

from mar.core.errors import UserError
from mar.networks.wavenet import Rings, Stack, WaveNet, WaveNetOptions


def stack(dilations: tuple[int, ...]) -> Stack:
    torch.manual_seed(0)
    return Stack(4, dilations).double()


@pytest.mark.parametrize("layers, blocks", [(1, 1), (3, 1), (2, 3)])
def test_a_state_knows_just_the_receptive_field(layers, blocks):
    torch.manual_seed(0)
    network = WaveNet((40,), WaveNetOptions(width=32, layers=layers, blocks=blocks))  # of 4 units all may be dead
    x_BTD = torch.randn(1, 40, 32, requires_grad=True)
    (grad_BTD,) = torch.autograd.grad(network.run(x_BTD)[0, 30].sum(), x_BTD)
    felt = (grad_BTD[0] != 0).any(1).nonzero()[:, 0].tolist()
    assert felt == list(range(30 - blocks * (2**layers - 1), 31))


def test_a_layer_is_the_published_gated_unit():
    layers = stack((1, 2))
    x_BTD = torch.randn(1, 9, 4, dtype=torch.float64)
    current, skips = x_BTD.mT, 0
    for i, dilation in enumerate(layers.dilations):
        past, now = layers.gates[i].weight.split(4, dim=1)
        kernel = torch.stack([past, now], dim=-1)
        padded = torch.nn.functional.pad(current, (dilation, 0))
        a, b = torch.nn.functional.conv1d(padded, kernel, layers.gates[i].bias, dilation=dilation).chunk(2, dim=1)
        gated = torch.tanh(a) * torch.sigmoid(b)
        skips = skips + layers.skip.weight[:, 4 * i : 4 * i + 4] @ gated
        current = current + layers.residuals[0].weight @ gated
    want = (skips + layers.skip.bias[:, None]).relu().mT
    torch.testing.assert_close(layers(x_BTD), want)


@torch.no_grad()
def test_rings_give_what_the_whole_sequence_gives_though_rows_pause():
    layers = stack((1, 2, 4, 1, 2, 4))
    T, B = 30, 3
    x_BTD = torch.randn(B, T, 4, dtype=torch.float64)
    whole_BTD = layers(x_BTD)
    rings, count_B = Rings(layers, x_BTD[:, 0]), torch.zeros(B, dtype=torch.int64)
    while int(count_B.min()) < T:
        real_B = (torch.rand(B) < 0.6) & (count_B < T)
        rings.push(torch.where(real_B[:, None], x_BTD[range(B), count_B.clamp(max=T - 1)], torch.nan), real_B)
        count_B = count_B + real_B
        begun = (count_B > 0).nonzero()[:, 0]
        torch.testing.assert_close(rings.h_BD[begun], whole_BTD[begun, count_B[begun] - 1])


@torch.no_grad()
def test_the_work_of_a_step_does_not_grow_with_the_length():
    calls = {}
    for length in (50, 5000):
        network = WaveNet((length,), WaveNetOptions(width=4, layers=3, blocks=2, position="none")).eval()
        state = network.begin(torch.zeros(2, 4), torch.zeros(2, length, dtype=torch.bool))
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
            state.memory.push(torch.zeros(2, 4), torch.ones(2, dtype=torch.bool))
        calls[length] = sorted((str(e.key), str(e.input_shapes)) for e in profile.key_averages(True))
    assert calls[50] == calls[5000]


@pytest.mark.parametrize("wrong", [{"layers": 0}, {"blocks": 0}])
def test_impossible_numbers_are_refused_in_one_line(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        WaveNetOptions(**wrong)
