"""Names of files and folders for texts of any length."""

from __future__ import annotations

from hashlib import sha256


def short(text: str, longest: int) -> str:
    """``text``, or as much of it as ``longest`` bytes take with its hash at the end: file systems allow 255."""
    content = text.encode()
    if len(content) <= longest:
        return text
    return f"{content[: longest - 17].decode(errors='ignore')}~{sha256(content).hexdigest()[:16]}"
