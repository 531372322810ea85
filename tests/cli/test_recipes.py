"""Every shipped recipe is loaded and checked, where its data are absent, too."""

from __future__ import annotations

import pytest
import torch

from mar import build, config
from mar.config import Component, recipe_names, recipe_path
from mar.core.noise import stream
from mar.core.spec import DataSpec
from mar.core.tokens import Categories
from mar.data.base import About
from mar.heads import HEADS
from mar.heads.denoiser import Denoiser
from mar.networks import NETWORKS
from mar.networks.masked_transformer import MaskedTransformer
from mar.training.objectives import AnyOrder, Losses
from orderings import Grid, Plan

IMAGENET = About("imagenet", DataSpec((3, 256, 256), 256, 1000), "")
LATENT = [name for name in recipe_names() if name.startswith("imagenet256-")]


@pytest.mark.parametrize("name", recipe_names())
def test_every_key_and_option_is_known(name):
    recipe = build.resolve(config.read(name))
    assert build.resolve(recipe) == recipe and recipe.name == name


@pytest.mark.parametrize("name", recipe_names())
def test_the_header_says_the_command_the_time_and_the_score(name):
    header = [line for line in recipe_path(name).read_text().splitlines() if line.startswith("#")]
    assert header[0].startswith(f"# mar train {name}")
    assert "time" in " ".join(header).lower() and len(header) >= 2


@pytest.fixture(scope="module")
def autoencoders(tmp_path_factory):
    """A KL and a VQ model of KL-16's grid, hardly wider than a thread."""
    from mar.core import torchvision  # noqa: F401, I001 - before diffusers
    from diffusers import AutoencoderKL, VQModel

    folder = tmp_path_factory.mktemp("autoencoders")
    down, up = ("DownEncoderBlock2D",) * 5, ("UpDecoderBlock2D",) * 5
    common = {"down_block_types": down, "up_block_types": up, "block_out_channels": (8,) * 5, "norm_num_groups": 8}
    AutoencoderKL(latent_channels=16, **common).save_pretrained(folder / "kl")
    VQModel(latent_channels=4, num_vq_embeddings=64, **common).save_pretrained(folder / "vq")
    return folder


@pytest.mark.parametrize("name", LATENT)
def test_recipes_of_imagenet_train_on_such_latents(name, autoencoders):
    recipe = config.read(name)
    small = {"width": "16", "depth": "1", "heads": "2"}
    parts = [""] if recipe.network.kind == "causal-transformer" else ["encoder_", "decoder_"]
    overrides = [f"network.{part}{key}={value}" for part in parts for key, value in small.items()]
    overrides += ["head.width=16", "head.depth=1"] if recipe.head.kind == "diffusion" else []
    recipe = config.read(name, [*overrides, f"tokenizer.path={autoencoders / recipe.tokenizer.kind}"])
    model = build.assemble(recipe, IMAGENET).model
    rows, grid = torch.arange(2), Grid(model.tokenizer.shape)
    noise = stream(0, "test", 2)
    plan = Plan.sample(build.ordering(recipe), build.partition(recipe), grid, 2, noise)
    task = build.objective(recipe).task(plan, rows, stream(0, "test", 1), model.network.one_pass)
    kind = model.tokenizer.token
    width = 1 if isinstance(kind, Categories) else kind.width
    token = noise.normal(256 * width).reshape(2, 256, width)
    token = token[..., 0].long().clamp(min=0) if isinstance(kind, Categories) else token
    loss_B = Losses(model, AnyOrder())(token, rows, rows > 0, task, noise)
    loss_B.sum().backward()
    assert bool(loss_B.isfinite().all()) and plan.n_steps_B.tolist() == [64 if "-64-" in name else 256] * 2


@pytest.mark.parametrize("size, millions", [("base", 208), ("large", 479), ("huge", 943)])
def test_the_published_sizes_have_the_published_numbers_of_parameters(size, millions):
    recipe = config.read(f"imagenet256-mar-{size}")
    head = HEADS.options(recipe.head.kind, recipe.head.model_extra)
    with torch.device("meta"):
        network = MaskedTransformer((16, 16), NETWORKS.options(recipe.network.kind, recipe.network.model_extra))
        net = Denoiser(16, 32, network.context_width, head.width, head.depth, head.timesteps)
    count = sum(p.numel() for module in (network, net) for p in module.parameters()) + 1000 * network.condition_width
    assert count / 1e6 == pytest.approx(millions, abs=1.0)


def test_rows_of_table_1_differ_in_what_the_table_says_alone():
    rows = [config.read(name) for name in LATENT if "table1" in name]
    assert len(rows) == 8
    same = {"objective": Component(kind="any_order")}
    assert len({recipe.train.model_copy(update=same).model_dump_json() for recipe in rows}) == 1
    asked = {(r.ordering.kind, r.network.kind, r.head.kind, r.partition.kind) for r in rows}
    assert len(asked) == 8


def test_another_kind_drops_the_options_of_a_component_and_never_a_schedules_warm_up():
    content = {"network": {"kind": "made", "masks": 3}, "train": {"schedule": {"kind": "cosine", "warmup": 7}}}
    recipe = config.parse(content, ["network=gru", "train.schedule.kind=constant"])
    assert recipe.network.model_extra == {} and recipe.train.schedule.kind == "constant"
    assert recipe.train.schedule.warmup == 7
