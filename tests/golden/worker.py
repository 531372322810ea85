"""Compute the golden numbers in a process of its own: ``python -m tests.golden.worker GROUP`` in an empty folder.

The worker uses the surfaces that stay: ``python -m mar …``, ``mar.load``, ``Run.nll`` and ``Run.sample``, and the files
that commands write. Every command runs in this one process, because importing torch takes longer than the commands.
A group writes GROUP.json: key -> value, or {"error": traceback} of the key alone.
"""

from __future__ import annotations

import csv
import json
import os
import runpy
import shutil
import subprocess
import sys
import tarfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]

# Every CPU computes with the same kernels, in the same order.
ENVIRONMENT = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}

SMALL = (
    "train.batch_size=32", "train.log_every=1", "train.precision=fp32", "train.compile=false", "train.sample_every=0",
    "train.validate_every=25", "train.validation_examples=72", "train.learning_rate=2e-3", "train.schedule.warmup=10",
    "train.ema=0.9",
)  # fmt: skip
TRANSFORMER = (
    "network.encoder_width=32", "network.encoder_depth=1", "network.encoder_heads=2", "network.decoder_width=32",
    "network.decoder_depth=1", "network.decoder_heads=2",
)  # fmt: skip
THIN = tuple(text.replace("32", "8") for text in TRANSFORMER)
NETWORKS = {
    "masked-transformer": ("digits", *TRANSFORMER),
    "causal-transformer": ("digits", "network=causal-transformer", "network.width=32", "network.depth=1",
                           "network.heads=2"),
    "made": ("digits", "network=made", "network.widths=[64]"),
    "wavenet": ("digits", "network=wavenet", "network.width=16"),
    "diffusion": ("digits-diffusion", *TRANSFORMER, "head.width=32", "head.depth=1", "head.timesteps=100"),
}  # fmt: skip
PLANS = ("raster", "spiral/cosine:8", "random", "hilbert/equal:8")
OLD_RUN = (
    "digits", *SMALL, *THIN, "train.iterations=10", "train.validate_every=5", "train.save_every=5",
    "train.batch_size=16", "network.projection_dropout=0.1",
)  # fmt: skip
OLD_TOKENIZER = (
    "digits", "--kind", "vq", "--channels", "8,8", "--latent", "2", "--codebook", "16", "--batch-size", "16",
    "--iterations", "10", "--save-every", "5", "--precision", "fp32",
)  # fmt: skip
OLD_STORE = ("run", "--out", "store", "--plan", "spiral/cosine:8", "--shard", "8", "--class", "3", "--class", "5")
OLD_CACHES = {
    "kl": ("fashion-kl", "data.path=cache-kl", "head.width=16", "head.depth=1"),
    "vq": ("fashion-vq", "data.path=cache-vq"),
}


def start(group: str, folder: Path, module: str = "tests.golden.worker") -> dict[str, Any]:
    """Run a group in ``folder`` and return what it wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": str(CHECKOUT), "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", module, group]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if not (folder / f"{group}.json").is_file():
        raise RuntimeError(f"{group} ended with {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return json.loads((folder / f"{group}.json").read_text())


def mar(*arguments: str) -> None:
    """Run ``mar ARGUMENTS`` as ``python -m mar`` does. Raises RuntimeError: it ended with an error."""
    sys.argv = ["mar", *arguments]
    try:
        runpy.run_module("mar", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"mar {' '.join(arguments)} ended with {end.code}") from None


def metrics(run: str) -> list[dict[str, float]]:
    """The logged lines of a run or a tokenizer's run, without times."""
    lines = map(json.loads, Path(run, "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if "second" not in key} for line in lines]


def table(path: str) -> list[dict[str, str]]:
    """The rows of a CSV, without columns of time and speed."""
    with Path(path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if "second" not in key} for row in rows]


def scored(run: str, plan: str, limit: int = 32, **options: Any) -> dict[str, Any]:
    """The likelihood of ``limit`` test images along a plan."""
    import mar as package

    found = package.load(run, device="cpu").nll(plan=plan, limit=limit, **options)
    return {"kind": found.kind, "plan": found.plan, "nats_of_image": list(found.nats_of_image)}


def sampled(run: str, plan: str, n: int = 8, **options: Any) -> list[str]:
    """The levels of ``n`` generated images, row-major, as hexadecimal digits."""
    import mar as package

    x_NCHW = package.load(run, device="cpu").sample(n, plan=plan, seed=3, **options)
    return [bytes(x.flatten().tolist()).hex() for x in x_NCHW]


def inpainted(run: str) -> list[str]:
    """The lower half of test images is generated, the upper half given."""
    import torch

    import mar as package

    loaded = package.load(run, device="cpu")
    images, _ = loaded.subset("test", 8)
    n_tokens = len(loaded.grid)
    return sampled(run, "random/cosine:8", given=images, mask=torch.arange(n_tokens) >= n_tokens // 2)


def unpacked(*names: str) -> None:
    for name in names:
        with tarfile.open(HERE / "folders" / f"{name}.tar.gz") as archive:
            archive.extractall(".", filter="data")


def changes(before: dict[str, int], folder: str, pattern: str) -> list[str]:
    """Files whose time of change is another than before, or that are new or gone."""
    after = times(folder, pattern)
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def times(folder: str, pattern: str) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path(folder).glob(pattern)}


def network(name: str) -> dict[str, Callable[[], Any]]:
    def trained() -> Any:
        recipe, *overrides = NETWORKS[name]
        mar("train", recipe, *overrides, *SMALL, "train.iterations=50", "train.save_every=50", "--out", name)
        return metrics(name)

    steps: dict[str, Callable[[], Any]] = {"training": trained}
    steps |= {f"nll {plan}": lambda plan=plan: scored(name, plan) for plan in PLANS}
    steps |= {f"sample {plan}": lambda plan=plan: sampled(name, plan) for plan in ("random", "hilbert/equal:8")}
    if name in ("masked-transformer", "diffusion"):
        steps["sample inpainted"] = lambda: inpainted(name)
        steps["sample guided"] = lambda: sampled(name, "random/cosine:8", guidance=3.0)
        steps["sample remasked"] = lambda: sampled(name, "random/cosine:8", remask="random:4:0.25")
    if name == "masked-transformer":
        steps["sample adaptive"] = lambda: sampled(name, "random/equal:8", adaptive="lowest-entropy")
        steps["nll adaptive"] = lambda: scored(name, "lowest-entropy/equal:8")
    if name == "causal-transformer":
        steps["sample guided"] = lambda: sampled(name, "spiral", guidance=3.0, temperature=0.8)
    return {f"{name}: {key}": step for key, step in steps.items()}


def measures() -> dict[str, Callable[[], Any]]:
    def classifier(folder: str) -> None:
        shutil.copytree("features", folder, dirs_exist_ok=True)

    def scores(path: str | Path) -> dict[str, Any]:
        content = json.loads(Path(path).read_text())
        del content["environment"]
        return content

    def of_store() -> Any:
        unpacked("features", "run")
        classifier("cache/mar")
        mar("generate", "run", "--out", "generated", "-n", "64", "--plan", "random/cosine:8")
        mar("fid", "generated", "--against", "run", "--out", "fid.json")
        return scores("fid.json")

    def of_run() -> Any:
        classifier("run/scores/features")
        before = times("run/scores/features", "classifier*")
        mar("fid", "run", "-n", "64", "--plans", "raster/cosine:8")
        assert not changes(before, "run/scores/features", "classifier*")
        (path,) = Path("run/scores").glob("fid-raster*.json")
        return scores(path)

    def of_grid() -> Any:
        classifier("grid/features")
        mar("ablate", str(HERE / "grid.yaml"), "--out", "grid")
        return table("grid/table.csv")

    return {"fid of a store": of_store, "fid of a run": of_run, "grid": of_grid}


def folders() -> dict[str, Callable[[], Any]]:
    def run_scores() -> Any:
        unpacked("run", "store", "cache-kl", "cache-vq", "tokenizer", "ablation")
        return [scored("run", plan) for plan in ("raster", "random/cosine:8", "random/optimal:4")]

    def store_is_finished() -> Any:
        before = times("store", "*.safetensors")
        mar("generate", *OLD_STORE, "-n", "16")
        return {"shards": len(before), "changed": changes(before, "store", "*.safetensors")}

    def store_grows() -> Any:
        from safetensors.torch import load_file

        before = times("store", "*.safetensors")
        mar("generate", *OLD_STORE, "-n", "24")
        shards = sorted(Path("store").glob("*.safetensors"))
        images = [bytes(x.flatten().tolist()).hex() for shard in shards for x in load_file(shard)["x"]]
        return {"changed": changes(before, "store", "*.safetensors"), "images": images}

    def run_goes_on() -> Any:
        before = times("run", "scores/*.json")
        mar("train", *OLD_RUN, "--out", "run")
        return {"metrics": metrics("run"), "changed scores": changes(before, "run", "scores/*.json"),
                "scored": scored("run", "raster")}  # fmt: skip

    def tokenizer_goes_on() -> Any:
        mar("tokenizer", "train", *OLD_TOKENIZER, "--out", "tokenizer")
        record = json.loads(Path("tokenizer/scores/reconstruction.json").read_text())
        return {"metrics": metrics("tokenizer"),
                **{key: record[key] for key in ("mean_square_error", "psnr_db", "codebook_perplexity")}}  # fmt: skip

    def cache_trains(kind: str) -> Any:
        recipe, *overrides = OLD_CACHES[kind]
        out = f"run-{kind}"
        mar("train", recipe, *overrides, *SMALL, *THIN, "train.iterations=3", "--out", out)
        return {"metrics": metrics(out), "samples": sampled(out, "random/cosine:2", 4)}

    def cache_is_finished(kind: str) -> Any:
        before = times(f"cache-{kind}", "**/*.safetensors")
        options = ("--precision", "float16") if kind == "kl" else ()
        mar("cache", "digits", "--tokenizer", f"cache-{kind}/tokenizer", *options, "--out", f"cache-{kind}")
        return {"shards": len(before), "changed": changes(before, f"cache-{kind}", "**/*.safetensors")}

    def ablation_is_finished() -> Any:
        before, old = times("ablation", "cells/**/*.json"), table("ablation/table.csv")
        runs = times("ablation", "runs/**/*.*")
        mar("ablate", "ablation.yaml", "--out", "ablation")
        changed = changes(before, "ablation", "cells/**/*.json") + changes(runs, "ablation", "runs/**/*.*")
        return {"records": len(before), "changed": changed, "before": old, "after": table("ablation/table.csv")}

    return {
        "run scores": run_scores, "store is finished": store_is_finished, "store grows": store_grows,
        "run goes on": run_goes_on, "tokenizer goes on": tokenizer_goes_on,
        "cache kl is finished": lambda: cache_is_finished("kl"),
        "cache vq is finished": lambda: cache_is_finished("vq"),
        "cache kl trains": lambda: cache_trains("kl"), "cache vq trains": lambda: cache_trains("vq"),
        "ablation is finished": ablation_is_finished,
    }  # fmt: skip


def networks() -> dict[str, Callable[[], Any]]:
    return {key: step for name in NETWORKS for key, step in network(name).items()}


GROUPS: dict[str, Callable[[], dict[str, Callable[[], Any]]]] = {
    "networks": networks, "measures": measures, "folders": folders,
}  # fmt: skip


def main(group: str) -> None:
    found: dict[str, Any] = {}
    for key, step in GROUPS[group]().items():
        try:
            found[key] = step()
        except Exception:
            found[key] = {"error": traceback.format_exc()}
    Path(f"{group}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
