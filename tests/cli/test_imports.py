"""Commands import heavy modules only when they need them: a mistyped key is refused before torch is there."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.cli.test_main import TINY, in_process

HEAVY = {"torch", "scipy", "sklearn", "matplotlib", "diffusers", "timm", "torchvision", "torch_fidelity", "accelerate"}
LIGHT = [
    "--help", "--version", "train --help", "sample --help", "fid --help", "ablate --help", "score nll --help",
    "recipes",
    "recipes --json", "orderings list", "orderings list --json", "reproduce", "train digitz",
    "train digits trian.iterations=3", "train digits train.iteration=3", "train digits train.iterations=many",
    "train digits --owt x", "orderings show spiraal", "sample runs/x --plam raster", "ablate digit",
    "reproduce rar-orderz", "train digits network=masked-transformr", "train digits network.depht=3",
    "train digits ordering=spirl", "train digits ordering.seeed=3", "ablate digits fdi.images=3",
    "reproduce rar-orders fdi.images=3", "recipes digits", "recipes mnist", "sample nowhere", "score nll nowhere",
    "score sets nowhere", "score nll nowhere --plans spirl", "fid nowhere", "demo nowhere", "search-order nowhere",
    "status nowhere",
]  # fmt: skip
PROGRAM = """
import contextlib, io, json, sys
from mar.cli.main import app, describe_error
for command in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            app(command.split() if isinstance(command, str) else command, prog_name="mar", standalone_mode=False)
        except Exception as error:
            if describe_error(error)[1] != 2:
                raise
    print(json.dumps(sorted(name for name in sys.modules if "." not in name)))
"""


def imported(commands: list) -> list[set[str]]:
    """Return the top-level modules in memory after each command of one process."""
    run = [sys.executable, "-c", PROGRAM, json.dumps(commands)]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [set(json.loads(line)) for line in done.stdout.splitlines()]


def test_help_lists_and_refusals_of_names_import_nothing_heavy():
    heavy = {command: HEAVY & modules for command, modules in zip(LIGHT, imported(LIGHT), strict=True)}
    assert not {command: modules for command, modules in heavy.items() if modules}


def test_sampling_imports_torch_alone_and_scoring_neither_timm_nor_torch_fidelity(tmp_path):
    run = tmp_path / "run"
    in_process("train", "digits", *TINY, "train.sample_every=0", "--out", str(run))
    sample = ["sample", str(run), "-n", "1", "--plan", "random/equal:16", "--no-gif", "--out", str(tmp_path / "out")]
    score = ["score", "nll", str(run), "--plans", "raster/equal:16", "-n", "2", "--json"]
    sampled, scored = imported([sample, score])
    assert HEAVY & sampled == {"torch"}
    assert HEAVY & scored <= {"torch", "matplotlib", "scipy", "sklearn"}  # a picture, paired intervals, the digits
