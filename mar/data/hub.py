"""Any data set that Hugging Face's ``datasets`` loads: pictures, texts or vectors, by hub name or from local files.

Local files are Parquet, Arrow, JSON, CSV, WebDataset ``.tar``, ``imagefolder`` and ``save_to_disk``. No code of a data
set is executed (``datasets`` from version 4 on has none).

N examples · B batch · C, H, W channels, rows, columns of a picture
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image

from mar.core.errors import UserError, unknown
from mar.core.files import cache_folder, checksum, digest, write_atomic
from mar.core.noise import stream
from mar.core.options import between
from mar.core.spec import DataSpec
from mar.data.base import SPLITS, Data, DataOptions, DataSource, Split, TensorSplit, check_shares, fingerprint
from mar.data.documents import documents_of
from mar.data.npz import vectors_of
from mar.data.pictures import open_image, pixels_of, square
from mar.data.text import check_unit

LABELS = ("label", "labels", "y", "class", "fine_label", "target", "cls")
_NAMES = {"train": "train", "validation": "validation valid val dev", "test": "test"}
_BUILDERS = {
    ".parquet": "parquet",
    ".tar": "webdataset",
    ".arrow": "arrow",
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
}
_SAVED = ("dataset_dict.json", "dataset_info.json")
_HINT = "a name on the hub (uoft-cs/cifar10), or a local file or folder of Parquet, WebDataset, Arrow, JSON or images"


@dataclass(frozen=True)
class HubOptions(DataOptions):
    path: str = ""  # a name on the hub, or a local file or folder
    config: str = ""  # the configuration, of a data set with several
    revision: str = ""  # a commit or tag of a hub name; "": the newest
    column: str = ""  # the examples; "": the first column of pictures, else of texts, else of vectors
    label: str = ""  # the classes; "": the first ClassLabel, or a column called label, labels, …
    size: int = 0  # side of square pictures, in pixels; 0: they have one size
    colour: Literal["stored", "rgb", "grey"] = "stored"  # stored: as the first picture is
    unit: str = "character"  # of texts; or byte, or the path of a tokenizer
    context: int = 256  # of the longest text: longer ones are cut
    levels: int = 0  # of vectors, as those of npz
    validation: float = 0.05  # share of the training examples, without a validation split
    test: float = 0.05  # share of them, without a test split with classes; 0: the validation examples are the test
    workers: int = 4  # threads that decode
    bounds: ClassVar = {
        "size": between(0, 2**14), "workers": between(1, 1024), "context": between(2, 2**31),
        "levels": ("2 to 32768, or 0 to find them", lambda n: n == 0 or 2 <= n <= 2**15),
    }  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        check_unit(self.unit)
        check_shares(validation=self.validation, **({"test": self.test} if self.test else {}))


@dataclass(frozen=True)
class PictureSplit(Split):
    """Pictures of an Arrow table, decoded on access."""

    rows: Any  # datasets.Dataset; its column has the undecoded files
    name: str  # of the split, for errors
    label_N: torch.Tensor | None
    options: HubOptions
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, index_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return x (B, C, H, W) uint8 and label_B.

        Raises:
            UserError: a picture is damaged, or of another size without ``data.size``.
        """
        stored = self.rows[index_B.tolist()][self.options.column]
        with ThreadPoolExecutor(self.options.workers) as pool:
            images = list(pool.map(self._decode, stored, index_B.tolist()))
        return torch.stack(images), None if self.label_N is None else self.label_N[index_B]

    def _decode(self, stored: dict[str, Any], index: int) -> torch.Tensor:
        what = f"picture {index} of the {self.name} split of {self.options.path}"
        picture = opened(stored, "L" if self.shape[0] == 1 else "RGB", what)
        if self.options.size:
            return square(picture, self.options.size, what)
        if (x := pixels_of(picture)).shape != self.shape:
            first = f"{self.shape[2]}x{self.shape[1]}"
            raise UserError(f"{what} is {picture.width}x{picture.height}, the first {first}: set data.size")
        return x


def opened(stored: dict[str, Any] | None, mode: str, what: str) -> Image.Image:
    """Return the picture in a cell of an undecoded column, L or RGB. UserError: as ``open_image``, or it is empty."""
    if stored is None:
        raise UserError(f"{what} is empty: remove its row")
    file = Path(stored["path"]) if stored["bytes"] is None else BytesIO(stored["bytes"])
    return open_image(file, mode, what=what)


class Hub(DataSource):
    """The data set's own splits and class names; a missing split is cut out of the training examples."""

    Options = HubOptions
    name = "hub"

    @classmethod
    def load(cls, options: HubOptions) -> Data:
        return from_splits(_open(options), options)


def library() -> Any:
    """Return the module ``datasets``. Raises UserError if it is not installed."""
    try:
        import datasets
    except ImportError:
        raise UserError("data.kind=hub needs datasets: pip install 'mar-orderings[data]'") from None
    return datasets


def _open(options: HubOptions) -> Mapping[str, Any]:
    """Return the splits by their own names. Raises UserError: there is no such data set, or it is damaged."""
    if not options.path:
        raise UserError(f"data.path is not set: it names {_HINT}")
    datasets, place = library(), Path(options.path).expanduser()
    if not place.exists() and options.path.startswith(("/", "~", ".")):
        raise UserError(f"data.path={options.path} is not a file or folder: it should name {_HINT}")
    if place.is_file() and place.suffix.lower() not in _BUILDERS:
        raise unknown(f"{options.path}: suffix", place.suffix or "none", _BUILDERS)
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        if place.is_file():
            found = datasets.load_dataset(_BUILDERS[place.suffix.lower()], data_files={"train": str(place)})
        elif place.is_dir() and any((place / name).is_file() for name in _SAVED):
            found = datasets.load_from_disk(str(place))
        else:
            local, config = place.is_dir(), options.config or None
            found = datasets.load_dataset(
                str(place) if local else options.path, config, revision=options.revision or None
            )
    except Exception as error:  # of networks, files and formats, almost any
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())[:200] or type(cause).__name__
        raise UserError(f"data.path={options.path} is no data set that datasets loads ({reason}): {_HINT}") from None
    return found if isinstance(found, Mapping) else {"train": found}


def from_splits(found: Mapping[str, Any], options: HubOptions) -> Data:
    """Return the data of ``datasets.Dataset`` objects by the names of their splits.

    Raises:
        UserError: no training split, no such column, or examples that are no pictures, texts or vectors.
    """
    named = {key: next((own for own, names in _NAMES.items() if key.lower() in names.split()), "") for key in found}
    notes = dict[str, str]()
    rows = {own: found[key] for own in SPLITS for key, split in named.items() if split == own}
    if "train" not in rows:
        raise UserError(f"{options.path} has no split called train (it has {', '.join(map(str, found))})")
    if empty := [split for split in rows if not len(rows[split])]:
        raise UserError(f"{options.path}: its {empty[0]} split is empty")
    kind, column = _column(rows["train"], options)
    label = _label_column(rows["train"], options, column)
    if lacks := [split for split, part in rows.items() if column not in part.column_names]:
        raise UserError(f"{options.path}: its {lacks[0]} split has no column {column}")
    classes, names = _classes(rows, label, options)
    for split in ("validation", "test"):
        if split in rows and classes and bool((classes[split] < 0).all()):
            del rows[split], classes[split]
            notes[f"published {split}"] = f"the published {split} split is left out: it has no classes"
    rows, classes = _cut(rows, classes, options, notes)
    chosen = replace(options, column=column, label=label)
    data = {"pictures": _pictures, "texts": _texts, "vectors": _vectors}[kind](rows, classes, chosen)
    if classes and kind != "texts":
        known = replace(data.spec, n_classes=len(names), class_names=names)
        identity = digest(data.fingerprint, fingerprint(*classes.values()))
        data = replace(data, spec=known, fingerprint=identity)
    return replace(data, name=Hub.name, notes=data.notes | notes, columns=lambda name: _values(rows, name, options))


def _values(rows: Mapping[str, Any], column: str, options: HubOptions) -> dict[str, Any]:
    """Return the numbers, vectors or sequences of vectors of a column."""
    for part in rows.values():
        if column not in part.column_names:
            raise unknown(f"column of {options.path}:", column, part.column_names)
    return {split: part.select_columns([column]).with_format("numpy")[:][column] for split, part in rows.items()}


def _column(rows: Any, options: HubOptions) -> tuple[str, str]:
    """Return what the examples are, and their column."""
    datasets, kinds = library(), dict[str, str]()
    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            kinds[name] = "pictures"
        elif getattr(feature, "dtype", "") in ("string", "large_string") and not name.startswith("__"):
            kinds[name] = "texts"
        elif isinstance(getattr(feature, "feature", None), datasets.Value):
            kinds[name] = "vectors"
    held = ", ".join(rows.column_names)
    if options.column and options.column not in rows.column_names:
        raise unknown(f"column of {options.path}:", options.column, rows.column_names)
    for kind in ("pictures", "texts", "vectors"):
        for name, found in kinds.items():
            if found == kind and name in (options.column or name,) and (options.column or name not in LABELS):
                return kind, name
    what = options.column or f"no column ({held})"
    raise UserError(
        f"{options.path}: {what} holds pictures, texts or lists of numbers: data.column names one that does"
    )


def _label_column(rows: Any, options: HubOptions, column: str) -> str:
    """Return the column of classes, or ""."""
    if options.label and options.label not in rows.column_names:
        raise unknown(f"column of {options.path}:", options.label, rows.column_names)
    features, named = rows.features, [name for name in LABELS if name in rows.features]
    known = [name for name in features if isinstance(features[name], library().ClassLabel)]
    plain = [name for name in named if getattr(features[name], "dtype", "").startswith(("int", "uint", "string"))]
    return options.label or next((name for name in (*known, *plain) if name != column), "")


def _classes(rows: Mapping[str, Any], label: str, options: HubOptions) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return label_N of each split and the class names; {} without classes. A missing class is -1."""
    if not label:
        return {}, ()
    values = {
        split: part.select_columns([label]).with_format("arrow")[:][label].to_pylist()
        if label in part.column_names
        else [None] * len(part)
        for split, part in rows.items()
    }
    names = getattr(rows["train"].features[label], "names", None)
    trained = {value for value in values["train"] if value is not None}
    if all(isinstance(value, str) for value in trained):
        names = sorted(trained)
        number = {name: k for k, name in enumerate(names)}
        for split in values:
            if strange := next((v for v in values[split] if v is not None and v not in number), None):
                raise UserError(f"{options.path}: class {strange!r} of its {split} split has no training examples")
        values = {split: [None if v is None else number[v] for v in own] for split, own in values.items()}
    elif not all(isinstance(value, int) and value >= -1 for value in trained):
        raise UserError(f"{options.path}: data.label={label} holds neither names nor numbers of classes from 0 on")
    label_N = {split: torch.tensor([-1 if v is None else int(v) for v in own]) for split, own in values.items()}
    names = names or [str(k) for k in range(int(label_N["train"].max()) + 1)]
    for split, own in label_N.items():
        if int(own.max()) >= len(names):
            raise UserError(f"{options.path}: class {int(own.max())} of its {split} split has no training examples")
    return (label_N, tuple(names)) if names else ({}, ())


def _cut(
    rows: dict[str, Any], classes: dict[str, Any], options: HubOptions, notes: dict[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return all three splits; the missing ones are drawn from the training examples without replacement."""
    rows, classes = dict(rows), dict(classes)
    if "test" not in rows and not options.test and "validation" in rows:
        rows["test"], notes["test"] = rows["validation"], "the test split is the validation split"
        classes |= {"test": classes["validation"]} if classes else {}
    train, known, n = rows["train"], classes.get("train"), len(rows["train"])
    left = stream(0, "data/hub/cut", torch.tensor([n])).uniform(n)[0].argsort(stable=True)
    for split, share in (("test", options.test or options.validation), ("validation", options.validation)):
        if split in rows:
            continue
        if len(left) <= (count := max(1, round(n * share))):
            raise UserError(f"{options.path} has {n} training examples, too few to hold some out for {split}")
        own, left = left[:count].sort().values, left[count:]
        rows[split], notes[split] = (
            train.select(own.tolist()),
            f"the {split} split is drawn from the training examples, share {share}",
        )
        classes |= {split: known[own]} if known is not None else {}
    if len(left) < n:
        own = left.sort().values
        rows["train"] = train.select(own.tolist())
        classes |= {"train": known[own]} if known is not None else {}
    return {s: rows[s] for s in SPLITS}, {s: classes[s] for s in SPLITS} if classes else {}


def _pictures(rows: dict[str, Any], classes: dict[str, torch.Tensor], options: HubOptions) -> Data:
    column, stored = options.column, library().Image(decode=False)
    rows = {split: part.select_columns([column]).cast_column(column, stored) for split, part in rows.items()}
    mode = {"stored": "", "rgb": "RGB", "grey": "L"}[options.colour]
    first = opened(rows["train"][0][column], mode, f"picture 0 of the train split of {options.path}")
    sides = (options.size,) * 2 if options.size else (first.height, first.width)
    shape = (1 if first.mode == "L" else 3, *sides)
    splits = [PictureSplit(part, split, classes.get(split), options, shape) for split, part in rows.items()]
    for split in splits:
        split.batch(torch.tensor([0]))  # an error in all pictures appears now
    every = (_content(part, column) for part in rows.values())
    content = digest("pictures;", *every, f"{options.size} {shape}")
    train, validation, test = splits
    return Data(Hub.name, DataSpec(shape, 256), train, validation, test, content)


def _content(rows: Any, column: str) -> str:
    """Return the SHA-256 over the pictures' files, kept in the user's cache by the fingerprint that datasets gives."""
    kept = cache_folder() / "content" / f"hub-{digest(rows._fingerprint, column, digits=16)}"
    with suppress(OSError):
        return kept.read_text()

    def identity(cell: dict[str, Any] | None) -> str:
        if cell is None:
            return "none;"
        return checksum(Path(cell["path"])) if cell["bytes"] is None else digest(cell["bytes"])

    found = digest(*(identity(cell) for part in rows.iter(256) for cell in part[column]))
    with suppress(OSError):
        write_atomic(kept, found)
    return found


def _texts(rows: dict[str, Any], classes: dict[str, torch.Tensor], options: HubOptions) -> Data:
    parts, index = list[bytes](), list[torch.Tensor]()
    for part in rows.values():
        own = [text.encode() for text in part[options.column] if text]
        index.append(torch.arange(len(parts), len(parts) + len(own)))
        parts += own
    return documents_of(Hub.name, parts, index, options.path, options.unit, options.context)


def _vectors(rows: dict[str, Any], classes: dict[str, torch.Tensor], options: HubOptions) -> Data:
    column = options.column
    arrays = {split: part.select_columns([column]).with_format("numpy")[:][column] for split, part in rows.items()}
    data = vectors_of(Hub.name, arrays, options.levels, f"{options.path}: column {column}")
    split_of: Any = data.split
    with_labels = {split: TensorSplit(split_of(split).x, classes.get(split)) for split in SPLITS}
    return replace(data, **with_labels)
