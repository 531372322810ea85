"""The wheel: it holds every file the package reads at run time, and works in an empty environment."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from setuptools import find_packages

ROOT = Path(__file__).parents[2]


def run(*command: object, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def source_files() -> set[str]:
    """Every file of the packages under version control, with its path in a wheel."""
    return set(run("git", "ls-files", "mar", "orderings", cwd=ROOT).split())


def build(folder: Path) -> Path:
    """A wheel made with the setuptools that is installed, from a copy of the checkout's tracked files."""
    copy = folder / "source"
    copy.mkdir()
    tracked = run("git", "ls-files", "mar", "orderings", "pyproject.toml", "README.md", "LICENSE", cwd=ROOT).split()
    for name in tracked:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    code = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    run(sys.executable, "-c", code, folder, cwd=copy)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(tmp_path_factory.mktemp("wheel"))


def test_every_package_has_an_init_file():
    packages = find_packages(str(ROOT), include=["mar*", "orderings*"])
    folders = {str(Path(name).parent).replace("/", ".") for name in source_files() if name.endswith(".py")}
    assert folders == set(packages)


def test_the_wheel_holds_every_file_of_the_packages(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.split("/")[0].endswith(".dist-info")}
    assert names == source_files()
    assert {"mar/py.typed", "orderings/py.typed", "mar/recipes/digits.yaml"} <= names
    assert {".yaml", ".html", ".css", ".js"} <= {Path(name).suffix for name in names}


def test_the_wheel_declares_the_command_and_its_types(wheel):
    archive = zipfile.ZipFile(wheel)
    read = {Path(n).name: archive.read(n).decode() for n in archive.namelist() if ".dist-info/" in n}
    assert "mar = mar." in read["entry_points.txt"]
    assert "Typing :: Typed" in read["METADATA"] and "License-Expression: Apache-2.0" in read["METADATA"]


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(wheel, tmp_path):
    """Install the wheel alone; the dependencies come from the environment of the tests."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    site = next((tmp_path / "venv").glob("lib/python*/site-packages"))
    dependencies = [path for path in sys.path if path.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join(dependencies) + "\n")
    mar = tmp_path / "venv" / "bin" / "mar"
    assert str(site) in run(python, "-c", "import mar; print(mar.__file__)", cwd=tmp_path)
    assert "digits" in run(mar, "recipes", cwd=tmp_path)
    assert "spiral" in run(mar, "orderings", "list", cwd=tmp_path)
    overrides = ["train.iterations=2", "train.batch_size=4", "train.validate_every=0", "train.sample_every=0"]
    run(mar, "train", "digits", *overrides, "--out", "run", cwd=tmp_path)
    run(mar, "sample", "run", "--plan", "random/equal:32", "-n", "2", "--no-gif", cwd=tmp_path)
    assert list((tmp_path / "run" / "samples").rglob("*.png"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_lowest_allowed_versions_pass_the_smoke_tests(tmp_path):
    assert " passed" in run(ROOT / "scripts" / "lowest.sh", tmp_path / "environment", cwd=ROOT)
