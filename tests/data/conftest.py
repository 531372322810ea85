"""Small files in the published formats, written by the tests, and the folder of real ones where there is one."""

from __future__ import annotations

import gzip
import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat, wavfile

from mar.data import DATA


def write_idx(folder: Path, n_train: int = 12, n_test: int = 5, packed: bool = True) -> Path:
    """MNIST's four files with random 6x5 images; label i is i modulo 10."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for part, n in (("train", n_train), ("t10k", n_test)):
        images = struct.pack(">4I", 0x803, n, 6, 5) + rng.integers(0, 256, 30 * n, dtype=np.uint8).tobytes()
        labels = struct.pack(">2I", 0x801, n) + bytes(i % 10 for i in range(n))
        for name, raw in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(raw))
            else:
                (folder / name).write_bytes(raw)
    return folder


def write_amat(folder: Path, n: int = 4) -> Path:
    """The three files of static binarised MNIST with random values."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "valid", "test"):
        rows = [" ".join(map(str, row)) for row in rng.integers(0, 2, (n, 784))]
        (folder / f"binarized_mnist_{part}.amat.gz").write_bytes(
            gzip.compress("".join(f"{r} \n" for r in rows).encode())
        )
    return folder


def write_images(folder: Path, names: list[str], size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Path:
    """Random images (size: width, height), the same for the same name."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(sum(map(ord, name)))
        shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode).save(file)
    return folder


def write_cifar(folder: Path, hundred: bool = False) -> Path:
    """The binary files of CIFAR with four random images each."""
    rng, files = np.random.default_rng(6), [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    for name in ("train", "test") if hundred else files:
        labels = np.tile(np.arange(4, dtype=np.uint8)[:, None], (1, 2 if hundred else 1))
        rows = np.c_[labels, rng.integers(0, 256, (4, 3072), dtype=np.uint8)]
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    return folder


def write_small_imagenet(folder: Path, labelled: bool) -> Path:
    """Random 8x8 images: published batches with classes 1 to 1000, or folders of PNG files."""
    rng = np.random.default_rng(7)
    if not labelled:
        return write_images(folder, [f"{s}_8x8/{i}.png" for s in ("train", "valid") for i in range(6)], (8, 8))
    for name in ("train_data_batch_1", "train_data_batch_2", "val_data"):
        labels = [1, 1000, 7]
        np.savez(folder / f"{name}.npz", data=rng.integers(0, 256, (3, 192), dtype=np.uint8), labels=labels)
    return folder


def write_mat(folder: Path, silhouettes: bool) -> Path:
    """The MATLAB files of Omniglot and the silhouettes with random images."""
    rng = np.random.default_rng(8)
    if silhouettes:
        arrays = {f"{s}_data": rng.integers(0, 2, (4, 784), dtype=np.uint8) for s in ("train", "val", "test")}
        arrays |= {f"{s}_labels": np.array([[1, 2, 3, 3]], np.uint16).T for s in ("train", "val", "test")}
        names = np.array([["ant", "bee", "cat"]], dtype=object)
        savemat(folder / "caltech101_silhouettes_28_split1.mat", arrays | {"classnames": names})
    else:
        savemat(folder / "chardata.mat", {name: rng.random((784, 5)) for name in ("data", "testdata")})
    return folder


def write_text(folder: Path, length: int = 400) -> Path:
    """A text of random letters, ``abcdefgh``, in one file."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = np.random.default_rng(2).integers(0, 8, length)
    (folder / "input.txt").write_text("".join("abcdefgh"[i] for i in letters))
    return folder


def write_lm1b(folder: Path) -> Path:
    """Two training and two held-out files of the benchmark, three sentences each."""
    sets = {"training": "news.en-{}-of-00100", "heldout": "news.en.heldout-{}-of-00050"}
    for kind, name in sets.items():
        inside = folder / "1-billion-word" / f"{kind}-monolingual.tokenized.shuffled"
        inside.mkdir(parents=True, exist_ok=True)
        for number in (0, 1) if kind == "heldout" else (1, 2):
            lines = [f"{kind} {number} {'abc'[i]} .\n" for i in range(3)]
            (inside / name.format(f"{number:05d}")).write_text("".join(lines))
    return folder


def write_npz(folder: Path) -> Path:
    """Random binary vectors of five values."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(3)
    np.savez(folder / "some.npz", **{name: rng.integers(0, 2, (6, 5), np.uint8) for name in ("train", "valid", "test")})
    return folder / "some.npz"


def write_videos(folder: Path) -> Path:
    """Random videos of three frames of 4x5 grey pixels."""
    np.savez(folder / "some.npz", videos=np.random.default_rng(10).integers(0, 9, (20, 3, 4, 5), np.uint8))
    return folder / "some.npz"


def write_recordings(folder: Path) -> Path:
    """Noise: recordings 0 to 6 of two words."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(4)
    for name in [f"{word}_anna_{i}" for word in ("no", "yes") for i in range(7)]:
        wavfile.write(folder / f"{name}.wav", 8000, rng.integers(-(2**15), 2**15, 80).astype(np.int16))
    return folder


def write_sound_folder(folder: Path) -> Path:
    """Noise in two class folders."""
    rng = np.random.default_rng(9)
    for name in [f"{word}/{i}.wav" for word in ("no", "yes") for i in range(20)]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        wavfile.write(folder / name, 16000, rng.integers(-(2**15), 2**15, 40).astype(np.int16))
    return folder


def write_parquet(folder: Path) -> Path:
    """Random 6x5 images of two classes in one Parquet file."""
    datasets = pytest.importorskip("datasets")
    pixels = np.random.default_rng(5).integers(0, 256, (40, 5, 6, 3), dtype=np.uint8)
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["no", "yes"]))
    rows = {"image": [Image.fromarray(x) for x in pixels], "label": [i % 2 for i in range(40)]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "some.parquet")
    return folder / "some.parquet"


NAMES = [f"{animal}/{i}.png" for animal in ("cat", "dog") for i in range(20)]


@pytest.fixture
def files(tmp_path):
    """The writers, and a folder to write to."""

    class Files:
        root = tmp_path
        idx, amat, images, names = map(staticmethod, (write_idx, write_amat, write_images, lambda: list(NAMES)))

    return Files


@pytest.fixture(
    params=sorted(set(DATA) - {"cache", "memory", "mar-latents", "rar-tokens"})
)  # these are tested in files of their own
def source(request, tmp_path):
    """(class, options) of every registered kind of examples, with small files of its own."""
    cls = DATA[request.param]
    folder = str(tmp_path)
    changes = {
        "digits": dict,
        "mnist": lambda: {"path": str(write_idx(tmp_path)), "validation": 3},
        "fashion-mnist": lambda: {"path": str(write_idx(tmp_path)), "validation": 3},
        "binarized-mnist": lambda: {"path": str(write_amat(tmp_path))},
        "folder": lambda: {"path": str(write_images(tmp_path, NAMES)), "size": 8, "validation": 0.2, "test": 0.2},
        "audio": lambda: {"path": str(write_recordings(tmp_path)), "context": 32, "stride": 8},
        "sound-folder": lambda: {
            "path": str(write_sound_folder(tmp_path)),
            "context": 32,
            "stride": 8,
            "validation": 0.2,
            "test": 0.2,
        },
        "npz": lambda: {"path": str(write_npz(tmp_path))},
        "video": lambda: {"path": str(write_videos(tmp_path))},
        "moving-digits": lambda: {"size": 9, "speed": 1.0},
        "documents": lambda: {"path": str(write_text(tmp_path)), "separator": "d", "context": 8},
        "dynamic-mnist": lambda: {"path": str(write_idx(tmp_path)), "validation": 3},
        "cifar10": lambda: {"path": str(write_cifar(tmp_path)), "validation": 3},
        "cifar100": lambda: {"path": str(write_cifar(tmp_path, hundred=True)), "validation": 1},
        "imagenet-oord": lambda: {"path": str(write_small_imagenet(tmp_path, False)), "size": 8, "validation": 1},
        "imagenet-chrabaszcz": lambda: {"path": str(write_small_imagenet(tmp_path, True)), "size": 8, "validation": 1},
        "omniglot": lambda: {"path": str(write_mat(tmp_path, False)), "validation": 1},
        "caltech-silhouettes": lambda: {"path": str(write_mat(tmp_path, True))},
        "hub": lambda: {"path": str(write_parquet(tmp_path))},
        "lm1b": lambda: {"path": str(write_lm1b(tmp_path)), "context": 32},
        "text": lambda: {"path": str(write_text(tmp_path)), "context": 8},
    }
    if request.param not in changes:
        pytest.fail(f"write small files for data kind {request.param!r} into {folder} here")
    return cls, replace(cls.Options(), **changes[request.param]())


@pytest.fixture
def real_data() -> Path:
    folder = os.environ.get("MAR_DATA_DIR", "")
    if not folder:
        pytest.skip("set MAR_DATA_DIR to the folder with mnist, fashion-mnist and binarized-mnist")
    return Path(folder)
