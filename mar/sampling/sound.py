"""Sound of samples: ``.wav`` files and a picture of their spectrograms.

N samples · L samples of a window
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mar.data import mu_law
from mar.data.base import DataSpec

_SHOWN = 16  # spectrograms in the picture
_FLOOR = 1e-3  # of the power, in squared 16-bit steps a hertz: silence is drawn, not minus infinity


def save_sound(x_N11L: torch.Tensor, spec: DataSpec, folder: Path) -> None:
    """``sounds/00000.wav``, … in place of whatever sounds that folder held, and ``spectrograms.png``."""
    (folder / "sounds").mkdir(parents=True, exist_ok=True)
    for old in (folder / "sounds").glob("[0-9]*.wav"):
        old.unlink()
    sample_NL = mu_law.decode(x_N11L.flatten(1).cpu()).numpy()
    for k, sample_L in enumerate(sample_NL):
        save_wav(sample_L, spec.rate, folder / "sounds" / f"{k:05d}.wav")
    save_spectrograms(sample_NL[:_SHOWN], spec.rate, folder / "spectrograms.png")


def save_wav(sample_L: np.ndarray, rate: int, path: Path) -> None:
    from scipy.io import wavfile

    wavfile.write(path, rate, sample_L)


def save_spectrograms(sample_NL: np.ndarray, rate: int, path: Path) -> None:
    """One below the other: time in seconds, frequency in Hz, power in dB."""
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
