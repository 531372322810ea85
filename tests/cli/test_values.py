"""Hostile values of every option of every command: a result, or one line and code 2; nothing written when refused."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from typer.main import get_command

from mar import build, config
from mar.cli.main import app, describe_error
from mar.compat.published import restore
from mar.core.spec import DataSpec
from mar.data.base import About
from mar.experiments.grid import GridFile
from mar.metrics import METRICS
from tests.autoencoders import save
from tests.cli.test_main import TINY, in_process, refusal
from tests.faults.processes import ask

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
VALID = ["1", "2", "3", "7", "8", "16", "0.5", "1e-3"]
YAML = ["null", "true", "[]", "[1,2]", "[-1]", "[[1]]", "{a: 1}", "[raster,random]", "[nan]", "'x", "auto", "all"]
SMALL = " ".join(TINY)
# A line of each command that computes for less than a second, in a folder that `made` has filled.
COMMANDS = {
    "train": f"digits {SMALL} train.sample_every=0 --out out",
    "sample": "run -n 1 --plan random/equal:64 --no-gif --out out",
    "generate": "run -n 1 --plan random/equal:64 --out out",
    "fid": "run -n 8 --plans random/equal:64 --against digits.npz",
    "fid-stats": "store --labelled digits --out out.npz",
    "search-order": "run --start raster --partition equal:32 -n 8 --test-n 2 --evaluations 1",
    "ablate": "grid.yaml --out out",
    "status": "ablation",
    "report": "ablation --out out.html",
    "cache": "digits --tokenizer tokenizer --out out",
    "demo": "run",
    "export": "run --out out",
    "verify": "mine.py:Mine",
    "bench": f"digits {SMALL} --batch 1 --seconds 0 --rounds 1 --only train --out out.json",
    "recipes": "",
    "reproduce": "made-masks masks=1 seed=0 train.iterations=1 train.batch_size=8 --dry-run --out out",
    "import": "mar.pth --heads 2 --out out",
    "score nll": "run --plans random/equal:32 -n 2",
    "score fid": "store --against digits.npz --labelled digits --out out.json",
    "score sets": "run --plans random --ks 63 -n 2",
    "score exposure": "run --plans random/equal:32 -n 2",
    "score consistency": "run -n 3 --orders 3 --pairs 1",
    "score matrix": "run --plans random/equal:32 -n 2 --out out",
    "orderings list": "",
    "orderings show": "raster --grid 4x4",
    "orderings gallery": "raster --grid 4x4 --out out.png",
    "data check": "digits",
    "tokenizer train": "digits --channels 4,4 --iterations 2 --batch-size 8 --out out",
    "tokenizer score": "tokenizer digits -n 8 --no-rfid --out out",
}
GRID = f"""
recipe: digits
overrides: [{", ".join(TINY)}, train.sample_every=0, network=made, "network.widths=[8]"]
orderings: [raster]
partitions: ["equal:32"]
nll: {{images: 4}}
"""
MINE = """
from orderings.scans import Raster
class Mine(Raster):
    pass
"""
GRADIO = importlib.util.find_spec("gradio") is not None
FAILS = {"ablate", "reproduce", "verify"}  # commands that end with 1 where a cell or a claim has failed
REFUSAL = 3.0  # seconds of processor time in which a refusal comes


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


Change = tuple[Any, ...]  # words to add; or the place of an argument and its value


class Fuzzed:
    """Commands in a folder that is made anew for each."""

    def __init__(self, folder: Path) -> None:
        self.made, self.work, self.tried = folder / "made", folder / "work", 0
        self.own = {"HOME": str(self.made), "XDG_CACHE_HOME": str(folder / "cache"), "COLUMNS": "200", "TERM": "dumb"}
        self.own |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self.made.mkdir()
        (self.made / "grid.yaml").write_text(GRID)
        (self.made / "mine.py").write_text(MINE)
        torch.save({"model": released(0), "model_ema": released(1)}, self.made / "mar.pth")
        save("kl", self.made / "tokenizer")
        for line in (
            f"train digits {SMALL} train.sample_every=0 --out run", "fid-stats digits --out digits.npz",
            "generate run -n 8 --plan random/equal:64 --out store", "ablate grid.yaml --out ablation",
        ):  # fmt: skip
            answer = ask(line.split(), self.made, self.own, 60)
            assert answer.code == 0, answer.said

    def fresh(self) -> None:
        """Make the folder anew, under a name of its own: a killed process may still write."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.tried += 1
        self.work = self.made.parent / f"work-{self.tried}"
        self.own["HOME"] = str(shutil.copytree(self.made, self.work))

    def fault(self, name: str, changes: Sequence[Change], seconds: float) -> tuple[str, str]:
        """Run a command with further words. Return how it ended (taken, refused, unfinished), and what is wrong."""
        line = COMMANDS[name].split()
        for change in changes:
            if isinstance(place := change[0], int):
                line[place : place + 1] = [change[1]]
            else:
                line += change
        arguments = [*name.split(), *line]
        self.fresh()
        before = written(self.work)
        answer = ask(arguments, self.work, self.own, seconds)
        said = f"mar {name} … {changes}: "
        if answer.code is None:
            return "unfinished", ""
        if answer.code not in ((0, 1, 2) if name in FAILS else (0, 2)):
            return "failed", said + answer.said
        if answer.code != 2:
            return "taken", ""
        new = set(written(self.work).items()) - set(before.items())
        if new:
            return "refused", f"{said}refused ({answer.said}) and wrote {new}"
        if answer.seconds > REFUSAL:
            return "refused", f"{said}refused ({answer.said}) after {answer.seconds:.1f} s"
        if "\n" in answer.said and not any("\n" in str(word) for change in changes for word in change):
            return "refused", f"{said}refused in several lines: {answer.said}"
        return "refused", ""


def released(seed: int) -> dict[str, torch.Tensor]:
    """Return the weights of a small MAR in the released layout."""
    recipe = config.parse(
        {
            "data": {"kind": "cache"}, "tokenizer": {"kind": "latents", "patch": 1, "scale": 0.2325},
            "network": {"kind": "masked-transformer", "encoder_width": 16, "encoder_depth": 1, "encoder_heads": 2,
                        "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2, "buffer": 1},
            "head": {"kind": "diffusion", "width": 8, "depth": 1},
        }
    )  # fmt: skip
    model = build.assemble(recipe, About("", DataSpec((3, 4, 4), 0, 3, modality="latent"), "")).model
    generator = torch.Generator().manual_seed(seed)
    return restore({key: torch.randn(p.shape, generator=generator) for key, p in model.named_parameters()})


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory) -> Fuzzed:
    return Fuzzed(tmp_path_factory.mktemp("fuzzed"))


def keys(value: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of nested mappings."""
    for key, inner in value.items():
        yield f"{prefix}{key}"
        yield from keys(inner, f"{prefix}{key}.") if isinstance(inner, dict) else ()


def changes(name: str) -> st.SearchStrategy[Change]:
    """Return the strategy of an option with a value, a flag, an argument, or an override of a key."""
    known_texts = st.sampled_from(NUMBERS + VALID) | st.sampled_from(TEXTS)
    generic = known_texts | known_texts | st.floats().map(str) | st.integers().map(str) | st.text(max_size=20)
    recipe = [*keys(build.resolve(config.read("digits", TINY)).as_dict()), "data.path", "network.kind", "head.kind"]
    of_grid = [*GridFile.model_fields, *METRICS, "nll.images", "fid.images", "axes.seed", "only.network", "given.x"]
    known = [*recipe, *of_grid] if name in ("ablate", "reproduce") else recipe
    found, places = [], 0
    for parameter in leaf(name).params:
        if parameter.name in ("push", "help"):  # push asks the hub
            continue
        if getattr(parameter, "is_flag", False):
            found.append(st.sampled_from([*parameter.opts, *parameter.secondary_opts]).map(lambda flag: (flag,)))
            continue
        annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
        values = generic | st.sampled_from([text for text in get_args(annotation) if isinstance(text, str)] or VALID)
        if parameter.name == "overrides":
            values = st.tuples(st.sampled_from(known), st.sampled_from(YAML) | generic).map("=".join) | values
        if parameter.param_type_name == "option":
            found.append(st.tuples(st.sampled_from(parameter.opts), *[values] * max(1, parameter.nargs)))
        elif parameter.nargs == 1 and len(COMMANDS[name].split()) > places:  # in place of the word of the line
            found.append(st.tuples(st.just(places), values))
            places += 1
        else:
            found.append(st.tuples(values))
    return st.one_of(found) if found else st.just(())


def fuzz(fuzzed: Fuzzed, name: str, examples: int, seconds: float, most: int, seed_of: int = 0) -> Counter[str]:
    """Try up to ``most`` changes at a time. Return how the commands ended and every fault."""
    found = Counter[str]()

    @seed(seed_of)
    @settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.lists(changes(name), min_size=1, max_size=most))
    def tried(changes: list[Change]) -> None:
        ended, fault = fuzzed.fault(name, changes, seconds)
        found.update([ended, *filter(None, [fault])])

    tried()
    return found


def test_every_command_is_tried():
    root = get_command(app)
    names = {
        f"{name} {inner}".strip()
        for name in root.commands
        for inner in getattr(root.get_command(None, name), "commands", [""])
    }
    assert names == set(COMMANDS)


ENDS = ("taken", "refused", "unfinished", "failed")


def test_a_model_larger_than_the_memory_is_refused_in_one_line(fuzzed):
    sizes = ("network.encoder_width=65536", "network.encoder_heads=1024")
    ended, fault = fuzzed.fault("train", [sizes], 10)
    assert (ended, fault) == ("refused", "")


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_line_of_every_command_computes(fuzzed, name):
    assert fuzzed.fault(name, [], 20) == ("refused" if name == "demo" and not GRADIO else "taken", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_any_value_and_any_flag_is_taken_or_refused_in_one_line(fuzzed, name):
    found = fuzz(fuzzed, name, 2, 1.0, 1)
    assert not (faults := [fault for fault in found if fault not in ENDS]), "\n".join(faults)


@pytest.mark.slow
@pytest.mark.timeout(36_000)
def test_thousands_of_values_and_flags_are_taken_or_refused_in_one_line(fuzzed):
    """For MAR_FUZZ_MINUTES (default 2), up to three changes at a time; the figures are printed."""
    end = time.monotonic() + 60 * float(os.environ.get("MAR_FUZZ_MINUTES", "2"))
    found: dict[str, Counter[str]] = {name: Counter() for name in COMMANDS}
    for rounds in itertools.count(int(os.environ.get("MAR_FUZZ_SEED", "0"))):
        for name in COMMANDS:
            if time.monotonic() > end:
                break
            now = fuzz(fuzzed, name, 12, 5.0, 3, rounds)
            said = [f"{end} {now[end]}" for end in ENDS] + [f"\n  {key}" for key in now.keys() - {*ENDS}]
            print(name, *said, flush=True)
            found[name] += now
        if time.monotonic() > end:
            break
    total = sum(found.values(), Counter())
    print("all", *(f"{end} {total[end]}" for end in ENDS), flush=True)
    assert not (faults := [key for counts in found.values() for key in counts if key not in ENDS]), "\n".join(faults)


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
        ("fid . --against digits --out {run}", "run is a folder: name the file to write"),
        ("bench --out {run}", "run is a folder: name the file to write"),
        ("generate {run} -n 1 --out x --npz {run}", "run is a folder: name the file to write"),
        ("ablate digits given='x", "given is a mapping: override given.NAME=VALUE"),
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


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        ("search-order run --partition equal:32 --start raster", "run/orders"),
        ("score matrix run --plans raster", "matrix"),
        ("tokenizer score tokenizer digits --no-rfid", "scores/tokenizer"),
    ],
)
def test_default_folders_are_checked_before_anything_is_computed(home, arguments, taken, monkeypatch):
    save("kl", home / "tokenizer")
    (home / taken).parent.mkdir(exist_ok=True)
    (home / taken).touch()
    before = written(home)
    for computing in ("mar.run.Run.nll", "mar.metrics.reconstruction.reconstruct", "mar.order_search.search.search"):
        monkeypatch.setattr(computing, None)
    line, code = refusal(*arguments.split())
    assert code == 2 and f"{taken} is a file" in line and written(home) == before
    (home / taken).unlink()


def test_the_tilde_of_a_path_is_the_home(home):
    in_process("sample", "~/run", "-n", "1", "--plan", "random/equal:64", "--no-gif", "--out=~/there")
    assert (home / "there" / "grid.png").is_file() and not Path("~").exists()
