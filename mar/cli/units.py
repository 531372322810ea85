"""What the tables call an example, and a dimension of it."""

from __future__ import annotations

from dataclasses import dataclass

from mar.core.spec import DataSpec
from mar.core.tokens import Categories
from mar.run import Run
from mar.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class Units:
    """
    Attributes:
        example: "image", "document", "window" of text or sound, or "example".
        per_dimension: "bits/dim", "bits/character", …, or what nats are divided by where there are no bits.
        letter: "character" or "byte", of text alone.
    """

    example: str = "image"
    per_dimension: str = "bits/dim"
    letter: str = ""

    @classmethod
    def of(cls, spec: DataSpec, tokenizer: Tokenizer) -> Units:
        if spec.modality == "text":
            letter = "character" if spec.alphabet else "byte"
            return cls("window" if spec.end is None else "document", f"bits/{letter}", letter)
        if spec.modality == "audio":
            return cls("window", "bits/sample")
        example = "example" if spec.modality == "vector" else "image"
        if not tokenizer.dimensions:
            return cls(example, "nats/token" if isinstance(tokenizer.token, Categories) else "nats/latent dimension")
        return cls(example)

    @classmethod
    def of_run(cls, run: Run) -> Units:
        return cls.of(run.spec, run.model.tokenizer)

    @property
    def nats(self) -> str:
        return f"nats/{self.example}"
