"""Documents: what is one, its end, its cap, and the splits."""

from __future__ import annotations

import pytest
import torch

from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.data import DATA
from mar.data.documents import Documents, DocumentsOptions, Lm1b, Lm1bOptions
from mar.sampling.output import text_of
from mar.tokenizers.base import TokenizerOptions
from mar.tokenizers.levels import Sequence
from tests.data.conftest import write_lm1b

WORDS = ["to", "be", "or", "not", "that", "is", "the", "question", "whether", "'tis", "nobler", "in", "mind", "suffer"]


LINES = "\n".join(WORDS)


def load(folder, text=LINES, **options):
    (folder / "a.txt").write_bytes(text.encode())
    settings: dict = {"separator": r"\n", "context": 12, "validation": 0.2, "test": 0.2, **options}
    return Documents.load(DocumentsOptions(path=str(folder), **settings))


def texts(data):
    return {
        name: [text_of(x, data.spec) for x in split.batch(torch.arange(len(split)))[0].flatten(1)]
        for name, split in (("train", data.train), ("validation", data.validation), ("test", data.test))
    }


def all_texts(data):
    return sorted(text for split in texts(data).values() for text in split)


def test_every_document_is_in_one_split_and_read_whole(tmp_path):
    data = load(tmp_path)
    assert all_texts(data) == sorted(WORDS)
    assert [len(split) for split in texts(data).values()] == [8, 3, 3]


def test_the_end_follows_the_last_character_and_fills_the_rest(tmp_path):
    data = load(tmp_path)
    x, labels = data.train.batch(torch.arange(len(data.train)))
    assert data.spec.end == len(data.spec.alphabet) == data.spec.levels - 1 and labels is None
    for level_L, text in zip(x.flatten(1).tolist(), texts(data)["train"], strict=True):
        assert level_L[len(text) :] == [data.spec.end] * (12 - len(text))
        assert data.spec.end not in level_L[: len(text)]


def test_a_document_that_reaches_the_cap_is_its_first_characters_without_an_end(tmp_path):
    data = load(tmp_path, context=4)
    assert all_texts(data) == sorted(word[:4] for word in WORDS)
    assert "documents have 4 characters or more" in data.notes["cut"]
    assert not load(tmp_path, context=9).notes  # an end fits behind the longest


def test_files_are_documents_where_nothing_separates(tmp_path):
    for number, word in enumerate(WORDS):
        (tmp_path / f"{number}.txt").write_text(f"{word}\n{word}")
    data = Documents.load(DocumentsOptions(path=str(tmp_path), context=20, validation=0.2, test=0.2))
    assert all_texts(data) == sorted(f"{word}\n{word}" for word in WORDS)


def test_separators_may_be_several_characters_and_empty_documents_are_none(tmp_path):
    data = load(tmp_path, "\n\n".join(WORDS[:5]) + "\n\n\n\n" + "a\nb\n\n", separator=r"\n\n")
    assert all_texts(data) == sorted([*WORDS[:5], "a\nb"])


def test_bytes_have_an_end_of_their_own(tmp_path):
    data = load(tmp_path, "\n".join(["né", "à", "oÿ", "pq", "rs"]), unit="byte")
    assert data.spec.levels == 257 and data.spec.end == 256
    assert data.train.batch(torch.arange(2))[0].dtype == torch.int16
    assert all_texts(data) == sorted(["né", "à", "oÿ", "pq", "rs"])


def test_absent_tokens_are_those_after_the_first_end():
    tokenizer = Sequence(DataSpec((1, 1, 5), 4, modality="text", alphabet=("a", "b", "c"), end=3), TokenizerOptions())
    token = torch.tensor([[0, 3, 1, 3, 3], [3, 0, 0, 0, 0], [0, 1, 2, 0, 3], [0, 1, 2, 0, 1]])
    absent = [[0, 0, 1, 1, 1], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert tokenizer.absent(token).long().tolist() == absent
    assert tokenizer.decode(token)[0].flatten().tolist() == [0, 3, 3, 3, 3]


def test_another_cap_or_cut_is_another_fingerprint(tmp_path):
    found = [load(tmp_path, **o).fingerprint for o in ({}, {"context": 5}, {"test": 0.3}, {"separator": "o"})]
    assert len(set(found)) == 4


def test_a_shuffle_makes_splits_alike(tmp_path):
    numbers = "\n".join(f"{k:04d}" for k in range(1000))
    held_out = [int(text) for text in texts(load(tmp_path, numbers))["test"]]
    assert len(held_out) == 200 and 400 < sum(held_out) / 200 < 600


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("one text", {"separator": ""}, r"holds 1 document\(s\), .* data\.separator cuts a file"),
        ("ab\nba", {}, r"holds 2 document\(s\)"),
        ("aa\naa\naa\naa\naa\naa\naa", {}, "1 different characters"),
    ],
)
def test_what_makes_no_three_splits_is_refused(tmp_path, text, options, words):
    with pytest.raises(UserError, match=words) as error:
        load(tmp_path, text, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", [{"test": 0.7, "validation": 0.3}, {"context": 1}, {"unit": "word"}])
def test_impossible_options_are_refused(options):
    with pytest.raises(UserError, match=r"data\."):
        DATA.options("documents", options)


def test_the_files_of_the_billion_word_benchmark_are_its_splits(tmp_path):
    write_lm1b(tmp_path)
    data = Lm1b.load(Lm1bOptions(str(tmp_path), context=32))

    def sentences(split):
        x = split.batch(torch.arange(len(split)))[0].flatten(1)
        return [text_of(row[row != data.spec.end], data.spec) for row in x]

    assert sentences(data.train) == [f"training {n} {c} ." for n in (1, 2) for c in "abc"]
    assert sentences(data.validation) == [f"heldout 1 {c} ." for c in "abc"]
    assert sentences(data.test) == [f"heldout 0 {c} ." for c in "abc"]
    assert len(Lm1b.load(Lm1bOptions(str(tmp_path), context=32, shards=1)).train) == 3
    next(tmp_path.rglob("news.en.heldout-00000*")).unlink()
    with pytest.raises(UserError, match=r"no news\.en\.heldout-00000-of-00050 of the test split"):
        Lm1b.load(Lm1bOptions(str(tmp_path)))
