"""Conditions that are vectors: equal to classes where they must be, the contracts, a known dependence, bad input."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from mar import build, config
from mar.core.errors import UserError
from mar.core.noise import stream
from mar.core.spec import Conditions
from mar.core.tokens import Categories
from mar.data.conditions import with_rows
from mar.data.folder import Folder, FolderOptions
from mar.heads.categorical import CategoricalHead
from mar.likelihood.chain import read_walks, token_log_prob
from mar.model.inputs import conditions_of
from mar.model.model import Model, sampling_options
from mar.model.walk import along
from mar.networks import NETWORKS
from mar.networks.base import Network, NetworkOptions
from mar.networks.masked_transformer import MaskedTransformer
from mar.run import fit, load, train
from mar.sampling.guidance import Guidance
from mar.sampling.samplers import generate
from mar.verification.cases import plans
from mar.verification.models import (
    BareTokens,
    generation_is_keyed,
    likelihood_is_keyed,
    small_model,
    sums_to_one,
)
from orderings import Plan
from tests.likelihood.test_estimate import draw

NAN = math.nan
ONE = Conditions(3, (0.0,) * 3, (1.0,) * 3)
SEQUENCE = Conditions(2, (0.5, 0.5), (2.0, 1.0), length=3)


def test_one_hot_vectors_are_classes():
    classes = small_model(NETWORKS["masked-transformer"], CategoricalHead, (8,), Categories(3))
    two = Conditions(2, (0.0, 0.0), (1.0, 1.0))
    vectors = small_model(NETWORKS["masked-transformer"], CategoricalHead, (8,), Categories(3), two)
    weights = classes.state_dict()
    table_KC = weights.pop("classes.weight")
    linear = {"given.linear.weight": table_KC.T, "given.linear.bias": torch.zeros(table_KC.shape[1])}
    vectors.load_state_dict(weights | linear)
    label_B = torch.tensor([0, 1, -1, 1])
    value_BE = torch.where(label_B[:, None] < 0, NAN, F.one_hot(label_B.clamp(min=0), 2).float())
    plan, noise = draw("random/equal:3")(stream(0, "order", 4)), stream(1, "noise", 4)
    token = generate(classes, plan, label_B, noise, Guidance(2.0))
    assert torch.equal(token, generate(vectors, plan, value_BE, noise, Guidance(2.0)))
    drop_B, nats, gradients = torch.tensor([False, True, False, False]), [], []
    for model, label in ((classes, label_B), (vectors, value_BE)):
        nats.append(token_log_prob(model, token, plan, label, noise).nats_BL)
        target_BL = plan.step_BL == 1
        z_MD = model(token, plan.step_BL, label, drop_B, target_BL)
        model.head.loss(z_MD, token[target_BL], noise.tokens(*target_BL.nonzero(as_tuple=True))).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(*nats, rtol=0, atol=1e-6)
    gradients[0]["given.linear.weight"] = gradients[0].pop("classes.weight").T
    gradients[1].pop("given.linear.bias")
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("given", [ONE, SEQUENCE], ids=["vector", "tokens"])
@pytest.mark.parametrize("network", ["masked-transformer", "causal-transformer", "made", "lpd"])
def test_contracts_hold(network, given, monkeypatch):
    monkeypatch.setattr(MaskedTransformer, "test_options", {**MaskedTransformer.test_options, "buffer": 4})
    model = small_model(NETWORKS[network], CategoricalHead, (2, 2), Categories(2), given)
    kinds = plans(model.network, 4, batch=3)
    for plan in list(kinds.values())[:2]:
        for claim in (sums_to_one, generation_is_keyed, likelihood_is_keyed):
            verdict = claim(network, model, plan)
            assert verdict.passed, verdict.detail
    if network == "masked-transformer" and given.length:
        with sampling_options(model, {"refresh": 2}):
            assert generation_is_keyed(network, model, plan).passed
    value = torch.rand(3, *((3, 2) if given.length else (3,)))
    plan, noise, token = next(iter(kinds.values())), stream(1, "noise", 3), torch.zeros(3, 4, dtype=torch.int64)

    def nats(value: torch.Tensor) -> torch.Tensor:
        return token_log_prob(model, token, plan, value, noise).nats_BL

    walked, _ = read_walks(model, token, plan, value, noise, "exact", along)
    torch.testing.assert_close(walked.nats_BL, nats(value))  # caches and the forward pass
    none = torch.full((3,), -1)
    assert torch.equal(nats(torch.full_like(value, NAN)), nats(none))  # no vector at all: the null condition
    assert bool(((nats(value) - nats(none)).abs().sum(1) > 1e-4).all())
    if given.length:
        shorter = value.clone()
        shorter[:, 2] = NAN
        assert bool(((nats(value) - nats(shorter)).abs().sum(1) > 1e-5).all())  # the last vector is read
        assert bool(((nats(value) - nats(value.flip(1))).abs().sum(1) > 1e-5).all())  # and the order


def test_reading_ahead_under_a_sequence_is_the_forward_pass():
    model = small_model(NETWORKS["causal-transformer"], CategoricalHead, (2, 2), Categories(2), SEQUENCE)
    network, condition = model.network, model.condition(torch.rand(2, 3, 2))
    token_BLD, step_BL = torch.randn(2, 4, network.token_width), torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]])
    memory = network.memory(2, torch.device("cpu"))
    for target_BL in (step_BL == 1, step_BL == 3, step_BL >= 2):
        found = network.read(memory, token_BLD, step_BL, condition, target_BL)
        torch.testing.assert_close(found, network(token_BLD, step_BL, condition, target_BL))
        memory.forget(step_BL < 2)


class Said(Network):
    """A context is the condition."""

    Options = NetworkOptions
    one_pass = True
    token_width = condition_width = context_width = 2

    def forward(self, token_BLD, step_BL, condition_BC, target_BL):
        return condition_BC[target_BL.nonzero()[:, 0]]


def test_a_planted_dependence_has_its_known_nll():
    """Under the condition c = ±1 the logit of a one is 3 c; under the null it is 0, and guidance s makes it 3 s c."""
    token = Categories(2)
    model = Model(BareTokens((5,), token), Said((5,)), CategoricalHead(2, token, CategoricalHead.Options()), 0,
                  Conditions(1, (0.0,), (1.0,))).eval().requires_grad_(False)  # fmt: skip
    for name, value in model.named_parameters():
        value.copy_(torch.zeros_like(value))
        if value.ndim == 2 and name.startswith("head"):
            value.copy_(torch.eye(2))
    model.given.linear.weight.copy_(torch.tensor([[0.0], [3.0]]))
    right_B1 = torch.tensor([1.0, -1.0]).repeat_interleave(400)[:, None]
    x_BL, step_BL = (right_B1 > 0).long().expand(-1, 5), torch.arange(5).expand(800, -1)
    plan, noise = Plan(step_BL, step_BL), stream(0, "noise", 800)
    found = [-token_log_prob(model, x_BL, plan, c, noise).nats_BL.mean() for c in (right_B1, -right_B1, right_B1 * NAN)]
    expected = torch.tensor([math.log1p(math.exp(-3)), math.log1p(math.exp(3)), math.log(2)])
    torch.testing.assert_close(torch.stack(found), expected)
    for scale in (0.0, 1.0):
        drawn_BL = generate(model, plan, right_B1, noise, Guidance(scale, "constant"))
        assert (drawn_BL == x_BL).double().mean().item() == pytest.approx(1 / (1 + math.exp(-3 * scale)), abs=0.03)


TINY = ["data.kind=npz", "network=causal-transformer", "network.width=8", "network.depth=1", "network.heads=2",
        "tokenizer=pixels", "train.iterations=2", "train.batch_size=4", "train.sample_every=2",
        "train.validate_every=2", "train.compile=false"]  # fmt: skip


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    random, out = np.random.default_rng(0), {}
    for split, n in (("train", 9), ("valid", 4), ("test", 5)):
        out |= {split: random.integers(0, 2, (n, 6)), f"{split}_text": random.normal(size=(n, 3, 2)) * 4 + 7,
                f"{split}_age": random.random(n),
                f"{split}_mask": np.arange(3) < random.integers(1, 4, n)[:, None]}  # fmt: skip
    return out


def test_a_run_under_a_column_of_sequences(tmp_path, arrays):
    np.savez(tmp_path / "data.npz", **arrays)
    asked = ["condition=tokens", "condition.column=text", "condition.mask=mask", f"data.path={tmp_path}/data.npz"]
    train(build.resolve(config.read("digits", [*TINY, *asked])), tmp_path / "run")
    run = load(tmp_path / "run")
    there, spec = arrays["train_text"][arrays["train_mask"]], run.spec.conditions
    assert spec is not None and spec.length == 3
    assert spec.mean == pytest.approx(there.mean(0)) and spec.std == pytest.approx(there.std(0))
    own = run.nll(plan="raster")
    x, label = run.subset("test", None)
    pair = arrays["test_text"], arrays["test_mask"]
    for given in (pair, label, [row[keep] for row, keep in zip(*pair, strict=True)]):
        again = run.nll(x, plan="raster", condition=given)
        assert again.nats_per_image == pytest.approx(own.nats_per_image, abs=1e-6)
    with pytest.warns(UserWarning, match="null condition"):
        assert run.nll(x, plan="raster").nats_per_image != pytest.approx(own.nats_per_image, abs=1e-6)
    many = run.sample(5, plan="random/equal:3", condition=pair, guidance=3.0)
    last = run.sample(1, plan="random/equal:3", condition=pair, guidance=3.0, first=4, batch_size=1)
    assert torch.equal(many[4:], last) and run.sample(2).shape == (2, 1, 1, 6)
    assert sorted(file.name for file in (tmp_path / "run" / "samples").iterdir())
    train(build.resolve(config.read("digits", [*TINY, *asked])), tmp_path / "run")  # the same data: nothing to refuse
    with pytest.raises(UserError, match="sequences of up to 3 vectors of width 2"):
        run.sample(1, condition=np.zeros((1, 4, 2)))


@pytest.mark.parametrize(
    ("change", "asked", "message"),
    [
        ({}, ["column=year"], "no array of column year of the train split"),
        ({}, ["column=text"], "has a sequence of vectors for each example: set condition.kind=tokens"),
        ({}, [], "needs condition.column or condition.path"),
        ({"valid_age": np.full(4, NAN)}, ["column=age"], "age: validation: row 0 has values that are not finite"),
        ({"test_age": np.zeros(3)}, ["column=age"], "age has 3 rows for the 5 examples of the test split"),
        ({"test_age": np.zeros((5, 2))}, ["column=age"], "differ in width"),
        ({"train_age": np.array(["a"] * 9)}, ["column=age"], "numbers, vectors or sequences"),
        ({}, ["path=nowhere.npz"], "is not a file"),
    ],
)  # fmt: skip
def test_bad_columns_are_refused_in_a_line(tmp_path, arrays, change, asked, message):
    np.savez(tmp_path / "data.npz", **(arrays | change))
    asked = [f"condition.{text}" for text in asked]
    recipe = config.read("digits", [*TINY, f"data.path={tmp_path}/data.npz", "condition=vector", *asked])
    with pytest.raises(UserError, match=message) as error:
        build.assemble(recipe)
    assert "\n" not in str(error.value)


def test_an_example_that_stands_in_for_a_damaged_one_is_refused(tmp_path):
    for k in range(30):
        Image.new("L", (8, 8), k).save(tmp_path / f"{k:02d}.png")
    options = FolderOptions(str(tmp_path), size=8, colour="grey", validation=0.2, test=0.2)
    data = Folder.load(options)
    rows = {split: torch.arange(float(len(data.split(split)))) for split in ("train", "validation", "test")}
    train = with_rows(data, rows, {}, "age").train
    assert len(train.batch(torch.arange(4))[0]) == 4
    Path(tmp_path, data.train.files[2]).write_bytes(b"no image")
    with pytest.raises(UserError, match=r"damaged examples \(1\): the next ones"):
        train.batch(torch.arange(4))


def test_conditions_from_python_are_checked():
    assert conditions_of(ONE, [1, 2, 3.0], 2).tolist() == [[1, 2, 3]] * 2
    assert conditions_of(SEQUENCE, np.ones((2, 2)), 2).shape == (2, 3, 2)  # one sequence of two vectors
    for spec, bad in ((ONE, [1.0, 2.0]), (ONE, [[1.0, 2.0, NAN]]), (SEQUENCE, np.ones((3, 2, 2))), (ONE, "ink"),
                      (SEQUENCE, (np.ones((2, 2, 2)), np.ones((2, 3), bool))), (ONE, (1.0, 2.0, 3.0))):  # fmt: skip
        with pytest.raises(UserError, match="condition"):
            conditions_of(spec, bad, 2)
    own = torch.ones(2, 3, requires_grad=True)  # of a text encoder, perhaps
    for rows in (own, own.bfloat16(), own[0].bfloat16(), list(own.bfloat16())):
        assert conditions_of(ONE, rows, 2).tolist() == [[1, 1, 1]] * 2
    mask = torch.tensor([1, 0], dtype=torch.bfloat16)
    assert conditions_of(SEQUENCE, (own[:, :2].bfloat16(), mask), 1).isnan()[0, :, 0].tolist() == [False, True, True]


def test_recipes_of_classes_keep_their_spelling():
    read = config.read("digits")
    assert config.read("digits", ["condition=class"]) == read and "condition" not in read.as_dict()
    none = config.read("digits", ["class_conditional=false"])
    assert config.read("digits", ["condition.kind=none"]) == none and none.fingerprint() != read.fingerprint()
    vector = config.read("digits", ["condition=vector", "condition.column=ink"])
    assert not vector.class_conditional and config.parse(vector.as_dict()) == vector
    assert config.parse(vector.as_dict(), ["class_conditional=true"]) == read
    assert config.parse(vector.as_dict(), ["class_conditional=True"]) == read
    with pytest.raises(UserError, match="vector or tokens, not of none"):
        config.read("digits", ["class_conditional=false", "condition.column=ink"])
    with pytest.raises(UserError, match="vector or tokens, not of none"):
        config.parse(none.as_dict(), ["condition.column=ink"])


def test_digits_under_their_ink_in_memory(tmp_path):
    data = build.data(config.read("digits-ink"))
    assert data.bare is not None and build.images(data).spec.n_classes == 10  # measures of images know their classes
    x, ink = data.train.batch(torch.arange(20))
    assert torch.equal(ink[:, 0], x.float().mean((1, 2, 3)))
    asked = [text for text in TINY if not text.startswith(("data", "tokenizer"))]
    with pytest.raises(UserError, match="have vectors"):
        fit("digits", (x, ink), *asked, levels=17, out=tmp_path / "run")
    for examples in ((x, ink[:, 0]), (x, ink.long()), list(zip(x, ink, strict=True)), [(x[0], ink[0].expand(2))]):
        with pytest.raises(UserError, match="labels are whole numbers, one class for each image"):
            fit("digits", examples, *asked, "condition=vector", levels=17, out=tmp_path / "run")
    with pytest.raises(UserError, match="names ink: leave out one"):
        fit("digits-ink", (x, ink), *asked, levels=17, out=tmp_path / "run")
    run = fit("digits", (x, ink), *asked, "condition=vector", levels=17, out=tmp_path / "run")
    assert run.spec.conditions is not None and run.nll(plan="raster/equal:4").n_images == 2
    for label in (3, [1, 2], torch.tensor([1, 2])):  # an ink of 3 is condition=3
        for call in (lambda y: run.nll(x[:2], "raster/equal:4", labels=y), lambda y: run.sample(2, labels=y)):
            with pytest.raises(UserError, match="labels are whole numbers, classes"):
                call(label)
    assert run.sample(2, "raster/equal:4", condition=3).shape == (2, 1, 8, 8)
    with pytest.raises(UserError, match="both given"):
        run.nll(x[:2], "raster/equal:4", labels=ink[:2], condition=ink[:2])
    run.model.given = None  # one without
    with pytest.raises(UserError, match="this run was trained without"):
        run.nll(x[:2], "raster/equal:4", condition=ink[:2])
