"""Record the golden numbers and folders: ``python -m tests.golden.record [folders] [numbers] [fingerprints]``.

The files here were recorded at revision 7eb5ad5. ``folders`` runs at that revision alone: the tests hold every later
one against files that it wrote. Numbers are recorded from these folders.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from tests.golden import adapter, worker
from tests.golden.worker import HERE, OLD_RUN, OLD_STORE, OLD_TOKENIZER, mar

GIVEN = ("given.data=DATA", "given.kl=KL", "given.vq=VQ")


def make_folders() -> dict[str, Any]:
    """Write every folder of old files; in a process of its own, in an empty folder."""
    mar("train", *OLD_RUN, "--out", "run")
    whole = worker.metrics("run")
    cut("run")
    mar("score", "run", "--nll", "--plans", "raster,random/cosine:8", "-n", "16")
    mar("score", "run", "--sets", "--plans", "random", "-n", "16", "--ks", "4")
    mar("score", "run", "--exposure", "--plans", "raster/cosine:8", "-n", "16")
    mar("generate", *OLD_STORE, "-n", "16")
    mar("tokenizer", "train", *OLD_TOKENIZER, "--out", "tokenizer")
    tokenizer = worker.metrics("tokenizer")
    autoencoder = ("--iterations", "5", "--batch-size", "16", "--precision", "fp32")
    mar(
        "tokenizer",
        "train",
        "digits",
        "--kind",
        "kl",
        "--channels",
        "8,8,8",
        "--latent",
        "1",
        *autoencoder,
        "--out",
        "kl",
    )
    mar("cache", "digits", "--tokenizer", "kl", "--precision", "float16", "--out", "cache-kl")
    mar("cache", "digits", "--tokenizer", "tokenizer", "--out", "cache-vq")
    cut("tokenizer")
    shutil.rmtree("tokenizer/autoencoder")
    shutil.rmtree("tokenizer/scores")
    shutil.copy(HERE / "ablation.yaml", "ablation.yaml")
    mar("ablate", "ablation.yaml", "--out", "ablation")
    Path("features").mkdir()
    for path in Path("ablation/features").iterdir():
        if "-360-" not in path.name:
            shutil.move(path, Path("features"))
    shutil.rmtree("ablation/features")
    names = {"ablation": ("ablation", "ablation.yaml")}
    for name in ("run", "store", "tokenizer", "cache-kl", "cache-vq", "features", "ablation"):
        pack(name, names.get(name, (name,)))
    return {"run": whole, "tokenizer": tokenizer}


def cut(run: str) -> None:
    """Take a run of ten iterations back to the fifth, as a kill after its checkpoint leaves it."""
    shutil.rmtree(Path(run, "checkpoints", "00000010"))
    lines = Path(run, "metrics.jsonl").read_text().splitlines(keepends=True)
    Path(run, "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["iteration"] <= 5))


def pack(name: str, paths: tuple[str, ...]) -> None:
    """An archive without owners, and without the pages and pictures that a command draws anew."""

    def kept(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        drawn = Path(entry.name).suffix in (".png", ".html") and "cells" not in entry.name
        left_out = drawn or "tensorboard" in entry.name
        return None if left_out else entry

    file = HERE / "folders" / f"{name}.tar.gz"
    with gzip.GzipFile(file, "wb", 9, mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as archive:
        for path in paths:
            archive.add(path, filter=kept)


def fingerprints() -> dict[str, Any]:
    """Of every shipped recipe and of every cell of every shipped grid: its settings, fingerprint and content."""
    recipes = {f"recipe {name}": of_recipe(name) for name in adapter.recipe_names()}
    return recipes | {f"grid {name}": of_grid(name) for name in adapter.grid_names()}


def of_recipe(name: str) -> str:
    """Fingerprint and digest of the resolved recipe."""
    return f"{adapter.recipe_fingerprint(name)} {digest(adapter.resolved_recipe(name))}"


def of_grid(name: str) -> list[str]:
    """A line for each cell: fingerprint, digest of the resolved recipe, settings."""
    cells = adapter.grid_recipes(name, GIVEN)
    return [
        f"{fingerprint} {digest(content)} " + ", ".join(f"{axis}={value}" for axis, value in settings.items())
        for settings, content, fingerprint in cells
    ]


def digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def write(name: str, content: dict[str, Any]) -> None:
    """One line for each key."""
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items())
    (HERE / "recorded" / f"{name}.json").write_text(f"{{\n{lines}\n}}\n")


def main(what: list[str]) -> None:
    if "folders" in what:
        with tempfile.TemporaryDirectory() as folder:
            write("whole", worker.start("make", Path(folder), "tests.golden.record")["whole"])
    if "fingerprints" in what:
        write("fingerprints", fingerprints())
    if "numbers" in what:
        for group in ("networks", "measures", "folders"):
            with tempfile.TemporaryDirectory() as folder:
                found = worker.start(group, Path(folder))
            for key, value in found.items():
                if isinstance(value, dict) and "error" in value:
                    raise SystemExit(f"{key}: {value['error']}")
            write(group, found)


if __name__ == "__main__":
    if sys.argv[1:] == ["make"]:
        worker.GROUPS["make"] = lambda: {"whole": make_folders}
        worker.main("make")
    else:
        main(sys.argv[1:] or ["folders", "numbers", "fingerprints"])
