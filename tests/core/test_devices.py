"""The choice of a device; numbers on a device without float64 are those of the CPU."""

import sys

import pytest
import torch

from mar import build, config
from mar.core import devices
from mar.core.errors import UserError
from mar.core.noise import stream
from mar.core.processes import Processes
from mar.likelihood.chain import conditionals
from mar.model.model import sampling_options
from mar.model.plans import Plans
from mar.sampling.many import Settings, labels_of, sample_many
from mar.sampling.remask import parse_remask
from orderings import Grid


@pytest.fixture
def machine(monkeypatch):
    """Declare which devices exist."""

    def has(*names: str) -> None:
        monkeypatch.delenv("MAR_DEVICE", raising=False)
        for name, backend in (("cuda", torch.cuda), ("xpu", torch.xpu), ("mps", torch.backends.mps)):
            monkeypatch.setattr(backend, "is_available", lambda found=name in names: found)

    return has


def test_the_device_asked_for_comes_before_that_of_the_environment(machine, monkeypatch):
    machine("cuda", "mps")
    assert devices.choose() == "cuda" and devices.choose("mps") == "mps" and devices.choose("cuda:1") == "cuda:1"
    monkeypatch.setenv("MAR_DEVICE", "cpu")
    assert devices.choose() == "cpu" and devices.choose("cuda") == "cuda"
    machine("mps")
    assert devices.choose() == "cpu"  # mps only where it is asked for
    for name, words in (("xpu", "sees no xpu device"), ("tpu", "unknown device"), ("cuda", "sees no cuda")):
        with pytest.raises(UserError, match=words):
            devices.choose(name)
        with pytest.raises(UserError, match=words):
            Processes(device=name)
    with pytest.raises(UserError, match="written cuda or cuda:1, not cpu:x"):
        devices.choose("cpu:x")
    machine("cuda", "xpu")
    with pytest.raises(UserError, match="CUDA GPUs, which come first"):
        Processes(device="xpu")


def test_the_device_is_said_once(machine, capsys):
    machine()
    devices._say.cache_clear()
    assert devices.chosen().type == devices.chosen().type == "cpu"
    assert capsys.readouterr().err.count("computing on cpu") == 1


def run(
    device: str, recipe: str, *overrides: str, remask: str = "", rule: str = "", **options: object
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score and sample with the model of a recipe, not trained."""
    torch.manual_seed(0)
    small = [f"network.{part}_{size}" for part in ("encoder", "decoder") for size in ("width=16", "depth=1", "heads=2")]
    parts = build.assemble(config.read(recipe, [*small, *overrides]))
    parts.model.to(device).eval().requires_grad_(False)
    plans = Plans("random" if rule else "random/equal:4", Grid(parts.model.tokenizer.shape), None, torch.device(device))
    nats_NL = torch.zeros(1)
    if "head.kind=flow" not in overrides:  # its divergence wants gradients, which no pretended device has
        nats_NL = conditionals(parts.model, *parts.data.test.batch(torch.arange(3)), plans.scored, 0).nats_NL
    settings = Settings(seed=1, adaptive=rule or None, remask=parse_remask(remask) if remask else None)
    with sampling_options(parts.model, options):
        return nats_NL, sample_many(parts.model, labels_of(parts.model, None, 2), plans.sample, settings, 2)


@pytest.mark.parametrize(
    ("recipe", "overrides", "options"),
    [
        ("digits", [], {}),
        ("digits", [], {"remask": "confidence"}),
        ("digits", [], {"rule": "entropy-bound:20"}),
        ("digits-diffusion", ["head.width=16", "head.timesteps=20"], {"solver": "unipc", "steps": 4}),
        ("digits-diffusion", ["head.kind=flow", "head.width=16"], {"solver": "heun", "steps": 3}),
    ],
)
def test_a_device_without_float64_gives_the_numbers_of_the_cpu(monkeypatch, recipe, overrides, options):
    fake = pytest.importorskip("tests.core.fake_device", reason="this torch pretends no device", exc_type=ImportError)
    wanted = run("cpu", recipe, *overrides, **options)
    known = devices.has_float64
    for module in [module for name, module in sys.modules.items() if name.startswith("mar.")]:
        if hasattr(module, "has_float64"):
            monkeypatch.setattr(module, "has_float64", lambda kind: kind != fake.NAME and known(kind))
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with fake.fake_device() as device:
            noise = stream(3, "x", 5, device)
            with pytest.raises(TypeError, match="no float64"):
                noise.uniform(2).double()  # a planted bug is seen
            assert noise.normal(7).device.type == noise.gumbel(7).device.type == fake.NAME
            found = run(device, recipe, *overrides, **options)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(other.cpu(), one, atol=1e-5, rtol=0)
