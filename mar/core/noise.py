"""All randomness: a vectorised counter-based generator keyed by (seed, purpose, example, token, draw).

N streams · e.g. one per image, or one per gathered token

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), in int64 tensor arithmetic, so
that the same key gives the same bits on every device, for any batching and any number of processes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from mar.core.devices import back, double

_MASK = 0xFFFFFFFF
_MULTIPLIER = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


@dataclass(frozen=True)
class Noise:
    """N independent streams of random numbers; stream n is keyed by (seed, purpose, example_N[n], token_N[n], draw).

    The same method returns the same numbers every time: new numbers need a new ``draw``, ``purpose`` or key.
    """

    seed: int
    purpose: str
    example_N: torch.Tensor  # int64 in [0, 2**32)
    token_N: torch.Tensor | None = None  # int64 in [0, 2**32); None: all zero
    draw: int = 0

    def __len__(self) -> int:
        return len(self.example_N)

    def at(
        self, purpose: str | None = None, draw: int | None = None, device: torch.device | str | None = None
    ) -> Noise:
        """Return the streams for another use: ``purpose`` is appended to the path, ``draw`` replaces the draw."""
        path = self.purpose if purpose is None else f"{self.purpose}/{purpose}"
        streams = self if device is None else self.to(device)
        return replace(streams, purpose=path, draw=self.draw if draw is None else draw)

    def split(self, *purposes: str) -> list[Noise]:
        """Return the streams for each of several other uses."""
        return [self.at(purpose) for purpose in purposes]

    def tokens(self, row_M: torch.Tensor, token_M: torch.Tensor) -> Noise:
        """Return one stream for each gathered token (row, token); these streams are one per row."""
        return replace(self, example_N=self.example_N[row_M], token_N=token_M)

    def rows(self, index: torch.Tensor | slice) -> Noise:
        """Return some of the streams."""
        token_N = None if self.token_N is None else self.token_N[index]
        return replace(self, example_N=self.example_N[index], token_N=token_N)

    def to(self, device: torch.device | str) -> Noise:
        token_N = None if self.token_N is None else self.token_N.to(device)
        return replace(self, example_N=self.example_N.to(device), token_N=token_N)

    def uniform(self, n: int) -> torch.Tensor:
        """Sample (N, n) float32 in [0, 1), 24 random bits each."""
        return (self._bits(n, [self.draw])[0] >> 8).to(torch.float32) * 2.0**-24

    def gumbel(self, n: int) -> torch.Tensor:
        """Sample (N, n) standard Gumbel float32; the argmax of logits plus these is a sample of the categories."""
        u = double(self.uniform(n)) + 2.0**-25  # never 0 or 1
        return back(-(-u.log()).log().float(), self.example_N.device)

    def normal(self, n: int) -> torch.Tensor:
        """Sample (N, n) standard normal float32 (Box and Muller)."""
        return self._normal(n, [self.draw])[0]

    def normals(self, n: int, draws: Sequence[int], numbers_at_once: int = 2**20) -> Iterator[torch.Tensor]:
        """Yield ``at(draw=d).normal(n)`` for each of ``draws``.

        The generator is about two hundred small operations, so many draws are computed at once, bounded by memory.
        """
        at_once = max(1, numbers_at_once // max(1, n * len(self)))
        for start in range(0, len(draws), at_once):
            yield from self._normal(n, draws[start : start + at_once])

    def _normal(self, n: int, draws: Sequence[int]) -> torch.Tensor:
        """(K, N, n) for K draws."""
        half = (n + 1) // 2
        bits = double(self._bits(2 * half, draws)).unflatten(2, (2, half))
        radius = ((bits[:, :, 0] + 1.0) * 2.0**-32).log().mul(-2.0).sqrt()
        angle = bits[:, :, 1] * (2.0 * math.pi * 2.0**-32)
        normal = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).flatten(2)[..., :n].float()
        return back(normal, self.example_N.device)

    def _bits(self, n: int, draws: Sequence[int]) -> torch.Tensor:
        """(K, N, n) int64 holding 32 random bits each, for K draws."""
        example_N = self.example_N
        blocks = torch.arange((n + 3) // 4, device=example_N.device)
        draw_K = torch.tensor([draw & _MASK for draw in draws], device=example_N.device)
        token_N = torch.zeros_like(example_N) if self.token_N is None else self.token_N
        shape = (len(draw_K), len(example_N), len(blocks))
        counter = [
            blocks.expand(shape),
            draw_K[:, None, None].expand(shape),
            (token_N & _MASK)[:, None].expand(shape),
            (example_N & _MASK)[:, None].expand(shape),
        ]
        words = _rounds(counter, _keys(self.seed, self.purpose, example_N.device))
        return torch.stack(words, dim=-1).flatten(2)[..., :n]


def stream(seed: int, purpose: str, examples: int | torch.Tensor, device: torch.device | str = "cpu") -> Noise:
    """Return streams for examples 0..n-1 (an int), or for the given example numbers."""
    index = torch.arange(examples) if isinstance(examples, int) else examples
    return Noise(seed, purpose, index.to(device=device, dtype=torch.int64))


def derived_seed(*parts: int | str) -> int:
    """Return a 63-bit seed, a function of ``parts``, for libraries that take a seed (dropout, workers)."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1


def compile_rounds(compiled: bool = True) -> None:
    """Compile the generator into one kernel (about two hundred launches otherwise, on a GPU), or undo it.

    The bits are the same.
    """
    global _rounds
    _rounds = torch.compile(_philox, dynamic=True) if compiled else _philox


@lru_cache(maxsize=1024)
def _keys(seed: int, purpose: str, device: torch.device) -> torch.Tensor:
    """(10, 2) int64: the two words of each round's key."""
    digest = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    words = int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")
    return _schedule(words).to(device)


def _schedule(words: tuple[int, int]) -> torch.Tensor:
    return torch.tensor([[(word + r * w) & _MASK for word, w in zip(words, _WEYL, strict=True)] for r in range(10)])


def _philox(counter: list[torch.Tensor], keys: torch.Tensor) -> list[torch.Tensor]:
    """Ten rounds of Philox4x32. Products of 32-bit words wrap in int64 without losing any bit."""
    c0, c1, c2, c3 = counter
    for k0, k1 in (key.unbind() for key in keys.unbind()):
        p0, p1 = c0 * _MULTIPLIER[0], c2 * _MULTIPLIER[1]
        c0, c1, c2, c3 = (((p1 >> 32) & _MASK) ^ c1 ^ k0, p1 & _MASK, ((p0 >> 32) & _MASK) ^ c3 ^ k1, p0 & _MASK)
    return [c0, c1, c2, c3]


_rounds = _philox
