"""Prompts: what they say stays, and they condition as the same tokens would if they had been drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mar import build, config
from mar.core.errors import Unsupported, UserError
from mar.core.noise import stream
from mar.core.spec import DataSpec
from mar.run import write_on
from mar.sampling.many import Settings, labels_of, sample_many
from mar.sampling.output import levels_of, preview, save_samples, text_of
from mar.sampling.samplers import after_prompt
from mar.sampling.speculate import Speculation
from orderings import GIVEN, Grid, Plan, PlanSpec

NETWORKS = {
    "causal-transformer": ["network.width=16", "network.depth=2", "network.heads=2"],
    "lstm": ["network.kind=lstm", "network.width=16"],
}


class Untrained:
    """What ``write_on`` asks of a run, with random weights."""

    def __init__(self, folder, overrides):
        letters = np.random.default_rng(0).integers(0, 8, 400)
        (folder / "a.txt").write_text("".join("abcdefgh"[i] for i in letters))
        recipe = config.read("shakespeare", [*overrides, f"data.path={folder}", "data.context=8"])
        data = build.data(recipe)
        self.spec, self.model = data.spec, build.assemble(recipe, data).model.eval()
        torch.manual_seed(0)
        with torch.no_grad():
            for p in self.model.parameters():
                p.add_(0.3 * torch.randn_like(p))

    def draw(self, noise, given_BL):
        return Plan.sample(*PlanSpec.parse("raster/singles"), Grid((8,)), len(noise), noise.to("cpu"), given_BL)

    def sample(self, n, **settings):
        return sample_many(self.model, labels_of(self.model, None, n), self.draw, Settings(**settings))


@pytest.fixture(params=sorted(NETWORKS))
def run(request, tmp_path):
    return Untrained(tmp_path, NETWORKS[request.param])


def test_a_prompt_of_what_would_be_drawn_anyway_changes_nothing(run):
    whole = run.sample(1, seed=3)
    assert torch.equal(write_on(run, 1, torch.tensor([], dtype=torch.int64), 0, seed=3), whole.long())
    for length in (1, 4, 7):
        prompted = write_on(run, 1, whole[0, 0, 0, :length].long(), 8, seed=3)
        assert torch.equal(prompted, whole.long())


def test_every_text_begins_with_the_prompt_and_has_the_length_asked_for(run):
    spec = run.spec
    for prompt in ("a", "hgfedcba", "abcabcabcabc"):
        x = write_on(run, 3, levels_of(prompt, spec), 21)
        texts = [text_of(x_T, spec) for x_T in x.flatten(1)]
        assert [len(t) for t in texts] == [21] * 3 and all(t.startswith(prompt) for t in texts)
        assert len(set(texts)) == 3
    assert write_on(run, 1, levels_of("hgfedcba", spec), 0).shape == (1, 1, 1, 12)


def test_a_further_window_depends_on_the_last_half_window_alone(run):
    spec = run.spec
    ends = [write_on(run, 1, levels_of(start + "abcd", spec), 16)[..., 8:] for start in ("aaaa", "hhhh")]
    assert torch.equal(*ends)


def test_the_prompt_comes_first_and_the_rest_keeps_its_order():
    given_BL = torch.tensor([[True, True, False, True, False, False, False, False]]).expand(5, -1)
    plan = Plan.sample(*PlanSpec.parse("random/equal:2"), Grid((8,)), 5, stream(0, "test", 5), given_BL)
    after = after_prompt(plan)
    assert after.rank_BL.sort(1).values.tolist() == [list(range(8))] * 5
    assert (after.step_BL[given_BL] == torch.tensor([0, 1, 2] * 5)).all()
    assert torch.equal(after.step_BL[~given_BL], plan.step_BL[~given_BL] + 3) and not (after.step_BL == GIVEN).any()


def test_a_prompt_of_unknown_characters_or_for_images_is_refused():
    spec = DataSpec((1, 1, 4), 2, modality="text", alphabet=("a", "b"))
    assert levels_of("abba", spec).tolist() == [0, 1, 1, 0]
    with pytest.raises(UserError, match="the prompt has 'x', which is not in the training text"):
        levels_of("axb", spec)
    with pytest.raises(UserError, match="a prompt continues text"):
        levels_of("a", DataSpec((1, 8, 8), 17))


def test_bytes_are_a_prompt_and_shown_as_text():
    spec = DataSpec((1, 1, 4), 256, modality="text")
    assert text_of(levels_of("né", spec), spec) == "né" and text_of(torch.tensor([65, 255]), spec) == "A�"


@pytest.mark.parametrize(
    ("spec", "files"),
    [
        (DataSpec((1, 1, 300), 2, modality="text", alphabet=("a", "b")), ["samples.npz", "samples.txt"]),
        (DataSpec((1, 1, 300), 2, modality="vector"), ["samples.npz"]),
        (DataSpec((1, 1, 300), 256, modality="audio", rate=8000), ["samples.npz", "sounds", "spectrograms.png"]),
        (DataSpec((1, 15, 20), 2), ["grid.png", "images", "images.npz"]),
    ],
)
def test_samples_are_written_as_what_they_are(spec, files, tmp_path):
    x = (stream(0, "test", 3).uniform(300) > 0.5).to(torch.uint8).reshape(3, *spec.shape)
    said = save_samples(x, spec, tmp_path / "all")
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == files
    assert all(name in said for name in files)
    preview(x, spec, tmp_path / "quick" / "training-1")
    assert len(list((tmp_path / "quick").iterdir())) == 1


@pytest.fixture
def documents(tmp_path):
    """Documents are what stands between two letters h; an untrained model ends one anywhere."""
    return Untrained(tmp_path, ["data=documents", "data.separator=h", *NETWORKS["causal-transformer"]])


def test_a_document_begins_with_the_prompt_and_ends_by_itself_or_at_the_cap(documents):
    spec = documents.spec
    x = write_on(documents, 40, levels_of("ab", spec), 0)
    texts = [text_of(x_T, spec) for x_T in x.flatten(1)]
    assert all(text.startswith("ab") and set(text) <= set("abcdefg") and len(text) <= 8 for text in texts)
    assert len({len(text) for text in texts}) > 3
    for x_T, text in zip(x.flatten(1).tolist(), texts, strict=True):
        assert x_T[len(text) :] == [spec.end] * (8 - len(text))


def test_a_speculated_document_ends_as_any_other(documents):
    x = documents.sample(40, speculation=(ahead := Speculation("jacobi", 3)))
    texts = [text_of(x_T, documents.spec) for x_T in x.flatten(1)]
    assert len({len(text) for text in texts}) > 3 and len(set(ahead.passes[0].tolist())) > 1


def test_a_document_takes_no_length_and_no_prompt_that_fills_it(documents):
    for prompt, length in (("ab", 30), ("abababab", 0)):
        with pytest.raises(UserError, match="end by themselves, at the latest after 8 characters"):
            write_on(documents, 1, levels_of(prompt, documents.spec), length)


def test_an_adaptive_order_of_documents_is_refused(documents):
    with pytest.raises(Unsupported, match="from left to right, one token at a time"):
        documents.sample(1, adaptive="lowest-entropy")
