"""A cell trained in several processes: what the launcher is told, what its end means, and that nothing trains twice."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from mar import config
from mar.config import Recipe
from mar.core.errors import Stopped
from mar.experiments import launch
from mar.experiments.engine import Engine
from mar.experiments.grid import GridFile, read
from mar.experiments.launch import RECIPE, Command, TrainingFailed, train_launched, trainer
from tests.training.conftest import TINY

GRID = """
recipe: digits
overrides: [train.iterations=4, train.batch_size=8, train.validate_every=0, train.sample_every=0]
axes:
  network: [{network: {kind: made, widths: [8]}}]
  seed: [0, 1]
nll: null
fid: null
"""
TORCHRUN = """
W1126 16:32:35.558000 30700 torch/distributed/elastic/multiprocessing/api.py:1028] Sending process 7 SIGTERM
E1126 16:32:35.624000 30700 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: {code})
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
Failures:
[1]:
  exitcode  : {other} (pid: 30711)
Root Cause (first observed failure):
[0]:
  exitcode  : {code} (pid: 30712)
"""


@pytest.fixture
def recipe() -> Recipe:
    return config.read("digits", TINY)


@pytest.fixture
def launcher() -> Callable[[str], Command]:
    """Returns the command of a script in the place of torchrun; its arguments are the processes and the run folder."""

    def put(script: str) -> Command:
        stand_in = [sys.executable, "-S", "-c", script]
        return lambda processes, path: [*stand_in, str(processes), str(path)]

    return put


@pytest.fixture
def grid(tmp_path: Path) -> GridFile:
    (tmp_path / "tiny.yaml").write_text(GRID)
    return read(str(tmp_path / "tiny.yaml"))


def test_the_processes_read_the_recipe_of_the_cell(recipe, launcher, tmp_path):
    command = launcher("import sys; open(sys.argv[2] + '/asked', 'w').write(sys.argv[1])")
    train_launched(2, recipe, tmp_path, command)
    assert (tmp_path / "asked").read_text() == "2"
    assert config.read(str(tmp_path / RECIPE)) == recipe


def test_one_process_wants_no_launcher():
    assert trainer(1) is None


def test_a_failed_training_tells_what_its_processes_printed_last(recipe, launcher, tmp_path):
    said = "note: fine so far\nmar: the data are gone\nmar: the data are gone\n" + TORCHRUN.format(code=2, other=143)
    command = launcher(f"print({said!r}); raise SystemExit(1)")
    with pytest.raises(TrainingFailed, match=r"^note: fine so far \| mar: the data are gone \(whole output: .*\)"):
        train_launched(2, recipe, tmp_path, command)


def test_only_the_last_attempt_is_told(recipe, launcher, tmp_path):
    for word in ("first", "second"):
        command = launcher(f"print('{word}'); raise SystemExit(1)")
        with pytest.raises(TrainingFailed, match=f"^{word}"):
            train_launched(2, recipe, tmp_path, command)


def test_a_stop_from_elsewhere_is_a_stop_and_no_failure(recipe, launcher, tmp_path):
    command = launcher(f"print({TORCHRUN.format(code=143, other=143)!r}); raise SystemExit(1)")
    with pytest.raises(Stopped) as stopped:
        train_launched(2, recipe, tmp_path, command)
    assert stopped.value.signal == signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_passed_on_and_waited_for(number, recipe, launcher, tmp_path):
    command = launcher("""
import signal, sys, time
def save(*_):
    time.sleep(0.1)
    open(sys.argv[2] + "/saved", "w")
    raise SystemExit(1)
signal.signal(signal.SIGTERM, save)
open(sys.argv[2] + "/ready", "w")
time.sleep(30)
""")

    def send() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()
    with pytest.raises(Stopped) as stopped:
        train_launched(2, recipe, tmp_path, command)
    assert stopped.value.signal == number and (tmp_path / "saved").exists()


def test_a_launcher_that_outlives_its_command_keeps_its_run_to_itself(recipe, launcher, tmp_path):
    command = launcher("import pathlib, sys, time\npathlib.Path(sys.argv[2], 'ready').touch()\n"
             "while not pathlib.Path(sys.argv[2], 'go').exists(): time.sleep(0.01)")  # fmt: skip
    starter = os.fork()
    if not starter:
        train_launched(2, recipe, tmp_path, command)
        os._exit(0)
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    os.kill(starter, signal.SIGKILL)
    os.waitpid(starter, 0)
    with (tmp_path / ".launch").open("w") as alone:
        with pytest.raises(BlockingIOError):
            fcntl.flock(alone, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (tmp_path / "go").touch()
        fcntl.flock(alone, fcntl.LOCK_EX)  # until it has ended


def test_a_failed_training_is_recorded_and_the_next_cell_goes_on(grid, launcher, tmp_path):
    command = launcher("print('mar: no'); raise SystemExit(1)")
    engine = Engine(grid, tmp_path / "out", trainer=trainer(2, command))
    engine.work()
    assert [state.kind for state in engine.states()] == ["failed", "failed"]
    (_, record), *_ = engine.outlines[1].answers(engine.out)
    assert record is not None and record.error is not None and record.error.startswith("TrainingFailed: mar: no")


def test_a_worker_ends_with_its_command(tmp_path):
    """The command is killed: its worker is told to stop within two seconds."""
    worker = (
        "import os, pathlib, signal, sys, time\nfrom mar.core.signals import end_with\n"
        "signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path('saved').touch(), sys.exit(0)))\n"
        "end_with(os.getppid()); pathlib.Path('ready').touch(); time.sleep(60)"
    )
    command = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", command], cwd=tmp_path, env=environment) as started:
        while not (tmp_path / "ready").exists():
            assert started.poll() is None
            time.sleep(0.05)
        started.kill()
    ended = time.monotonic() + 4.0
    while not (tmp_path / "saved").exists() and time.monotonic() < ended:
        time.sleep(0.05)
    assert (tmp_path / "saved").exists()


def test_two_commands_at_once_train_no_cell_twice(grid, tmp_path):
    trained: Counter[Path] = Counter()

    def train(recipe: Recipe, path: Path) -> None:
        trained[path] += 1
        time.sleep(0.1)
        raise RuntimeError("enough")

    engines = [Engine(grid, tmp_path / "out", trainer=train) for _ in range(3)]
    threads = [threading.Thread(target=engine.work) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(trained.values()) == [1, 1]


@pytest.mark.slow
def test_a_cell_in_two_processes_is_what_torchrun_trains(grid, tmp_path):
    engine = Engine(grid, tmp_path / "out", trainer=trainer(2))
    engine.work()
    cell = engine.cells[0]
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    recipe = engine.folder(cell).path / RECIPE
    subprocess.run([*launched, "-m", "mar", "train", str(recipe), "--out", str(tmp_path / "run")], check=True)
    runs = engine.folder(cell).path, tmp_path / "run"
    one, other = (run / "checkpoints" / "00000004" / "ema.safetensors" for run in runs)
    assert one.read_bytes() == other.read_bytes()
    assert "2 process(es)" in (engine.folder(cell).path / launch.LOG).read_text()
