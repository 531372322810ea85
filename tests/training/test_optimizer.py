"""What weight decay acts on."""

from __future__ import annotations

import pytest

from mar import build, config
from mar.core.errors import UserError
from mar.training.optimizers import load_optimizer, make_optimizer


@pytest.mark.parametrize(("head", "decayed"), [("categorical", True), ("diffusion", False), ("flow", False)])
def test_biases_norms_and_denoisers_are_not_decayed(head: str, decayed: bool) -> None:
    """MAR's published training leaves the diffusion head to itself."""
    tokenizer = [] if head == "categorical" else ["tokenizer.kind=patches"]
    recipe = config.read("digits", [f"head.kind={head}", *tokenizer, "train.weight_decay=0.02"])
    model = build.assemble(recipe).model
    groups = make_optimizer(model, recipe.train).param_groups
    decay = {p: group["weight_decay"] for group in groups for p in group["params"]}
    assert set(decay) == {p for p in model.parameters() if p.requires_grad}
    for name, p in model.named_parameters():
        wanted = p.ndim > 1 and (decayed or not name.startswith("head."))
        assert decay[p] == (0.02 if wanted else 0.0), name


def test_the_published_training_decays_the_mask_token_and_the_unconditional_embedding() -> None:
    """In MAR's code they have leading dimensions of size 1, so that its rule for matrices holds."""
    recipe = config.read("digits", ["train.decayed=published"])
    model = build.assemble(recipe).model
    decayed = {p for group in make_optimizer(model, recipe.train).param_groups for p in group["params"]
               if group["weight_decay"]}  # fmt: skip
    vectors = {name for name, p in model.named_parameters() if p in decayed and p.ndim == 1}
    assert vectors == {"null", "network.mask_token"}
    assert recipe.fingerprint() != config.read("digits").fingerprint()
    assert "decayed" not in config.read("digits").as_dict()["train"]


def test_a_state_that_decays_other_weights_is_refused_in_one_line() -> None:
    recipe = config.read("digits", ["head.kind=diffusion", "tokenizer.kind=patches"])
    optimizer = make_optimizer(build.assemble(recipe).model, recipe.train)
    state = optimizer.state_dict()
    first, second = state["param_groups"]
    second["params"].append(first["params"].pop())
    with pytest.raises(UserError, match="not trained further") as error:
        load_optimizer(optimizer, state)
    assert "\n" not in str(error.value)
