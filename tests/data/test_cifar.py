"""CIFAR from small files in its published forms: the same examples from each, and nothing executed."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mar.core.errors import UserError
from mar.core.readers import unpickled
from mar.data.cifar import Cifar10, Cifar100, Cifar100Options, CifarOptions

X = np.random.default_rng(0).integers(0, 256, (12, 3072), dtype=np.uint8)
FINE, COARSE = [i % 6 for i in range(12)], [i % 2 for i in range(12)]
WORDS = ["a", "b", "c", "d", "e", "f"]


def cifar10(form: str) -> dict[str, bytes]:
    """Ten training examples, two a file, and two of the test."""
    cuts = {"test_batch": slice(10, 12)} | {f"data_batch_{n + 1}": slice(2 * n, 2 * n + 2) for n in range(5)}
    if form == "binary":
        rows = {f"{name}.bin": np.c_[np.uint8(FINE)[own], X[own]].tobytes() for name, own in cuts.items()}
        return rows | {"batches.meta.txt": "\n".join(WORDS).encode()}
    dicts = {name: {b"data": X[own], b"labels": FINE[own]} for name, own in cuts.items()}
    return {n: pickle.dumps(d, 2) for n, d in (dicts | {"batches.meta": {b"label_names": WORDS}}).items()}


def cifar100(form: str) -> dict[str, bytes]:
    cuts = {"train": slice(0, 10), "test": slice(10, 12)}
    if form == "binary":
        rows = {
            f"{n}.bin": np.c_[np.uint8(COARSE)[own], np.uint8(FINE)[own], X[own]].tobytes() for n, own in cuts.items()
        }
        return rows | {"fine_label_names.txt": "\n".join(WORDS).encode(), "coarse_label_names.txt": b"x\ny\n"}
    dicts = {n: {"data": X[own], "fine_labels": FINE[own], "coarse_labels": COARSE[own]} for n, own in cuts.items()}
    names = {"meta": {"fine_label_names": WORDS, "coarse_label_names": ["x", "y"]}}
    return {n: pickle.dumps(d) for n, d in (dicts | names).items()}


def write(folder: Path, files: dict[str, bytes], archive: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if archive:
        with tarfile.open(folder / archive, "w:gz") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(f"inside/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    for name, content in {} if archive else files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    "place, form, archive",
    [("", "binary", ""), ("cifar-10-batches-py", "python", ""), ("", "binary", "cifar-10-binary.tar.gz"),
     ("", "python", "cifar-10-python.tar.gz")],
)  # fmt: skip
def test_every_published_form_gives_the_published_examples(tmp_path, place, form, archive):
    write(tmp_path / place, cifar10(form), archive)
    data = Cifar10.load(CifarOptions(str(tmp_path), validation=3))
    assert data.spec.shape == (3, 32, 32) and data.spec.levels == 256 and data.spec.class_names == tuple(WORDS)
    for split, own in (("train", slice(0, 7)), ("validation", slice(7, 10)), ("test", slice(10, 12))):
        x, label = data.split(split).batch(torch.arange(own.stop - own.start))
        assert np.array_equal(x.numpy(), X[own].reshape(-1, 3, 32, 32)) and label.tolist() == FINE[own]


@pytest.mark.parametrize("form", ["binary", "python"])
def test_the_hundred_classes_are_fine_or_coarse(tmp_path, form):
    write(tmp_path / f"cifar-100-{form}", cifar100(form))
    for kind, labels, names in (("fine", FINE, WORDS), ("coarse", COARSE, ["x", "y"])):
        data = Cifar100.load(Cifar100Options(str(tmp_path), 2, kind))
        x, label = data.train.batch(torch.arange(8))
        assert np.array_equal(x.numpy().reshape(8, -1), X[:8]) and label.tolist() == labels[:8]
        assert data.spec.class_names == tuple(names)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


BROKEN = {
    "truncated": ({"data_batch_2.bin": b"12345"}, r"data_batch_2\.bin does not hold .* 5 bytes are no rows of 3073"),
    "label": ({"test_batch.bin": b"\x09" + bytes(3072)}, "a label 9 of 6 classes"),
    "missing": ({"data_batch_3.bin": None}, "neither"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_in_one_line(tmp_path, case):
    changes, words = BROKEN[case]
    files = {n: c for n, c in (cifar10("binary") | changes).items() if c is not None}
    with pytest.raises(UserError, match=words) as error:
        Cifar10.load(CifarOptions(str(write(tmp_path, files)), 3))
    assert "\n" not in str(error.value)


def test_a_pickle_that_calls_something_is_refused_and_calls_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = cifar10("python") | {"data_batch_1": pickle.dumps({"data": Harmful()})}
    with pytest.raises(UserError, match=r"it calls \w+\.mkdir"):
        Cifar10.load(CifarOptions(str(write(tmp_path, files)), 3))
    assert not (tmp_path / "made-by-a-pickle").exists()
    for harm in (eval, np.load, np.lib.format.open_memmap):
        with pytest.raises(ValueError, match="it calls"):
            unpickled(pickle.dumps({"data": harm}))


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol_are_read(protocol):
    content = {"x": X, "names": ["a", b"b"], "n": {"k": 1.5}}
    found = unpickled(pickle.dumps(content, protocol))
    assert np.array_equal(found["x"], X) and found["names"] == ["a", b"b"] and found["n"] == {"k": 1.5}
