"""The benchmark runs end to end on sizes of a few thousand parameters, and its numbers hang together."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from mar import build
from mar.bench import contenders as shapes
from mar.bench import measure
from mar.bench.contenders import Inputs, Ours, Setting
from mar.bench.reference import Reference, published
from mar.bench.run import Report, run, speed
from mar.core.errors import Unsupported, UserError
from tests.bench.fake_reference import write_checkout

SMALL = [
    *(f"network.{part}_{what}" for part in ("encoder", "decoder") for what in ("width=16", "depth=1", "heads=2")),
    "network.buffer=2",
    "head.width=16",
    "head.depth=1",
    "partition.k=2",
]
CPU = torch.device("cpu")
SETTING = Setting(CPU, "fp32", 1.0, 1.0)


def bench(reference: Path | None = None, **options) -> Report:
    recipe, data = shapes.read("mar-base", SMALL)
    head = {"steps": 2, "bound_steps": 2}
    return run(recipe, data, batch=2, seconds=0.0, head=head, reference=reference, **options)


def check(report: Report, contenders: list[str]) -> None:
    assert [(m.work, m.batch) for m in report.measurements] == [("train", 2), ("sample", 2), ("sample", 1), ("nll", 2)]
    assert report.tokens == 256 and report.ar_steps == 2 and report.matrix_peak_flops_per_second > 0
    for measurement in report.measurements:
        names = [s.contender for s in measurement.speeds]
        assert names == [name for name in contenders if measurement.work != "nll" or name != "reference"]
        for found in measurement.speeds:
            assert found.flops_per_image > 0 and len(found.seconds) >= measure.LEAST_ROUNDS
            assert found.images_per_second > 0 and 0 < found.matrix_peak_share < 1
            compared = "reference" in names and found.contender != "reference"
            assert len(found.ratios) == (len(found.seconds) if compared else 0)
            assert (found.ratio is not None) == compared


def test_every_kind_of_work_is_measured() -> None:
    report = bench()
    check(report, ["mar"])
    assert report.environment["packages"]["torch"] == torch.__version__
    assert all(s.network_seconds_per_image > 0 and s.head_seconds_per_image > 0 for s in report.shares)


def test_the_reference_is_measured_in_the_same_rounds(tmp_path: Path) -> None:
    report = bench(write_checkout(tmp_path))
    check(report, ["mar", "reference"])
    assert {(s.contender, s.batch) for s in report.shares} == {(n, b) for n in ("mar", "reference") for b in (1, 2)}


def test_the_reference_masks_the_tokens_that_we_score(tmp_path: Path) -> None:
    recipe, data = shapes.read("mar-base", SMALL)
    ours = build.assemble(recipe, data)
    with published(write_checkout(tmp_path), CPU) as module:
        reference, inputs = Reference(module, recipe, ours.model, SETTING), Inputs(ours, 2, SETTING)
        work = reference.train(inputs)
        for index in (0, 1):
            work(index)
        for index, mask in enumerate(module.MAR.masks):
            assert torch.equal(mask.bool(), inputs.example(index).task.target_BL)
        assert len({int(mask.sum()) for mask in module.MAR.masks}) == 2  # not always the same number


def test_the_reference_keeps_its_own_settings_when_asked(tmp_path: Path) -> None:
    checkout = write_checkout(tmp_path)
    recipe, data = shapes.read("mar-base", SMALL)
    fast = {"solver": "dpm-solver++", "steps": 2}
    with pytest.raises(UserError, match="name it with --reference"):
        run(recipe, data, 2, 0.0, ["sample"], own_settings=True)
    with pytest.raises(Unsupported, match="--reference-as-published"):
        run(recipe, data, 2, 0.0, ["sample"], head=fast, reference=checkout)
    report = run(recipe, data, 2, 0.0, ["sample"], precision="bf16", head=fast, reference=checkout, own_settings=True)
    assert (report.precision, report.head["steps"], report.reference) == ("bf16", 2, ("fp32", 100))
    assert bench(checkout).reference == ("fp32", 2)


def test_the_process_is_left_as_it_was(tmp_path: Path) -> None:
    before = torch.Tensor.cuda, nn.Module.cuda, list(sys.path), torch.get_rng_state()
    with published(write_checkout(tmp_path), CPU) as module:
        assert torch.ones(1).cuda().device == CPU
        assert module.__file__ == str(tmp_path / "models" / "mar.py")
        torch.rand(3)
    assert (torch.Tensor.cuda, nn.Module.cuda, sys.path) == before[:3]
    assert torch.equal(torch.get_rng_state(), before[3])
    assert not any(name.split(".")[0] in ("models", "diffusion") for name in sys.modules)


def test_a_folder_without_the_published_code_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"models/mar\.py"):
        bench(tmp_path)


def test_unequal_work_is_refused(tmp_path: Path) -> None:
    checkout = write_checkout(tmp_path)
    for change in (["train.objective=any_order"], ["partition=singles"]):
        recipe, data = shapes.read("mar-base", [*SMALL, *change])
        ours = build.assemble(recipe, data)
        with published(checkout, CPU) as module, pytest.raises(Unsupported):
            reference, inputs = Reference(module, recipe, ours.model, SETTING), Inputs(ours, 2, SETTING)
            reference.train(inputs)
            reference.sample(inputs)
    recipe, data = shapes.read("digits", [])
    with published(checkout, CPU) as module, pytest.raises(Unsupported, match="diffusion head"):
        Reference(module, recipe, build.assemble(recipe, data).model, SETTING)


def test_rounds_alternate_and_ratios_are_taken_round_by_round() -> None:
    called: list[tuple[str, int]] = []
    works = {name: (lambda index, name=name: called.append((name, index))) for name in "ab"}
    times = measure.interleave(works, 0.0, CPU)
    assert called == [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert {len(seconds) for seconds in times.values()} == {3}
    found = speed("mar", 4, (1.0, 2.0, 4.0), 8e9, 4e9, None, (2.0, 2.0, 2.0))
    assert found.ratios == (2.0, 1.0, 0.5) and found.ratio == 1.0
    assert (found.images_per_second, found.flops_per_image, found.matrix_peak_share) == (2.0, 2e9, 1.0)


def test_processor_time_leaves_out_what_is_not_ours() -> None:
    works = {"sleep": lambda index: time.sleep(0.05)}
    assert min(measure.interleave(works, 0.0, CPU, "wall")["sleep"]) >= 0.05
    assert min(measure.interleave(works, 0.0, CPU, "cpu")["sleep"]) < 0.04
    with pytest.raises(UserError, match="--clock"):
        bench(clock="sundial")


def test_operations_are_those_of_the_matrix_products() -> None:
    a, b = torch.ones(8, 16), torch.ones(16, 32, requires_grad=True)
    with measure.footprint(CPU) as found:
        (a @ b).sum().backward()
    assert found.flops == 2 * (2 * 8 * 16 * 32)  # forward, and the gradient of b
    q = torch.ones(2, 3, 10, 8)
    with measure.footprint(CPU) as found:
        torch.nn.functional.scaled_dot_product_attention(q, q, q)
    assert found.flops == 2 * (2 * 2 * 3 * 10 * 10 * 8)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_the_peak_holds_what_was_freed_again() -> None:
    with measure.footprint(CPU) as found:
        block = torch.ones(256 * 2**20, dtype=torch.uint8)
        del block
    # what the rest of the process gives back meanwhile counts against it
    assert found.peak_bytes is not None and 128 * 2**20 < found.peak_bytes < 384 * 2**20


def test_compiled_code_is_a_copy_measured_beside_eager_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the compiler replaced by one that counts: compiling for real takes a minute."""
    recipe, data = shapes.read("mar-base", SMALL)
    parts = build.assemble(recipe, data)
    model = parts.model
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: compiled.append(self))
    eager, fast = Ours(parts, SETTING), Ours(parts, SETTING, compiled=True)
    assert compiled and all(any(part is module for module in fast.model.modules()) for part in compiled)
    assert eager.model is model and not any(part is module for part in compiled for module in model.modules())
    report = bench(compile=True, works=("train",))
    assert [s.contender for s in report.measurements[0].speeds] == ["mar", "mar compiled"]
    assert [s.peak_bytes is None for s in report.measurements[0].speeds] == [False, True]


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    from mar.cli.main import app

    out = tmp_path / "speed.json"
    arguments = [
        "bench",
        "mar-base",
        *SMALL,
        "--batch",
        "1",
        "--seconds",
        "0",
        "--head",
        "steps=2",
        "--head",
        "bound_steps=2",
        "--out",
        str(out),
    ]
    result = CliRunner().invoke(app, [*arguments, "--only", "train,sample"], catch_exceptions=False)
    assert result.exit_code == 0 and "images/s" in result.output
    written = json.loads(out.read_text())
    assert [m["work"] for m in written["measurements"]] == ["train", "sample"]
    assert written["head"]["steps"] == 2 and written["parameters"]["mar"] > 0
    with pytest.raises(UserError, match="--only"):
        CliRunner().invoke(app, [*arguments, "--only", "trian"], catch_exceptions=False)


@pytest.mark.skipif("MAR_REFERENCE_DIR" not in os.environ, reason="MAR_REFERENCE_DIR: a checkout of the published MAR")
def test_the_published_code_has_as_many_parameters_and_runs() -> None:
    report = bench(Path(os.environ["MAR_REFERENCE_DIR"]), guidance=2.0)
    check(report, ["mar", "reference"])
    assert report.parameters["mar"] == report.parameters["reference"]
    train = report.measurements[0].speeds
    assert train[0].flops_per_image < train[1].flops_per_image  # the head on masked tokens alone
