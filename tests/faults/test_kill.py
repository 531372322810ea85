"""Whatever kills a command at whatever moment, the same command goes on, loses at most what was not saved, and ends
where an undisturbed one ends, with the same files: bit for bit. With three processes sums are taken in another order
in the first iteration after a resume (DDP arranges its buckets anew): losses agree to a relative 1e-4.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.faults.conftest import EVERY, Trained
from tests.faults.processes import Running, descendants, kill_itself
from tests.faults.test_killed_grid import GRID, timeless
from tests.training.conftest import TINY
from tests.training.test_loop import assert_equal


def test_processes_killed_at_a_random_moment_lose_little_and_nothing_changes(run, tmp_path):
    moments = random.Random(2)
    for victims in ([], [1]):  # all, one of two
        running = Running(run.path / "logs", run.command(40), 2)
        wanted = run.saved + moments.randint(1, 11)
        running.until(lambda wanted=wanted: run.logged >= wanted)
        running.send(signal.SIGKILL, *victims)
        codes = running.wait()
        assert all(code != 0 for code in codes) and codes[1] == -signal.SIGKILL
        assert run.saved >= run.logged - EVERY
    assert set(Running(run.path / "logs", run.command(40), 2).wait()) == {0}
    whole = Trained(tmp_path / "undisturbed")
    assert set(Running(tmp_path / "logs", whole.command(40), 2).wait()) == {0}
    assert_equal(run.path, whole.path)


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


# Every long command. The folder in which it runs is made with `MADE`.

KEYS = " ".join([*TINY, "network.projection_dropout=0.1", "train.validation_examples=16"])
TRAIN = f"train digits {KEYS} train.iterations=60 train.validate_every=20 train.sample_every=30 --out out"
MADE = {
    "run": f"train digits {KEYS} train.iterations=10 --out run",
    "autoencoder": "tokenizer train digits --channels 8,8 --batch-size 16 --iterations 5 --out autoencoder",
}
PLANS = "random/equal:16,raster/equal:16"


class Long(NamedTuple):
    """A command of some seconds. ``saved`` counts what a kill must not lose."""

    line: str
    saved: Callable[[Path], int]
    world: int = 1  # processes that are started together
    exact: bool = True
    launcher: bool = False  # a program of its own: torchrun


def iteration(folder: Path) -> int:
    """Return the iteration of the newest checkpoint."""
    return max((int(path.name) for path in folder.glob("out/checkpoints/0*")), default=0)


def files(pattern: str, folder: Path) -> int:
    """Count files that are whole: names with a dot are not yet."""
    return sum(not path.name.startswith(".") for path in folder.glob(pattern))


_CACHE = "cache digits --tokenizer autoencoder --shard 50 --out out"
_FID = f"fid run -n 64 --batch-size 16 --shard 16 --plans {PLANS}"
_SHARDS, _IMAGES = partial(files, "out/*/*.json"), partial(files, "run/generated/*/*.safetensors")
_SCORES, _RECORDS = partial(files, "run/scores/*.json"), partial(files, "out/cells/**/*.json")
LONG = {
    "train": Long(TRAIN, iteration),
    "train, two processes": Long(TRAIN, iteration, 2),
    "train, three processes": Long(TRAIN, iteration, 3, exact=False),
    "train, torchrun": Long(TRAIN, iteration, launcher=True),
    "tokenizer train": Long(
        f"{MADE['autoencoder'].partition(' --iter')[0]} --iterations 60 --save-every 5 --rfid --out out", iteration
    ),
    "cache": Long(_CACHE, _SHARDS),
    "cache, two processes": Long(_CACHE, _SHARDS, 2),
    "generate": Long(
        "generate run -n 256 --batch-size 16 --shard 16 --plan random/equal:32 --npz out.npz --out out",
        partial(files, "out/*.safetensors"),
    ),
    "score nll": Long(f"score nll run --plans {PLANS} -n 96 --budget 0.01", _SCORES),
    "fid": Long(_FID, _IMAGES),
    "fid, two processes": Long(_FID, _IMAGES, 2),
    "score sets": Long("score sets run --plans random,raster --ks 8 -n 8", _SCORES),
    "score exposure": Long(f"score exposure run --plans {PLANS} -n 32", _SCORES),
    "score consistency": Long("score consistency run -n 32 --orders 4", _SCORES),
    "search-order": Long(
        "search-order run --start raster --partition equal:16 -n 16 --test-n 8 --evaluations 60",
        partial(files, "run/orders/*.result.json"),
    ),
    "ablate": Long("ablate grid.yaml --out out", _RECORDS),
    "ablate, two workers": Long("ablate grid.yaml --workers 2 --out out", _RECORDS),
    "ablate, two processes": Long(
        "ablate grid.yaml only.network=made --processes 2 --retry-failed --out out", _RECORDS
    ),
}


def settle(folder: Path) -> None:
    """Let a command run in ``folder``, with a cache of its own; it keeps unfinished scores at once, and waits for its
    processes 15 seconds in place of minutes."""
    import mar.core.processes as processes
    import mar.core.records as records

    processes._MEETING = timedelta(seconds=15)
    os.chdir(folder)
    os.environ |= {"XDG_CACHE_HOME": str(folder / "xdg"), "OMP_NUM_THREADS": "1"}
    records.Partial.__init__.__defaults__ = (0.0,)


class Program(subprocess.Popen[bytes]):
    """A program in place of a process of ``Running``."""

    def is_alive(self) -> bool:
        return self.poll() is None

    def join(self, timeout: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(timeout)

    @property
    def exitcode(self) -> int | None:
        return self.poll()


def start(long: Long, folder: Path, line: str = "") -> Running:
    """Start the command in ``folder``."""
    words = (line or long.line).split()
    if not long.launcher:
        return Running(folder.parent / "logs", words, long.world, (settle, (folder,)))
    running = Running(folder.parent / "logs", words, 0)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mar"]
    own = {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "xdg")}
    with (folder.parent / "logs" / "torchrun.log").open("ab") as log:
        running.processes = [
            Program([*torchrun, *words], cwd=folder, env={**os.environ, **own}, stdout=log, stderr=log)
        ]
    running.logs = [folder.parent / "logs" / "torchrun.log"]
    return running


UNEQUAL = (
    "launch.txt",
    "environment.json",
    "outline.json",
)  # the outline holds the weights that were there at its start


def contents(folder: Path) -> dict[str, Any]:
    """Return every file, without what a clock measured or the place where it ran."""
    found: dict[str, Any] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, value = str(file.relative_to(folder)), file.read_bytes()
        saved = max((path.name for path in (folder / "out" / "checkpoints").glob("0*")), default="")
        if name.startswith("out/checkpoints/") and saved not in name:
            continue  # a stop saved one more before it
        if name.startswith("out/logs/") or "tensorboard" in name or file.name in UNEQUAL:
            continue
        if file.suffix == ".json":
            found[name] = timeless(json.loads(value))
            if "run/orders/" in name:  # a search that goes on scores its order anew
                for search in (found[name], found[name].get("search", {})):
                    search.pop("rows", None)
        elif file.suffix == ".jsonl":
            found[name] = [timeless(json.loads(line)) for line in value.splitlines()]
            if (file.parent / "tokenizer.json").is_file():  # means of the iterations since a resume
                found[name] = [line["iteration"] for line in found[name]]
        elif file.suffix == ".csv":
            found[name] = [timeless(row) for row in csv.DictReader(value.decode().splitlines())]
        else:  # texts and pictures of an ablation hold its speed
            found[name] = None if name.startswith("out/") and name.count("/") == 1 and long_texts(file) else value
    return found


def long_texts(file: Path) -> bool:
    return file.suffix in (".md", ".tex", ".html", ".png") and (file.parent / "grid.yaml").is_file()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "folder"
    folder.mkdir()
    (folder / "grid.yaml").write_text(GRID)
    for line in MADE.values():
        running = start(LONG["train"], folder, line)
        assert running.wait() == [0], running.said
    return folder


def hit(running: Running, moments: random.Random) -> str:
    """SIGKILL or SIGTERM to some of the processes of a command and their children. Return the signal's name."""
    alive = [process.pid for process in running.processes if process.is_alive() and process.pid is not None]
    tree = [pid for root in alive for pid in (root, *descendants(root))]
    number = moments.choice([signal.SIGKILL, signal.SIGTERM])
    for pid in moments.sample(tree, moments.randint(1, len(tree))) if tree else ():
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return number.name if tree else ""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", LONG)
def test_a_command_that_is_killed_again_and_again_ends_as_an_undisturbed_one(made, tmp_path, name):
    """MAR_KILLS (default 2) kills at moments drawn by MAR_KILL_SEED; a command that ends in between begins anew."""
    long, wanted = LONG[name], int(os.environ.get("MAR_KILLS", "2"))
    moments = random.Random(f"{name} {os.environ.get('MAR_KILL_SEED', '0')}")
    whole = shutil.copytree(made, tmp_path / "whole")
    began = time.monotonic()
    running = start(long, whole)
    assert set(running.wait(300)) == {0}, running.said
    duration, expected = time.monotonic() - began, contents(whole)
    kills, lives, slowest, folder = Counter[str](), 0, 0.0, tmp_path / "killed"
    while kills.total() < wanted:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made, folder)
        saved, codes, lives = 0, [-1], lives + 1
        while set(codes) != {0}:
            began, running = time.monotonic(), start(long, folder)
            if kills.total() < wanted:
                end = time.monotonic() + duration * moments.random()
                while time.monotonic() < end and all(process.is_alive() for process in running.processes):
                    time.sleep(0.01)
                if number := hit(running, moments):
                    kills[number] += 1
                    print(f"{name}: {number} after {time.monotonic() - began:.1f} s, {saved} saved", flush=True)
            began = time.monotonic()
            codes = running.wait(300)
            slowest = max(slowest, time.monotonic() - began)
            assert None not in codes, f"{name} hangs after {dict(kills)}:\n{running.said}"
            assert long.launcher or "Traceback" not in running.said, running.said
            assert long.saved(folder) >= saved, f"{saved} were saved, now {long.saved(folder)}"
            saved = long.saved(folder)
            if long.saved is iteration and (folder / "out" / "metrics.jsonl").is_file():
                assert saved >= Trained(folder / "out").logged - EVERY
        check_same(contents(folder), expected, long.exact)
    print(f"{name}: {dict(kills)} in {lives} lives of {duration:.1f} s, ends within {slowest:.1f} s", flush=True)


def check_same(found: dict[str, Any], expected: dict[str, Any], exact: bool) -> None:
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    if exact:
        different = [name for name in expected if found[name] != expected[name]]
        assert not different, {name: (found[name], expected[name]) for name in different if name.endswith("json")}
        return
    for one, other in zip(found["out/metrics.jsonl"], expected["out/metrics.jsonl"], strict=True):
        if "loss_nats_per_token" in one:
            assert one["loss_nats_per_token"] == pytest.approx(other["loss_nats_per_token"], rel=1e-4)
