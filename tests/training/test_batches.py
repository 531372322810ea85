"""What is in a batch depends on (seed, iteration, position) and on nothing else."""

from __future__ import annotations

import torch

from mar.data.base import TensorSplit
from mar.training.batches import Batches, examples


def test_every_epoch_is_a_permutation_and_epochs_differ():
    sequence = examples(seed=0, first=0, count=300, size=100)
    epochs = sequence.reshape(3, 100)
    assert all(torch.equal(e.sort().values, torch.arange(100)) for e in epochs)
    assert not torch.equal(epochs[0], epochs[1])


def test_the_sequence_does_not_depend_on_how_it_is_cut():
    whole = examples(seed=0, first=0, count=250, size=70)
    parts = torch.cat([examples(0, first, 25, 70) for first in range(0, 250, 25)])
    assert torch.equal(whole, parts)


def test_processes_and_accumulation_share_out_the_same_batch():
    split = TensorSplit(torch.arange(64)[:, None])
    device = torch.device("cpu")
    one = Batches(split, 0, 16, 1, 0, 1, device)
    four = [Batches(split, 0, 16, 2, rank, 2, device) for rank in range(2)]
    for iteration in (0, 3, 5):
        whole = one.at(iteration)[0]
        shares = [b for batches in four for b in batches.at(iteration)]
        assert torch.equal(whole.x, torch.cat([b.x for b in shares]))
        assert torch.equal(whole.position_B, torch.cat([b.position_B for b in shares]))
        assert torch.equal(whole.noise.uniform(3), torch.cat([b.noise.uniform(3) for b in shares]))
    for batches in (one, *four):
        batches.close()
