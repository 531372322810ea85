"""Reconstruction by an autoencoder: images beside their reconstructions, the error, the use of the codebook.

N images · C, H, W channels, rows, columns · V entries of a codebook
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mar.core.devices import chosen
from mar.core.errors import UserError
from mar.core.files import cache_folder, environment, write_atomic
from mar.core.noise import stream
from mar.core.progress import bar
from mar.core.readers import read_json
from mar.core.records import differences
from mar.core.tokens import Categories
from mar.data.base import Data, Split, evenly_spaced
from mar.metrics.extractors import choose
from mar.metrics.fid import score_images
from mar.metrics.images import FeatureSettings, requantise
from mar.metrics.ssim import ssim
from mar.sampling.output import image_grid
from mar.tokenizers import TOKENIZERS
from mar.tokenizers.autoencoder import AutoencoderFolder, AutoencoderTokenizer
from mar.tokenizers.vq import perplexity


@dataclass(frozen=True)
class Reconstruction:
    """Errors of N reconstructed images.

    Attributes:
        mean_square_error: per value, of images in [0, 1].
        psnr_db: 10 log10(1 / error), the mean over images.
        ssim: its mean over images and channels; None below 11 x 11 pixels.
        codebook_used: share of the entries that any image uses; None without a codebook.
        codebook_perplexity: exp of the entropy of the entries' use over all images, at most V.
    """

    n_images: int
    mean_square_error: float
    psnr_db: float
    codebook_used: float | None = None
    codebook_perplexity: float | None = None
    ssim: float | None = None


def reconstruct(
    tokenizer: AutoencoderTokenizer, split: Split, limit: int | None, seed: int, batch_size: int,
    progress: Callable[[int, int], None],
) -> tuple[torch.Tensor, torch.Tensor, Reconstruction]:  # fmt: skip
    """Return images, their reconstructions (N, C, H, W) uint8 and the errors, of ``limit`` images spread over a split.

    A KL autoencoder decodes a sample from the posterior, as generators are trained on.
    """
    index, device = evenly_spaced(len(split), limit), next(tokenizer.buffers()).device
    images, decoded, tokens = [], [], []
    for part in index.split(batch_size):
        x, _ = split.batch(part)
        token = tokenizer.encode(x.to(device), stream(seed, "reconstruction", part, device))
        images.append(x)
        decoded.append(tokenizer.decode(token).cpu())
        if isinstance(tokenizer.token, Categories):
            tokens.append(token.cpu())
        progress(sum(map(len, images)), len(index))
    x, y = torch.cat(images), torch.cat(decoded)
    error_N = ((x.double() - y.double()) / (tokenizer.spec.levels - 1)).square().flatten(1).mean(1)
    psnr = float((-10.0 * error_N.clamp(min=1e-10).log10()).mean())
    used, effective = None, None
    if isinstance(tokenizer.token, Categories):
        index_N = torch.cat(tokens).flatten()
        used = len(index_N.unique()) / tokenizer.token.vocabulary
        effective = float(perplexity(index_N, tokenizer.token.vocabulary))
    alike_N = ssim(x, y, tokenizer.spec.levels - 1)
    alike = None if alike_N is None else float(alike_N.mean())
    return x, y, Reconstruction(len(x), float(error_N.mean()), psnr, used, effective, alike)


def side_by_side(x_NCHW: torch.Tensor, y_NCHW: torch.Tensor, columns: int = 16) -> torch.Tensor:
    """Return alternating rows of images and of their reconstructions, for a grid of ``columns``."""
    n = min(len(x_NCHW), 4 * columns) // columns * columns or len(x_NCHW)
    x, y = x_NCHW[:n].split(min(columns, n)), y_NCHW[:n].split(min(columns, n))
    return torch.cat([row for pair in zip(x, y, strict=True) for row in pair])


def rfid_settings(settings: FeatureSettings, data: Data) -> FeatureSettings:
    """Return the settings of the rFID with the extractor found, before time is spent. Raises UserError: none fits."""
    return replace(settings, extractor=choose(settings, data, cache_folder()))


def score_autoencoder(
    path: Path, section: dict[str, Any], data: Data, folder: Path, n: int | None, rfid: FeatureSettings | None,
    seed: int, replaces: bool, perceptual: bool = False,
) -> list[str]:  # fmt: skip
    """Score the autoencoder in ``path`` into FOLDER/scores; return the lines to print.

    Args:
        section: the resolved ``data`` section of a recipe, for the record.
        n: test images; None: all.
        rfid: settings of the rFID; None: it is not asked for, and a former one of the same images is kept.
        replaces: replace a former score of other settings.
        perceptual: also compute LPIPS.

    Raises:
        UserError: the folder holds a score of other settings, which is not replaced.
    """
    found, device = AutoencoderFolder(path), str(chosen())
    n_images = min(n or len(data.test), len(data.test))
    question = {"sha256": found.sha256, "fingerprint": data.fingerprint, "n_images": n_images, "seed": seed}
    file = folder / "scores" / "reconstruction.json"
    before = read_json(file, "the score of an autoencoder") if file.is_file() else {}
    differing = differences({key: before.get(key, value) for key, value in question.items()}, question)
    if differing and not replaces:
        raise UserError(f"{file} is another score ({differing[0]}): choose another --out, or delete it")
    cls: Any = TOKENIZERS[found.kind]
    tokenizer = cls(data.spec, cls.Options(path=str(path))).to(device)
    with bar("reconstructing") as progress:
        x, y, result = reconstruct(tokenizer, data.test, n, seed, 256, progress)
    folder.mkdir(parents=True, exist_ok=True)
    image_grid(side_by_side(x, y), data.spec.levels, columns=min(16, len(x))).save(folder / "reconstructions.png")
    record = {"autoencoder": str(path), "data": section, **question, **asdict(result)}
    lines = [f"{n_images} test images: mean square error {result.mean_square_error:.3g}, {result.psnr_db:.2f} dB"]
    if result.ssim is not None:
        lines[0] += f", SSIM {result.ssim:.4f}"
    if result.codebook_perplexity is not None:
        shown = f"{result.codebook_used:.1%} of the entries used, perplexity {result.codebook_perplexity:.1f}"
        lines.append(f"codebook: {shown}")
    if perceptual:
        from mar.metrics.lpips import lpips

        far = lpips(requantise(x, data.spec.levels, 256), requantise(y, data.spec.levels, 256), device)
        record["lpips"] = far._asdict()
        lines.append(f"LPIPS {far.mean:.4f} ({far.network}, images of {'x'.join(map(str, data.spec.shape[1:]))})")
    if rfid:
        fid = score_images(y, data, cache_folder(), **vars(rfid))
        record["rfid"] = fid.to_dict()
        real = f"{fid.extractor}; of as many real training images {fid.noise_floor.fid:.3f}"
        lines.append(f"rFID {fid.generated.fid:.3f} ({real})")
    elif "rfid" in before and not differing:
        record["rfid"] = before["rfid"]
    elif "rfid" in before:
        lines.append(f"the rFID in {file} was of other weights or images and goes: --rfid measures it again")
    write_atomic(file, json.dumps({**record, "environment": environment()}, indent=1))
    return [*lines, f"wrote {folder}/reconstructions.png and {file}"]
