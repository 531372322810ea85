"""Plans are cheap: bounds with room for a busy machine (see the numbers in the docstrings for a quiet one)."""

from __future__ import annotations

import time

import torch

from orderings import Grid, Plan, parse_plan
from orderings.curves import Hilbert
from tests.orderings import cases


def best_of(n: int, run) -> float:
    """Seconds of processor time, on one thread: what other processes do does not count."""
    threads, seconds = torch.get_num_threads(), []
    torch.set_num_threads(1)
    for _ in range(n):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    torch.set_num_threads(threads)
    return min(seconds)


def test_a_hilbert_order_of_256_by_256_takes_under_a_second():
    """0.1 s."""
    assert best_of(3, lambda: Hilbert().rank(Grid((256, 256)))) < 1.0


def test_256_random_plans_of_1024_tokens_take_milliseconds():
    """15 ms, of which 10 ms are the random numbers."""
    ordering, partition = parse_plan("random/cosine:64")
    noise = cases.noise(256)
    assert best_of(5, lambda: Plan.draw(ordering, partition, Grid((32, 32)), 256, noise)) < 0.1


def test_drawing_a_fixed_order_again_is_free():
    """3 ms for 256 plans of 1,024 tokens, whatever the order."""
    ordering, partition = parse_plan("hilbert/cosine:64")
    noise = cases.noise(256)
    assert best_of(5, lambda: Plan.draw(ordering, partition, Grid((32, 32)), 256, noise)) < 0.1
