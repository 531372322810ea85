"""Autoencoders of diffusers as tokenizers: found, checked, loaded at first use, and not trained here.

An autoencoder is a folder with ``config.json`` and ``diffusion_pytorch_model.safetensors``. Checkpoints hold its
checksum in place of its weights.

B batch · C latent channels · H, W rows, columns of an image · h, w of its latents · L tokens
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from mar.core.errors import UserError
from mar.core.files import digest
from mar.core.readers import read_json, reading
from mar.core.spec import DataSpec
from mar.tokenizers.base import Tokenizer, TokenizerOptions

WEIGHTS = "diffusion_pytorch_model.safetensors"
CLASSES = {"kl": "AutoencoderKL", "vq": "VQModel"}
_KEYS: dict[str, dict[str, type]] = {  # read from a configuration
    "AutoencoderKL": {"in_channels": int, "block_out_channels": list, "latent_channels": int},
    "VQModel": {"in_channels": int, "block_out_channels": list, "num_vq_embeddings": int},
}
_NESTED = ("", "autoencoder", "vae", "vqvae")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PIXELS_AT_ONCE = 2**20  # bounds the activations: 16 images of 256 x 256


@dataclass(frozen=True)
class AutoencoderFolder:
    """The folder of an autoencoder."""

    path: Path

    @staticmethod
    def find(path: str) -> AutoencoderFolder:
        """Find an autoencoder by its folder, a parent folder, or its hub name. Raises UserError if there is none."""
        if not path:
            hint = "it names an autoencoder's folder (mar tokenizer train) or hub name; a cache has its own"
            raise UserError(f"tokenizer.path is not set: {hint}")
        root = Path(path).expanduser()
        if not root.is_dir() and _HUB_NAME.fullmatch(path):
            root = _downloaded(path)
        for name in _NESTED:
            if (root / name / "config.json").is_file() and (root / name / WEIGHTS).is_file():
                return AutoencoderFolder(root / name)
        raise UserError(f"tokenizer.path={path} holds no autoencoder of diffusers: config.json and {WEIGHTS}")

    @property
    def files(self) -> tuple[Path, ...]:
        return self.path / "config.json", self.path / WEIGHTS

    @property
    def config(self) -> dict[str, Any]:
        """The configuration. Raises UserError: it is not readable, or lacks a key that the tokenizers read."""
        file = self.path / "config.json"
        config = read_json(file, "the configuration of an autoencoder")
        for key, kind in _KEYS.get(str(config.get("_class_name")), {}).items():
            if not isinstance(config.get(key), kind):
                held = f"{key}={config.get(key)!r}" if key in config else f"no {key}"
                raise UserError(f"{file} has {held}, which is no {kind.__name__}: save the autoencoder again")
        return config

    @property
    def kind(self) -> Literal["kl", "vq"]:
        """The kind of the tokenizer. Raises UserError: the autoencoder is of another class."""
        name = self.config.get("_class_name")
        if name == CLASSES["kl"] or name == CLASSES["vq"]:
            return "kl" if name == CLASSES["kl"] else "vq"
        raise UserError(f"{self.path} holds a {name}: tokenizers are {' and '.join(CLASSES.values())}")

    @property
    def sha256(self) -> str:
        """The sha256 of the parsed configuration and the weights."""
        config = {k: v for k, v in self.config.items() if not k.startswith("_") or k == "_class_name"}
        return digest(json.dumps(config, sort_keys=True), (self.path / WEIGHTS).read_bytes())

    def load(self) -> Any:
        """Load the model in evaluation mode. Raises UserError: the files do not fit each other."""
        from mar.core import torchvision  # noqa: F401, I001 - before diffusers
        import diffusers

        options = {"use_safetensors": True, "low_cpu_mem_usage": False, "local_files_only": True}
        with reading(self.path, "an autoencoder of diffusers"):
            cls = getattr(diffusers, CLASSES[self.kind])
            model, found = cls.from_pretrained(self.path, output_loading_info=True, **options)
        if missing := found["missing_keys"]:
            raise UserError(f"{self.path}: {WEIGHTS} lacks {len(missing)} tensors of config.json, first {missing[0]!r}")
        return model.eval().requires_grad_(False)


def _downloaded(name: str) -> Path:
    """Return the folder of a hub repository, from the local cache if possible."""
    from huggingface_hub import snapshot_download

    wanted = [f"{nested}/{file}".lstrip("/") for nested in _NESTED for file in ("config.json", WEIGHTS)]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, etag_timeout=5))
    except Exception as error:  # offline it raises any of several exception types
        raise UserError(
            f"tokenizer.path={name} is no folder, and the hub could not be asked for it ({type(error).__name__}): "
            "download it elsewhere and give its folder"
        ) from None


@dataclass(frozen=True)
class AutoencoderOptions(TokenizerOptions):
    path: str = ""  # a folder, or a hub name; "" with data.kind=cache: the cache's own


class AutoencoderTokenizer(Tokenizer):
    """Base of KL and VQ. ``encode`` takes images, or the latents of a cache."""

    Options = AutoencoderOptions
    kind: ClassVar[Literal["kl", "vq"]]
    reads_latents = True
    dimensions = 0
    checksum: torch.Tensor  # (32,) uint8

    def __init__(self, spec: DataSpec, options: AutoencoderOptions) -> None:
        super().__init__()
        self.spec, self.options = spec, options
        cached = spec.latents
        if cached is not None and cached.kind != self.kind:
            raise UserError(f"the cache holds latents of a {cached.kind} autoencoder: use tokenizer.kind={cached.kind}")
        if cached is not None and not options.path and not Path(cached.folder).is_dir():
            raise UserError(
                f"the cache of this run has moved from {Path(cached.folder).parent}: repeat its mar train command with "
                "data.path=… to tell it the place, or copy the cache back"
            )
        self.folder = AutoencoderFolder.find(options.path or (cached.folder if cached else ""))
        if (theirs := self.folder.kind) != self.kind:
            raise UserError(f"{self.folder.path} is a {CLASSES[theirs]}: use tokenizer.kind={theirs}")
        sha256 = self.folder.sha256
        if cached is not None and cached.sha256 not in ("", sha256):  # "": latents of another program
            raise UserError(f"{self.folder.path} is not the autoencoder that made the cache: leave tokenizer.path out")
        self.config = self.folder.config
        channels = self.config["in_channels"]
        if spec.modality != "image" or spec.shape[0] != channels or not 2 <= spec.levels <= 256:
            raise UserError(
                f"this autoencoder takes images of {channels} channels, not examples of shape {spec.shape} with "
                f"{spec.levels} levels: choose other data (data.colour), or train one on these (mar tokenizer train)"
            )
        self.latent_shape = latent_size(spec.shape[1:], 2 ** (len(self.config["block_out_channels"]) - 1))
        self.register_buffer("checksum", torch.frombuffer(bytearray.fromhex(sha256), dtype=torch.uint8))
        self._loaded: tuple[Any, ...] = ()  # not a submodule: not trained, averaged or saved

    def load(self) -> Any:
        """The frozen model on the tokenizer's device, loaded at first use. Raises UserError as ``folder.load``."""
        if not self._loaded:
            self._loaded = (self.folder.load(),)
        return self._loaded[0].to(self.checksum.device)

    def to_unit(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) levels -> [-1, 1]."""
        return x.float() * (2.0 / (self.spec.levels - 1)) - 1.0

    def to_levels(self, y: torch.Tensor) -> torch.Tensor:
        """[-1, 1] -> the nearest level, uint8. Raise UserError where the decoder gives no number."""
        if not bool(y.isfinite().all()):
            raise UserError(f"{self.folder.path}: the decoder gives values that are not finite: is the scale right?")
        return ((y.float() + 1.0) * ((self.spec.levels - 1) / 2.0)).round().clamp(0, self.spec.levels - 1).byte()

    def parts(self, tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Split a batch into parts whose activations fit in memory."""
        return tensor.split(max(1, _PIXELS_AT_ONCE // (self.spec.shape[1] * self.spec.shape[2])))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        saved = state_dict.get(f"{prefix}checksum")
        if saved is not None and not torch.equal(saved.cpu(), self.checksum.cpu()):
            own, theirs = (bytes(x.tolist()).hex()[:12] for x in (self.checksum, saved))
            raise UserError(
                f"{self.folder.path} is not the autoencoder that these weights were trained with (its sha256 starts "
                f"with {own}, theirs with {theirs}): put that one there, or change tokenizer.path"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


def latent_size(size: tuple[int, ...], factor: int) -> tuple[int, int]:
    """Return (H / factor, W / factor). Raises UserError with a factor that divides the size."""
    height, width = size
    if height % factor or width % factor:
        fitting = [str(2**k) for k in range(1, 6) if height % 2**k == width % 2**k == 0]
        raise UserError(
            f"{height}x{width} images do not divide by {factor}, the autoencoder's downsampling: use one of "
            f"{' or '.join(fitting) or '1'} (levels = 1 + log2 of it), or images of another size"
        )
    return height // factor, width // factor
