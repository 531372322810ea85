"""Pixels as they are meant: each kind of image file is converted by a stated rule, or refused."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mar.core.errors import UserError
from mar.data.pictures import as_shown, read_image


@pytest.mark.parametrize(("tag", "seen"), [(1, "above"), (3, "below"), (6, "right"), (8, "left")])
def test_a_photograph_is_turned_as_its_exif_tag_says(tmp_path, tag, seen):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255  # white above, as stored
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(pixels).save(tmp_path / "x.jpg", exif=exif, quality=100)
    x = read_image(tmp_path / "x.jpg", 16, "grey")[0].float()
    halves = {"above": x[:8], "below": x[8:], "left": x[:, :8], "right": x[:, 8:]}
    assert max(halves, key=lambda name: float(halves[name].mean())) == seen


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_what_is_transparent_is_white_whatever_colour_lies_under_it(tmp_path, mode):
    if mode in ("P", "RGB"):  # one transparent colour
        Image.new("RGB", (8, 8), (10, 20, 30)).convert(mode, palette=Image.Palette.ADAPTIVE).save(
            tmp_path / "x.png", transparency=0 if mode == "P" else (10, 20, 30)
        )
        expected = 255
    else:
        bands = np.random.default_rng(0).integers(0, 256, (8, 8, len(mode)), dtype=np.uint8)
        bands[..., -1] = 0
        Image.fromarray(bands, mode).save(tmp_path / "x.png")
        expected = 255
    for colour in ("rgb", "grey"):
        assert (read_image(tmp_path / "x.png", 8, colour) == expected).all()


def test_half_transparent_black_is_grey_over_white_and_black_over_black(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 102)).save(tmp_path / "x.png")
    assert (read_image(tmp_path / "x.png", 8, "grey") == 153).all()  # 255 (1 - 102 / 255)
    with Image.open(tmp_path / "x.png") as image:
        assert np.asarray(as_shown(image, "x", under="black")).max() == 0


def png(channels: int, colour: int) -> bytes:
    """An 8×8 PNG of 16 bits a channel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    values = np.random.default_rng(0).integers(0, 65536, (8, 8 * channels)).astype(">u2")
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def tiff() -> bytes:
    values = np.random.default_rng(0).integers(0, 65536, (8, 8, 3)).astype("<u2").tobytes()
    entries = [
        (256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 3, 506), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8),
        (277, 3, 1, 3), (278, 4, 1, 8), (279, 4, 1, 384),
    ]  # fmt: skip
    table = struct.pack("<H", 9) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 392) + values + table + struct.pack("<I3H", 0, 16, 16, 16)


SIXTEEN = {
    "grey.png": png(1, 0), "rgb.png": png(3, 2), "grey-alpha.png": png(2, 4), "rgba.png": png(4, 6), "rgb.tif": tiff(),
    "rgb.ppm": b"P6\n8 8\n65535\n" + bytes(384), "grey.pgm": b"P5\n8 8\n1023\n" + bytes(128),
}  # fmt: skip


@pytest.mark.parametrize("name", SIXTEEN)
@pytest.mark.parametrize("colour", ["rgb", "grey"])
def test_more_than_eight_bits_a_channel_are_refused(tmp_path, name, colour):
    (tmp_path / name).write_bytes(SIXTEEN[name])
    with pytest.raises(UserError, match=r"has more than 8 bits a channel: convert it to 8"):
        read_image(tmp_path / name, 8, colour)


def test_eight_bits_in_other_layouts_are_read(tmp_path):
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    for name in ("x.bmp", "x.tif", "x.ppm", "x.gif", "x.webp"):
        image = Image.fromarray(grey).convert("RGB")
        image.save(tmp_path / name, **({"lossless": True} if name == "x.webp" else {}))
        assert np.array_equal(read_image(tmp_path / name, 8, "grey")[0], grey)
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "x.jpg", quality=100)
    red, green, blue = read_image(tmp_path / "x.jpg", 8, "rgb").float().mean((1, 2)).tolist()
    assert red > 240 and max(green, blue) < 15
    with pytest.raises(UserError, match="colour space LAB"):
        Image.new("LAB", (8, 8)).save(tmp_path / "x.tif")
        read_image(tmp_path / "x.tif", 8, "rgb")


def test_the_first_frame_of_an_animation_is_the_image(tmp_path):
    frames = [Image.new("L", (8, 8), level) for level in (50, 200)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "x.gif", 8, "grey") == 50).all()


def test_a_small_image_is_enlarged_bicubically_and_cropped(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    large = np.asarray(Image.fromarray(pixels).resize((12, 8), Image.Resampling.BICUBIC))
    assert np.array_equal(read_image(tmp_path / "x.png", 8, "rgb").permute(1, 2, 0), large[:, 2:10])


def test_a_strip_too_long_for_a_square_is_refused_before_it_is_enlarged(tmp_path):
    Image.new("L", (60_000, 1)).save(tmp_path / "x.png")
    with pytest.raises(UserError, match=r"x\.png is 60000x1, too long and narrow"):
        read_image(tmp_path / "x.png", 256, "grey")
