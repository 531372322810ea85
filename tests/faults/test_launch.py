"""The launch files in ``scripts/launch``, with two CPU processes; Slurm's own commands are stood in for."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.conftest import EVERY, Trained
from tests.faults.processes import descendants

LAUNCH = Path(__file__).parents[2] / "scripts" / "launch"
SRUN = """#!/usr/bin/env bash
shift  # --kill-on-bad-exit=1
for ((i = 0; i < SLURM_NTASKS; i++)); do SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & done
trap 'kill -TERM $(jobs -p)' TERM
worst=0
for job in $(jobs -p); do
  while wait "$job"; code=$?; kill -0 "$job" 2>/dev/null; do :; done
  [ "$code" -gt "$worst" ] && worst=$code
done
exit "$worst"
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1" = show ]; then echo 127.0.0.1; else echo "$@" >> "$SCONTROL_LOG"; fi
"""


def start(
    script: str, arguments: list[str], cwd: Path = LAUNCH.parents[1], **environment: str
) -> subprocess.Popen[str]:
    fixed = {"GPUS": "2", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "MAR_VENV": sys.prefix}
    path = os.pathsep.join([environment.pop("FAKES", ""), str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.Popen(
        ["bash", str(LAUNCH / script), *arguments], cwd=cwd, text=True,
        env={**os.environ, **fixed, **environment, "PATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def until_logged(run: Trained, iteration: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while run.logged < iteration and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)


def port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


@pytest.mark.parametrize("script", sorted(LAUNCH.iterdir()), ids=lambda path: path.name)
def test_launch_files_are_valid_shell(script):
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("script", ["one_machine.sh", "fsdp.sh"])
def test_one_machine_trains_is_stopped_with_143_and_goes_on(run, script):
    process = start(script, run.command(100_000)[1:])
    until_logged(run, 3, process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 143 and "stopped, checkpoint saved" in said, said
    saved = run.saved
    process = start(script, run.command(saved + 5)[1:])
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and f"after iteration {saved}" in said and "2 process(es)" in said, said
    assert run.saved == saved + 5


@pytest.mark.slow
def test_a_killed_process_is_started_again_by_the_launcher(run):
    process = start("one_machine.sh", run.command(60)[1:])
    until_logged(run, 7, process)
    workers = subprocess.run(["pgrep", "-f", f"mar train.*{run.path}"], capture_output=True, text=True).stdout.split()
    of_launcher = [int(pid) for pid in workers if "RANK=1\0" in Path(f"/proc/{pid}/environ").read_text()]
    os.kill(of_launcher[-1], signal.SIGKILL)
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0 and "resuming" in said and run.saved == 60, said


@pytest.mark.slow
def test_a_user_error_is_said_once_is_not_tried_again_and_ends_with_2(run):
    process = start("one_machine.sh", run.command(5, "network.foo=1")[1:])
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 2 and said.count("unknown option") == 1 and "Traceback" not in said, said
    process = start(
        "one_machine.sh", run.command(5, "data=mnist", "data.path=/nowhere")[1:]
    )  # found after they have met
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 2 and said.count("/nowhere is not a folder") == 1 and "Traceback" not in said, said


@pytest.mark.slow
def test_paths_are_meant_from_where_the_launch_file_is_called(run, tmp_path):
    (tmp_path / "mine.yaml").write_text((LAUNCH.parents[1] / "mar/recipes/digits.yaml").read_text())
    process = start("one_machine.sh", ["mine.yaml", *run.command(2)[2:-1], "here/run"], cwd=tmp_path, GPUS="1")
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0 and (tmp_path / "here" / "run" / "recipe.yaml").is_file(), said


def test_paths_given_to_a_script_are_meant_from_where_it_is_called(tmp_path):
    ask = f'source {LAUNCH.parent}/environment.sh "" >&2; pwd; from_caller data; from_caller /data; echo "$RUNS"'
    python = tmp_path / "bin" / "python"  # nothing is installed
    python.parent.mkdir()
    python.write_text("#!/usr/bin/env bash\n")
    python.chmod(0o755)
    path = os.pathsep.join([str(python.parent), os.environ["PATH"]])
    environment = {**os.environ, "MAR_VENV": str(tmp_path), "RUNS": "my/runs", "PATH": path}
    done = subprocess.run(
        ["bash", "-c", ask], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    expected = [LAUNCH.parents[1], tmp_path / "data", "/data", tmp_path / "my" / "runs"]
    assert done.stdout.split() == list(map(str, expected))


@pytest.mark.slow
def test_two_machines_meet_and_train(run):
    meeting = {"MACHINES": "2", "HEAD": f"127.0.0.1:{port()}", "GPUS": "1"}
    machines = [start("machines.sh", run.command(5)[1:], **meeting) for _ in range(2)]
    said = [machine.communicate(timeout=200)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert run.saved == 5 and "2 process(es)" in "".join(said)


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["process", "launcher", "machine"])
@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_machine_or_its_process_is_lost_the_other_ends_within_thirty_seconds_with_one_line(
    run, tmp_path, lost, victim
):
    """Two torchrun agents on the loopback, a process each. Without its launcher a process saves and ends, with all."""
    meeting = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port()}", "--rdzv-id", "x"]
    words = [sys.executable, "-m", "torch.distributed.run", *meeting, "--nproc-per-node", "1", "-m", "mar"]
    agents, logs = [], [tmp_path / "0.log", tmp_path / "1.log"]
    for log in logs:
        with log.open("w") as file:
            agents.append(subprocess.Popen([*words, *run.command(100_000)], stdout=file, stderr=file))
    until_logged(run, 3, agents[0])
    (mine,), (other,) = (list(descendants(agents[k].pid)) for k in (victim, 1 - victim))
    began = time.monotonic()
    for pid in {"process": [mine], "launcher": [agents[victim].pid], "machine": [agents[victim].pid, mine]}[lost]:
        os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{other}").exists() and time.monotonic() < began + 60:
        time.sleep(0.05)
    ended = time.monotonic() - began
    codes = [agent.wait(120) for agent in agents]
    said = "".join(log.read_text() for log in logs)
    assert ended < 30 and all(codes), said
    line = "stopped, checkpoint saved" if lost == "launcher" else "has died, so all end"
    assert said.count(f"{line}") == 1 and run.saved >= run.logged - EVERY, said


@pytest.mark.slow
def test_slurm_puts_a_stopped_job_back_and_ends_a_finished_or_failed_one(run, tmp_path):
    fakes, log = tmp_path / "fakes", tmp_path / "scontrol.log"
    fakes.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (fakes / name).write_text(text)
        (fakes / name).chmod(0o755)
    job = {"SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "here", "FAKES": str(fakes), "SCONTROL_LOG": str(log)}

    def submitted(*command: str) -> subprocess.Popen[str]:
        return start("slurm.sbatch", list(command), SLURM_JOB_ID=port(), **job)

    process = submitted(*run.command(100_000)[1:])
    until_logged(run, 3, process)
    tasks = subprocess.run(["pgrep", "-f", f"mar train.*{run.path}"], capture_output=True, text=True).stdout.split()
    for pid in tasks:
        if "SLURM_PROCID" in Path(f"/proc/{pid}/environ").read_text():
            os.kill(int(pid), signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 143 and log.read_text().startswith("requeue"), said
    saved = run.saved
    process = submitted(*run.command(saved + 5)[1:])
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and run.saved == saved + 5 and "2 process(es)" in said, said
    process = submitted("no-such-recipe")
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 2 and log.read_text().count("requeue") == 1, said
