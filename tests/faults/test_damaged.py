"""A damaged checkpoint is found by its checksum; the one before it is used, and said."""

from __future__ import annotations

from pathlib import Path

import pytest

from mar.core.errors import UserError
from mar.run import train
from tests.faults.conftest import EVERY, Trained
from tests.training.test_loop import assert_equal


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(bytes(content))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


DAMAGE = [(flip, "optimizer.pt"), (cut, "ema.safetensors"), (cut, "state.json"), (Path.unlink, "model.safetensors")]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("undisturbed")


@pytest.mark.parametrize(("damage", "name"), DAMAGE)
def test_a_damaged_newest_checkpoint_costs_what_came_after_the_one_before(
    tmp_path, recipe, capsys, undisturbed, damage, name
):
    if not Trained(undisturbed).saved:
        train(recipe, undisturbed)
    train(recipe, tmp_path)
    damage(tmp_path / "checkpoints" / f"{2 * EVERY:08d}" / name)
    assert Trained(tmp_path).saved == EVERY
    train(recipe, tmp_path)
    said = capsys.readouterr().out
    assert f"{name} " in said and "passed over" in said and f"after iteration {EVERY}" in said
    assert_equal(tmp_path, undisturbed)


def test_a_run_without_any_whole_checkpoint_is_not_started_over(tmp_path, recipe):
    train(recipe, tmp_path)
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        cut(checkpoint / "model.safetensors")
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged: delete them"):
        train(recipe, tmp_path)
