"""Whatever kills a run at whatever moment, the same command goes on, loses at most ``save_every`` iterations, and ends
where an undisturbed run ends: bit for bit with one and two processes. With more, sums over processes are taken in
another order in the first iteration after a resume (DDP arranges its buckets anew): losses agree to a relative 1e-4.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from mar.training.run_folder import RunFolder
from tests.faults.conftest import EVERY, Trained
from tests.faults.processes import Running, kill_itself
from tests.training.test_loop import assert_equal


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Path]:
    """The folder of a run in so many processes, of so many iterations, that nothing happens to."""

    @cache
    def trained(world: int, iterations: int) -> Path:
        run = Trained(tmp_path_factory.mktemp("undisturbed") / "run")
        assert set(Running(run.path / "logs", run.command(iterations), world).wait()) == {0}
        return run.path

    return trained


def killed_now_and_then(run: Trained, undisturbed: Callable, world: int, victims: list[int], times: int) -> None:
    moments, iterations = random.Random(world), 20 * (times + 1)
    for _ in range(times):
        running = Running(run.path / "logs", run.command(iterations), world)
        wanted = run.saved + moments.randint(1, 11)
        running.until(lambda wanted=wanted: run.logged >= wanted)
        time.sleep(moments.random() * 0.05)
        running.send(signal.SIGKILL, *victims)
        codes = running.wait()
        assert all(code != 0 for code in codes) and codes[victims[0] if victims else 0] == -signal.SIGKILL
        assert run.saved >= run.logged - EVERY
    assert set(Running(run.path / "logs", run.command(iterations), world).wait()) == {0}
    if world < 3:
        assert_equal(run.path, undisturbed(world, iterations))
        return
    left, right = (RunFolder(path).history() for path in (run.path, undisturbed(world, iterations)))
    for one, other in zip(left, right, strict=True):
        assert one["loss_nats_per_token"] == pytest.approx(other["loss_nats_per_token"], rel=1e-4)


@pytest.mark.parametrize("victims", [[], [1]], ids=["all", "one of two"])
def test_processes_killed_at_a_random_moment_lose_little_and_nothing_changes(run, undisturbed, victims):
    killed_now_and_then(run, undisturbed, 2, victims, times=1)


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("victims", [[], [0]], ids=["all", "the first"])
def test_processes_killed_again_and_again(run, undisturbed, world, victims):
    killed_now_and_then(run, undisturbed, world, victims, times=3)


WRITING = [
    ("mar.training.checkpoint:save_file", 2),  # the second checkpoint's first file
    ("mar.training.checkpoint:flush", 2),  # its files written, none flushed
    ("os:rename", 1),
    ("mar.training.checkpoint:flush", 3),  # renamed, the folder not flushed
]


@pytest.mark.parametrize(("target", "call"), WRITING)
def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(run, target, call):
    running = Running(run.path / "logs", run.command(12), hurt=(kill_itself, (target, call)))
    assert running.wait() == [-signal.SIGKILL], running.said
    assert run.logged == 2 * EVERY and run.saved in (EVERY, 2 * EVERY)
    assert Running(run.path / "logs", run.command(12)).wait() == [0]
    assert run.saved == 12 and not list(run.path.rglob(".*"))
