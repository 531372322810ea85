from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.metrics.store import Store

SPEC = DataSpec((1, 2, 3), 17, 10)
QUESTION = {"plan": "raster", "seed": 0, "head": {"steps": 10, "timesteps": ()}}


def examples(shard: range) -> tuple[torch.Tensor, torch.Tensor]:
    number = torch.arange(shard.start, shard.stop)
    return (number % 17).to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 3), number % 10


def filled(path, n: int = 10, shard: int = 4) -> Store:
    store = Store.create(path, QUESTION, SPEC, shard)
    for part in store.missing(n):
        store.write(part, *examples(part))
    return store


def test_a_store_gives_back_what_was_put_in_under_any_numbers(tmp_path):
    images = filled(tmp_path / "s").images(10)
    number = torch.tensor([9, 0, 1, 5, 4, 4])
    x, label = images.batch(number)
    assert x[:, 0, 0, 0].tolist() == number.tolist() and label.tolist() == number.tolist()
    assert len(images) == 10 and Store.open(tmp_path / "s").spec == SPEC


def test_what_is_missing_is_found_and_more_goes_on(tmp_path):
    store = filled(tmp_path / "s")
    assert store.missing(10) == [] and store.count(10) == store.size == 10
    assert store.missing(15) == [range(8, 12), range(12, 15)], "the last shard was short"
    (tmp_path / "s" / "00000004.safetensors").unlink()
    assert store.missing(10) == [range(4, 8)] and store.count(10) == 6 and store.size == 4
    with pytest.raises(UserError, match="4 of 10"):
        store.images(10)
    assert filled(tmp_path / "s", 15).size == 15


def test_a_shard_cut_off_is_made_again_and_a_flipped_bit_is_said(tmp_path):
    store = filled(tmp_path / "s")
    file = tmp_path / "s" / "00000004.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    assert store.missing(10) == [range(4, 8)]
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match=r"00000004\.safetensors does not hold .*its checksum differs"):
        store.images(10).batch(torch.arange(10))


def test_images_of_another_question_are_never_mixed(tmp_path):
    filled(tmp_path / "s")
    with pytest.raises(UserError, match="plan is 'raster' there, 'spiral' here"):
        Store.create(tmp_path / "s", {**QUESTION, "plan": "spiral"}, SPEC)
    assert Store.create(tmp_path / "s", QUESTION, SPEC, 999).shard == 4, "the shard size is no part of the question"


def test_no_store_is_made_of_a_folder_of_something_else(tmp_path):
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and no store"):
        Store.create(tmp_path, QUESTION, SPEC)
    with pytest.raises(UserError, match="settings of generated images"):
        Store.open(tmp_path)


def test_an_empty_store_says_so(tmp_path):
    store = Store.create(tmp_path / "s", QUESTION, SPEC)
    with pytest.raises(UserError, match="no images yet"):
        _ = store.spec


@pytest.mark.parametrize("content", ['{"question"', "[]", "{}", '{"question": {}, "shard": 0}', "[" * 100_000])
def test_a_damaged_settings_file_is_named(content, tmp_path):
    filled(tmp_path / "s")
    (tmp_path / "s" / "store.json").write_text(content)
    with pytest.raises(UserError, match="settings of generated images"):
        Store.open(tmp_path / "s")


def test_a_shard_that_is_something_else_is_made_again(tmp_path):
    store = filled(tmp_path / "s")
    (tmp_path / "s" / "00000004.safetensors").write_bytes(pickle.dumps({"x": 1}))
    assert store.missing(10) == [range(4, 8)]
    save_file({"y": torch.zeros(4)}, tmp_path / "s" / "00000004.safetensors")
    assert store.missing(10) == [range(4, 8)]
