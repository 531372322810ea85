"""Hostile values of every option of every command: a result, or one line and code 2; nothing written when refused."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.main import get_command

from mar.cli.main import app, describe_error
from tests.cli.test_main import TINY, in_process

NUMBERS = [
    "nan", "inf", "-inf", "1e400", "1e13", "-1", "0", "-0.0", "1.5", str(10**20), str(-(10**20)), "0x10", "1_0", "½",
]  # fmt: skip
TEXTS = [
    "", " ", "~", "~/nowhere", "~nobody/x", "..", "/proc/x", "/dev/null", "/dev/null/x", "n" * 300, "a/" * 300, "a\0b",
    "é", "\udcff", "\n", "a\nb", "[", "]", "[]", "{}", "{", "[red]", "%s", "@x", "=", "a=", "=b", "a=b", "top_k=3",
    "a==b", "x: y #", "*", "|", ":", ",", ",,", "/", "-", "--", "${oc.env:HOME}", "raster", "random", "cosine:16",
    "spiral/", "raster/singles", "(" * 500, "blocks:2:outer=" * 300, "digits", "digits:", "digits:/x", "memory",
    "file:x", "x.py:Mine", "steps:0", "steps:8", "1,2", "random:1:0.5", "random:1:nan", "random:-1:2", "lowest-entropy",
    "confidence", "0.1nats", "x.png", "x.npz", "x.pth", "x.yaml", "8x8", "0x8", "99999x99999", "1:2:0.5", "1:0:0",
    "0:1e9:1e-9", "guidance=1,2",
]  # fmt: skip
# Arguments with which a command is answered at once; {run} is a run of four iterations, {out} a path that is free.
COMMANDS = {
    "train": "digits train.iterations=0 --out {out}",
    "sample": "{run} -n 1 --plan random/equal:64 --no-gif --out {out}",
    "generate": "{run} -n 1 --plan random/equal:64 --out {out}",
    "fid": "{run} -n 8 --against nowhere.npz",
    "fid-stats": "nowhere --out {out}.npz",
    "search-order": "{run} --start raster --partition equal:32 -n 8 --test-n 2 --evaluations 1",
    "ablate": "digitz --out {out}",
    "status": "{run}",
    "report": "{run} --out {out}.html",
    "cache": "digits --tokenizer nowhere --out {out}",
    "demo": "nowhere",
    "export": "{run} --out {out}",
    "verify": "nowhere.py:Mine",
    "bench": "digitz --out {out}.json",
    "recipes": "",
    "reproduce": "tablez",
    "import": "nowhere.pth --out {out}",
    "score nll": "{run} --plans random/equal:32 -n 2",
    "score fid": "{run} -n 8 --against nowhere.npz",
    "score sets": "{run} --plans random --ks 63 -n 2",
    "score exposure": "{run} --plans random/equal:32 -n 2",
    "score matrix": "{run} --plans random/equal:32 -n 2 --out {out}",
    "orderings list": "",
    "orderings show": "raster --grid 4x4",
    "orderings gallery": "raster --grid 4x4 --out {out}.png",
    "data check": "digits",
    "tokenizer train": "digits --channels 8,8,8,8,8 --out {out}",
    "tokenizer score": "nowhere digits --out {out}",
}


def leaf(name: str) -> Any:
    found = get_command(app)
    for word in name.split():
        found = found.get_command(None, word)
    return found


def written(folder: Path) -> dict[str, int]:
    """Return every file of a folder with its size; caches of libraries do not count."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.stat().st_size for name, path in files.items() if not name.startswith("cache/")}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a run, which is the home and the working directory."""
    folder = tmp_path_factory.mktemp("values")
    in_process("train", "digits", *TINY, "train.sample_every=0", "--out", str(folder / "run"))
    before, environment = Path.cwd(), dict(os.environ)
    os.chdir(folder)
    os.environ |= {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
    yield folder
    os.chdir(before)
    os.environ.clear()
    os.environ.update(environment)


def test_every_command_is_tried():
    root = get_command(app)
    names = {
        f"{name} {inner}".strip()
        for name in root.commands
        for inner in getattr(root.get_command(None, name), "commands", [""])
    }
    assert names == set(COMMANDS)


def try_value(home: Path, name: str, parameter: Any, value: str) -> None:
    words = [word.format(run=home / "run", out=home / "out") for word in COMMANDS[name].split()]
    option = [parameter.opts[0], value] if parameter.param_type_name == "option" else [value]
    for path in home.iterdir():
        if path.name != "run":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = written(home)
    try:
        code = app([*name.split(), *words, *option], prog_name="mar", standalone_mode=False) or 0
    except Exception as error:
        line, code = describe_error(error)
        assert code == 2, f"mar {name} {words} {option}: {type(error).__name__}: {error}"
        assert "\n" not in line or any("\n" in word for word in option), line
    assert code in (0, 1, 2)
    if code:
        new = set(written(home).items()) - set(before.items())
        assert not new, f"mar {name} {words} {option} was refused and wrote {new}"


def fuzz(home: Path, name: str, examples: int) -> None:
    command = leaf(name)
    parameters = [parameter for parameter in command.params if not getattr(parameter, "is_flag", False)]
    parameters = [parameter for parameter in parameters if parameter.name != "push"]  # it asks the hub
    numbers = st.sampled_from(NUMBERS) | st.floats().map(str) | st.integers().map(str)
    values = numbers | st.sampled_from(TEXTS) | st.text(max_size=20)

    @settings(
        max_examples=examples, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.sampled_from(parameters), values)
    def tried(parameter: Any, value: str) -> None:
        try_value(home, name, parameter, value)

    if parameters:
        tried()


@pytest.mark.parametrize("name", COMMANDS)
def test_any_value_of_any_option_is_taken_or_refused_in_one_line(home, name, capsys):
    fuzz(home, name, 8)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_thousands_of_values_are_taken_or_refused_in_one_line(home, name, capsys):
    fuzz(home, name, 2000)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ("fid {run} --margin nan", "--margin takes a finite number"),
        ("sample {run} --temperature inf", "--temperature takes a finite number"),
        ("sample {run} -n 100000000000000000000", "--n takes a whole number up to"),
        ("sample {run} -n 2000000000", "use mar generate"),
        ("sample {run} --seed 100000000000000000000", "--seed takes a whole number up to"),
        ("sample {run} --head top_k=3 --head top_k=4", "--head top_k is given twice"),
        ("sample {run} --head greedy=true --head top_k=4", "leave out top_k"),
        ("sample {run} --out /proc/x", "cannot write /proc/x"),
        ("generate {run} -n 1 --out x --npz /proc/x.npz", "cannot write /proc/x.npz"),
        ("fid-stats digits --out /proc/x.npz", "cannot write /proc/x.npz"),
        ("bench --out /proc/x.json", "cannot write /proc/x.json"),
        ("orderings show raster --out /proc/x.png", "cannot write /proc/x.png"),
        ("orderings show raster --grid 99999x99999", "would not fit into memory"),
        ("search-order {run} --name ../../x", "--name '../../x' is no name of a folder"),
        ("train digits --out " + "n" * 300, "at most 255 bytes"),
    ],
)
def test_what_no_command_takes_is_refused_before_anything_is_written(home, arguments, said):
    before = written(home)
    with pytest.raises(Exception) as refused:
        app([word.format(run=home / "run") for word in arguments.split()], prog_name="mar", standalone_mode=False)
    line, code = describe_error(refused.value)
    assert code == 2 and said in line and written(home) == before


def test_the_tilde_of_a_path_is_the_home(home):
    in_process("sample", "~/run", "-n", "1", "--plan", "random/equal:64", "--no-gif", "--out=~/there")
    assert (home / "there" / "grid.png").is_file() and not Path("~").exists()
