"""Published files: found in a user's folder, unpacked, and compared with what was published."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

from mar.errors import UserError

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class PublishedFile:
    """One file of a published data set.

    Attributes:
        names: accepted file names, the published one first; each also with ``.gz``.
        expected: what it holds, in words.
        home: where to get it.
        md5: of the unpacked file; "" where none was published.
    """

    names: tuple[str, ...]
    expected: str
    home: str
    md5: str = ""

    def find(self, path: str, nested: tuple[str, ...]) -> Path:
        """The file in the folder ``path`` or in one of its ``nested`` folders. Raises UserError where there is none."""
        want = f"{self.names[0]}(.gz)"
        if not path:
            raise UserError(f"data.path is not set: it names the folder that holds {want}; get it from {self.home}")
        root = Path(path).expanduser()
        if not root.is_dir():
            raise UserError(f"data.path={path} is not a folder: it should hold {want}; get it from {self.home}")
        for folder in (root, *(root / name for name in nested)):
            for name in self.names:
                for file in (folder / name, folder / f"{name}.gz"):
                    if file.is_file():
                        return file
        places = ", ".join((".", *nested))
        raise UserError(f"{want} is not in {root} (looked in {places}): {self.expected}; get it from {self.home}")

    def read(self, file: Path) -> bytes:
        """The unpacked content; whether it is packed is read from the content, not from the name."""
        try:
            raw = file.read_bytes()
            return gzip.decompress(raw) if raw.startswith(_GZIP) else raw
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise self.damaged(file, f"the gzip file is truncated or damaged ({error})") from None
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror or error}") from None

    def damaged(self, file: Path, why: str) -> UserError:
        """The error for a file whose content is wrong."""
        return UserError(f"{file}: {why}; expected {self.expected}; get it again from {self.home}")

    def note(self, raw: bytes) -> dict[str, str]:
        """A note for ``Data.notes`` where the content is readable but not the published one."""
        md5 = hashlib.md5(raw, usedforsecurity=False).hexdigest() if self.md5 else ""
        if md5 == self.md5:
            return {}
        return {self.names[0]: f"md5 {md5} is not the published {self.md5}: figures may not compare with papers"}
