"""Subword tokens of text by a tokenizer of the library ``tokenizers``: its token ids are the levels.

T tokens · N texts · V vocabulary
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mar.core.errors import UserError

_HINT = "a tokenizer.json, or a folder with one or with GPT-2's vocab.json and merges.txt"
_AT_ONCE = 256  # texts
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")  # of a vocabulary that falls back on bytes


def read_tokenizer(path: str) -> str:
    """Return the tokenizer at ``path`` as the text of a ``tokenizer.json``, the part that says how text becomes ids.

    Raises:
        UserError: the library is missing, or ``path`` holds no tokenizer.
    """
    library, place = _library(), Path(path).expanduser()
    file = place / "tokenizer.json" if place.is_dir() else place
    try:
        if file.is_file():
            found = library.Tokenizer.from_file(str(file))
            found.no_truncation()
            found.no_padding()
            return found.to_str()
        vocabulary, merges = file.with_name("vocab.json"), file.with_name("merges.txt")
        if not (place.is_dir() and vocabulary.is_file() and merges.is_file()):
            raise UserError(f"data.unit={path} is no file or folder of a tokenizer: it names {_HINT}")
        found = library.Tokenizer(library.models.BPE.from_file(str(vocabulary), str(merges)))
    except UserError:
        raise
    except Exception as error:  # the library has no class of its own
        raise UserError(f"{place} holds no tokenizer ({' '.join(str(error).split())[:200]}): give {_HINT}") from None
    found.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = library.decoders.ByteLevel()
    return found.to_str()


def encode(texts: list[str], tokenizer: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ids of all texts, id_T (int32), and length_N of each. No special token is added."""
    own, id_T, length_N = _opened(tokenizer), list[np.ndarray](), list[int]()
    for first in range(0, len(texts), _AT_ONCE):
        for encoding in own.encode_batch_fast(texts[first : first + _AT_ONCE], add_special_tokens=False):
            id_T.append(np.array(encoding.ids, np.int32))
            length_N.append(len(encoding.ids))
    return torch.from_numpy(np.concatenate([np.zeros(0, np.int32), *id_T])), torch.tensor(length_N, dtype=torch.int64)


def decode(ids: list[int], tokenizer: str) -> str:
    """Return the text of token ids; parts of a character become �."""
    return _opened(tokenizer).decode(ids, skip_special_tokens=False)


def sizes(tokenizer: str) -> torch.Tensor:
    """Return the bytes of text of each id, size_V (int64).

    A sign of GPT-2's byte alphabet is a byte; other vocabularies are UTF-8, where ▁ is a space. An id without a
    token has none. The sizes of the tokens of a text sum to its bytes where the tokenizer loses nothing.
    """
    own = _opened(tokenizer)
    alphabet = set(_library().pre_tokenizers.ByteLevel.alphabet())
    added = {number: token.content for number, token in own.get_added_tokens_decoder().items()}
    tokens = {number: token for token, number in own.get_vocab(with_added_tokens=True).items()}
    plain = {number: token for number, token in tokens.items() if number not in added}
    by_byte = all(alphabet.issuperset(token) for token in plain.values())
    size_V = torch.zeros(max(tokens, default=-1) + 1, dtype=torch.int64)
    for number, token in tokens.items():
        if number in plain and (by_byte or _BYTE.fullmatch(token)):
            size_V[number] = len(token) if by_byte else 1
        else:
            size_V[number] = len(token.replace("▁", " ").encode())
    return size_V


@lru_cache(maxsize=4)
def _opened(tokenizer: str) -> Any:
    return _library().Tokenizer.from_str(tokenizer)


def _library() -> Any:
    """Return the module ``tokenizers``. Raises UserError if it is not installed."""
    try:
        import tokenizers
    except ImportError:
        raise UserError("a tokenizer as data.unit needs tokenizers: pip install 'mar-orderings[data]'") from None
    return tokenizers
