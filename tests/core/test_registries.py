"""Registries: own classes, classes of other packages, and classes of a Python file, in recipes and on plans."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest

import orderings
from mar import build, config
from mar.core.errors import InvalidRequest, UserError
from mar.networks import NETWORKS
from mar.networks.baselines import LinearAR
from orderings import ORDERINGS, PARTITIONS, PlanSpec

ORDER = """
from dataclasses import dataclass
from orderings import FixedOrdering, Partition
import torch

@dataclass(frozen=True)
class Backwards(FixedOrdering):
    shift: int = 0
    def rank(self, grid):
        return (torch.arange(len(grid) - 1, -1, -1) + self.shift) % len(grid)

@dataclass(frozen=True)
class Halves(Partition):
    def sizes(self, n):
        return torch.tensor([n // 2, n - n // 2])
"""

NETWORK = """
from mar.networks.baselines import LinearAR

class Mine(LinearAR):
    pass
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cuts").mkdir()
    (tmp_path / "my_order.py").write_text(ORDER)
    (tmp_path / "cuts" / "my_cut.py").write_text(ORDER)
    (tmp_path / "my_net.py").write_text(NETWORK)
    (tmp_path / "broken.py").write_text("import no_such_package\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("my_order.py:Backwards", "my_order.py:Backwards:0"),
        ("my_order.py:Backwards:3", "my_order.py:Backwards:3"),
        ("my_order.py:Backwards:shift=3/cosine:4", "my_order.py:Backwards:3/cosine:4"),
        ("cuts/my_cut.py:Backwards:3/equal:2", "cuts/my_cut.py:Backwards:3/equal:2"),
        ("raster/my_order.py:Halves", "raster/my_order.py:Halves"),
        ("raster/cuts/my_cut.py:Halves", "raster/(cuts/my_cut.py:Halves)"),
        ("my_order.py:Backwards/(cuts/my_cut.py:Halves)", "my_order.py:Backwards:0/(cuts/my_cut.py:Halves)"),
        ("blocks:2:outer=(my_order.py:Backwards)", "blocks:2:outer=(my_order.py:Backwards:0)"),
    ],
)
def test_a_class_of_a_file_is_written_in_plans_like_any_other(folder, text, canonical):
    spec = PlanSpec.parse(text)
    assert str(spec) == canonical
    assert PlanSpec.parse(canonical) == spec and hash(PlanSpec.parse(canonical)) == hash(spec)


def test_a_recipe_takes_classes_of_files_and_writes_their_options_out(folder):
    recipe = build.resolve(
        config.read(
            "digits",
            ["network.kind=my_net.py:Mine", "ordering=my_order.py:Backwards", "ordering.shift=2", "partition=equal:2"],
        )
    )
    assert recipe.network.kind == "my_net.py:Mine" and recipe.ordering.kind == "my_order.py:Backwards"
    assert recipe.ordering.model_extra == {"shift": "2"}
    assert str(PlanSpec(build.ordering(recipe), build.partition(recipe))) == "my_order.py:Backwards:2/equal:2"
    assert build.resolve(recipe) == recipe
    assert type(build.assemble(recipe).model.network).__name__ == "Mine"


def test_a_class_put_into_a_registry_is_found_by_its_name(monkeypatch):
    class Mine(LinearAR):
        pass

    monkeypatch.setitem(NETWORKS, "mine", Mine)
    assert NETWORKS["mine"] is Mine and NETWORKS.name_of(Mine((4,), Mine.Options())) == "mine"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere.py:Mine", "no file 'nowhere.py'"),
        ("my_net.py:Mien", "did you mean 'Mine'"),
        ("my_order.py:Backwards", "Backwards is no Network"),
        ("broken.py:Mine", "broken.py does not import: .*no_such_package"),
        ("linear-r", "did you mean 'linear-ar'"),
    ],
)
def test_a_class_that_is_not_there_is_refused_in_one_line(folder, target, message):
    with pytest.raises(UserError, match=message) as error:
        NETWORKS[target]
    assert "\n" not in str(error.value)


def test_a_package_that_does_not_import_is_named_and_takes_nothing_else_down(monkeypatch):
    entries = {
        "mar.networks": [importlib.metadata.EntryPoint("torn", "no_such_package.nets:Torn", "mar.networks")],
        "mar.orderings": [importlib.metadata.EntryPoint("torn", "no_such_package.orders:Torn", "mar.orderings")],
    }
    monkeypatch.setattr("orderings.registry.entry_points", lambda group: entries.get(group, []))
    with pytest.raises(UserError, match=r"network 'torn' does not import .*no_such_package"):
        NETWORKS["torn"]
    with pytest.raises(InvalidRequest, match=r"ordering 'torn' does not import .*no_such_package"):
        PlanSpec.parse("torn/cosine:4")
    members, notes = ORDERINGS.classes()
    assert members == dict(ORDERINGS) and len(notes) == 1 and "no_such_package" in notes[0]
    assert NETWORKS["made"].__name__ == "Made" and str(PlanSpec.parse("raster")) == "raster"
    with pytest.raises(UserError, match=r"choose from .*torn"):
        NETWORKS["unheard-of"]


def test_names_and_options_of_plans_need_no_torch():
    import subprocess

    code = (
        "import sys, orderings as o\n"
        "for family in (o.ORDERINGS, o.PARTITIONS, o.ADAPTIVE):\n"
        "    [o.option_grammar(cls) for cls in family.values()]\n"
        "print(o.PlanSpec.parse('blocks:4:inner=hilbert/cosine:16'), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["blocks:4:inner=hilbert/cosine:16", "False"]


def test_every_default_component_has_a_name():
    for family in (ORDERINGS, PARTITIONS, orderings.ADAPTIVE):
        for name, cls in family.items():
            assert family.name_of(cls()) == name
