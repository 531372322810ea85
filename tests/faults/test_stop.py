"""SIGTERM: the iteration in progress ends, is saved, and every process ends with 143, as schedulers expect."""

from __future__ import annotations

import signal

import pytest

from tests.faults.processes import Running


@pytest.mark.parametrize("asked", [[0], [1], [0, 1]], ids=["first", "second", "both"])
def test_two_processes_stop_after_the_same_iteration_whoever_is_asked(run, asked):
    running = Running(run.path / "logs", run.command(100_000, "train.save_every=100000"), world=2)
    running.until(lambda: run.logged >= 3)
    running.send(signal.SIGTERM, *asked)
    assert running.wait() == [128 + signal.SIGTERM] * 2, running.said
    assert running.said.count("stopped, checkpoint saved. Run the same command again to resume") == 1
    assert run.saved == run.logged >= 3
    more = run.saved + 2
    assert Running(run.path / "logs", run.command(more, "train.save_every=100000"), world=2).wait() == [0, 0]
    assert run.saved == more
