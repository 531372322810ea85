"""Samples as files: pictures, videos, text, sound or numbers; and the pictures and masks that inpainting reads.

N samples · T frames · C channels · H, W rows, columns · L tokens, or samples of a window · T characters · K AR steps
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mar.core.errors import Unsupported, UserError
from mar.core.noise import stream
from mar.core.spec import DataSpec
from mar.data import audio, subwords
from mar.data.pictures import open_image
from mar.data.video import CLOCK
from mar.model.model import Model
from mar.sampling.samplers import generate
from mar.tokenizers.base import Tokenizer
from orderings import Ordering, Partition, Plan, parse_partition


def to_bytes(x_NCHW: torch.Tensor, levels: int) -> torch.Tensor:
    """Integer levels 0..levels-1 -> uint8 0..255 (N, H, W, 3)."""
    scaled = (x_NCHW.float() * (255.0 / (levels - 1))).round().to(torch.uint8)
    return scaled.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)


def image_grid(x_NCHW: torch.Tensor, levels: int, columns: int | None = None, side: int = 48) -> Image.Image:
    """All images in one picture, enlarged by a whole factor to about ``side`` pixels, with thin borders."""
    pixels = to_bytes(x_NCHW.cpu(), levels)
    n, height, width, _ = pixels.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows, factor = math.ceil(n / columns), max(1, round(side / max(height, width)))
    cells = torch.full((rows * columns, height * factor + 2, width * factor + 2, 3), 96, dtype=torch.uint8)
    cells[:n, 1:-1, 1:-1] = pixels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    canvas = cells.unflatten(0, (rows, columns)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
    return Image.fromarray(canvas.contiguous().numpy())


def save_animation(frames: Sequence[torch.Tensor], path: Path, seconds: float = 6.0) -> None:
    """A GIF of the generation: ``frames`` are (N, C, H, W) uint8 after each step; at most 64 of them are shown."""
    every = max(1, math.ceil(len(frames) / 64))
    pictures = [image_grid(frame, 256) for frame in (*frames[::every], frames[-1])]
    duration = max(20, int(1000 * seconds / len(pictures)))
    _save_gif(pictures, path, [duration] * (len(pictures) - 1) + [1500])


def _save_gif(pictures: Sequence[Image.Image], path: Path, milliseconds: list[int], **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, **more)


def save_videos(x_NTCHW: torch.Tensor, levels: int, path: Path, columns: int | None = None) -> None:
    """Write all videos side by side as one animated GIF."""
    pictures = [image_grid(x_NCHW, levels, columns) for x_NCHW in x_NTCHW.unbind(1)]
    _save_gif(pictures, path, [FRAME] * len(pictures))


def save_video(x_TCHW: torch.Tensor, levels: int, path: Path) -> None:
    """Write one video pixel by pixel as an animated GIF, from which ``data.kind=video`` reads the same grey levels.

    Equal frames are merged, so a comment holds the length of a frame.
    """
    frames = to_bytes(x_TCHW.cpu(), levels).numpy()
    grey = x_TCHW.shape[1] == 1
    pictures = [Image.fromarray(frame[..., 0] if grey else frame) for frame in frames]
    _save_gif(pictures, path, [FRAME] * len(frames), comment=CLOCK.format(FRAME).encode())


def quick_samples(
    model: Model, ordering: Ordering, partition: Partition, seed: int, label_N: torch.Tensor
) -> torch.Tensor:
    """Return (N, C, H, W), one for each label, drawn in at most 16 AR steps; in ``partition`` if the network serves no
    other or the tokens are a series, whose neighbours are seldom independent."""
    device, grid, n = next(model.parameters()).device, model.tokenizer.lattice, len(label_N)
    noise = stream(seed, "training-samples", n, device)

    def drawn(sets: Partition) -> Plan:
        return Plan.sample(ordering, sets, grid, n, noise.at("order").to("cpu"))

    plan = drawn(partition if grid.ndim == 1 else parse_partition(f"cosine:{min(16, len(grid))}"))
    try:
        model.network.check(plan.step_BL)
    except Unsupported:
        plan = drawn(partition)
    token = generate(model, plan.to(device), label_N.to(device), noise.at("tokens"), learned=ordering.learned)
    return model.tokenizer.decode(token).cpu()


FRAME = 200  # milliseconds of a video's frame
_SHOWN = 16  # spectrograms in the picture
_FLOOR = 1e-3  # of the power, in squared 16-bit steps a hertz: silence is drawn, not minus infinity


def save_sound(x_N11L: torch.Tensor, spec: DataSpec, folder: Path) -> None:
    """Write ``sounds/00000.wav``, … in place of the sounds there, and ``spectrograms.png``."""
    from scipy.io import wavfile

    sounds = _emptied(folder / "sounds", "[0-9]*.wav")
    sample_NL = audio.decode(x_N11L.flatten(1).cpu()).numpy()
    for k, sample_L in enumerate(sample_NL):
        wavfile.write(sounds / f"{k:05d}.wav", spec.rate, sample_L)
    _save_spectrograms(sample_NL[:_SHOWN], spec.rate, folder / "spectrograms.png")


def _emptied(folder: Path, pattern: str) -> Path:
    """Return the folder, made if necessary, without the files of an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(pattern):
        old.unlink()
    return folder


def _save_spectrograms(sample_NL: np.ndarray, rate: int, path: Path) -> None:
    """Draw one below the other: time in seconds, frequency in Hz, power in dB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from scipy.signal import spectrogram

    n, length = sample_NL.shape
    window = max(2, min(256, length // 8))
    figure = Figure(figsize=(7, 1.4 * n + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(n, 1, squeeze=False, sharex=True)[:, 0]
    for axes, sample_L in zip(rows, sample_NL, strict=True):
        _, _, power = spectrogram(sample_L.astype(np.float64), rate, nperseg=window, noverlap=window * 3 // 4)
        decibel = 10 * np.log10(power + _FLOOR)
        axes.imshow(decibel, origin="lower", aspect="auto", extent=(0.0, length / rate, 0.0, rate / 2))
        axes.set_ylabel("Hz")
    rows[-1].set_xlabel("seconds")
    figure.savefig(path, dpi=100)


def text_of(level_T: torch.Tensor, spec: DataSpec) -> str:
    """Levels as text, up to the end of a document; what is no UTF-8 becomes �."""
    levels = level_T.tolist()
    if spec.end in levels:
        levels = levels[: levels.index(spec.end)]
    if spec.tokenizer:
        return subwords.decode(levels, spec.tokenizer)
    if spec.alphabet:
        return "".join(spec.alphabet[level] for level in levels)
    return bytes(levels).decode(errors="replace")


def levels_of(text: str, spec: DataSpec) -> torch.Tensor:
    """Return level_P (int64) of a prompt. Raise UserError for other data, or a character that the alphabet lacks."""
    if spec.modality != "text":
        raise UserError(f"a prompt continues text: this run makes examples of kind {spec.modality}")
    if spec.tokenizer:
        return subwords.encode([text], spec.tokenizer)[0].long()
    if not spec.alphabet:
        return torch.tensor([*text.encode()], dtype=torch.int64)
    number = {character: level for level, character in enumerate(spec.alphabet)}
    if strange := sorted(set(text) - set(number)):
        known = "".join(spec.alphabet)
        raise UserError(f"the prompt has {strange[0]!r}, which is not in the training text: it has {known!r}")
    return torch.tensor([number[character] for character in text], dtype=torch.int64)


def save_text(x_N11T: torch.Tensor, spec: DataSpec, path: Path) -> None:
    """All texts in one file, each under a line with its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [f"---- sample {k} ----\n{text_of(x, spec)}\n" for k, x in enumerate(x_N11T.flatten(1))]
    path.write_text("\n".join(texts), encoding="utf-8", newline="")


def save_samples(
    x_NCHW: torch.Tensor, spec: DataSpec, folder: Path, frames: Sequence[torch.Tensor] | None = None
) -> str:
    """Write what ``mar sample`` promises for this kind of data; return the files' names.

    Images: ``grid.png`` (at most 400), ``images/00000.png``, …, ``images.npz`` (the levels, uint8), and of ``frames``
    (as ``save_animation`` takes them) ``generation.gif``. Videos: ``grid.gif`` (at most 64), ``videos/00000.gif``, …,
    ``videos.npz``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if spec.modality == "image":
        image_grid(x_NCHW[:400], spec.levels).save(folder / "grid.png")
        pictures = _emptied(folder / "images", "[0-9]*.png")
        for k, image in enumerate(to_bytes(x_NCHW.cpu(), spec.levels)):
            Image.fromarray(image.numpy()).save(pictures / f"{k:05d}.png")
        np.savez_compressed(folder / "images.npz", images=x_NCHW.numpy(), levels=spec.levels)
        if frames is not None:
            save_animation(frames, folder / "generation.gif")
        return "grid.png, images.npz, images/" + ("" if frames is None else ", generation.gif")
    if spec.modality == "video":
        save_videos(x_NCHW[:64], spec.levels, folder / "grid.gif")
        files = _emptied(folder / "videos", "[0-9]*.gif")
        for k, x_TCHW in enumerate(x_NCHW):
            save_video(x_TCHW, spec.levels, files / f"{k:05d}.gif")
        x_NTHWC = x_NCHW.permute(0, 1, 3, 4, 2)
        np.savez_compressed(folder / "videos.npz", videos=x_NTHWC.numpy(), levels=spec.levels)
        return "grid.gif, videos.npz, videos/"
    if spec.modality == "latent":
        np.save(folder / "latents.npy", x_NCHW.numpy())
        indices = "indices of a codebook: images with the VQ tokenizer of these tokens, mar import --vae"
        return f"latents.npy ({indices if spec.is_codebook else 'images with --vae AUTOENCODER'})"
    np.savez_compressed(folder / "samples.npz", samples=x_NCHW.flatten(1).numpy(), levels=spec.levels)
    if spec.modality == "text":
        save_text(x_NCHW, spec, folder / "samples.txt")
        return "samples.txt, samples.npz"
    if spec.modality == "audio":
        save_sound(x_NCHW, spec, folder)
        return "sounds/, spectrograms.png, samples.npz"
    return "samples.npz"


def preview(x_NCHW: torch.Tensor, spec: DataSpec, path: Path) -> Path:
    """Write a quick look at ``path`` with the suffix of its kind, and return its file; sounds one after the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.with_suffix(
        {"image": ".png", "video": ".gif", "text": ".txt", "audio": ".wav"}.get(spec.modality, ".npz")
    )
    if spec.modality == "image":
        image_grid(x_NCHW, spec.levels, columns=10).save(path)
    elif spec.modality == "video":
        save_videos(x_NCHW, spec.levels, path, columns=10)
    elif spec.modality == "text":
        save_text(x_NCHW, spec, path)
    elif spec.modality == "audio":
        from scipy.io import wavfile

        wavfile.write(path, spec.rate, audio.decode(x_NCHW.flatten()).numpy())
    else:
        np.savez_compressed(path, samples=x_NCHW.flatten(1).cpu().numpy(), levels=spec.levels)
    return path


def load_given(path: Path, spec: DataSpec) -> torch.Tensor:
    """(C, H, W) in the data set's levels, from a picture of exactly the right size."""
    channels, height, width = spec.shape
    pixels = _picture(path, "RGB" if channels == 3 else "L")
    if pixels.shape[-2:] != (height, width):
        raise UserError(f"{path} is {pixels.shape[-1]}x{pixels.shape[-2]}, this run makes {width}x{height} images")
    return (pixels.float() * ((spec.levels - 1) / 255.0)).round().to(torch.uint8)


def load_mask(path: Path, tokenizer: Tokenizer) -> torch.Tensor:
    """(L,) bool, True where tokens are generated: a token is when any pixel under it is brighter than half."""
    bright = _picture(path, "L", under="black")[0] > 127  # what is transparent stays as it is
    shape = tokenizer.shape
    rows, columns, *channels = shape if len(shape) > 1 else (1, *shape)
    if bright.shape[0] % rows or bright.shape[1] % columns:
        size = f"{bright.shape[1]}x{bright.shape[0]}"
        raise UserError(f"{path} is {size}: a mask has a multiple of the token grid's size, {columns}x{rows}")
    cells = bright.reshape(rows, bright.shape[0] // rows, columns, bright.shape[1] // columns).any(3).any(1)
    if not cells.any():
        raise UserError(f"{path} is dark everywhere: bright pixels mark what is generated")
    return cells.flatten().repeat_interleave(math.prod(channels))


def _picture(path: Path, mode: str, under: str = "white") -> torch.Tensor:
    """(C, H, W) uint8; transparent pixels show the colour ``under``."""
    pixels = np.asarray(open_image(path, mode, under))
    return torch.from_numpy(pixels.copy()).reshape(*pixels.shape[:2], -1).permute(2, 0, 1)
