"""Text of samples, prompts, and text longer than a window.

N samples · L characters of a window · P characters of a prompt · T characters so far
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mar.data.base import DataSpec
from mar.errors import UserError
from mar.noise import derived_seed

if TYPE_CHECKING:
    from mar.run import Run


def text_of(level_T: torch.Tensor, spec: DataSpec) -> str:
    """Levels as text, up to the end of a document; bytes that are no UTF-8 become �."""
    levels = level_T.tolist()
    if spec.end in levels:
        levels = levels[: levels.index(spec.end)]
    if spec.alphabet:
        return "".join(spec.alphabet[level] for level in levels)
    return bytes(levels).decode(errors="replace")


def levels_of(text: str, spec: DataSpec) -> torch.Tensor:
    """level_P (int64) of a prompt.

    Raises:
        UserError: not a run of text, or a character that its alphabet does not have.
    """
    if spec.modality != "text":
        raise UserError(f"a prompt continues text: this run makes examples of kind {spec.modality}")
    if not spec.alphabet:
        return torch.tensor([*text.encode()], dtype=torch.int64)
    number = {character: level for level, character in enumerate(spec.alphabet)}
    if strange := sorted(set(text) - set(number)):
        known = "".join(spec.alphabet)
        raise UserError(f"the prompt has {strange[0]!r}, which is not in the training text: it has {known!r}")
    return torch.tensor([number[character] for character in text], dtype=torch.int64)


def write_on(run: Run, n: int, prompt_P: torch.Tensor, length: int, seed: int = 0, **options: Any) -> torch.Tensor:
    """(N, 1, 1, T) levels: N texts of ``length`` characters, or one window if that is 0, that begin with the prompt.

    Each further window is given the last half of the text so far and adds another half: its conditionals forget what
    came before. Documents end by themselves, with the level ``end``, or are cut off at the window.
    ``options`` are those of ``mar.run.Run.sample``.

    Raises:
        UserError: the length leaves nothing to write, or is asked of documents.
    """
    window = run.spec.shape[-1]
    if run.spec.end is not None:
        if length or len(prompt_P) >= window:
            raise UserError(
                f"this run writes documents, which end by themselves, at the latest after {window} characters: "
                "leave out --length, and give a shorter --prompt"
            )
        length = window
    length = length or max(window, len(prompt_P) + window // 2)
    if length <= len(prompt_P):
        raise UserError(f"the prompt has {len(prompt_P)} characters: ask for a length of more, not {length}")
    x_NT, part = prompt_P.expand(n, -1), 0
    while x_NT.shape[1] < length:
        kept = x_NT.shape[1] if x_NT.shape[1] < window else window // 2
        fresh_NL = _window(
            run, x_NT[:, x_NT.shape[1] - kept :], window, derived_seed(seed, part) if part else seed, options
        )
        x_NT, part = torch.cat([x_NT, fresh_NL[:, kept:]], dim=1), part + 1
    return x_NT[:, None, None, :length]


def _window(run: Run, kept_NK: torch.Tensor, window: int, seed: int, options: dict[str, Any]) -> torch.Tensor:
    """(N, L) levels: a window that begins with the K levels ``kept_NK``."""
    n, kept = kept_NK.shape
    if kept:
        given = torch.nn.functional.pad(kept_NK, (0, window - kept))[:, None, None]
        options = {**options, "given": given, "mask": torch.arange(window) >= kept, "prompt": True}
    return run.sample(n, seed=seed, **options).reshape(n, window).long()


def save_text(x_N11T: torch.Tensor, spec: DataSpec, path: Path) -> None:
    """All texts in one file, each under a line with its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [f"---- sample {k} ----\n{text_of(x, spec)}\n" for k, x in enumerate(x_N11T.flatten(1))]
    path.write_text("\n".join(texts), encoding="utf-8", newline="")
