from __future__ import annotations

import gzip
import shutil
import struct

import pytest
import torch

from mar.core.errors import UserError
from mar.data.mnist import FashionMnist, IdxOptions, Mnist, parse_idx

TRAIN = "train-images-idx3-ubyte"


def load(folder, cls=Mnist, validation=3):
    return cls.load(IdxOptions(str(folder), validation))


def test_values_are_read_in_row_major_order_behind_the_header():
    raw = struct.pack(">4I", 0x803, 2, 2, 3) + bytes(range(12))
    assert torch.equal(parse_idx(raw, 3), torch.arange(12, dtype=torch.uint8).reshape(2, 2, 3))


def test_plain_gzipped_and_nested_files_give_the_same_data(files):
    packed = load(files.idx(files.root / "a"))
    plain = load(files.idx(files.root / "b", packed=False))
    files.idx(files.root / "c" / "MNIST" / "raw")
    assert packed.fingerprint == plain.fingerprint == load(files.root / "c").fingerprint


def test_packing_is_read_from_the_content_not_from_the_name(files):
    folder = files.idx(files.root / "a")
    expected = load(folder).fingerprint
    (folder / f"{TRAIN}.gz").rename(folder / "train-images.idx3-ubyte")
    assert load(folder).fingerprint == expected


def test_validation_is_the_last_training_examples(files):
    data = load(files.idx(files.root), validation=4)
    assert data.train.label.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert data.validation.label.tolist() == [8, 9, 0, 1]
    assert data.test.label.tolist() == [0, 1, 2, 3, 4]


def test_a_file_that_is_not_the_published_one_is_noted(files):
    assert "not the published" in load(files.idx(files.root)).notes[TRAIN]


def damage(folder, name, change):
    """Replaces the packed file by a plain one of the changed content."""
    raw = gzip.decompress((folder / f"{name}.gz").read_bytes())
    (folder / f"{name}.gz").write_bytes(change(raw))


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        (TRAIN, lambda raw: gzip.compress(raw)[:-20], "truncated or damaged"),
        (TRAIN, lambda raw: gzip.compress(raw)[:40] + b"damaged" + gzip.compress(raw)[47:], "truncated or damaged"),
        (TRAIN, lambda raw: raw[:-1], r"promises 12x6x5 values \(376 bytes\), it has 375"),
        (TRAIN, lambda raw: raw + b"0", "it has 377"),
        (TRAIN, lambda raw: raw[:9], "ends within its header"),
        (TRAIN, lambda raw: b"", "0x instead of the magic number 0x00000803"),
        (TRAIN, lambda raw: b"<html>404</html>", "0x3c68746d instead of the magic number"),
        (TRAIN, lambda raw: struct.pack(">4I", 0x803, 0, 6, 5), "no images"),
        ("train-labels-idx1-ubyte", lambda raw: struct.pack(">2I", 0x801, 3) + b"\1\2\3", "3 labels for 12 images"),
        ("train-labels-idx1-ubyte", lambda raw: raw[:-1] + b"\x0a", "a label 10 of 10 classes"),
    ],
)
def test_a_damaged_file_is_named_with_what_was_expected_and_where_to_get_it(files, name, change, why):
    folder = files.idx(files.root)
    damage(folder, name, change)
    with pytest.raises(UserError, match=why) as error:
        load(folder)
    message = str(error.value)
    assert str(folder / name) in message and "expected 60,000" in message and "ossci-datasets" in message
    assert "\n" not in message


@pytest.mark.parametrize("cls", [Mnist, FashionMnist])
def test_a_missing_file_is_named_with_the_places_looked_at(files, cls):
    folder = files.idx(files.root)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\(\.gz\) is not in") as error:
        load(folder, cls)
    assert cls.home in str(error.value) and "10,008 bytes" in str(error.value)


def test_images_of_two_sizes_are_refused(files):
    folder = files.idx(files.root)
    damage(folder, "t10k-images-idx3-ubyte", lambda raw: struct.pack(">4I", 0x803, 5, 5, 6) + raw[16:])
    with pytest.raises(UserError, match="6x5, test images 5x6"):
        load(folder)


def test_a_validation_split_that_takes_everything_is_refused(files):
    with pytest.raises(UserError, match="leaves none of 12"):
        load(files.idx(files.root), validation=12)


def test_the_real_files_are_the_published_ones(real_data):
    for cls, mean in ((Mnist, 33.3184), (FashionMnist, 72.9404)):  # of the 60,000 training images
        data = cls.load(IdxOptions(str(real_data)))
        assert (len(data.train), len(data.validation), len(data.test)) == (55_000, 5_000, 10_000)
        assert data.spec.shape == (1, 28, 28) and data.notes == {}
        whole = torch.cat([data.train.x, data.validation.x])
        assert whole.double().mean().item() == pytest.approx(mean, abs=1e-3)
        assert torch.cat([data.train.label, data.validation.label]).bincount().sum() == 60_000


def test_a_swapped_data_set_is_noted(real_data, tmp_path):
    shutil.copytree(real_data / "fashion-mnist", tmp_path / "mnist")
    assert TRAIN in Mnist.load(IdxOptions(str(tmp_path))).notes
