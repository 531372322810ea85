"""Runs on the Hugging Face hub: save_pretrained, from_pretrained, push_to_hub, with a generated model card.

A repository is a run folder without its training: recipe, weights and averaged weights as safetensors, metadata of the
data, and the autoencoder of the latents. ``mar.load`` reads a clone of it.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelHubMixin
from omegaconf import OmegaConf

from mar import build
from mar.config import Recipe, parse
from mar.core.errors import UserError
from mar.core.hub import answered, snapshot
from mar.core.table import Column, Table
from mar.run import Run
from mar.tokenizers.autoencoder import AutoencoderTokenizer
from mar.training import checkpoint
from mar.training.run_folder import RunFolder

_WEIGHTS = ("model.safetensors", "ema.safetensors")
_AUTOENCODER = "autoencoder"
_CARD = """---
{{ card_data }}
---

# {{ name }}

{{ what }} Made with mar-orderings: autoregressive generation in any order and any grouping of tokens.

```python
from mar.compat.hub import PretrainedRun

run = PretrainedRun.from_pretrained("{{ repo_id }}")
images = run.sample(16, plan="{{ plan }}")
```

| | |
|---|---|
| parameters | {{ parameters }} |
| examples | {{ examples }} |
| tokens | {{ tokens }} |
| network, head | {{ network }}, {{ head }} |
| trained along | {{ plan }}, {{ iterations }} iterations |

{{ notes }}

## Scores

{{ scores }}

## Recipe

```yaml
{{ recipe }}```
"""


class PretrainedRun(
    Run,
    ModelHubMixin,
    library_name="mar-orderings",
    paper_url="https://arxiv.org/abs/2406.11838",
    model_card_template=_CARD,
    tags=["autoregressive", "any-order"],
):
    """A run with the hub's methods: save to a folder (``save_pretrained``), read from a folder or the hub
    (``from_pretrained``), upload (``push_to_hub``). ``PretrainedRun("runs/x")`` loads the run ``runs/x``."""

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write the run into a new or empty folder, or raise UserError. ``options``: those of the hub's mixin."""
        folder = Path(save_directory)
        if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
            raise UserError(f"{folder} is not empty: choose another folder, or delete it")
        card = {"repo_id": folder.resolve().name, **(options.pop("model_card_kwargs", None) or {})}
        return super().save_pretrained(folder, model_card_kwargs=card, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        into = save_directory / "checkpoints" / self.checkpoint.path.name
        into.mkdir(parents=True)
        for name in _WEIGHTS:
            shutil.copyfile(self.checkpoint.path / name, into / name)
        checkpoint.seal(into, self.checkpoint.iteration, self.trained)
        if self.recipe.train.until == "plateau":  # its validations say where it ends
            shutil.copyfile(self.folder.metrics, save_directory / self.folder.metrics.name)
        if isinstance(self.model.tokenizer, AutoencoderTokenizer):
            shutil.copytree(self.model.tokenizer.folder.path, save_directory / _AUTOENCODER, dirs_exist_ok=True)
        spec = self.spec
        if spec.latents is not None:
            spec = replace(spec, latents=replace(spec.latents, folder=""))
        RunFolder(save_directory).write_description(self.portable, replace(self.about, spec=spec))
        (save_directory / "config.json").write_text(json.dumps(self.portable.as_dict(), indent=1))

    @property
    def portable(self) -> Recipe:
        """The recipe without paths of this machine; an autoencoder's path is that of its copy beside the recipe."""
        content = build.resolve(self.recipe).as_dict()
        content["data"] |= dict.fromkeys(content["data"].keys() & {"path", "images"}, "")
        if "/" in (unit := content["data"].get("unit", "")):  # a tokenizer; it is in the metadata of the data
            content["data"]["unit"] = f"./{Path(unit).name}"
        if isinstance(self.model.tokenizer, AutoencoderTokenizer):
            content["tokenizer"]["path"] = _AUTOENCODER
        return parse(content)

    @classmethod
    def from_pretrained(cls, name: str | Path, **options: Any) -> PretrainedRun:
        """Load the run of a folder, or of a repository of the hub, or raise UserError.

        ``options``: those of the hub's mixin (revision, token, cache_dir, …) and of ``Run`` (ema, device).
        """
        with answered(f"{name} is no folder, and the hub did not give it", "or give its folder"):
            return super().from_pretrained(name, **options)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> PretrainedRun:
        names = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        hub = {name: options.pop(name) for name in names}
        return cls(model_id if Path(model_id).is_dir() else snapshot(model_id, **hub), **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the run as ``OWNER/NAME``; return the commit's address, or raise UserError with the hub's reason."""
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
            raise UserError(f"{repo_id!r} is no name on the hub: it is OWNER/NAME, e.g. me/digits")
        options["model_card_kwargs"] = {"repo_id": repo_id, **(options.get("model_card_kwargs") or {})}
        with answered(f"the hub did not take {repo_id}", "and log in with hf auth login"):
            return super().push_to_hub(repo_id, **options)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Write the card from the recipe, the metadata of the data and the scores in the run folder."""
        spec = self.spec
        kinds = {"latent": "image latent", "audio": "sound"}
        kind, shape = kinds.get(spec.modality, spec.modality), "x".join(map(str, spec.shape))
        known = self.about.fingerprint  # an imported run does not say
        of = f"A model of {self.about.name}" if known else "A model whose training data are not recorded"
        classes = f"{self.model.n_classes} classes" if self.model.n_classes else "without classes"
        described = {
            "name": self.recipe.name, "repo_id": self.recipe.name, "examples": f"{kind}s, {shape}",
            "what": f"{of}: {kind}s of shape {shape}, {classes}.",
            "parameters": f"{sum(p.numel() for p in self.model.parameters()):,}",
            "tokens": f"{'x'.join(map(str, self.grid.shape))} of {self.model.tokenizer.token}",
            "network": self.recipe.network.kind, "head": self.recipe.head.kind, "plan": self.training_plan,
            "iterations": f"{self.checkpoint.iteration:,}", "scores": self._scores(),
            "notes": " ".join(f"{note.capitalize()}." for note in self.about.notes.values()),
            "recipe": OmegaConf.to_yaml(OmegaConf.create(self.portable.as_dict())),
        }  # fmt: skip
        data = self._hub_mixin_info.model_card_data
        return ModelCard.from_template(card_data=data, template_str=_CARD, **{**described, **kwargs})

    def _scores(self) -> str:
        """Return a table of the likelihoods and FIDs in RUN/scores, or a line if there are none."""
        rows = []
        for path in sorted((self.folder.path / "scores").glob("*.json")):
            record = json.loads(path.read_text())
            if not isinstance(record, dict):
                continue
            if "nats_per_image" in record:
                figures = f"{record['nats_per_image']:.2f} ± {record['standard_error_nats']:.2f} nats, {record['kind']}"
                rows.append((record["plan"], "NLL", figures, record["n_images"]))
            elif isinstance(generated := record.get("generated"), dict):
                rows.append((record.get("plan", ""), "FID", f"{generated['fid']:.2f}", generated["n_images"]))
        if not rows:
            return "None was measured with this run."
        heads = ("plan", "figure", "value", "images")
        columns = [Column[tuple[Any, ...]](head, lambda row, k=k: row[k], words=True) for k, head in enumerate(heads)]
        return Table(columns, rows).markdown().rstrip()
