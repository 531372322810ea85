"""Each claim runs in a fresh interpreter: an import happens once."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT_OPERATORS = """
import torch
torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: dets)
"""


def run(code: str, *path: str) -> subprocess.CompletedProcess[str]:
    prefix = f"import sys; sys.path[:0] = {list(path)!r}\n"
    return subprocess.run([sys.executable, "-c", prefix + code], capture_output=True, text=True, timeout=120)


def test_libraries_that_need_torchvision_import_after_the_repair():
    done = run("from mar.core import torchvision\nimport timm.layers, torchvision.transforms")
    assert done.returncode == 0, done.stderr


def test_a_torchvision_without_its_operators_is_repaired(tmp_path):
    (tmp_path / "torchvision.py").write_text(WITHOUT_OPERATORS)
    assert "nms does not exist" in run("import torchvision", str(tmp_path)).stderr
    done = run("from mar.core import torchvision as r; assert r.repaired", str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_a_working_torchvision_is_left_alone(tmp_path):
    (tmp_path / "torchvision.py").write_text("")
    code = "from mar.core import torchvision as r; import torch; assert not r.repaired\n"
    code += "assert not hasattr(torch.ops.torchvision, 'nms')"
    done = run(code, str(tmp_path))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("error", ["RuntimeError('another')", "ImportError('missing')"])
def test_any_other_failure_is_passed_on(tmp_path, error):
    (tmp_path / "torchvision.py").write_text(f"raise {error}")
    done = run("from mar.core import torchvision", str(tmp_path))
    assert done.returncode != 0 and error.split("'")[1] in done.stderr
