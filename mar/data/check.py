"""The content of a folder or file, as ``mar data check`` lists it: splits, classes, files left out, unusual images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mar.core.errors import UserError
from mar.core.progress import Progress
from mar.data.audio import AudioOptions
from mar.data.base import SPLITS, Data, DataOptions, DataSource
from mar.data.documents import DocumentsOptions
from mar.data.files import Listing, contents, walk
from mar.data.folder import FolderOptions, find_splits
from mar.data.pictures import SUFFIXES, as_shown
from mar.data.text import TextOptions

_KINDS = {
    "folder": SUFFIXES,
    "audio": (".wav",),
    "text": (".txt",),
    "npz": (".npz",),
    "hub": (".parquet", ".tar", ".arrow"),
}
_ORIENTATION = 0x0112  # EXIF tag


@dataclass(frozen=True)
class Finding:
    """One line of the list: a thing, its number, and the files."""

    what: str
    count: int
    files: tuple[str, ...] = ()


def guess(path: Path) -> str:
    """Return the kind of data at ``path`` by its files. Raises UserError if there are none of a known kind."""
    if path.is_file():
        return next((kind for kind in ("npz", "hub") if path.suffix.lower() in _KINDS[kind]), "text")
    if (path / "manifest.json").is_file():
        return "cache"
    if not path.is_dir():
        raise UserError(f"{path} is no file or folder")
    for kind, suffixes in _KINDS.items():
        if walk(path, suffixes, deep=kind == "folder").files:
            return kind
    raise UserError(
        f"{path} holds no images, .wav, .txt or .parquet files: name its kind, e.g. mar data check mnist:{path}"
    )


def findings(source: type[DataSource], options: DataOptions, progress: Progress) -> Iterator[Finding]:
    """Yield what the files hold, first the parts that need no data set.

    Raises:
        UserError: the data set is refused, with the reason that training would give.
    """
    if isinstance(options, FolderOptions):
        listing = walk(Path(options.path).expanduser(), SUFFIXES)
        yield from _left_out(listing)
        yield from _images(listing, options, progress)
        files, classes, _ = find_splits(listing, options)
        if classes:
            for name in classes:
                inside = [file for file, place in files["train"] if place.startswith(f"{name}/")]
                yield Finding(f"training images of class {name}", len(inside))
        yield from _repeated(listing.root, {split: [file for file, _ in pairs] for split, pairs in files.items()})
    elif isinstance(options, (TextOptions, DocumentsOptions, AudioOptions)):
        root, suffix = Path(options.path).expanduser(), ".wav" if isinstance(options, AudioOptions) else ".txt"
        if root.is_dir():
            yield from _left_out(walk(root, (suffix,), deep=False))
    yield from _examples(source.load(options))


def _examples(data: Data) -> Iterator[Finding]:
    for split in SPLITS:
        yield Finding(f"{split} examples", len(data.split(split)))
    yield Finding(f"levels of examples of shape {'x'.join(map(str, data.spec.shape))}", data.spec.levels)
    yield Finding("classes", data.spec.n_classes, data.spec.class_names)
    for name, note in data.notes.items():
        yield Finding(f"note on {name}: {note}", 1)


def _left_out(listing: Listing) -> Iterator[Finding]:
    yield Finding("files read", len(listing.files))
    for reason, names in listing.ignored.items():
        yield Finding(f"left out: {reason}", len(names), tuple(names))


def _images(listing: Listing, options: FolderOptions, progress: Progress) -> Iterator[Finding]:
    """Decode every image and report those that are refused, or changed when they are read."""

    def look(name: str) -> list[str]:
        try:
            with Image.open(listing.root / name) as image:
                turned, frames = image.getexif().get(_ORIENTATION, 1) != 1, getattr(image, "n_frames", 1)
                clear, mode = image.has_transparency_data, image.mode
                size = min(as_shown(image, name).convert("RGB").size)
        except UserError as refusal:
            return [f"refused: {str(refusal).removeprefix(name).strip()}"]
        except Exception:  # Pillow raises many types on damaged files
            return ["damaged"]
        seen = {
            "turned by their EXIF orientation": turned, "of several frames, the first is read": frames > 1,
            "transparent, shown over white": clear, "of CMYK colours": mode == "CMYK",
            f"smaller than data.size={options.size}, enlarged": size < options.size,
        }  # fmt: skip
        return [what for what, true in seen.items() if true]

    found = defaultdict(list)
    with ThreadPoolExecutor(options.workers) as pool:
        for done, (name, seen) in enumerate(zip(listing.files, pool.map(look, listing.files), strict=True)):
            for what in seen:
                found[what].append(name)
            progress(done + 1, len(listing.files))
    for what, names in found.items():
        yield Finding(f"images {what}", len(names), tuple(names))


def _repeated(root: Path, files: dict[str, list[str]]) -> Iterator[Finding]:
    """Report held-out files whose content is in the training split, too."""
    hashes = {split: contents(root, names) for split, names in files.items()}
    trained = {*hashes["train"]}
    for split in ("validation", "test"):
        same = [name for name, found in zip(files[split], hashes[split], strict=True) if found in trained]
        if same:
            yield Finding(f"{split} images that are training images, too", len(same), tuple(same))
