"""Videos: arrays and GIFs read exactly, digits that bounce, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mar.core.errors import UserError
from mar.data.base import SPLITS
from mar.data.digits import Digits, DigitsOptions
from mar.data.moving_digits import MovingDigits, MovingDigitsOptions
from mar.data.video import Video, VideoOptions
from mar.sampling.output import save_samples


def every(data):
    return torch.cat([data.split(name).batch(torch.arange(len(data.split(name))))[0] for name in SPLITS])


def as_set(x):
    return sorted(video.numpy().tobytes() for video in x)


def load(path, **options):
    return Video.load(VideoOptions(str(path), **options))


def write_gif(file, frames, **save):
    file.parent.mkdir(parents=True, exist_ok=True)
    first, *others = frames
    first.save(file, save_all=True, append_images=others, **save)


def test_written_gifs_and_arrays_read_back_as_the_same_frames_equal_neighbours_included(tmp_path):
    data = MovingDigits.load(MovingDigitsOptions(frames=5, digits=2, speed=0.6, binary=False))  # slow: frames repeat
    x, _ = data.train.batch(torch.arange(12))
    assert (x[:, 1:] == x[:, :-1]).flatten(2).all(2).any() and data.spec.levels == 17
    save_samples(x, data.spec, tmp_path)
    gifs = load(tmp_path / "videos", levels=17)
    assert gifs.spec.shape == (5, 1, 12, 12) and as_set(every(gifs)) == as_set(x)
    slow = x[:, :1].expand(-1, 4, -1, -1, -1).clone()
    slow[:, 2:] = 16 - slow[:, 2:]
    slow[0] = 0  # every frame of every video is seen twice, and all of one
    save_samples(slow, data.spec, tmp_path / "slow")
    assert as_set(every(load(tmp_path / "slow" / "videos", levels=17))) == as_set(slow)
    arrays = load(tmp_path / "videos.npz", frames=3, levels=17)
    assert arrays.spec.shape == (3, 1, 12, 12) and as_set(every(arrays)) == as_set(x[:, :3])
    assert [len(arrays.split(name)) for name in SPLITS] == [10, 1, 1]


def test_own_splits_colour_and_classes_are_kept(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (4, 2, 6, 5, 3), np.uint8)
    np.savez(tmp_path / "a.npz", train=x.astype(np.uint16), validation=x[:1], test=x[1:2])
    data = load(tmp_path / "a.npz")
    assert data.spec.shape == (2, 3, 6, 5) and [len(data.split(name)) for name in SPLITS] == [4, 1, 1]
    assert torch.equal(data.test.batch(torch.tensor([0]))[0][0], torch.from_numpy(x[1]).permute(0, 3, 1, 2))
    for split in ("train", "val", "test"):
        for shade, name in ((50, "dark"), (200, "light")):
            frames = [Image.new("L", (4, 3), shade + k) for k in range(2)]
            write_gif(tmp_path / "gifs" / split / name / "0.gif", frames, duration=100)
    data = load(tmp_path / "gifs")
    x, label_N = data.train.batch(torch.arange(2))
    assert data.spec.class_names == ("dark", "light") and x.shape == (2, 2, 1, 3, 4) and data.spec.modality == "video"
    assert x[label_N == 1].flatten(1).unique().tolist() == [200, 201]


def test_transparent_pixels_are_white(tmp_path):
    for k in range(20):
        ink = [Image.new("RGBA", (4, 4), (0, 0, 0, 0)) for _ in range(2)]
        for place, frame in enumerate(ink):
            frame.putpixel((place, k % 4), (90, 90, 90, 255))
        write_gif(tmp_path / f"{k}.gif", ink, duration=100, disposal=2)
    x = every(load(tmp_path))
    assert x.shape == (20, 2, 1, 4, 4) and (x == 90).sum((2, 3, 4)).eq(1).all() and ((x == 90) | (x == 255)).all()


def test_what_is_no_set_of_videos_is_refused_in_one_line(tmp_path):
    two, three = ([Image.new("L", (4, 4), 9 * k) for k in range(n)] for n in (2, 3))
    for k in range(30):
        write_gif(tmp_path / "uneven" / f"{k:02}.gif", three if k == 7 else two, duration=100)
        write_gif(tmp_path / "still" / f"{k}.gif", two[:1])
    assert load(tmp_path / "uneven", frames=2).spec.shape == (2, 1, 4, 4)
    (tmp_path / "none").mkdir()
    np.savez(
        tmp_path / "ragged.npz",
        train=np.zeros((4, 2, 3, 3)),
        validation=np.zeros((2, 3, 3, 3)),
        test=np.zeros((2, 2, 3, 3)),
    )
    np.savez(tmp_path / "wide.npz", x=np.zeros((9, 2, 3, 3, 4), np.uint8))
    np.savez(tmp_path / "real.npz", x=np.random.default_rng(0).normal(size=(9, 2, 3, 3)))
    np.savez(tmp_path / "flat.npz", x=np.zeros((9, 3)))
    np.savez(tmp_path / "few.npz", x=np.zeros((2, 2, 3, 3), np.uint8))
    np.savez(tmp_path / "empty.npz", x=np.zeros((0, 2, 3, 3), np.uint8))
    np.savez(tmp_path / "thin.npz", x=np.zeros((9, 2, 0, 3), np.uint8))
    write_gif(tmp_path / "one" / "0.gif", two, duration=100)
    np.savez(tmp_path / "bright.npz", np.arange(3 * 2 * 4 * 4).reshape(3, 2, 4, 4) * 700)
    for name, words in {
        "uneven": r"00\.gif has 2 frames of 4x4, 07\.gif 3 frames of 4x4: .* data\.frames=N",
        "still": "2 or more frames, .*; not \\(1, 1, 4, 4\\)", "none": "no .gif files", "wide.npz": "1 or 3 channels",
        "ragged.npz": "one shape: .* not .*3", "real.npz": "real values", "flat.npz": r"arrays of videos \(none\)",
        "few.npz": "too few to hold some out", "missing": "is not a file or folder", "empty.npz": "no videos for train",
        "thin.npz": r"not \(2, 1, 0, 3\)", "bright.npz": "levels 0 to 255; its largest needs 131072",
        "one": "no files for .*: add .gif files",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=words) as error:
            load(tmp_path / name)
        assert "\n" not in str(error.value)


def test_digits_move_straight_and_bounce_inside_the_frame():
    still = Digits.load(DigitsOptions())
    data = MovingDigits.load(MovingDigitsOptions(frames=8, size=11, speed=3.0))
    index_B = torch.arange(200)
    x, label_B = data.test.batch(index_B)
    digit, label = still.test.batch(index_B)
    digit = (digit >= 8).to(torch.uint8)
    assert torch.equal(label_B, label) and torch.equal(x, data.test.batch(index_B)[0])
    assert torch.equal(
        x.sum((2, 3, 4), dtype=torch.int64), digit.sum((1, 2, 3), dtype=torch.int64)[:, None].expand(-1, 8)
    )
    windows = x[:, :, 0].unfold(2, 8, 1).unfold(3, 8, 1)  # (B, T, 4, 4, 8, 8): every place in 3 pixels of room
    at_BTP = (windows == digit[:, None, :, None]).flatten(4).all(4).flatten(2)
    assert at_BTP.any(2).all()  # it never leaves, and keeps its look
    later, _ = data.test.training_batch(index_B, torch.ones_like(index_B))
    assert not torch.equal(later, x) and torch.equal(
        later, data.test.training_batch(index_B, torch.ones_like(index_B))[0]
    )
    two = MovingDigits.load(MovingDigitsOptions(digits=2))
    assert two.test.batch(index_B)[1] is None and two.spec.n_classes == 0
    for options, words in (({"size": 7}, "size=7 is smaller than the 8x8 digits"), ({"mnist": "no"}, "data.mnist=no")):
        with pytest.raises(UserError, match=words):
            MovingDigits.load(MovingDigitsOptions(**options))
