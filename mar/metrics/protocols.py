"""Protocols of published FIDs: how many images, against which reference, with which features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mar.core.errors import UserError, unknown
from mar.metrics.images import BEFORE_TEST, FeatureSettings, Images, Reference, Statistics

_ADM = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/imagenet/256"
_ADM_FILE = f"{_ADM}/VIRTUAL_imagenet256_labeled.npz"


@dataclass(frozen=True)
class Protocol:
    """A protocol; ``said`` is printed beside its numbers."""

    said: str
    n: int
    split: str  # of a data set
    spatial: bool
    fits: Callable[[Reference], bool]
    reference: str  # what ``fits`` asks for

    def check(self, reference: Reference) -> None:
        """Raise UserError unless the reference is that of the protocol."""
        if not self.fits(reference):
            raise UserError(f"--protocol needs another reference than {reference.name}: {self.reference}")


def _is_adms(reference: Reference) -> bool:
    return isinstance(reference, Statistics) and reference.images is not None and reference.spatial is not None


def _is_cifar10(reference: Reference) -> bool:
    n = len(reference.split) if isinstance(reference, Images) else reference.n_images
    return n == 50_000 and reference.spec is not None and reference.spec.shape == (3, 32, 32)


PROTOCOLS = {
    "adm": Protocol(
        "protocol adm: 50,000 images, FID and sFID against the statistics of ADM's reference file, precision and "
        "recall against its images, Inception in torch-fidelity's port (Dhariwal & Nichol 2021)",
        50_000, "test", True, _is_adms, f"--against ADM's reference file with arr_0, mu and mu_s ({_ADM_FILE})",
    ),
    "cifar10": Protocol(
        "protocol cifar10: 50,000 images against the 50,000 training images, Inception in torch-fidelity's port "
        "(Ho et al. 2020)",
        50_000, BEFORE_TEST, False, _is_cifar10, "the 50,000 training images of CIFAR-10 (--against cifar10:PATH)",
    ),
}  # fmt: skip


def apply(
    name: str, n: int | None, split: str, features: FeatureSettings
) -> tuple[int | None, str, FeatureSettings]:  # fmt: skip
    """Return n, split and features as the protocol ``name`` sets them; as given without a name.

    Raises UserError: there is no such protocol, or an option says otherwise.
    """
    if not name:
        return n, split, features
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    found = PROTOCOLS[name]
    if n not in (None, found.n):
        raise UserError(f"--protocol {name} takes {found.n:,} images: leave out -n {n}, or --protocol")
    if features.resize:
        raise UserError(f"--protocol {name} resizes as torch-fidelity: leave out --resize {features.resize}")
    if features.extractor not in ("auto", "inception"):
        raise UserError(f"--protocol {name} takes Inception's features: leave out --features {features.extractor}")
    return found.n, found.split, replace(features, extractor="inception", spatial=found.spatial or features.spatial)
