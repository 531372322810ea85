from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mar.core.errors import UserError
from mar.data import DATA
from mar.data.folder import Folder, FolderOptions
from mar.data.pictures import centre_crop, read_image


def options(folder, **changes):
    return replace(FolderOptions(str(folder), size=8, validation=0.2, test=0.2), **changes)


def names(split):
    return list(split.files)


def test_labels_are_the_numbers_of_the_sorted_class_folders(files):
    data = Folder.load(options(files.images(files.root, files.names())))
    assert data.spec.class_names == ("cat", "dog") and data.spec.shape == (3, 8, 8)
    for split in (data.train, data.validation, data.test):
        assert split.label_N.tolist() == [int(name.startswith("dog")) for name in names(split)]


def test_each_image_is_in_exactly_one_split_and_stays_there_when_others_come(files):
    folder = files.images(files.root, files.names())
    before = Folder.load(options(folder))
    parts = [names(before.split(s)) for s in ("train", "validation", "test")]
    assert sorted(name for part in parts for name in part) == sorted(files.names())
    assert all(len(part) >= 4 for part in parts[1:]) and set(before.notes) == {"validation", "test"}
    files.images(folder, [f"cow/{i}.png" for i in range(10)])
    after = Folder.load(options(folder))
    for part, split in zip(parts, ("train", "validation", "test"), strict=True):
        assert set(part) <= set(names(after.split(split)))


def test_train_val_and_test_folders_are_the_splits(files):
    layout = ["train/a/0.png", "train/b/deep/0.png", "val/a/1.png", "test/b/2.png", "train/.hidden/x.png"]
    data = Folder.load(options(files.images(files.root, layout)))
    assert names(data.train) == layout[:2] and names(data.validation) == layout[2:3] and names(data.test) == layout[3:4]
    assert data.notes == {} and data.test.label_N.tolist() == [1]


def test_a_missing_split_is_cut_out_of_the_training_folder(files):
    layout = [f"train/a/{i}.png" for i in range(30)] + ["val/a/0.png"]
    data = Folder.load(options(files.images(files.root, layout)))
    assert names(data.validation) == ["val/a/0.png"] and set(data.notes) == {"test"}
    assert sorted(names(data.train) + names(data.test)) == sorted(layout[:-1])


def test_images_without_class_folders_have_no_labels(files):
    data = Folder.load(options(files.images(files.root, [f"{i}.png" for i in range(30)])))
    assert data.spec.n_classes == 0 and data.train.batch(torch.tensor([0]))[1] is None


def test_flips_double_the_training_examples_only(files):
    folder = files.images(files.root, files.names())
    plain, flipped = Folder.load(options(folder)), Folder.load(options(folder, flip=True))
    n = len(plain.train)
    assert len(flipped.train) == 2 * n and len(flipped.test) == len(plain.test)
    x, label = flipped.train.batch(torch.arange(2 * n))
    assert torch.equal(x[:n], plain.train.batch(torch.arange(n))[0])
    assert torch.equal(x[n:], x[:n].flip(-1)) and not torch.equal(x[n:], x[:n])
    assert torch.equal(label[n:], label[:n])
    with pytest.raises(IndexError):
        flipped.train.batch(torch.tensor([2 * n]))


@pytest.mark.parametrize(("colour", "channels"), [("rgb", 3), ("grey", 1)])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_every_mode_of_eight_bits_is_read_in_both_colours(tmp_path, mode, colour, channels):
    file = tmp_path / "x.png"
    Image.new("RGB", (9, 8), (255, 255, 255)).convert(mode).save(file)
    x = read_image(file, 8, colour)
    assert x.shape == (channels, 8, 8) and int(x.min()) == 255


def test_the_crop_is_the_centre_and_keeps_pixels_that_need_no_resizing():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 14, 3), dtype=np.uint8)
    assert np.array_equal(np.array(centre_crop(Image.fromarray(pixels), 8)), pixels[:, 3:11])
    assert np.array_equal(np.array(centre_crop(Image.fromarray(pixels.swapaxes(0, 1)), 8)), pixels.swapaxes(0, 1)[3:11])


@pytest.mark.parametrize("size", [(5, 3), (7, 8), (8, 15), (16, 17), (31, 16), (67, 33), (40, 200)])
def test_every_size_is_prepared_as_adm_prepares_it(size):
    """ADM's order (Dhariwal and Nichol 2021, image_datasets.py): boxes while twice too large, bicubic, centre crop."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    expected, wanted = image, 8
    for _ in range(max(0, int(np.log2(min(size) / wanted)))):
        expected = expected.resize([side // 2 for side in expected.size], Image.Resampling.BOX)
    ratio = wanted / min(expected.size)
    expected = np.asarray(expected.resize([round(side * ratio) for side in expected.size], Image.Resampling.BICUBIC))
    top, left = (expected.shape[0] - wanted) // 2, (expected.shape[1] - wanted) // 2
    assert np.array_equal(centre_crop(image, wanted), expected[top : top + wanted, left : left + wanted])


def test_halving_averages_two_by_two_boxes():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    boxes = pixels.reshape(8, 2, 8, 2).astype(float).mean((1, 3))
    assert np.abs(np.array(centre_crop(Image.fromarray(pixels), 8)) - boxes).max() <= 1.0  # Pillow rounds twice


def test_orientation_and_channels_are_kept(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[1, 6] = (10, 20, 30)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    x = read_image(tmp_path / "x.png", 8, "rgb")
    assert x[:, 1, 6].tolist() == [10, 20, 30] and int(x.sum()) == 60


@pytest.mark.parametrize("keep", [0, 40, 300])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_damaged_image_is_named(files, keep, suffix):
    file = files.images(files.root, [f"a/0.{suffix}"], size=(40, 40)) / f"a/0.{suffix}"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=rf"a/0\.{suffix} is no readable image") as error:
        read_image(file, 8, "rgb")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("layout", "why"),
    [
        (["a/0.txt"], "has no images"),
        (["train/a/0.png", "val/a/0.png"], "no images for test"),
        ([f"a/{i}.png" for i in range(20)] + [f"{i}.png" for i in range(20)], "beside them"),
        (["train/a/0.png", "val/b/0.png", "test/a/0.png"], "class 'b' .* no training images"),
    ],
)
def test_a_folder_that_makes_no_splits_is_refused(files, layout, why):
    files.images(files.root, [name for name in layout if name.endswith(".png")])
    with pytest.raises(UserError, match=why):
        Folder.load(options(files.root))


def test_impossible_options_are_refused():
    for changes in ({"size": 0}, {"workers": 0}, {"validation": 0.0}, {"test": 0.95}, {"colour": "blue"}):
        with pytest.raises(UserError):
            DATA.options("folder", changes)


def test_the_fingerprint_sees_options_and_files(files):
    folder = files.images(files.root, files.names())
    prints = [
        Folder.load(options(folder, **c)).fingerprint for c in ({}, {"size": 9}, {"flip": True}, {"colour": "grey"})
    ]
    files.images(folder, ["cat/new.png"])
    assert len({*prints, Folder.load(options(folder)).fingerprint}) == 5
