"""A grid that is killed at random moments, in training, scoring, sampling and writing, ends with the table of one that
nothing happens to: bit for bit, except what a clock measured.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.processes import Running

GRID = """
recipe: digits
overrides: [train.iterations=8, train.save_every=3, train.log_every=1, train.batch_size=8, train.validate_every=4,
  train.validation_examples=8, train.sample_every=0, class_conditional=false, ordering=random, partition=linear,
  partition.k=4]
axes:
  network:
    - {network: {kind: made, widths: [8]}}
    - network: {kind: masked-transformer, encoder_width: 16, encoder_depth: 1, encoder_heads: 2, decoder_width: 16,
        decoder_depth: 1, decoder_heads: 2, buffer: 1, projection_dropout: 0.1}
  seed: [0, 1]
exclude: [{network: made, seed: 1}]
orderings: [raster, random]
partitions: ["linear:4"]
select: best
nll: {images: 12}
fid: {images: 12, shown: 4, animated: 2}
speed: {batch: 2, seconds: 0, clock: cpu}
probe: {sets: 4}
"""
CLOCKS = ("seconds", "per_second", "environment", "made_by", "time", "per_second_mean", "per_second_standard_deviation")


class Ablation:
    """``mar ablate`` of the grid in a folder of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "killed.yaml").write_text(GRID)
        self.logs, self.out = folder / "logs", folder / "out"
        self.command = ["ablate", str(folder / "killed.yaml"), "--out", str(self.out), *options]

    def start(self) -> Running:
        return Running(self.logs, self.command)

    def finish(self) -> None:
        running = self.start()
        assert running.wait(300) == [0], running.said

    @property
    def marks(self) -> int:
        """How far it is: iterations logged, records, pictures and tables written."""
        lines = (len(file.read_text().splitlines()) for file in self.out.glob("runs/*/metrics.jsonl"))
        kept = ("cells/*/*.json", "cells/*/*/*.*", "features/*", "*.*")
        return sum(lines) + sum(len(list(self.out.glob(pattern))) for pattern in kept)

    def figures(self) -> tuple[Any, list[dict[str, str]], dict[str, bytes]]:
        """The result, the table and the pictures, without what a clock measured and where it ran."""
        table = list(csv.DictReader((self.out / "table.csv").open()))
        files = [*self.out.glob("cells/*/*/*.png"), *self.out.glob("cells/*/*/*.gif")]
        pictures = {str(file.relative_to(self.out)): file.read_bytes() for file in files}
        result = json.loads((self.out / "result.json").read_text())
        del result["environment"]
        return timeless(result), [timeless(row) for row in table], pictures


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if not key.endswith(CLOCKS)}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Ablation:
    ablation = Ablation(tmp_path_factory.mktemp("undisturbed"))
    ablation.finish()
    return ablation


def kill(running: Running, with_workers: bool) -> None:
    """SIGKILL to the command, and to its workers; otherwise they go on by themselves to the end of their cells."""
    of_command = subprocess.run(["pgrep", "-P", str(running.processes[0].pid)], capture_output=True, text=True)
    running.send(signal.SIGKILL)
    for worker in of_command.stdout.split() if with_workers else ():
        with suppress(ProcessLookupError):
            os.kill(int(worker), signal.SIGKILL)


def killed_at_random(ablation: Ablation, undisturbed: Ablation, times: int, seed: int) -> None:
    """Killed ``times`` times, once in each of as many equal parts of the work, and then left to end."""
    moments, total, killed = random.Random(seed), undisturbed.marks, 0
    while killed < times:
        running = ablation.start()
        wanted = int(total * (killed + moments.random()) / times)
        running.until(lambda wanted=wanted: ablation.marks >= wanted, timeout=240)  # busy machines start slowly
        time.sleep(moments.random() * 0.1)
        kill(running, with_workers=moments.random() < 0.7)
        killed += running.wait() == [-signal.SIGKILL]  # not, where it ended in that last moment
    ablation.finish()
    assert ablation.figures() == undisturbed.figures()


def test_a_grid_killed_three_times_ends_with_the_table_of_an_undisturbed_one(undisturbed, tmp_path):
    ablation = Ablation(tmp_path)
    shutil.copytree(undisturbed.out / "features", ablation.out / "features")  # spares the training of a classifier
    killed_at_random(ablation, undisturbed, times=3, seed=0)
