"""Kinds of tokens: one of V categories, or a vector of E channels. Shapes: categories (B, L), vectors (B, L, E)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Categories:
    """int64 tokens in 0..vocabulary-1."""

    vocabulary: int


@dataclass(frozen=True)
class Vectors:
    """float32 tokens of ``width`` channels, scaled to about unit variance."""

    width: int


TokenKind = Categories | Vectors
