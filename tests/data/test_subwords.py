"""Subword tokens: their ids, sizes in bytes, the text they give back, and what is refused."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from mar.core.errors import UserError
from mar.data import DATA
from mar.data.documents import Documents, DocumentsOptions
from mar.data.text import Text, TextOptions
from mar.sampling.output import levels_of, text_of

tokenizers = pytest.importorskip("tokenizers")
BYTES = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
ID = {token: number for number, token in enumerate([*BYTES, "ab", "abc", "Ġabc"])}
MERGES = ["a b", "ab c", "Ġ abc"]
TEXT = "abc abc ab é\n" * 40  # Ġabc is one token; é is two bytes


@pytest.fixture
def gpt2(tmp_path):
    """A folder with the files of GPT-2, of three merges."""
    folder = tmp_path / "gpt2"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(ID))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    return folder


def load(folder, unit, text=TEXT, **options):
    (folder / "a.txt").write_text(text)
    return Text.load(TextOptions(str(folder / "a.txt"), unit=str(unit), **{"context": 4, "stride": 4, **options}))


def test_the_files_of_gpt2_give_the_ids_of_their_merges_and_the_text_again(gpt2, tmp_path):
    data = load(tmp_path, gpt2)
    line = [ID[token] for token in ("abc", "Ġabc", "Ġ", "ab", "Ġ", "Ã", "©", "Ċ")]
    assert data.spec.levels == 259 and data.spec.symbol == "token" and data.spec.alphabet == ()
    series_T = data.train.batch(torch.arange(len(data.train)))[0].flatten()
    assert series_T.dtype == torch.int16 and series_T[:16].tolist() == line * 2
    assert text_of(series_T[:16], data.spec) == "abc abc ab é\n" * 2
    assert levels_of("abc abc", data.spec).tolist() == line[:2]


def test_a_tokenizer_json_gives_the_same_and_is_a_part_of_the_fingerprint(gpt2, tmp_path):
    own = tokenizers.Tokenizer.from_str(load(tmp_path, gpt2).spec.tokenizer)
    own.enable_truncation(2)
    own.save(str(tmp_path / "bpe.json"))
    first, second = load(tmp_path, gpt2), load(tmp_path, tmp_path / "bpe.json")
    assert first.fingerprint == second.fingerprint and first.spec == second.spec
    (gpt2 / "vocab.json").write_text(json.dumps(ID | {"zz": len(ID)}))
    assert load(tmp_path, gpt2).fingerprint != first.fingerprint  # the same ids, one more token


def test_a_note_has_the_bytes_of_a_token(gpt2, tmp_path):
    text = "abc abc ab é\n"  # 14 bytes, 8 tokens
    data = load(tmp_path, gpt2, text * 40, context=8)
    assert data.notes["tokens"].endswith(f"bits/byte = bits/token / {14 / 8:.4f}") and data.token_bytes == 14 / 8
    (tmp_path / "a.txt").write_text("\n".join(["abc abc"] * 10))  # 7 bytes, 2 tokens and the end
    options = DocumentsOptions(str(tmp_path / "a.txt"), r"\n", str(gpt2), 8, 0.2, 0.2)
    data = Documents.load(options)
    assert data.notes["tokens"].endswith(f"bits/token / {7 / 3:.4f}")
    x_L = data.test.batch(torch.tensor([0]))[0].flatten()
    assert x_L.tolist() == [ID["abc"], ID["Ġabc"], *[data.spec.end] * 6] and data.spec.end == 259
    assert text_of(x_L, data.spec) == "abc abc"


def test_a_tokenizer_that_loses_text_is_told(tmp_path):
    own = tokenizers.Tokenizer(tokenizers.models.WordLevel({"abc": 0, "?": 1}, unk_token="?"))
    own.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    own.save(str(tmp_path / "words.json"))
    assert "does not restore" in load(tmp_path, tmp_path / "words.json").notes["tokens"]


def test_no_tokenizer_is_refused_in_one_line(gpt2, tmp_path, monkeypatch):
    (tmp_path / "bad.json").write_text('{"version": "1.0", "model"')
    (tmp_path / "empty").mkdir()
    for unit, words in (("bad.json", "holds no tokenizer"), ("empty", "no file or folder"), ("none.json", "no file")):
        with pytest.raises(UserError, match=words) as error:
            load(tmp_path, tmp_path / unit)
        assert "\n" not in str(error.value) and unit in str(error.value)
    for kind in ("text", "documents", "lm1b", "hub"):
        with pytest.raises(UserError, match=r"data\.unit is character, byte, or the path"):
            DATA.options(kind, {"unit": "word"})
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match=r"needs tokenizers: pip install 'mar-orderings\[data\]'"):
        load(tmp_path, gpt2)
