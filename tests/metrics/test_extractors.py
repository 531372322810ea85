from __future__ import annotations

import textwrap
import urllib.error
from dataclasses import replace

import pytest
import torch

from mar.core.errors import UserError
from mar.core.spec import DataSpec
from mar.data.base import Data, TensorSplit
from mar.metrics.base import Subject
from mar.metrics.fid import FID, score_images
from mar.metrics.images import FeatureSettings
from orderings import PlanSpec


@pytest.fixture
def extractors():
    import mar.metrics.extractors

    return mar.metrics.extractors


def images(shape: tuple[int, int, int], n: int = 12) -> torch.Tensor:
    return torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def own(tmp_path):
    """Write the file of an extractor whose features are the pixels times ``scale``, and return its target."""

    def write(scale: float) -> str:
        file = tmp_path / f"own{scale:g}".replace(".", "_") / "mine.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(
            textwrap.dedent(f"""
                import torch

                class Pixels(torch.nn.Module):
                    def __init__(self):
                        super().__init__()
                        self.register_buffer("scale", torch.tensor({scale}))

                    def forward(self, image):
                        return image.flatten(1) * self.scale

                class Flat(torch.nn.Module):
                    def forward(self, image):
                        return image.float()
            """)
        )
        return f"{file}:Pixels"

    return write


def test_the_distance_under_an_own_extractor_is_the_closed_form(gaussian, draw, own, tmp_path):
    result = score_images(draw(1000, 150, 40, seed=9), gaussian, tmp_path, extractor=own(0.5))
    assert result.fid == pytest.approx(4 * (15**2 + 10**2), rel=0.05)  # half of the means and deviations of the pixels
    assert result.extractor.startswith("Pixels-") and result.feature_width == 4
    assert str(result.generated.inception_score_mean) == "nan" and result.to_dict()["generated"]["balance"] is None


def test_an_own_extractor_is_known_by_its_weights_and_its_code(gaussian, extractors, own):
    one, same, other = (extractors.own(own(scale), gaussian.spec) for scale in (0.5, 0.5, 2.0))
    assert one.name == same.name != other.name
    plan = Subject("", "weights", PlanSpec.parse("raster"))
    asked = [FID(FID.Options(features=own(scale)), {}).question(plan).content for scale in (0.5, 2.0)]
    assert asked[0]["features"] != asked[1]["features"]
    assert "features" not in FID(FID.Options(), {}).question(plan).content


def test_what_is_no_extractor_is_refused_in_one_line(gaussian, own, tmp_path, extractors):
    target = own(0.5)
    for wrong, said in (
        (target.replace("Pixels", "Flat"), r"returns features \(2, D\)"),
        (target.replace("Pixels", "Pixel"), "did you mean 'Pixels'"),
        ("absent.py:Pixels", "no file"),
        ("clip-vit-b-23", "did you mean 'clip-vit-b-32'"),
    ):
        with pytest.raises(UserError, match=said):
            extractors.choose(FeatureSettings(wrong), gaussian, tmp_path)
    with pytest.raises(UserError, match="leave out"):
        extractors.choose(FeatureSettings(target, tmp_path / "weights.pth"), gaussian, tmp_path)


@pytest.mark.parametrize("name", ["clip-vit-b-32", "dinov2-vit-l-14"])
def test_offline_clip_and_dinov2_say_what_to_download(name, monkeypatch, tmp_path, gaussian, extractors):
    def offline(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=r"--features-weights") as caught:
        extractors.choose(FeatureSettings(name), gaussian, tmp_path)
    published = {**extractors.CLIP, **extractors.DINOV2}[name]
    assert published.url in str(caught.value) and str(tmp_path / "checkpoints" / published.file) in str(caught.value)
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no weights")
    with pytest.raises(UserError, match=rf"does not hold the weights of {name}"):
        extractors.choose(FeatureSettings(name, broken), gaussian, tmp_path)


def test_clip_embeds_as_torch_fidelity_and_notes_other_weights(tmp_path, extractors):
    from torch_fidelity.feature_extractor_clip import CLIPVisual

    torch.manual_seed(0)

    class Archive(torch.nn.Module):  # OpenAI's files are TorchScript archives of image and text towers
        def __init__(self):
            super().__init__()
            self.visual = CLIPVisual(6, 16, 1, 64, 8).half().float().visual
            self.text_projection = torch.nn.Parameter(torch.zeros(3, 6))

        def forward(self, x):
            return self.visual(x)

    model, file = Archive().eval(), tmp_path / "tiny.pt"
    torch.jit.save(torch.jit.trace(model, torch.zeros(1, 3, 16, 16)), file)
    found = extractors.clip("clip-vit-b-32", file)
    x = images((3, 16, 16))  # the size that it takes: no resizing
    mean, sd = (255 * torch.tensor(v)[:, None, None] for v in ([0.48145466, 0.4578275, 0.40821073],
                                                              [0.26862954, 0.26130258, 0.27577711]))  # fmt: skip
    feature_ND, logits_NK = found.network(x)
    assert torch.allclose(feature_ND, model.visual((x - mean) / sd), atol=1e-4)
    assert logits_NK.shape == (12, 0) and found.feature_width == 6
    assert "not the published" in found.notes[0] and found.resizing.startswith("bilinear to 16 x 16")
    data = Data("photographs", DataSpec((3, 16, 16), 256), *(TensorSplit(x),) * 3, fingerprint="photographs-16")
    scored = score_images(x, data, tmp_path, extractor="clip-vit-b-32", weights=file)
    assert scored.fid == pytest.approx(0.0, abs=1e-6) and scored.extractor == found.name
    assert score_images(x, replace(data, fingerprint="kept"), tmp_path, extractor=found).to_dict() == scored.to_dict()
    assert FeatureSettings("clip-vit-b-32", file).identity == f"clip-vit-b-32 {found.name[-8:]}"


@pytest.mark.slow
def test_dinov2_is_timms_network_on_the_authors_weights(tmp_path, extractors):
    import timm

    torch.manual_seed(0)
    settings = {"num_classes": 0, "global_pool": "token"}
    model = timm.create_model("vit_small_patch14_dinov2", img_size=224, **settings).eval()
    state = model.state_dict() | {"mask_token": torch.zeros(1, 384)}
    grid = torch.nn.functional.interpolate(torch.ones(1, 384, 16, 16), size=(37, 37)).flatten(2).mT
    state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], grid], 1)  # a constant stays itself in any size
    torch.save(state, tmp_path / "weights.pth")
    with torch.no_grad():
        model.pos_embed[:, 1:] = 1.0
        x = images((3, 224, 224), 2)
        mean, sd = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        found = extractors.dinov2("dinov2-vit-s-14", tmp_path / "weights.pth")
        assert torch.allclose(found.network(x)[0], model((x / 255 - mean) / sd), atol=1e-4)
