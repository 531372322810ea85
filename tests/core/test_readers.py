"""A damaged, foreign or enormous file is refused in one line that names it."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from mar.core.errors import UserError
from mar.core.files import check_name, folder_name, near
from mar.core.readers import read_bytes, read_json, read_npz, read_tensors, read_text, read_yaml

DEEP = "[" * 200_000


@pytest.mark.parametrize(
    ("read", "content"),
    [
        (read_json, b"{"), (read_json, b"[1]"), (read_json, b"\xff\xfe{"), (read_json, DEEP.encode()), (read_json, b""),
        (read_json, b'{"a": 1' + b"0" * 10_000 + b"}"), (read_text, b"\xff"), (read_yaml, b"a: [1"),
        (read_yaml, b"a: &x [*x]"), (read_yaml, DEEP[:5000].encode()), (read_tensors, b"x" * 100),
        (read_tensors, b"\xff" * 8 + b"{}"), (read_npz, b"PK"), (read_npz, b"hello"),
    ],
)  # fmt: skip
def test_a_damaged_or_foreign_file_is_named_in_one_line(tmp_path, read, content):
    file = tmp_path / "x"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"x does not hold a record \(") as error:
        read(file, "a record")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("read", [read_bytes, read_json, read_yaml, read_npz, read_tensors])
def test_a_missing_file_and_a_folder_are_named(tmp_path, read):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(UserError, match=f"{path} "):
            read(path, "a record")


def test_a_file_larger_than_its_limit_is_not_read(tmp_path):
    (tmp_path / "x").write_bytes(b"12345")
    assert read_bytes(tmp_path / "x", "text", largest=5) == b"12345"
    with pytest.raises(UserError, match="more than 4 bytes"):
        read_bytes(tmp_path / "x", "text", largest=4)


def test_a_byte_order_mark_is_left_out(tmp_path):
    (tmp_path / "x").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "x", "a record") == {"a": 1} and read_yaml(tmp_path / "x", "a record").a == 1


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"train": rng.integers(0, 2, (400, 40)), "mu": rng.normal(size=300)}


def damaged(folder: Path) -> dict[str, bytes]:
    """Files as downloads, other packers and other programs leave them."""
    packed, stored = folder / "packed.npz", folder / "stored.npz"
    np.savez_compressed(packed, **arrays())
    np.savez(stored, **arrays())
    made = {"cut": stored.read_bytes()[:3000]}
    with zipfile.ZipFile(packed) as archive:
        places = [archive.getinfo(f"{name}.npy").header_offset + 100 for name in arrays()]
    content = bytearray(packed.read_bytes())
    for place in places:
        content[place : place + 40] = bytes(40)
    made["bytes lost"] = bytes(content)
    for name, at, value in (("encrypted", (6, 8), 1), ("deflate64", (8, 10), 9)):
        content = bytearray(stored.read_bytes())
        for sign, offset in zip((b"PK\x03\x04", b"PK\x01\x02"), at, strict=True):
            place = -1
            while (place := content.find(sign, place + 1)) >= 0:
                content[place + offset] = value
        made[name] = bytes(content)
    for name, member in (
        ("a zip of texts", b"hello"),
        ("header lost", b"\x93NUMPY\x01\x00\x10\x00" + b"\xff" * 30),
        ("a header of more values", saved(np.zeros(3)).replace(b"(3,)", b"(9,)")),
        ("objects", saved(np.array([{}], object))),
    ):
        with zipfile.ZipFile(folder / "x.zip", "w") as archive:
            archive.writestr("train.npy", member)
        made[name] = (folder / "x.zip").read_bytes()
    np.save(folder / "x.npy", arrays()["mu"])
    made["an .npy"] = (folder / "x.npy").read_bytes()
    return made


def saved(array: np.ndarray) -> bytes:
    stream = BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_every_damage_of_an_npz_file_is_named_in_one_line(tmp_path):
    for what, content in damaged(tmp_path).items():
        file = tmp_path / f"{what}.npz"
        file.write_bytes(content)
        with pytest.raises(UserError, match=rf"{what}\.npz does not hold statistics \(") as error:
            read_npz(file, "statistics")
        assert "\n" not in str(error.value)
    whole = read_npz(tmp_path / "packed.npz", "statistics")
    assert all(np.array_equal(whole[name], array) for name, array in arrays().items())
    assert set(read_npz(tmp_path / "packed.npz", "statistics", ["mu", "other"])) == {"mu"}


def test_a_name_of_a_folder_is_one_folder():
    assert folder_name("raster/cosine:16") == "raster%2Fcosine:16"
    for text in ("..", ".", "../../x", "a\nb", 'a"b', "x" * 300):
        name = folder_name(text)
        assert "/" not in name and name not in (".", "..") and name.isprintable() and len(name.encode()) <= 200
    check_name("my order_2.5 (a)", "--name")
    for text in ("", "..", ".x", "../../x", "a/b", "a\nb", 'a"b', "x" * 201):
        with pytest.raises(UserError, match="--name"):
            check_name(text, "--name")


def test_a_relative_path_is_found_from_where_its_folder_was_written(tmp_path, monkeypatch):
    (tmp_path / "work" / "imgs").mkdir(parents=True)
    (tmp_path / "work" / "runs" / "x").mkdir(parents=True)
    (tmp_path / "scratch" / "y").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    assert near("imgs", tmp_path / "work" / "runs" / "x") == "imgs"
    monkeypatch.chdir("/")
    found = str(tmp_path / "work" / "imgs")
    assert near("imgs", tmp_path / "work" / "runs" / "x") == found
    assert near("imgs", tmp_path / "scratch" / "y") == "imgs" and near("", tmp_path) == ""
    assert near("imgs", tmp_path / "scratch" / "y", started="../../work") == found
    assert near("/nowhere", tmp_path / "work" / "runs" / "x") == "/nowhere"
