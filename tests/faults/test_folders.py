"""A folder is of one kind: a command that would write another into it, or finds a file there, writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mar.cli.ablate import ablate
from mar.cli.tokenizer import cache
from mar.cli.tokenizer import train as train_tokenizer
from mar.cli.train import train
from mar.core.errors import UserError
from mar.core.files import CACHE, GRID, RUN, STORE, TOKENIZER
from mar.core.spec import DataSpec
from mar.metrics.store import Store
from mar.training.run_folder import RunFolder
from tests.autoencoders import save
from tests.training.conftest import TINY


def imported(out: Path) -> None:
    with RunFolder(out).locked():  # as mar import does
        pass


def generated(out: Path) -> None:
    Store.create(out, {}, DataSpec((1, 2, 3), 17))


def cached(out: Path) -> None:
    beside = next(path for path in out.parents if path.is_dir()) / "autoencoder"
    cache("digits", tokenizer=str(save("kl", beside)), out=out)


COMMANDS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "train": (RUN, lambda out: train("digits", TINY, out)),
    "tokenizer train": (TOKENIZER, lambda out: train_tokenizer("digits", channels="8,8", iterations=1, out=out)),
    "cache": (CACHE, cached),
    "generate": (STORE, generated),
    "import": (RUN, imported),
    "ablate": (GRID, lambda out: ablate("digits", out=out)),
}


KINDS = (RUN, TOKENIZER, CACHE, STORE, GRID)
OTHERS = [(name, marker) for name, (own, _) in COMMANDS.items() for marker in KINDS if marker != own]


@pytest.mark.parametrize(("name", "marker"), OTHERS)
def test_no_command_writes_into_a_folder_of_another_kind(name, marker, tmp_path):
    command = COMMANDS[name][1]
    out = tmp_path / "out"
    out.mkdir()
    (out / marker).write_text("{}")
    with pytest.raises(UserError, match=rf"out holds .*\({marker}\).*choose another --out"):
        command(out)
    assert [path.name for path in out.iterdir()] == [marker] and (out / marker).read_text() == "{}"


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_a_file_in_the_way_is_one_line(name, below, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"file is a file, and .* would be a folder"):
        COMMANDS[name][1](tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "mine"
