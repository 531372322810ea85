"""Pack a run of VQ latents of Fashion-MNIST for ``mar demo``: averaged weights in half precision, 100 test images.

usage: python scripts/bundled_run.py RUN TOKENIZER FASHION-MNIST OUT    # before it: mar/demo/fashion-mnist/README.md
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import mar
from mar import config
from mar.data import DATA
from mar.data.base import evenly_spaced
from mar.tokenizers.autoencoder import WEIGHTS, AutoencoderFolder
from mar.training import checkpoint
from mar.training.run_folder import RunFolder

VQ, IMAGES = "fashion-mnist-vq", 100


def half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: x.half().contiguous() if x.is_floating_point() else x.contiguous() for name, x in state.items()}


def main() -> None:
    run, tokenizer, out = mar.load(sys.argv[1]), Path(sys.argv[2], "autoencoder"), Path(sys.argv[4])
    source = DATA["fashion-mnist"]
    data = source.load(source.Options(path=sys.argv[3]))
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    final = out / "checkpoints" / f"{run.checkpoint.iteration:08d}"
    final.mkdir(parents=True)
    (out / VQ).mkdir(exist_ok=True)
    shutil.copyfile(tokenizer / "config.json", out / VQ / "config.json")
    save_file(half(load_file(tokenizer / WEIGHTS)), out / VQ / WEIGHTS)
    state = half(run.model.state_dict())
    checksum = next(name for name in state if name.endswith("checksum"))
    state[checksum] = torch.tensor(list(bytes.fromhex(AutoencoderFolder(out / VQ).sha256)), dtype=torch.uint8)
    save_file(state, final / "model.safetensors")  # the averaged weights
    save_file({}, final / "ema.safetensors")
    checkpoint.seal(final, run.checkpoint.iteration)
    content = run.recipe.as_dict()
    content |= {"name": "fashion-mnist", "data": {"kind": "memory"}, "tokenizer": {"kind": "vq", "path": VQ}}
    content["train"]["iterations"] = run.checkpoint.iteration
    RunFolder(out).write_description(config.parse(content), data.about)
    (out / "environment.json").write_text(json.dumps({"started_in": "."}))
    x, label = data.test.batch(evenly_spaced(len(data.test), IMAGES))
    assert label is not None, "Fashion-MNIST has classes"
    np.savez_compressed(out / "test.npz", images=x[:, 0].numpy(), labels=label.numpy().astype(np.uint8))
    print(f"{out}: {sum(file.stat().st_size for file in out.rglob('*.safetensors')):,} bytes of weights")


if __name__ == "__main__":
    main()
