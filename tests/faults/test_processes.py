"""A run goes on in another number of processes, with the same data and learning rate; two never write to one folder."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from mar.core.files import write_atomic
from mar.training.run_folder import RunFolder
from tests.faults.conftest import Trained
from tests.faults.processes import Running, kill_itself
from tests.training.test_loop import weights

WITHOUT_DROPOUT = ["network.projection_dropout=0", "network.attention_dropout=0"]  # its draws depend on the process


def test_a_changed_number_of_processes_changes_no_example_and_no_learning_rate(run, tmp_path):
    """Losses agree to a relative 1e-4, weights to 1e-3 (1e-4 absolute): sums are taken in another order."""
    alone = Trained(tmp_path / "alone")
    assert Running(alone.path / "logs", alone.command(11, *WITHOUT_DROPOUT)).wait() == [0]
    for iterations, world in ((4, 2), (8, 1), (11, 3)):  # 16 examples: also 6, 5 and 5
        running = Running(run.path / "logs", run.command(iterations, *WITHOUT_DROPOUT), world)
        assert set(running.wait()) == {0}, running.said
    for one, many in zip(RunFolder(alone.path).history(), RunFolder(run.path).history(), strict=True):
        assert one["iteration"] == many["iteration"]
        assert one["loss_nats_per_token"] == pytest.approx(many["loss_nats_per_token"], rel=1e-4)
    left, right = weights(alone.path), weights(run.path)
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=1e-3, atol=1e-4, msg=name)


def test_the_second_of_two_runs_in_one_folder_is_refused(run):
    first = Running(run.path / "logs-1", run.command(100_000), world=2)
    first.until(lambda: run.logged >= 1)
    second = Running(run.path / "logs-2", run.command(100_000), world=2)
    assert second.wait() == [2, 2] and second.said.count("another run is writing to") == 1
    first.send(15)
    assert first.wait() == [143, 143]


def test_two_commands_that_write_one_file_at_once_both_end(tmp_path, monkeypatch):
    replace = os.replace

    def meanwhile(aside: Path, path: Path) -> None:
        monkeypatch.setattr(os, "replace", replace)
        monkeypatch.setattr(os, "getpid", lambda: 0)
        write_atomic(path, "of another process")
        replace(aside, path)

    monkeypatch.setattr(os, "replace", meanwhile)
    write_atomic(tmp_path / "table.md", "of this one")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of this one"]


def poison(call: int) -> None:
    """The gradient of one process is not finite."""
    import os

    import mar.training.loop as loop

    step = loop.Trainer.step

    def poisoned(self, batches):
        if self.iteration == call and os.environ["RANK"] == "1":
            self.model.network.mask_token.data.fill_(float("nan"))
        return step(self, batches)

    loop.Trainer.step = poisoned


def stall(rank: str) -> None:
    """A process waits for nobody, from its fourth iteration on."""
    import os
    import time

    import mar.training.loop as loop

    step = loop.Trainer.step

    def stalled(self, batches):
        if self.iteration == 3 and os.environ["RANK"] == rank:
            time.sleep(300)
        return step(self, batches)

    loop.Trainer.step = stalled


def die(victim: str, target: str) -> None:
    """One process dies at its first call of ``target``; the others wait for it ten seconds in place of minutes."""
    import os
    from datetime import timedelta

    import mar.core.processes as processes

    processes._MEETING = timedelta(seconds=10)
    if os.environ["RANK"] == victim:
        kill_itself(target, 0)


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("target", ["mar.core.processes:resolve_precision", "mar.build:assemble"])
def test_when_one_process_dies_before_the_training_the_other_ends_with_one_line(run, victim, target):
    running = Running(run.path / "logs", run.command(10), 2, (die, (str(victim), target)))
    codes = running.wait(60)
    assert codes[victim] == -signal.SIGKILL and codes[1 - victim] == 1, running.said
    assert running.said.count("another process has died or is missing") == 1 and "Traceback" not in running.said


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("waits", [True, False], ids=["busy", "in a collective"])
def test_when_one_process_dies_the_other_ends_soon_with_one_line(run, victim, waits):
    running = Running(run.path / "logs", run.command(100_000), 2, (stall, (str(1 - victim if waits else 2),)))
    running.until(lambda: run.logged >= 3)
    died = time.monotonic()
    running.send(signal.SIGKILL, victim)
    codes = running.wait()
    assert time.monotonic() - died < 30
    assert codes[victim] == -signal.SIGKILL and codes[1 - victim] == 1, running.said
    assert running.said.count(f"mar: process {victim} has died") == 1 and "Traceback" not in running.said


def test_what_is_not_finite_in_one_process_ends_all_with_one_line(run):
    running = Running(run.path / "logs", run.command(12), 2, (poison, (7,)))
    assert running.wait() == [2, 2], running.said
    assert running.said.count("the loss is not finite at iteration 8; the last good checkpoint is") == 1
    assert run.saved == 5
